"""TensorRT engines through libcn2, with TensorRT and NVIDIA's driver faked, for both ABIs.

The fake TensorRT computes what the tiny ONNX model does, so detections are compared with its.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from c_library import MODEL_ERROR, UNAVAILABLE, Model
from native_libraries import INCLUDE, ROOT, missing
from tensorrt_fakes import PLAN, FakeGpu, shown

SUMMARY = "show(model.detect([picture(204), picture(50, 32, 48), picture(100)]))\n"
OPEN = "model = library.open(engine)\n"


@pytest.fixture(params=[10, 11])
def gpu(tmp_path: Path, request: pytest.FixtureRequest) -> FakeGpu:
    """A fake GPU with TensorRT of each version."""
    return FakeGpu(tmp_path, request.param)


@pytest.fixture
def gpu10(tmp_path: Path) -> FakeGpu:
    """A fake GPU with TensorRT 10."""
    return FakeGpu(tmp_path, 10)


def test_detections_are_those_of_the_onnx_file(gpu: FakeGpu, tiny: Model) -> None:
    gpu.write()
    said = gpu.run(
        OPEN + SUMMARY + "print(library.model_runtime(model.handle).decode())\n"
        "show(model.detect([picture(204)], 0.5))\n"
        "model.close()\nprint(cuda.fake_cuda_live())\n"
    )
    *lines, runtime, high, live = said.splitlines()
    assert "\n".join([*lines, ""]) == shown(tiny, (204, 64, 96), (50, 32, 48), (100, 64, 96))
    version = {10: "10.14.1", 11: "11.0.0"}[gpu.version]
    assert runtime.startswith(f"tensorrt {version.split('.')[0]}.")
    assert runtime.endswith(" on cuda:0, standard operators")
    assert high.startswith("[0.9] ")
    assert live == "0"  # all is given back


def test_version_compatible_engines_bring_code_of_their_own(gpu: FakeGpu) -> None:
    """It is allowed to run where the sidecar says so, and nowhere else."""
    plan = f"{PLAN} host_code"
    gpu.write(plan, build={"options": {"version_compatible": True}})
    assert gpu.refusal()[0] == 0
    for options in (None, {}, {"version_compatible": False}, {"version_compatible": 1}):
        gpu.write(plan, build={"options": options})
        status, message = gpu.refusal()
        assert (status, "fake: host code" in message) == (MODEL_ERROR, True), message
    for build in ({}, None):
        gpu.write(build=build)
        assert gpu.refusal()[0] == 0


def test_groups_of_a_call_use_two_slots_in_turn(gpu10: FakeGpu, tiny: Model) -> None:
    """Nine pictures of one canvas: 4, 4, 1; a group is uploaded before the last is awaited."""
    gpu10.write()
    said = gpu10.run(
        OPEN + "calls()\nshow(model.detect([picture(20 * i) for i in range(9)]))\n"
        "made = calls().split()\nprint(*made)\ntimes = model.timings()\n"
        "print(made.count('pin'), times.inference_ms > 0,"
        " times.device_inference_ms, times.device_preprocess_ms)\n"
    )
    *found, made, numbers = said.splitlines()
    assert "\n".join([*found, ""]) == shown(tiny, *[(20 * i, 64, 96) for i in range(9)])
    steps = [one for one in made.split() if one in ("run", "await", "download")]
    # The last group has another size, so the device is idle when it begins.
    assert steps == [
        *("run", "download", "run", "download", "await"),
        *("run", "download", "await", "await"),
    ]
    assert numbers == "6 True 3.0 3.0"  # canvases, sizes, results of two slots; a tick per event


def test_a_context_per_thread(gpu10: FakeGpu, tiny: Model) -> None:
    gpu10.write()
    said = gpu10.run(
        OPEN + "same = []\n"
        "def work(level):\n"
        "  own, expected = Model(library, model.handle), np.float32(level * 0.5 / 255)\n"
        "  found = [own.detect([picture(level)])[0].scores[1] for _ in range(50)]\n"
        "  same.append(all(score == expected for score in found))\n"
        "  library.context_destroy(own.context)\n"
        "threads = [threading.Thread(target=work, args=(40 * n + 40,)) for n in range(4)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]\n"
        "model.close(); print(same, cuda.fake_cuda_live())\n"
    )
    assert said == "[True, True, True, True] 0\n"


def test_pictures_in_device_memory_are_resized_there(gpu10: FakeGpu) -> None:
    """Without a copy to the host; the kernels are emulated. Their results are OpenCV's."""
    gpu10.add_kernels()
    gpu10.write("fake plan -1 -1 -1 2 threshold profile 4 4 64 128 64 128")
    said = gpu10.run(
        OPEN + "pixels = np.random.default_rng(0).integers(0, 256, (128, 160, 3), np.uint8)\n"
        "calls()\n"
        "show(model.detect([image(pixels, memory=1), picture(204, memory=1)]))\nprint(calls())\n"
        "show(model.detect([image(pixels), picture(204)]))\nprint(calls())\n"
        "show(model.detect([image(pixels, memory=1), picture(204)]))\nprint(calls())\n"
    )
    lines = said.splitlines()
    assert lines[0:2] == lines[3:5] == lines[6:8]
    on_device, on_host = lines[2].split(), lines[5].split()
    assert on_device.count("upload") == 1  # sizes and threshold only
    assert on_device.count("set") == 1  # blank canvases, as the engine takes four
    assert on_host.count("upload") == 2
    assert "set" not in lines[8].split()


