"""What the GPU suite does, the most valuable first, and the seconds that each step may take.

A suite that is slower than thought loses its last steps, never its first: stage after stage makes
files on the CPU side by side, then measures one by one on the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gpu_job import Job

FORMS = ("fp16", "standard", "fused")  # of an export; what engines and the comparison need first
LIMITS_S = {  # of one step; what is left of the suite's own time cuts them, too
    "compile": 150,
    "export": 120,
    "kernels": 75,
    "tensorrt": 110,
    "tensorrt-rtx": 40,
    "torch": 70,
    "libcn2": 30,
    "onnxruntime": 40,
}
PREPARING_S = 150  # of a stage's work side by side, however few processors there are
LEAST_S = 15.0  # a step is not begun with less: its libraries alone take that long to load
ON_GPU = ("tensorrt", "tensorrt-rtx", "torch", "libcn2", "onnxruntime")
TOGETHER = 2  # presets of the first stage: the targets', and one whose weights say what is right


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Work on the CPU side by side, then work on the GPU one by one, each in this order."""

    side_by_side: Sequence[Job]
    one_by_one: Sequence[Job]

    @property
    def jobs(self) -> Iterator[Job]:
        """All."""
        yield from self.side_by_side
        yield from self.one_by_one


def make_plan(
    presets: Sequence[str], steps: Sequence[str], workers: int, like: Job
) -> Sequence[Stage]:
    """The stages for some presets.

    The first one has the kernels and the first TOGETHER presets, step by step, and exports as many
    of the other presets as there are processors idle while the kernels are compiled. Each further
    one has a preset.

    Args:
        steps: those of LIMITS_S that are wanted.
        workers: processes side by side.
        like: all that is the same for each job.
    """

    def jobs(step: str, some: Sequence[str] = ("",), form: str = "") -> list[Job]:
        wanted = some if step in steps else ()
        return [replace(like, step=step, preset=preset, form=form) for preset in wanted]

    def exports(some: Sequence[str]) -> list[Job]:
        return [job for form in FORMS for job in jobs("export", some, form)]

    def on_gpu(some: Sequence[str]) -> list[Job]:
        return [job for step in ON_GPU for job in jobs(step, some)]

    first, others = presets[:TOGETHER], presets[TOGETHER:]
    needed = [*jobs("compile"), *exports(first)]
    early = others[: max(0, workers - len(needed)) // len(FORMS)]
    stages = [
        Stage(
            side_by_side=[*needed, *exports(early)], one_by_one=[*jobs("kernels"), *on_gpu(first)]
        )
    ]
    for preset in others:
        late = [] if preset in early else exports([preset])
        stages.append(Stage(side_by_side=late, one_by_one=on_gpu([preset])))
    return [stage for stage in stages if [*stage.jobs]]
