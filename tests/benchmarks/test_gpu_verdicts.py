"""What the GPU suite makes of its rows: targets, matched detections, floors, numbers of calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from cn2.runtime.detections import Detections
from fake_backend import make_manifest

NAMES = ("gpu_verdicts", "gpu_measure", "gpu_kernels")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with imported(*NAMES) as modules:
        yield modules


RIGHT = {"matched": 1.0}


def detector_row(implementation: str, precision: str, batch: int, ms: float, **more: Any) -> Any:
    row = {"preset": "dla34-bifpn-p3", "implementation": implementation, "precision": precision}
    row |= {"batch": batch, "ms": {"median": ms}, "images_per_s": 1e3 * batch / ms}
    return row | {"check": RIGHT, "starts_at": "picture on the device"} | more


def kernel_row(kernel: str, us: float, theirs: float | None, right: bool = True) -> Any:
    return {"kernel": kernel, "shape": "s", "batch": 1, "us": us, "torchvision_us": theirs} | {
        "right": right
    }


def test_verdicts(scripts: dict[str, ModuleType]) -> None:
    rows = [
        detector_row("torch eager", "fp32", 1, 30.0),
        detector_row("torch eager", "fp16", 1, 25.0),
        detector_row("torch eager", "fp16", 1, 2.0, starts_at="canvas on the device"),
        detector_row("graph", "fp16", 1, 0.7, starts_at="canvas on the device"),  # resizes nothing
        detector_row("libcn2", "fp16", 1, 1.9, check={"matched": 0.995}),
        detector_row("libcn2", "fp32", 1, 0.1, check={"matched": 0.992}),  # not in fp16
        detector_row("engine", "fp16", 1, 0.8, check={"matched": 0.98}),  # fast, and wrong
        detector_row("libcn2", "fp16", 16, 8.1),
        detector_row("engine", "fp16", 16, 7.9),
        detector_row("libcn2", "fp16", 1, 0.3, preset="nano"),
        detector_row("libcn2", "fp16", 1, 0.3, preset="r50", weights="random"),
    ]
    kernels = [
        kernel_row("PyramidRoIAlign", 10.0, 40.0),
        kernel_row("PyramidRoIAlign", 10.0, 29.0),
        kernel_row("ProposalNMS", 10.0, 50.0),
        kernel_row("DetectionNMS", 10.0, 50.0, right=False),
    ]
    found = scripts["gpu_verdicts"].find_verdicts(rows, kernels)
    assert [(row["verdict"], row["value"]) for row in found] == [
        ("reached", 1.9),
        ("reached", round(25 / 1.9, 2)),
        ("reached", pytest.approx(16e3 / 7.9)),
        ("not reached", 2.9),
        ("reached", 5.0),
        ("not reached", 5.0),  # fast, and wrong
        ("reached", 0.992),  # fp32
        ("not measured", None),
        ("not measured", None),
        ("not reached", 0.98),  # fp16
        ("reached", 1.0),
        ("not measured (random weights)", None),
    ]
    by = "implementation libcn2, precision fp16, starts_at picture on the device, batch 1"
    assert found[0]["by"] == by
    none = scripts["gpu_verdicts"].find_verdicts([], [])
    assert {(row["verdict"], row["value"], row["by"]) for row in none} == {
        ("not measured", None, None)
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "reached"),
        (
            {"starts_at": "canvas on the device"},
            "not measured (none begins with the picture on the device)",
        ),
        (
            {"starts_at": "picture on the host"},
            "not measured (none begins with the picture on the device)",
        ),
        ({"check": {"matched": 0.5}}, "not reached (it finds less than 99%)"),
        ({"check": None}, "not measured (nothing says that it is right)"),
        ({"weights": "random"}, "not measured (nothing says that it is right)"),
    ],
)
def test_speed_alone_is_not_enough(
    scripts: dict[str, ModuleType], changes: dict[str, Any], verdict: str
) -> None:
    rows = [detector_row("torch eager", "fp32", 1, 90.0)]
    rows += [detector_row("engine", "fp16", batch, 0.5, **changes) for batch in (1, 16)]
    found = scripts["gpu_verdicts"].find_verdicts(rows, [])[:3]
    assert {row["verdict"] for row in found} == {verdict}
    assert all((row["value"] is None) == verdict.startswith("not measured") for row in found)


def test_a_speedup_is_over_what_begins_at_the_same_place(scripts: dict[str, ModuleType]) -> None:
    speedup = scripts["gpu_verdicts"].speedup
    ours = detector_row("libcn2", "fp16", 1, 1.0)
    canvas = detector_row("torch eager", "fp32", 1, 50.0, starts_at="canvas on the device")
    row = speedup([ours, canvas])
    assert (row["verdict"], row["value"]) == (
        "not measured (torch eager begins elsewhere)",
        None,
    )
    assert speedup([ours, canvas, detector_row("torch eager", "fp32", 1, 9.0)])["value"] == 9.0
    assert speedup([ours])["verdict"] == "not measured"


def test_random_weights_are_judged_by_the_same_way_with_trained_ones(
    scripts: dict[str, ModuleType],
) -> None:
    for matched, reached in ((1.0, True), (0.9, False)):
        rows = [
            detector_row("libcn2", "fp16", 1, 0.5, weights="random", check={"matched": 0.4}),
            detector_row("libcn2", "fp16", 1, 0.2, preset="nano", check={"matched": matched}),
        ]
        row = scripts["gpu_verdicts"].latency(rows)
        assert (row["verdict"] == "reached", row["value"]) == (reached, 0.5)


def detections(boxes: list[list[float]], classes: list[int]) -> Detections:
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, len(classes)).astype(np.float32),
        class_ids=np.array(classes),
        image_size=(100, 100),
        class_names=("a", "b"),
        dataset_ids=(0, 1),
    )


@pytest.mark.parametrize(
    ("boxes", "classes", "count"),
    [
        ([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1], 2),
        ([[20, 20, 40, 40], [0, 0, 10, 10]], [1, 0], 2),  # in any order
        ([[0, 0, 10, 9.1], [20, 20, 40, 37]], [0, 1], 1),  # IoU 0.91 and 0.85
        ([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 0], 1),  # another class
        ([[0, 0, 10, 10], [0, 0, 10, 10]], [0, 0], 1),  # one counterpart each
        ([], [], 0),
    ],
)
def test_matched_detections(
    scripts: dict[str, ModuleType], boxes: list[list[float]], classes: list[int], count: int
) -> None:
    expected = detections([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 1])
    match = scripts["gpu_measure"].match_detections
    assert len(match(expected, detections(boxes, classes))) == count
    assert match(detections([], []), expected) == []


def test_agreement_counts_both_sides_above_the_threshold(scripts: dict[str, ModuleType]) -> None:
    agree = scripts["gpu_measure"].agreement
    one, two = [0.0, 0, 10, 10], [20.0, 20, 40, 40]
    pair, single = detections([one, two], [0, 1]), detections([one], [0])  # 0.9 and 0.5; 0.9
    assert agree(pair, pair, 0.3) == (2, 2, 4, 0.0)
    assert agree(pair, single, 0.3) == (2, 1, 2, 0.0)  # lost
    assert agree(single, pair, 0.3) == (1, 2, 2, 0.0)  # found besides
    assert agree(pair, single, 0.6) == (1, 1, 2, 0.0)  # what is below does not count
    swapped = detections([two, one], [1, 0])  # 0.9 and 0.5: the counterpart of 0.9 is below
    assert agree(pair, swapped, 0.6) == (1, 1, 2, pytest.approx(0.4))


class FakeRunner:
    """Finds the same in each picture, but another class in one place of a batch."""

    def __init__(self, wrong_row: int) -> None:
        self.wrong_row, self.batches = wrong_row, list[int]()

    def load(self, pictures: list[Any], threshold: float) -> None:
        self.batches.append(len(pictures))

    def run(self) -> None: ...

    def found(self, answer: None) -> list[Detections]:
        rows = range(self.batches[-1])
        return [detections([[0, 0, 10, 10]], [int(row == self.wrong_row)]) for row in rows]


def test_every_place_of_a_batch_is_checked(scripts: dict[str, ModuleType]) -> None:
    measure = scripts["gpu_measure"]
    pictures = measure.Pictures([object()] * 16, [object()] * 16)
    reference = measure.Reference([detections([[0, 0, 10, 10]], [0])] * 4, 0.3)
    manifest = make_manifest()
    for batch, places, wrong in ((1, 4, 0), (3, 6, 2), (16, 16, 1)):
        runner = FakeRunner(wrong_row=15 if batch == 16 else 2)
        check = measure.check_detections(runner, reference, pictures, manifest, batch)
        assert set(runner.batches) == {batch}
        assert (check["pictures"], check["expected"], check["found"]) == (places,) * 3
        assert check["matched"] == round(1 - wrong / places, 5)
        assert check["score"] == 0


def test_slow_calls_are_made_less_often(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = scripts["gpu_measure"]
    calls: list[int] = []
    assert len(measure.time_calls(lambda: calls.append(1), 30)) == 30
    assert len(calls) == 30 + measure.WARM_UPS
    monkeypatch.setattr(measure, "LONGEST_S", 0.0)
    calls.clear()
    assert len(measure.time_calls(lambda: calls.append(1), 30)) == measure.FEWEST
    assert len(calls) == measure.FEWEST + 1


def test_floors_of_kernels(scripts: dict[str, ModuleType]) -> None:
    floor = scripts["gpu_kernels"].floor_us
    row = {"megabytes": 6.7, "gigaflops": 0.0, "shape": "x, fp32"}
    assert floor(row, None) == pytest.approx(2.0)  # 3350 GB/s
    assert floor(row, 1000.0) == pytest.approx(6.7)
    assert floor({**row, "gigaflops": 67.0}, 1000.0) == pytest.approx(1000.0)
    assert floor({**row, "gigaflops": 67.0, "shape": "x, fp16"}, 1000.0) == pytest.approx(67.745)


def test_rows_of_kernels_come_one_by_one(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that those before a step's end are not lost; what failed is told."""
    kernels = scripts["gpu_kernels"]

    def rows(_options: Any) -> Iterator[Any]:
        for right in (True, False):
            yield kernel_row("ProposalNMS", 1.0, None, right) | {"megabytes": 1, "gigaflops": 0}
        yield {"what": "DeformConv", "failed": "no memory"}
        raise KeyboardInterrupt

    (tmp_path / "libcn2_kernels_cuda_emulated.so").touch()
    monkeypatch.setattr(kernels.cuda_kernels, "BUILD", tmp_path)
    monkeypatch.setattr(kernels.cuda_kernels, "check_all", rows)
    job = kernels.Job(step="kernels", preset="", folder=tmp_path, dry_run=True)
    steps = kernels.check_kernels(job)
    kinds = [next(steps)["kind"] for _ in range(5)]
    assert kinds == ["card", "kernel", "kernel", "failure", "failure"]
    with pytest.raises(KeyboardInterrupt):
        next(steps)