def test_pointers_that_are_of_no_device_are_refused(gpu10: FakeGpu) -> None:
    gpu10.add_kernels()
    gpu10.write()
    said = gpu10.run(
        OPEN + "bad = picture(204, memory=1); bad.data = 64\n"
        "try: model.detect([picture(204, memory=1), bad])\n"
        "except Failed as error: print(error.status, error)\n"
        "show(model.detect([picture(204)]))\n"
    )
    first, then = said.splitlines()
    assert first.startswith("1 images[1]: the pointer is not of cuda:0")
    assert then.startswith("[0.9, 0.4]")


def test_the_example_runs_engines_as_it_is(gpu10: FakeGpu) -> None:
    gpu10.write()
    compiler = shutil.which("cc")
    if compiler is None:
        missing("cc: not installed")
    program, scene = gpu10.folder / "detect", gpu10.folder / "grey.ppm"
    link = (f"-L{gpu10.libraries}", "-lcn2", f"-Wl,-rpath,{gpu10.libraries}")
    source = str(ROOT / "examples" / "c" / "detect.c")
    subprocess.run([compiler, f"-I{INCLUDE}", source, "-o", str(program), *link], check=True)
    scene.write_bytes(b"P6 96 64 255 " + bytes([204]) * (96 * 64 * 3))
    done = subprocess.run(
        [program, gpu10.engine, scene],
        capture_output=True,
        text=True,
        env={**os.environ, **gpu10.environment},
        timeout=60,
    )
    assert done.stdout == "0.900  red  0.0 0.0 96.0 64.0\n0.400  blue  1.0 2.0 11.0 22.0\n"


def test_profiles_are_chosen_and_their_limits_told(gpu10: FakeGpu, tiny: Model) -> None:
    plan = "fake plan -1 -1 -1 2 threshold profile 1 1 64 64 96 96 profile 3 3 64 96 64 96"
    gpu10.write(plan)
    said = gpu10.run(
        OPEN + SUMMARY + "show(model.detect([picture(n) for n in (9, 90, 180, 250)]))\n"
        "try: model.detect([picture(1, 64, 600)])\n"
        "except Failed as error: print(error.status, error)\n"
        "canvas = np.zeros((2, 64, 96, 3), np.uint8); sizes = np.full((2, 2), 9, np.int32)\n"
        "given = (canvas.ctypes.data, 2, 64, 96, sizes.ctypes.data, None, byref(RawDetections()))\n"
        "print(library.infer(model.context, *given), library.last_error().decode())\n"
    )
    *found, canvas, batch = said.splitlines()
    pictures = [
        (204, 64, 96),
        (50, 32, 48),
        (100, 64, 96),
        *[(n, 64, 96) for n in (9, 90, 180, 250)],
    ]
    assert "\n".join([*found, ""]) == shown(tiny, *pictures)
    limits = "(batch 1, height 64, width 96; or batch 3, height 64 to 96, width 64 to 96)"
    assert canvas == (
        f"1 canvases: expected what this engine was built for {limits}, got 32 x 96; "
        "build it with another profile"
    )
    assert batch.startswith(
        f"1 canvases: expected what this engine was built for {limits}, got batch 2"
    )


