"""What libcn2 puts on CUDA's streams is in order, and waited for: the fake driver does work late.

Late is when something waits for it, as a GPU may. So a wait that is missing, or a buffer that is
used again too early, gives other detections. Other orders that a driver may have are tried, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from c_library import Model
from cn2.runtime.canvas import CanvasRule
from fake_backend import make_manifest
from tensorrt_fakes import BUILD, FIXED, FIXED_PLAN, FakeGpu, needed, shown
from tiny_onnx import write_tiny_onnx

OPEN = "model = library.open(engine)\n"
LEVELS = (204, 50, 100, 250, 20, 180, 90)  # of the pictures of a call
DEFAULT_STREAM = 1


@pytest.fixture(params=["late", "early", "1", "2"])
def gpu(tmp_path: Path, request: pytest.FixtureRequest) -> FakeGpu:
    """A fake GPU whose driver does what is queued late, at once, or when it is drawn."""
    made = FakeGpu(tmp_path, 10)
    made.environment["CN2_FAKE_CUDA_ORDER"] = request.param
    return made


def expected(tiny: Model, *calls: tuple[int, ...]) -> list[str]:
    """What calls with pictures of these grey levels show, and that nothing is left in a queue."""
    return [
        line
        for levels in calls
        for line in (*shown(tiny, *[(level, 64, 96) for level in levels]).splitlines(), "waiting 0")
    ]


def detect(pictures: str, options: str = "") -> str:
    """A line of a program."""
    return f"show(model.detect({pictures}{options})); print('waiting', cuda.fake_cuda_waiting())\n"


def test_pictures_of_the_host_in_two_slots(gpu: FakeGpu, tiny: Model) -> None:
    """Seven, two a run: both slots' pinned memory is filled and read again and again."""
    gpu.write("fake plan -1 -1 -1 2 threshold profile 1 2 64 128 64 128")
    calls = (LEVELS, LEVELS[::-1])
    program = "".join(detect(f"[picture(n) for n in {levels}]") for levels in calls)
    assert gpu.run(OPEN + program).splitlines() == expected(tiny, *calls)


def test_canvases_that_grow_within_a_call(gpu: FakeGpu, tiny: Model) -> None:
    """All buffers are made anew while a run is under way that uses them."""
    gpu.write("fake plan -1 -1 -1 2 threshold profile 1 2 32 128 32 128")
    sizes = ((32, 32), (32, 64), (64, 64), (64, 96), (96, 96))
    program = detect(f"[picture(9 + h + w, h, w) for h, w in {sizes}]")
    found = gpu.run(OPEN + program).splitlines()
    wanted = shown(tiny, *[(9 + height + width, height, width) for height, width in sizes])
    assert found == [*wanted.splitlines(), "waiting 0"]


def test_a_workspace_that_grows_within_a_call(gpu: FakeGpu) -> None:
    """Larger pictures need more of it, and a run of smaller ones is under way."""
    gpu.add_kernels()
    rule = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="antialias")
    plan = "fake plan -1 -1 -1 2 threshold profile 1 1 64 128 64 128"
    gpu.write(plan, make_manifest(canvas=rule))
    said = gpu.run(
        OPEN + "rng = np.random.default_rng(0)\n"
        "pixels = [rng.integers(0, 256, (n, 3 * n // 2, 3), np.uint8) for n in (32, 128, 256)]\n"
        + detect("[image(one, memory=1) for one in pixels]")
        + detect("[image(one) for one in pixels]")
    ).splitlines()
    assert said[:4] == said[4:]
    assert said[3] == "waiting 0"


@pytest.mark.parametrize("stream", ["new_stream()", str(DEFAULT_STREAM)])
@pytest.mark.parametrize("kernels", [True, False])
def test_pictures_that_a_stream_writes(
    gpu: FakeGpu, tiny: Model, stream: str, kernels: bool
) -> None:
    """They are black until their stream gets there; without kernels they come to the host."""
    if kernels:
        gpu.add_kernels()
    gpu.write("fake plan -1 -1 -1 2 threshold profile 1 2 64 128 64 128")
    calls = (LEVELS, LEVELS[::-1])
    program = "".join(
        detect(f"[painted(n, stream) for n in {levels}]", ", cuda_stream=stream")
        for levels in calls
    )
    found = gpu.run(OPEN + f"stream = {stream}\n" + program).splitlines()
    assert found == expected(tiny, *calls)


