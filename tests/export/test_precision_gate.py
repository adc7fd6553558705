"""The gate of fp16 exports: what it counts, lets pass, and keeps from being written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cn2.export import onnx_file, precision_gate
from cn2.export.agreement import Found
from cn2.export.precision import PrecisionError
from cn2.export.precision_emulation import EmulatedBackend
from cn2.export.precision_gate import Budget, Change, PrecisionReport, compare, require_within
from cn2.runtime.manifest import Manifest
from cn2.trainer.checkpoint import save_checkpoint
from command_line import Ran, cn2
from exported import Exported, canvases, export_to, lively_detector
from factories import picture, tiny_config

TOWER = "first_stage.head.tower.0.weight"  # of the convolution that the overflow is planted in
BUDGET = Budget(matched=0.99, score=0.02)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A detector that finds the same in fp32, but whose tower has values of 1e6.

    GroupNorm divides by them again; weights and biases themselves are within fp16.
    """
    config = tiny_config()
    model = lively_detector(config)
    conv = model.first_stage.head.tower[0]
    with torch.no_grad():
        factor = 6e4 / conv.weight.abs().max()
        conv.weight.mul_(factor)
        conv.bias.mul_(factor)
    return export_to(tmp_path_factory.mktemp("planted"), model, config, "fused", "fp16")


def export_fp16(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    exported: Exported,
    *words: str,
) -> Ran:
    """`cn2 export --precision fp16` of a detector, whose file is there already."""

    def copied(_model: object, _config: object, path: Path, **options: Any) -> Manifest:
        assert options["precision"] == "fp16"
        shutil.copy(exported.path, path)
        return exported.backend.manifest

    monkeypatch.setattr(onnx_file, "export_onnx", copied)
    monkeypatch.chdir(folder)
    origin = {"license": "CC0-1.0", "provenance": ""}
    save_checkpoint(Path("a.safetensors"), exported.model, exported.config, **origin)
    Path("pictures").mkdir()
    for seed, size in enumerate([(48, 64), (90, 50), (64, 96)]):
        Image.fromarray(picture(*size, seed)).save(f"pictures/{seed}.png")
    command = ["export", "a.safetensors", "-o", "a.onnx", "--precision", "fp16"]
    return cn2(capfd, *command, "--verify", "pictures", *words)


def test_a_planted_overflow_is_not_written(
    planted: Exported,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(tmp_path / "a.onnx").write_bytes(b"an older one")
    ran = export_fp16(capfd, monkeypatch, tmp_path, planted)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert f"expected values up to 65504, got larger ones in Conv {TOWER} on 0.png" in ran.errors[0]
    assert (tmp_path / "a.onnx").read_bytes() == b"an older one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "a.safetensors", "pictures"]


def test_onnxruntime_alone_would_not_have_noticed(planted: Exported) -> None:
    """It computes the chain in fp32, and finds what torch finds; the emulation does not."""
    images, sizes = canvases(1, 96, 160, seed=4)
    expected, plain = planted.torch_run(images, sizes), planted.backend.infer(images, sizes)
    count = int(expected.num_detections[0])
    assert count >= 1
    np.testing.assert_allclose(plain.scores[0, :count], expected.scores[0, :count], atol=0.02)
    emulated = EmulatedBackend(planted.path)
    found = emulated.infer(images, sizes)
    assert int(found.num_detections[0]) != count
    beyond = [
        layer for layer, peak in zip(emulated.layers, emulated.peaks, strict=True) if peak > 65504
    ]
    assert beyond[0] == f"Conv {TOWER}"


def test_within_the_budget(
    tiny_fp16: Exported,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["--budget-matched", "0.9", "--budget-score", "0.05"]
    ran = export_fp16(capfd, monkeypatch, tmp_path, tiny_fp16, *words)
    assert (ran.code, ran.errors) == (0, [])
    assert "(budget 90.00%)" in ran.out
    assert "within 0.05" in ran.out
    worst = ran.out.partition("worst pictures")[2]
    assert sorted(f"{n}.png" in worst for n in range(3)) == [True] * 3
    assert Path("a.onnx").read_bytes() == tiny_fp16.path.read_bytes()
    monkeypatch.setattr("cn2.runtime.info.backends_for", lambda _suffix: [])
    info = " ".join(cn2(capfd, "info", "a.onnx").out.split())
    assert " precision fp16 " in info


def test_beyond_the_budget(
    tiny_fp16: Exported,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = export_fp16(capfd, monkeypatch, tmp_path, tiny_fp16, "--budget-score", "0")
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "matched at IoU 0.9 and scores within 0, got" in ran.errors[0]
    assert "no file was kept" in ran.errors[0]
    table = "\n".join(ran.notes)
    assert "worst pictures" in table
    assert "2.png" in table
    assert not Path("a.onnx").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--budget-score", "0.1"],
            "--budget-score: expected with --precision fp16 alone, got fp32",
        ),
        (["--precision", "fp16", "--budget-matched", "99"], "expected numbers from 0 to 1, got 99"),
    ],
)
def test_budgets_that_cannot_be(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    ran = cn2(capfd, "export", "a.safetensors", "-o", tmp_path / "a.onnx", *words)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert message in ran.errors[0]


# --- what is counted


def found(*rows: tuple[float, float, int]) -> Found:
    """Detections by left side, score and class, of 10 x 10 pixels each."""
    left = np.array([row[0] for row in rows], np.float32)
    boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1)
    scores = np.array([row[1] for row in rows], np.float32)
    return Found(boxes=boxes, scores=scores, classes=np.array([row[2] for row in rows], np.int32))


