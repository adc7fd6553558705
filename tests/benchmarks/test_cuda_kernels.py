"""benchmarks/cuda_kernels.py where there is no GPU: every step but the timing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from benchmark_scripts import imported

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARIES = ("libcn2_kernels.so", "libcn2_kernels_cuda_emulated.so")
NAMES = ("cuda_kernels", "cuda_cases", "cuda_inputs", "cuda_opponents")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with imported(*NAMES) as modules:
        yield modules


@pytest.fixture
def built(scripts: dict[str, ModuleType]) -> dict[str, ModuleType]:
    for name in LIBRARIES:
        path = scripts["cuda_kernels"].BUILD / name
        if not path.is_file():
            pytest.skip(f"{path}: expected a native library, found none; run make native")
    return scripts


def run_dry(scripts: dict[str, ModuleType], folder: Path) -> dict[str, Any]:
    out = folder / "dry.json"
    scripts["cuda_kernels"].main(["--dry-run", "--batches", "1", "2", "--out", str(out)])
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def test_dry_run_checks_every_kernel_and_lists_what_it_skips(
    built: dict[str, ModuleType], tmp_path: Path
) -> None:
    document = run_dry(built, tmp_path)
    kernels = {row["kernel"] for row in document["rows"]}
    assert kernels == {"PyramidRoIAlign", "ProposalNMS", "DetectionNMS", "DeformConv", "preprocess"}
    shapes = {(row["kernel"], row["shape"]) for row in document["rows"]}
    assert ("ProposalNMS", "tiny, classes: 60 boxes of 4 classes to 20") in shapes
    assert ("DetectionNMS", "tiny, classes: 20 x 4 to 10, boxes of each class") in shapes
    pictures = [row["shape"].split() for row in document["rows"] if row["kernel"] == "preprocess"]
    assert {words[1] for words in pictures} == {"RGB", "BGR", "RGBA", "NV12"}
    assert all(row["right"] for row in document["rows"])
    assert {row["batch"] for row in document["rows"]} == {1, 2}
    assert len(document["skipped"]) == 2 * len(document["rows"])
    assert all("dry run" in skip["reason"] for skip in document["skipped"])
    assert document["gpu"] is None


def test_a_wrong_kernel_is_found(
    built: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the file is written all the same."""
    inputs = built["cuda_inputs"]
    right = inputs.suppress_proposals

    def wrong(kernels: Any, *arguments: Any) -> Any:
        found = right(kernels, *arguments)
        if isinstance(kernels, inputs.CudaKernels):
            found.boxes[0, 0, 0] += 1
        return found

    monkeypatch.setattr(inputs, "suppress_proposals", wrong)
    with pytest.raises(SystemExit, match="4 kernels: expected what the CPU gives"):
        run_dry(built, tmp_path)
    rows = json.loads((tmp_path / "dry.json").read_text())["rows"]
    assert {row["kernel"] for row in rows if not row["right"]} == {"ProposalNMS"}


