"""ONNX Runtime on CUDA through libcn2: its CUDA provider and NVIDIA's driver faked."""

from __future__ import annotations

from pathlib import Path

import pytest

from c_library import UNAVAILABLE
from tensorrt_fakes import BUILD, FakeGpu, needed
from tiny_onnx import write_tiny_onnx

OPEN = "model = library.open(engine, device=b'cuda', threads=1)\n"
PICTURES = "pixels = np.random.default_rng(0).integers(0, 256, (128, 160, 3), np.uint8)\n"
TENSORS = "fake = ctypes.CDLL(os.environ['CN2_ONNXRUNTIME'])\n"


@pytest.fixture
def gpu(tmp_path: Path, onnxruntime_path: bytes) -> FakeGpu:
    """A fake GPU with an ONNX Runtime that says it has CUDA; its `engine` is an .onnx file."""
    made = FakeGpu(tmp_path, 10)
    made.engine = write_tiny_onnx(tmp_path / "tiny.onnx")
    made.environment["CN2_ONNXRUNTIME"] = str(needed(BUILD / "libfake_onnxruntime.so"))
    made.environment["CN2_FAKE_ONNXRUNTIME"] = onnxruntime_path.decode()
    return made


def test_pictures_in_device_memory_never_come_to_the_host(gpu: FakeGpu) -> None:
    gpu.add_kernels()
    said = gpu.run(
        OPEN + PICTURES + TENSORS + "calls()\n"
        "show(model.detect([image(pixels, memory=1), picture(204, memory=1)]))\n"
        "print(fake.fake_onnxruntime_device_tensors(), calls())\n"
        "show(model.detect([image(pixels), picture(204)]))\n"
        "show(model.detect([image(pixels, memory=1), picture(204)]))\n"
        "print(fake.fake_onnxruntime_device_tensors())\n"
        "print(library.model_runtime(model.handle).decode())\n"
        "model.close(); print(cuda.fake_cuda_live())\n"
    )
    lines = said.splitlines()
    assert lines[0:2] == lines[3:5] == lines[5:7]
    assert lines[2] == "1 allocate run synchronize"  # the canvases
    assert lines[7] == "1"
    assert " on cuda:0, " in lines[8]
    assert lines[9] == "0"


def test_a_device_that_is_lost_does_not_end_the_process(gpu: FakeGpu) -> None:
    gpu.add_kernels()
    said = gpu.run(
        OPEN + "model.detect([picture(204, memory=1)])\n"
        "os.environ['CN2_FAKE_CUDA_FAILS'] = 'push'\nmodel.close()\n"
        "print(cuda.fake_cuda_live() > 0)\n"
    )
    assert said == "True\n"


def test_without_the_kernels_they_are_copied_to_the_host(gpu: FakeGpu) -> None:
    said = gpu.run(
        OPEN + PICTURES + TENSORS + "show(model.detect([image(pixels, memory=1)]))\n"
        "show(model.detect([image(pixels)]))\nprint(fake.fake_onnxruntime_device_tensors())\n"
    )
    first, second, tensors = said.splitlines()
    assert first == second
    assert tensors == "0"


def test_a_stream_is_waited_for(gpu: FakeGpu) -> None:
    gpu.add_kernels()
    said = gpu.run(
        OPEN + "stream = c_void_p(); cuda.cuCtxPushCurrent_v2(c_void_p(1))\n"
        "cuda.cuStreamCreate(byref(stream), 1); cuda.cuCtxPopCurrent_v2(byref(c_void_p()))\n"
        "found, counts = (Detection * 3)(), (c_size_t * 1)()\n"
        "options = DetectOptions(score_threshold=-1.0, cuda_stream=stream.value)\n"
        "given = (byref(picture(204, memory=1)), 1, byref(options), found, 3, counts)\n"
        "library.check(library.detect(model.context, *given))\n"
        "print(counts[0], cuda.fake_cuda_used(stream) > 0)\n"
    )
    assert said == "2 True\n"


def test_the_device_is_asked_for_by_its_number(gpu: FakeGpu) -> None:
    said = gpu.run(
        OPEN + TENSORS + "fake.fake_onnxruntime_options.restype = c_char_p\n"
        "print(fake.fake_onnxruntime_options().decode())\n"
    )
    assert "device_id=0 " in said


@pytest.mark.parametrize("failing", ["create", "update", "append"])
def test_cuda_that_does_not_work_is_never_the_cpu(gpu: FakeGpu, failing: str) -> None:
    status, message = gpu.refusal(", device=b'cuda'", CN2_FAKE_ONNXRUNTIME_FAILS=failing)
    assert status == UNAVAILABLE
    assert "cannot use CUDA; cn2 doctor says more (fake: no CUDA here)" in message


def test_streams_are_for_devices(gpu: FakeGpu) -> None:
    program = "model = library.open(engine, threads=1)\n"
    program += "options = DetectOptions(score_threshold=-1.0, cuda_stream=1)\n"
    program += (
        "given = (model.context, byref(picture(9)), 1, byref(options), None, 0, (c_size_t * 1)())\n"
    )
    program += "print(library.detect(*given), library.last_error().decode())\n"
    said = gpu.run(program)
    assert said.startswith("1 cuda_stream: expected null, as this model runs on the CPU (")