def compared(single: Found, half: Found, most: int = 100) -> Change:
    return compare("a", single, half, 0.05, most, BUDGET)


def test_what_both_find() -> None:
    single = found((0, 0.9, 1), (50, 0.5, 2))
    half = found((0.25, 0.89, 1), (50, 0.505, 2))
    change = compared(single, half)
    assert (change.counted, change.unmatched, change.matched) == (4, 0, 1.0)
    assert change.score == pytest.approx(0.01)
    assert change.box_px == 0.25
    assert change.within(BUDGET)


@pytest.mark.parametrize(
    ("single", "half"),
    [
        ([(0, 0.9, 1), (50, 0.5, 2)], [(0, 0.9, 1)]),  # lost
        ([(0, 0.9, 1)], [(0, 0.9, 1), (50, 0.5, 2)]),  # added
        ([(0, 0.9, 1), (50, 0.5, 2)], [(0, 0.9, 1), (50, 0.069, 2)]),  # another score
    ],
)
def test_what_is_beyond(single: list[Any], half: list[Any]) -> None:
    change = compared(found(*single), found(*half))
    assert change.unmatched == (2 if len(single) == len(half) else 1)
    assert not change.within(BUDGET)


def test_another_class_or_place_is_another_object() -> None:
    for other in ((0, 0.9, 2), (2, 0.9, 1)):
        change = compared(found((0, 0.9, 1)), found(other))
        assert (change.counted, change.unmatched, change.matched) == (2, 2, 0.0)


def test_what_may_have_slipped_below_the_threshold_does_not_count() -> None:
    change = compared(found((0, 0.9, 1), (50, 0.069, 2)), found((0, 0.9, 1)))
    assert (change.counted, change.unmatched) == (2, 0)


def test_what_may_have_slipped_off_the_list_does_not_count() -> None:
    single, half = found((0, 0.9, 1), (50, 0.51, 2)), found((0, 0.9, 1), (80, 0.5, 2))
    assert compared(single, half, most=2).unmatched == 0
    assert compared(single, half, most=3).unmatched == 2


def test_nothing_found_is_no_change() -> None:
    change = compared(found(), found())
    assert (change.counted, change.matched) == (0, 1.0)
    assert change.within(BUDGET)


def test_a_gate_that_compared_nothing_is_closed() -> None:
    nothing = Change(name="a", counted=0, unmatched=0, score=0.0, box_px=0.0)
    report = PrecisionReport(score_threshold=0.01, pictures=[nothing, nothing])
    with pytest.raises(PrecisionError, match=r"got none on 2 pictures at score > 0\.01"):
        require_within(report, BUDGET)


@pytest.mark.parametrize(
    ("own", "thresholds", "matched"),
    [
        ((4, 2), ["own"], 0.5),  # few, and beyond the budget: that is not made good below
        ((4, 0), ["own", "lowest"], 1.0),  # few, and the same
        ((40, 0), ["own"], 1.0),  # enough
    ],
)
def test_what_few_detections_say_is_kept(
    tiny_fp16: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: tuple[int, int],
    thresholds: list[str],
    matched: float,
) -> None:
    manifest = tiny_fp16.backend.manifest
    names = {manifest.score_threshold: "own", manifest.lowest_score_threshold: "lowest"}
    asked: list[str] = []

    def counted(name: str, _single: Any, _half: Any, threshold: float, *_: Any) -> Change:
        asked.append(names[threshold])
        counted, unmatched = own if asked[-1] == "own" else (400, 0)
        return Change(name=name, counted=counted, unmatched=unmatched, score=0.0, box_px=0.0)

    monkeypatch.setattr(precision_gate, "compare", counted)
    Image.fromarray(picture(48, 64, 0)).save(tmp_path / "a.png")
    report = precision_gate.compare_precision(
        tiny_fp16.path, tiny_fp16.model, tiny_fp16.config, [tmp_path / "a.png"], BUDGET
    )
    assert (asked, report.total.matched) == (thresholds, matched)


def test_the_worst_come_first_and_the_total_decides() -> None:
    def of(name: str, unmatched: int, score: float = 0.0) -> Change:
        return Change(name=name, counted=100, unmatched=unmatched, score=score, box_px=0.0)

    report = PrecisionReport(
        score_threshold=0.05, pictures=[of("a", 0), of("b", 2), of("c", 0, 0.01)]
    )
    assert [p.name for p in report.worst()] == ["b", "c", "a"]
    require_within(report, BUDGET)  # 2 of 300
    report.pictures.append(of("d", 3))
    with pytest.raises(Exception, match=r"got 98.75%, worst on d"):
        require_within(report, BUDGET)
