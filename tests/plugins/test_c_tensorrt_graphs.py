"""CUDA graphs of engines through libcn2: which there are, and when; TensorRT and the driver faked.

The fakes end the process where a graph is launched whose context, or memory, has changed since.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from c_library import Model
from tensorrt_fakes import FIXED, FIXED_PLAN, FakeGpu, shown

OPEN = "model = library.open(engine)\n"
MANY = FIXED_PLAN.replace("profile 1 4", "profile 1 8")  # pictures a run
# `did(n)`: what a call with n pictures puts on the stream, of what tells runs from graphs.
DID = """
def did(count):
    calls(); show(model.detect([picture(20 * count + i) for i in range(count)]))
    told = ("run", "launch", "begin_capture", "synchronize")
    print(count, *[one for one in calls().split() if one in told])
"""


@pytest.fixture
def gpu(tmp_path: Path) -> FakeGpu:
    """A fake GPU with TensorRT 10."""
    return FakeGpu(tmp_path, 10)


def run_counts(gpu: FakeGpu, tiny: Model, counts: list[int]) -> list[str]:
    """What the calls with so many pictures did; what they found is the tiny model's."""
    said = gpu.run(
        OPEN + DID + f"for count in {counts}: did(count)\nmodel.close()\n"
        "print(cuda.fake_cuda_live())\n"
    ).splitlines()
    assert said.pop() == "0"
    found = [line for line in said if line.startswith("[")]
    pictures = [(20 * count + i, 64, 96) for count in counts for i in range(count)]
    assert found == shown(tiny, *pictures).splitlines()
    return [line for line in said if not line.startswith("[")]


def test_a_rest_keeps_the_graphs(gpu: FakeGpu, tiny: Model) -> None:
    """Nine pictures, four a run: both batches have a graph, and nothing waits in between."""
    gpu.write(FIXED_PLAN, FIXED)
    done = run_counts(gpu, tiny, [9, 9, 9, 9])
    assert done == [
        "9 synchronize run run synchronize run",
        "9 begin_capture launch launch run",
        "9 launch launch begin_capture launch",
        "9 launch launch launch",
    ]


def test_the_batch_that_was_not_used_for_longest_loses_its_graph(gpu: FakeGpu, tiny: Model) -> None:
    gpu.write(MANY, FIXED)
    batches = [8, 5, 3, 2]
    first = [batch for batch in batches for _ in range(3)]
    done = run_counts(gpu, tiny, [*first, 5, 3, 2, 8, 1, 1, 1, 3, 2, 8, 1, 5])
    assert [line.split()[-1] for line in done[:12]] == ["run", "run", "launch"] * 4
    assert done[12:16] == ["5 launch", "3 launch", "2 launch", "8 launch"]
    assert done[16:19] == ["1 synchronize run", "1 run", "1 begin_capture launch"]
    assert done[19:] == ["3 launch", "2 launch", "8 launch", "1 launch", "5 synchronize run"]


def test_larger_buffers_drop_the_graphs_of_the_smaller(gpu: FakeGpu, tiny: Model) -> None:
    """They are made again, of the new addresses, in the contexts that are there."""
    gpu.write(MANY, FIXED)
    done = run_counts(gpu, tiny, [1, 1, 1, 2, 1, 1, 1, 2, 8, 2, 1, 8])
    assert done[2:5] == ["1 begin_capture launch", "2 synchronize run", "1 synchronize run"]
    assert done[5:8] == ["1 run", "1 begin_capture launch", "2 run"]
    assert done[8:11] == ["8 synchronize run", "2 synchronize run", "1 synchronize run"]
    assert done[11] == "8 run"


def test_a_fixed_canvas_runs_as_a_graph_from_the_third_time_on(gpu: FakeGpu, tiny: Model) -> None:
    gpu.write(FIXED_PLAN, FIXED)
    said = gpu.run(
        OPEN + "for level in (204, 50, 100, 150):\n"
        "  calls(); show(model.detect([picture(level)])); print(calls())\n"
        "calls(); model.detect([picture(1), picture(2)]); print(calls())\n"
        "model.close()\nprint(cuda.fake_cuda_live())\n"
    )
    lines = said.splitlines()
    levels = (204, 50, 100, 150)
    assert "\n".join([*lines[0:8:2], ""]) == shown(tiny, *[(n, 64, 96) for n in levels])
    *before, third, fourth = (line.split() for line in lines[1:8:2])
    assert all("run" in one and "begin_capture" not in one for one in before)
    assert third[2:-2] == ["begin_capture", "record", "end_capture", "instantiate", "launch"]
    assert fourth == ["upload", "upload", "launch", "download", "await"]
    assert "run" in lines[8].split()  # another batch, which has no graph yet
    assert "launch" not in lines[8].split()
    assert lines[9] == "0"


@pytest.mark.parametrize("failing", ["begin_capture", "end_capture", "instantiate", "record"])
def test_what_cannot_be_captured_runs_without_a_graph(
    gpu: FakeGpu, tiny: Model, failing: str
) -> None:
    gpu.write(FIXED_PLAN, FIXED)
    said = gpu.run(
        "library.set_log(hear, None, 2)\n" + OPEN + "for level in (204, 50, 100):\n"
        "  show(model.detect([picture(level)]))\nmodel.close()\n"
        "print(cuda.fake_cuda_live(), len(said), *said[0])\n",
        CN2_FAKE_CUDA_FAILS=failing,
    )
    *found, last = said.splitlines()
    assert "\n".join([*found, ""]) == shown(tiny, *[(n, 64, 96) for n in (204, 50, 100)])
    assert last.startswith("0 1 2 ")  # nothing is left over, one warning
    assert "runs without a CUDA graph" in last
