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
    with pytest.raises(SystemExit, match="2 kernels: expected what the CPU gives"):
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
        {"what": "ProposalNMS, tiny, batch 1", "failed": "an illegal address"}
    ]
    assert {"DetectionNMS", "DeformConv", "preprocess"} <= {row.get("kernel") for row in left}
    with pytest.raises(SystemExit, match="2 kernels"):
        run_dry(built, tmp_path)
    assert len(json.loads((tmp_path / "dry.json").read_text())["failures"]) == 2


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
    boxes, scores = inputs.make_candidates(rng, model, 2)
    proposals = inputs.suppress_proposals(kernels, model, boxes, scores)
    for theirs, one in zip(
        opponents.proposal_nms(model, boxes, scores)(), proposals.boxes, strict=True
    ):
        np.testing.assert_array_equal(theirs.numpy(), one[: len(theirs)])
    boxes, scores = inputs.make_scores(rng, model, 2)
    found = inputs.suppress_detections(kernels, model, boxes, scores)
    results = opponents.detection_nms(model, boxes, scores)()
    for picture, (_, best, classes) in enumerate(results):
        assert len(best) == found.counts[picture] > 0
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


def test_cases_are_the_presets(scripts: dict[str, ModuleType]) -> None:
    """What the shapes say of a preset is what it has."""
    from cn2.trainer.presets import PRESETS

    modules = scripts["cuda_cases"]
    for model in (*modules.MODELS, modules.LVIS):
        config = PRESETS[model.name]().model
        first, second = config.first_stage, config.second_stage
        kept = first.test_filter
        assert (model.pre_nms, model.proposals) == (kept.pre_nms, kept.post_nms)
        assert kept.nms_iou == 0.9
        assert tuple(2**level for level in second.levels) == model.strides
        assert config.neck.channels == model.channels
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
