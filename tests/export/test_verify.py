"""Verification: a faithful file passes on real pictures, an unfaithful one does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.ops
from PIL import Image

from cn2.export import verify as verification
from cn2.export.agreement import MARGIN, SCORE_TOLERANCE, Found
from cn2.export.onnx_file import export_onnx
from cn2.export.reference import Reference, undecided_candidates
from cn2.export.verify import (
    VerificationError,
    bundled_pictures,
    pictures_in,
    require_agreement,
    run_file,
    verify,
)
from cn2.runtime.backends.base import Backend
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.errors import PictureError
from cn2.runtime.preprocess import PlacedPicture, place_picture
from cn2.trainer.structures import Proposals
from exported import Exported, lively_detector
from factories import picture

SIZES = ((48, 64), (64, 48), (50, 50), (30, 90), (96, 96))  # five aspect ratios


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Five pictures of other aspect ratios."""
    for seed, (height, width) in enumerate(SIZES):
        Image.fromarray(picture(height, width, seed)).save(tmp_path / f"{seed}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return pictures_in(tmp_path)


def test_a_faithful_file_agrees(tiny: Exported, pictures: list[Path]) -> None:
    told: list[str] = []
    result = verify(tiny.path, tiny.model, tiny.config, pictures, told.append)
    require_agreement(result)
    assert result.agreement.pictures == 5
    assert result.agreement.detections >= 20
    assert result.agreement.unexplained == []
    assert told[-1] == "verified 5 of 5 pictures"
    rows = dict(result.rows())
    assert rows["pictures"] == "5"
    assert rows["unexplained"] == "0"


def test_a_file_of_other_weights_does_not_agree(tiny: Exported, pictures: list[Path]) -> None:
    other = lively_detector(tiny.config, seed=1)
    result = verify(tiny.path, other, tiny.config, pictures[:1])
    assert not result.agreement.holds
    assert result.rounded == 0  # float64 was asked and did not help
    with pytest.raises(VerificationError, match=r"no file was kept") as caught:
        require_agreement(result)
    assert "0.png: " in str(caught.value)


def test_few_detections_are_compared_at_the_lowest_threshold(
    tiny: Exported, pictures: list[Path]
) -> None:
    blank = pictures[0].with_name("blank.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(blank)
    result = verify(tiny.path, tiny.model, tiny.config, [blank])
    assert result.agreement.holds
    if result.agreement.detections < 20:
        assert result.score_threshold == 0.0


class Noisy(Reference):
    """Scores in float32 off by `own`, in one direction; float64 as it is."""

    own = 0.0

    def run(self, picture: PlacedPicture, score_threshold: float) -> Found:
        exact = self.run_exact(picture, score_threshold)
        return replace(exact, scores=exact.scores + self.own)


@pytest.mark.parametrize(
    ("own", "rounded"),
    [
        (0.0, 0),  # no rounding of its own: the limit holds
        (0.9e-4, 0),
        (3e-4, 5),  # beyond the limit, but so is torch itself
    ],
)
def test_torchs_own_rounding_widens_the_limit(
    tiny: Exported,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    own: float,
    rounded: int,
) -> None:
    monkeypatch.setattr(Noisy, "own", own)
    monkeypatch.setattr(verification, "Reference", Noisy)
    result = verify(tiny.path, tiny.model, tiny.config, pictures)
    require_agreement(result)
    assert result.rounded == rounded
    assert result.own_score == pytest.approx(own if rounded else 0.0, rel=0.01)
    assert ("beyond a limit" in dict(result.rows())) == bool(rounded)


def test_an_error_of_the_file_is_not_taken_for_rounding(
    tiny: Exported, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both float32 and float64 of torch say the same; the file is off by twice the limit."""

    def wrong(backend: Backend, picture: PlacedPicture, threshold: float | None) -> Found:
        found = run_file(backend, picture, threshold)
        return replace(found, scores=found.scores + 2 * SCORE_TOLERANCE)

    monkeypatch.setattr(verification, "run_file", wrong)
    result = verify(tiny.path, tiny.model, tiny.config, pictures)
    with pytest.raises(VerificationError, match=r"0\.png: a score differs by 0\.0002, limit"):
        require_agreement(result)
    assert result.rounded == 0


def test_pictures_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="expected a folder with pictures"):
        pictures_in(tmp_path)
    with pytest.raises(PictureError, match="found none"):
        pictures_in(tmp_path / "none")


def test_the_package_brings_pictures() -> None:
    assert len(bundled_pictures()) >= 4


def test_float64_is_close_to_float32(tiny: Exported) -> None:
    reference = Reference(tiny.model)
    rule = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear")
    place = place_picture(picture(48, 64), rule)
    single, exact = reference.run(place, 0.05), reference.run_exact(place, 0.05)
    assert exact.boxes.dtype == np.float64
    assert len(single) == len(exact) > 0
    np.testing.assert_allclose(single.boxes, exact.boxes, atol=0.01)
    np.testing.assert_allclose(single.scores, exact.scores, atol=1e-4)
    assert next(tiny.model.parameters()).dtype == torch.float32  # the detector is as it was


def test_open_proposals_come_through_the_second_stage(tiny: Exported) -> None:
    """With everything undecided they are what the detector itself would refine."""
    rule = CanvasRule(short_edge=64, long_edge=96, divisor=32, interpolation="linear")
    place = place_picture(picture(48, 64), rule)
    reference = Reference(tiny.model)
    proposals = reference.open_proposals(place)
    assert proposals.boxes.shape[1] == 4
    assert proposals.scores.shape == (len(proposals.boxes), 3)


@pytest.mark.parametrize("size", [None, (384, 512)])
def test_nano_agrees_on_coco_pictures_of_many_shapes(
    nano: Exported, shared: Path, tmp_path: Path, size: tuple[int, int] | None
) -> None:
    path = nano.path
    if size is not None:
        path = tmp_path / "fixed.onnx"
        export_onnx(nano.model, nano.config, path, size=size)
    names = ("009", "036", "025", "072", "078", "143", "415", "428")
    folder = shared / "data" / "coco128" / "images"
    pictures = [folder / f"000000000{name}.jpg" for name in names]
    result = verify(path, nano.model, nano.config, pictures)
    require_agreement(result)
    assert (result.agreement.pictures, result.score_threshold) == (8, 0.05)
    assert result.agreement.detections >= 500


# --- undecided candidates


def candidates(boxes: list[list[float]], objectness: list[float]) -> Proposals:
    return Proposals(torch.tensor([boxes]), torch.tensor([objectness]))


def stripe(width: float, at: float = 0.0) -> list[float]:
    return [at, 0.0, at + width, 10.0]


def test_clear_candidates_are_decided() -> None:
    boxes = [stripe(100), stripe(50), stripe(100, 500), stripe(95, 500)]
    rows = undecided_candidates(candidates(boxes, [0.9, 0.8, 0.7, 0.6]), 0.9, 2)
    assert rows.tolist() == []


def test_padding_is_no_candidate() -> None:
    boxes = [stripe(100), [0.0] * 4, [0.0] * 4]
    assert undecided_candidates(candidates(boxes, [0.9, 0.0, 0.0]), 0.9, 1).tolist() == []


def test_an_overlap_on_the_threshold_opens_the_worse_box_and_what_it_suppresses() -> None:
    # 1 is undecided; 2 is suppressed by 1 (0.94) but not by 0 (0.85); 3 has nothing to do with it
    boxes = [stripe(100), stripe(90), stripe(85), stripe(100, 500)]
    rows = undecided_candidates(candidates(boxes, [0.9, 0.8, 0.7, 0.6]), 0.9, 10)
    assert rows.tolist() == [1, 2]


def test_equal_scores_at_the_cut_open_both() -> None:
    boxes = [stripe(50, 200.0 * i) for i in range(4)]
    rows = undecided_candidates(candidates(boxes, [0.9, 0.5, 0.5 - MARGIN / 2, 0.1]), 0.9, 2)
    assert rows.tolist() == [1, 2]


def test_an_open_overlap_moves_the_cut() -> None:
    boxes = [stripe(100), stripe(90), *(stripe(50, 200.0 + 100 * i) for i in range(4))]
    rows = undecided_candidates(candidates(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.1]), 0.9, 3)
    assert rows.tolist()[0] == 1
    assert {3, 4} <= set(rows.tolist())  # with and without 1, the third place is theirs


def test_boxes_of_other_levels_open_nothing() -> None:
    """As above, but where boxes of other levels do not suppress, 1 is decided."""
    boxes = [stripe(100), stripe(90), stripe(85), stripe(100, 500)]
    some = candidates(boxes, [0.9, 0.8, 0.7, 0.6])
    assert undecided_candidates(some, 0.9, 10, torch.tensor([[0, 1, 0, 0]])).tolist() == []
    assert undecided_candidates(some, 0.9, 10, torch.tensor([[0, 0, 1, 1]])).tolist() == [1]


def test_undecided_candidates_against_both_decisions() -> None:
    """Whatever lies between two suppressions that differ by the margin is undecided."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(0, 400, (300, 1), generator=generator).float() * 2
    width = torch.randint(3, 9, (300, 1), generator=generator).float() * 4
    zeros, tens = torch.zeros(300, 1), torch.full((300, 1), 10.0)
    boxes = torch.cat([start, zeros, start + width, tens], dim=1)
    scores = torch.sort(torch.rand(300, generator=generator), descending=True).values
    iou, count = 0.75, 200  # many of these overlap by exactly 3/4
    low, high = (
        set(torchvision.ops.nms(boxes, scores, iou + change)[:count].tolist())
        for change in (-MARGIN / 2, MARGIN / 2)
    )
    rows = undecided_candidates(Proposals(boxes[None], scores[None]), iou, count)
    assert low != high
    assert low ^ high <= set(rows.tolist())