@pytest.mark.parametrize("failing", ["enqueue", "address", "output"])
def test_a_run_that_fails_is_one_line_and_the_context_stays_good(
    gpu: FakeGpu, failing: str
) -> None:
    gpu.write()
    said = gpu.run(
        OPEN + f"os.environ['CN2_FAKE_TENSORRT_FAILS'] = {failing!r}\n"
        "for _ in range(2):\n"
        "  try: model.detect([picture(204), picture(90, 64, 64)])\n"
        "  except Failed as error: print(error.status, error)\n"
        "os.environ['CN2_FAKE_TENSORRT_FAILS'] = ''\n"
        "show(model.detect([picture(204)]))\nmodel.close()\nprint(cuda.fake_cuda_live())\n"
    )
    first, second, good, live = said.splitlines()
    wanted = f"fake: {failing} of " if failing != "output" else "expected classes from 0 to 2"
    assert wanted in first
    assert first == second
    assert first.startswith("2 " if failing == "output" else "4 ")
    assert good.startswith("[0.9, 0.4]")
    assert live == "0"


def test_a_run_of_infer_that_fails_is_waited_for(gpu10: FakeGpu) -> None:
    """What was begun reads the caller's memory."""
    gpu10.write()
    said = gpu10.run(
        OPEN + "canvas = np.zeros((1, 64, 96, 3), np.uint8); sizes = np.full((1, 2), 9, np.int32)\n"
        "given = (canvas.ctypes.data, 1, 64, 96, sizes.ctypes.data, None, byref(RawDetections()))\n"
        "os.environ['CN2_FAKE_TENSORRT_FAILS'] = 'enqueue'; calls()\n"
        "print(library.infer(model.context, *given)); print(calls().split()[-2:])\n"
        "os.environ['CN2_FAKE_TENSORRT_FAILS'] = ''\n"
        "print(library.infer(model.context, *given))\n"
    )
    assert said == "4\n['upload', 'synchronize']\n0\n"


def test_a_device_that_is_lost_does_not_end_the_process(gpu10: FakeGpu) -> None:
    """What was on it is leaked when the model is closed."""
    gpu10.write()
    said = gpu10.run(
        OPEN + "model.detect([picture(204)])\nos.environ['CN2_FAKE_CUDA_FAILS'] = 'push'\n"
        "try: model.detect([picture(204)])\n"
        "except Failed as error: print(error.status, error)\n"
        "model.close()\nprint(cuda.fake_cuda_live() > 0)\n"
    )
    detect, leaked = said.splitlines()
    assert detect.startswith(f"{UNAVAILABLE} cuCtxPushCurrent: ")
    assert leaked == "True"


def test_device_memory_that_runs_out(gpu10: FakeGpu) -> None:
    gpu10.write()
    said = gpu10.run(
        OPEN + "os.environ['CN2_FAKE_CUDA_FAILS'] = 'memory'\n"
        "try: model.detect([picture(204)])\n"
        "except Failed as error: print(error.status, error)\n"
        "os.environ['CN2_FAKE_CUDA_FAILS'] = ''\nshow(model.detect([picture(204)]))\n"
    )
    first, good = said.splitlines()
    assert first.startswith("5 ")
    assert "CUDA_ERROR_OUT_OF_MEMORY" in first
    assert good.startswith("[0.9, 0.4]")