def test_a_case_that_raises_costs_itself_alone(
    built: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its neighbours' rows come one by one, before and after it."""

    def fail(*_: Any) -> None:
        raise RuntimeError("an illegal\naddress")

    monkeypatch.setattr(built["cuda_inputs"], "suppress_proposals", fail)
    kernels = built["cuda_kernels"]
    rows = kernels.check_all(kernels.parse(["--dry-run", "--batches", "1"]))
    assert next(rows)["kernel"] == "PyramidRoIAlign"
    left = list(rows)
    assert [row for row in left if "failed" in row] == [
        {"what": f"ProposalNMS, {name}, batch 1", "failed": "an illegal address"}
        for name in ("tiny", "tiny, classes")
    ]
    assert {"DetectionNMS", "DeformConv", "preprocess"} <= {row.get("kernel") for row in left}
    with pytest.raises(SystemExit, match="4 kernels"):
        run_dry(built, tmp_path)
    assert len(json.loads((tmp_path / "dry.json").read_text())["failures"]) == 4


@pytest.mark.parametrize(
    ("operator", "result", "kernel", "count"),
    [
        ("suppress_proposals", 2, "ProposalNMS", 1),  # classes, where there are any
        ("suppress_detections", 3, "DetectionNMS", 2),
        ("suppress_detections", 1, "DetectionNMS", 2),
    ],
)
def test_a_kernel_with_wrong_classes_or_boxes_is_found(
    built: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    operator: str,
    result: int,
    kernel: str,
    count: int,
) -> None:
    inputs, kernels = built["cuda_inputs"], built["cuda_kernels"]
    right = getattr(inputs, operator)

    def wrong(library: Any, *arguments: Any) -> Any:
        found = right(library, *arguments)
        if isinstance(library, inputs.CudaKernels) and found[result] is not None:
            found[result][0, 0] += 1
        return found

    monkeypatch.setattr(inputs, operator, wrong)
    rows = list(kernels.check_all(kernels.parse(["--dry-run", "--batches", "1"])))
    assert [row["kernel"] for row in rows if not row["right"]] == [kernel] * count


def test_the_suppressions_of_every_kind_are_timed(scripts: dict[str, ModuleType]) -> None:
    """On a GPU: together and within classes, boxes shared by the classes and of each."""
    kernels = scripts["cuda_kernels"]
    runs = {what for what, _, _ in kernels.find_runs(None, None, 1, kernels.parse([]))}
    assert {"ProposalNMS, centernet-r50-fpn", "ProposalNMS, faster-rcnn-r50-fpn"} <= runs
    assert {"DetectionNMS, r50-fpn-lvis", "DetectionNMS, faster-rcnn-r50-fpn"} <= runs


def test_slow_kernels_are_timed_less_often(scripts: dict[str, ModuleType]) -> None:
    kernels = scripts["cuda_kernels"]
    options = kernels.parse([])
    runs = [(what, often) for what, often, _ in kernels.find_runs(None, None, 16, options)]
    assert {often for what, often in runs if what.startswith("DeformConv")} == {10}
    assert {often for what, often in runs if not what.startswith("DeformConv")} == {100}


def test_torchvisions_operators_do_the_same(
    built: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU: what is timed against our kernels gives their results."""
    inputs, opponents = built["cuda_inputs"], built["cuda_opponents"]
    monkeypatch.setattr(opponents, "on_gpu", lambda *arrays: [torch.from_numpy(a) for a in arrays])
    rng, model = np.random.default_rng(0), built["cuda_kernels"].TINY
    kernels = inputs.Kernels(built["cuda_kernels"].BUILD / LIBRARIES[0])
    features, rois = inputs.make_pyramid(rng, model, 2), inputs.spread_boxes(rng, (2, 8))
    pooled = opponents.roi_align(model, rois, features, False)()
    ours = inputs.pool(kernels, model, rois, features)
    np.testing.assert_allclose(pooled.numpy().reshape(ours.shape), ours, atol=1e-5)


@pytest.mark.parametrize("name", ["TINY", "TINY_CLASSED"])
def test_torchvisions_suppressions_do_the_same(
    built: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    inputs, opponents = built["cuda_inputs"], built["cuda_opponents"]
    monkeypatch.setattr(opponents, "on_gpu", lambda *arrays: [torch.from_numpy(a) for a in arrays])
    rng, model = np.random.default_rng(0), getattr(built["cuda_kernels"], name)
    kernels = inputs.Kernels(built["cuda_kernels"].BUILD / LIBRARIES[0])
    candidates = inputs.make_candidates(rng, model, 2)
    assert (candidates[2] is not None) == (model.groups > 0)
    proposals = inputs.suppress_proposals(kernels, model, *candidates)
    results = opponents.proposal_nms(model, *candidates)()
    for (boxes, scores), one, own in zip(results, proposals.boxes, proposals.scores, strict=True):
        assert len(boxes) == (own > 0).sum() > 0
        np.testing.assert_array_equal(boxes.numpy(), one[: len(boxes)])
        np.testing.assert_array_equal(scores.numpy(), own[: len(boxes)])
    boxes, scores = inputs.make_scores(rng, model, 2)
    found = inputs.suppress_detections(kernels, model, boxes, scores)
    results = opponents.detection_nms(model, boxes, scores)()
    for picture, (where, best, classes) in enumerate(results):
        assert len(best) == found.counts[picture] > 0
        np.testing.assert_array_equal(where.numpy(), found.boxes[picture, : len(best)])
        np.testing.assert_array_equal(best.numpy(), found.scores[picture, : len(best)])
        np.testing.assert_array_equal(classes.numpy(), found.classes[picture, : len(best)])


def test_floors(scripts: dict[str, ModuleType]) -> None:
    """By hand: dla34-bifpn-p3 has 6144 + 1536 + 384 cells, and pools 128 x 49 bins."""
    cases = {(case.kernel, case.shape): case for case in scripts["cuda_cases"].find_cases()}
    roi = cases["PyramidRoIAlign", "dla34-bifpn-p3, fp32: 128 boxes, 160 channels"]
    assert roi.megabytes == pytest.approx((4 * 160 * (8064 + 6272) + 16 * 128) / 1e6)
    assert roi.floor_us("H100") == pytest.approx(roi.megabytes / 3350 * 1e3)
    tower = cases["DeformConv", "tower, P3, fp32: 256 to 256"]
    assert tower.gigaflops == pytest.approx(2 * 13600 * 256 * 256 * 9 / 1e9)
    assert tower.floor_us("Titan RTX") == pytest.approx(tower.gigaflops / 16.3 * 1e3)
    half = cases["DeformConv", "tower, P3, fp16: 256 to 256"]
    assert half.floor_us("H100") == pytest.approx(half.gigaflops / 989 * 1e3)
    assert ("ProposalNMS", "r50-fpn: 3134 boxes to 256") in cases
    classed = cases["ProposalNMS", "faster-rcnn-r50-fpn: 4663 boxes of 5 classes to 1000"]
    assert classed.megabytes == pytest.approx((16 + 4 + 4) * (4663 + 1000) / 1e6)
    own = cases["DetectionNMS", "faster-rcnn-r50-fpn: 1000 x 80 to 100, boxes of each class"]
    assert own.megabytes == pytest.approx((4 * 1000 * 80 + 16 * 100 + 24 * 100) / 1e6)


def test_cases_are_the_presets(scripts: dict[str, ModuleType]) -> None:
    """What the shapes say of a preset is what it has."""
    from cn2.trainer.presets import PRESETS

    modules = scripts["cuda_cases"]
    cases = dict.fromkeys((*modules.PROPOSING, *modules.DETECTING))
    assert [*cases] == [*modules.MODELS, modules.ONE_STAGE, modules.FASTER, modules.LVIS]
    for model in cases:
        config = PRESETS[model.name]().model
        first, second = config.first_stage, config.second_stage
        kept = first.test_filter
        assert (model.pre_nms, model.proposals) == (kept.pre_nms, kept.post_nms)
        assert kept.nms_iou == model.proposal_iou
        assert tuple(2**level for level in config.neck.levels) == model.strides
        assert config.neck.channels == model.channels
        limits = config.limits
        assert model.detections == limits.detections
        if second is None:  # its suppression is ProposalNMS, which gives the detections
            assert model.groups == model.per_cell == model.classes == 80
            continue
        within_levels = getattr(first, "suppress_within_levels", False)
        assert model.groups == (len(model.strides) if within_levels else 0)
        assert model.per_cell == (len(first.anchors.height_per_width) if within_levels else 1)
        assert model.own_boxes == second.per_class_boxes
        assert (second.canonical_size, second.sampling_ratio) == (
            model.canonical_size,
            model.sampling_ratio,
        )
        assert (second.score_threshold, second.nms_iou, second.detections) == (
            model.score_threshold,
            model.detection_iou,
            model.detections,
        )


def test_the_page_has_the_table(scripts: dict[str, ModuleType]) -> None:
    cases = scripts["cuda_cases"]
    page = (ROOT / "docs" / "kernels.md").read_text()
    begin, end = (page.index(mark) for mark in cases.MARKS)
    assert page[begin + len(cases.MARKS[0]) : end].strip() == cases.floor_table()