@pytest.mark.parametrize("kernels", [True, False])
def test_onnxruntime_reads_them_after_their_stream(
    gpu: FakeGpu, tiny: Model, onnxruntime_path: bytes, kernels: bool
) -> None:
    if kernels:
        gpu.add_kernels()
    gpu.engine = write_tiny_onnx(gpu.folder / "tiny.onnx")
    gpu.environment["CN2_ONNXRUNTIME"] = str(needed(BUILD / "libfake_onnxruntime.so"))
    gpu.environment["CN2_FAKE_ONNXRUNTIME"] = onnxruntime_path.decode()
    program = "model = library.open(engine, device=b'cuda', threads=1)\nstream = new_stream()\n"
    calls = (LEVELS[:3], LEVELS[3:5], LEVELS)
    for levels in calls:
        program += detect(f"[painted(n, stream) for n in {levels}]", ", cuda_stream=stream")
    assert gpu.run(program).splitlines() == expected(tiny, *calls)


def test_graphs_read_what_their_call_brings(gpu: FakeGpu, tiny: Model) -> None:
    """Full groups, and a rest of one, of the host's pictures and of a stream's."""
    gpu.add_kernels()
    gpu.write(FIXED_PLAN.replace("1 4", "1 2"), FIXED)
    calls = [LEVELS[n:] + LEVELS[:n] for n in range(4)]
    program = OPEN + "stream = new_stream()\n"
    for levels in calls:
        program += detect(f"[picture(n) for n in {levels}]")
        program += detect(f"[painted(n, stream) for n in {levels}]", ", cuda_stream=stream")
    program += "print('launch' in calls().split())\n"
    *found, launched = gpu.run(program).splitlines()
    assert found == expected(tiny, *[one for levels in calls for one in (levels, levels)])
    assert launched == "True"


def test_a_call_that_fails_leaves_nothing_behind(gpu: FakeGpu, tiny: Model) -> None:
    """Its pictures are the caller's again; the second run of the call fails."""
    gpu.write("fake plan -1 -1 -1 2 threshold profile 1 2 64 128 64 128")
    said = gpu.run(
        OPEN + f"levels = {LEVELS}\n"
        "os.environ['CN2_FAKE_TENSORRT_FAILS'] = 'output'\n"
        "try: model.detect([picture(n) for n in levels])\n"
        "except Failed: print(cuda.fake_cuda_waiting())\n"
        "os.environ['CN2_FAKE_TENSORRT_FAILS'] = 'enqueue'\n"
        "try: model.detect([picture(n) for n in levels])\n"
        "except Failed: print(cuda.fake_cuda_waiting())\n"
        "os.environ['CN2_FAKE_TENSORRT_FAILS'] = ''\n" + detect("[picture(n) for n in levels]")
    )
    first, second, *found = said.splitlines()
    assert (first, second) == ("0", "0")
    assert found == expected(tiny, LEVELS)


def test_the_callers_stream_may_go_after_the_call(gpu: FakeGpu) -> None:
    """Neither a call of other sizes nor the end of the context asks anything of it."""
    gpu.add_kernels()
    gpu.write(FIXED_PLAN, FIXED)
    said = gpu.run(
        OPEN + "stream = new_stream()\n"
        "for _ in range(4): model.detect([painted(204, stream)], cuda_stream=stream)\n"
        "print(cuda.fake_cuda_used(c_void_p(stream)) > 4)\n"
        "in_context(cuda.cuStreamDestroy_v2, c_void_p(stream))\n"
        "model.detect([picture(1), picture(2)])\nmodel.detect([picture(1)])\nmodel.close()\n"
        "print(cuda.fake_cuda_live(), cuda.fake_cuda_used_destroyed())\n"
    )
    assert said == "True\n0 0\n"
