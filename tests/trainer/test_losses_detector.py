"""The detector's losses as a whole: weights, normalisers, the cascade's boxes, empty batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cn2.trainer.boxes import encode_deltas
from cn2.trainer.build import build_detector
from cn2.trainer.detector import TwoStageDetector
from cn2.trainer.model_config import ModelConfig
from cn2.trainer.structures import FirstStageOutput, Proposals, Target
from cn2.trainer.training_losses import DetectorLosses
from factories import TINY_HEIGHT, TINY_WIDTH, tiny_config
from reference.losses_reference import cross_entropy_loops, delta_loops, focal_loops, giou_loops
from reference.targets_reference import heatmap_loops, objects_from

KEYS = {
    "heatmap_positive",
    "heatmap_negative",
    "regression",
    *(f"class_{k}" for k in range(3)),
    *(f"box_{k}" for k in range(3)),
}
Box = tuple[float, float, float, float]
OBJECTS: list[Box] = [(10, 8, 50, 44), (60.5, 20, 90, 63), (2, 2, 12, 12)]


def target(boxes: list[Box]) -> Target:
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(boxes=tensor, classes=torch.arange(len(boxes)) % 3)


def tiny_detector() -> TwoStageDetector:
    torch.manual_seed(0)
    return build_detector(tiny_config()).train()


def losses_of(
    detector: TwoStageDetector,
    targets: list[Target],
    model: ModelConfig | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The losses of random pictures, their RoIs drawn with the seed."""
    targets = [replace(target, seed=seed + k) for k, target in enumerate(targets)]
    shape = (len(targets), TINY_HEIGHT, TINY_WIDTH, 3)
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(9))
    sizes = torch.tensor([[TINY_HEIGHT - 3, TINY_WIDTH - 5]] * len(targets))
    place = next(detector.parameters()).device
    losses = DetectorLosses(model or tiny_config().model)
    return losses(detector, images.to(place, torch.uint8), sizes.to(place), targets)


@pytest.mark.parametrize(
    "pictures",
    [
        [OBJECTS, OBJECTS[:1]],
        [[], []],  # no object at all
        [[], OBJECTS],  # one picture without
        [[(5, 5, 5, 5)], [(0, 0, 0.01, 64)]],  # no area; a sliver on the border
        [[(0, 0, 96, 64)], [(-500, -500, 700, 700)]],  # the canvas; far larger
        [OBJECTS * 50, [OBJECTS[0]] * 200],  # crowds of equal boxes
    ],
)
def test_every_loss_is_finite_and_reaches_every_parameter(pictures: list[list[Box]]) -> None:
    detector = tiny_detector()
    losses = losses_of(detector, [target(boxes) for boxes in pictures])
    assert set(losses) == KEYS
    for loss in losses.values():
        assert loss.shape == ()
        assert loss >= 0
        assert loss.requires_grad
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_losses_without_objects_are_those_of_background() -> None:
    losses = losses_of(tiny_detector(), [target([])])
    for key in ("heatmap_positive", "regression", "box_0", "box_1", "box_2"):
        assert losses[key] == 0
    assert losses["heatmap_negative"] > 0
    assert losses["class_0"] > 0


def test_no_roi_at_all_is_legal() -> None:
    detector = tiny_detector()
    detector.first_stage.objectness_floor = 1.0
    losses = losses_of(detector, [target([]), target([])])
    for k in range(3):
        assert losses[f"class_{k}"] == 0
        assert losses[f"box_{k}"] == 0
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert detector.second_stage.stages[0].class_logits.weight.grad is not None


def test_a_seed_repeats_the_losses() -> None:
    targets = [target(OBJECTS), target(OBJECTS[1:])]
    first, again, other = (losses_of(tiny_detector(), targets, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in KEYS)
    assert any(not torch.equal(first[key], other[key]) for key in KEYS)


def test_the_order_of_objects_does_not_matter() -> None:
    boxes = target(OBJECTS)
    turned = Target(boxes=boxes.boxes.flip(0), classes=boxes.classes.flip(0))
    model = tiny_config().model
    every = replace(model, second_stage=replace(model.second_stage, rois_per_image=10_000))
    first, second = (losses_of(tiny_detector(), [some], every) for some in (boxes, turned))
    for key in KEYS:
        torch.testing.assert_close(first[key], second[key], rtol=1e-5, atol=1e-6)


def test_as_many_targets_as_pictures() -> None:
    images, sizes = torch.zeros(2, 64, 96, 3, dtype=torch.uint8), torch.tensor([[64, 96]] * 2)
    with pytest.raises(ValueError, match="expected 2, one per picture, got 1"):
        DetectorLosses(tiny_config().model)(tiny_detector(), images, sizes, [target([])])


def dense_output(batch: int) -> FirstStageOutput:
    """Random predictions on the three levels of the tiny canvas."""
    generator = torch.Generator().manual_seed(3)
    sizes = ((8, 12), (4, 6), (2, 3))
    return FirstStageOutput(
        [torch.randn(batch, 1, *size, generator=generator) for size in sizes],
        [3 * torch.rand(batch, 4, *size, generator=generator) for size in sizes],
    )


def test_first_stage_losses_equal_the_loops() -> None:
    """Over two pictures: sums over the batch, divided by the batch's counts, weighted."""
    model = tiny_config().model
    first = replace(model.first_stage, heatmap_weight=0.3, regression_weight=1.7)
    output, strides = dense_output(2), (8, 16, 32)
    boxes: list[list[Box]] = [[(28, 28, 44, 44)], []]  # one cell, level 0, ltrb 1 stride each
    found = DetectorLosses(replace(model, first_stage=first)).first_stage_losses(
        output, [target(some) for some in boxes], strides
    )
    sizes = [(level.shape[2], level.shape[3]) for level in output.logits]
    logits = [v for b in range(2) for level in output.logits for v in level[b].flatten().tolist()]
    heat = [v for some in boxes for v in heatmap_loops(objects_from(some), sizes, strides)]
    positive, negative = focal_loops(logits, heat, [4 * 12 + 4], 0.85)
    assert found["heatmap_positive"].item() == pytest.approx(0.3 * positive, rel=1e-5)
    assert found["heatmap_negative"].item() == pytest.approx(0.3 * negative, rel=1e-5)
    regression = giou_loops([output.regressions[0][0, :, 4, 4].tolist()], [[1.0] * 4])
    assert found["regression"].item() == pytest.approx(1.7 * regression, rel=1e-5)


def test_first_stage_losses_are_divided_by_the_number_of_positives() -> None:
    losses, output = DetectorLosses(tiny_config().model), dense_output(1)
    one = losses.first_stage_losses(output, [target([(28, 28, 44, 44)])], (8, 16, 32))
    twice = losses.first_stage_losses(output, [target([(28, 28, 44, 44)] * 2)], (8, 16, 32))
    assert twice["heatmap_positive"].item() == pytest.approx(one["heatmap_positive"].item())
    assert twice["heatmap_negative"].item() == pytest.approx(one["heatmap_negative"].item() / 2)
    assert twice["regression"].item() == pytest.approx(one["regression"].item())


class WatchedStage(nn.Module):
    """A cascade stage that answers the same for every RoI."""

    def __init__(self, deltas: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.1, 0.2, 0.3, 0.4]))
        self.answer = nn.Parameter(torch.tensor(deltas))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        nothing = 0 * pooled.sum()
        return self.logits.repeat(len(pooled), 1) + nothing, self.answer.repeat(len(pooled), 1)


class WatchedSecondStage(nn.Module):
    """Pools nothing and notes the boxes of each stage."""

    def __init__(self, deltas: list[list[float]]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(WatchedStage(some) for some in deltas)
        self.seen: list[list[Tensor]] = []

    def pool(self, features: list[Tensor], boxes: list[Tensor]) -> Tensor:
        self.seen.append(boxes)
        return features[0].expand(sum(len(some) for some in boxes), 1, 1, 1)


def cascade_losses(model: ModelConfig, *arguments: Any) -> dict[str, Tensor]:
    """The losses of a second stage on its own."""
    losses = DetectorLosses(model).cascade_losses
    assert losses is not None
    return losses(*arguments)


def test_cascade_losses_by_hand() -> None:
    """One picture, two RoIs; each stage moves both a tenth of their width to the right."""
    model = tiny_config().model
    detector = tiny_detector()
    # dx = 0.1 in box widths at every stage: the weights are 10, 20, 30.
    watched = WatchedSecondStage([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [3.0, 0, 0, 0]])
    detector.second_stage = watched  # type: ignore[assignment]
    truth = target([(10, 10, 50, 40)])
    rois = torch.tensor([[[60.0, 10, 100, 40], [0, 0, 0, 0]]])  # the second row is padding
    feature = torch.ones(1, 1, 1, 1, requires_grad=True)
    found = cascade_losses(
        model, detector.second_stage, [feature], Proposals(rois, torch.tensor([[0.5, 0.0]])),
        torch.tensor([[60, 90]]), [truth],
    )  # fmt: skip
    expected = [
        [[60, 10, 100, 40], [10, 10, 50, 40]],  # unclipped
        [[64, 10, 90, 40], [14, 10, 54, 40]],  # moved by 4, clipped at 90
        [[66.6, 10, 90, 40], [18, 10, 58, 40]],
    ]
    for boxes, rows in zip(watched.seen, expected, strict=True):
        torch.testing.assert_close(boxes[0], torch.tensor(rows, dtype=torch.float32))
        assert not boxes[0].requires_grad
    positive = [True, True, False]  # IoU 1, 0.82 of 0.7 wanted, 0.67 of 0.8 wanted
    for k, (rows, hit) in enumerate(zip(expected, positive, strict=True)):
        logits = [[0.1, 0.2, 0.3, 0.4]] * 2
        loss = cross_entropy_loops(logits, [3, 0 if hit else 3]) / 2  # RoIs
        assert found[f"class_{k}"].item() == pytest.approx(loss, rel=1e-5)
        weights = model.second_stage.delta_weights[k]
        wanted = encode_deltas(torch.tensor([rows[1]]).float(), truth.boxes, weights).tolist()
        answer = [watched.stages[k].answer.tolist()]
        loss = delta_loops(answer, wanted) / 2 if hit else 0.0  # RoIs
        assert found[f"box_{k}"].item() == pytest.approx(loss, rel=1e-5)


def test_box_losses_of_each_class_by_hand() -> None:
    """One object of class 1, found exactly: of its RoI the deltas of that class alone count."""
    second = replace(
        tiny_config().model.second_stage,
        ious=(0.5,),
        delta_weights=((10.0, 10.0, 5.0, 5.0),),
        per_class_boxes=True,
    )
    model = replace(tiny_config().model, second_stage=second)
    watched = WatchedSecondStage([[9.0] * 4 + [1.0, 2.0, 3.0, 4.0] + [9.0] * 4])
    truth = Target(boxes=torch.tensor([[10.0, 10, 50, 40]]), classes=torch.tensor([1]))
    rois = torch.tensor([[[60.0, 10, 100, 40]]])
    found = cascade_losses(
        model, watched, [torch.ones(1, 1, 1, 1, requires_grad=True)],
        Proposals(rois, torch.tensor([[0.5]])), torch.tensor([[60, 90]]), [truth],
    )  # fmt: skip
    assert found["box_0"].item() == pytest.approx(10 / 2)  # two RoIs
    found["box_0"].backward()  # type: ignore[no-untyped-call]
    gradient = watched.stages[0].answer.grad
    assert gradient.tolist() == [0.0] * 4 + [0.5] * 4 + [0.0] * 4


def test_boxes_that_become_empty_leave_the_cascade() -> None:
    """The first stage moves everything out of the picture by five widths."""
    detector = tiny_detector()
    watched = WatchedSecondStage([[50.0, 0, 0, 0], [0.0] * 4, [0.0] * 4])
    detector.second_stage = watched  # type: ignore[assignment]
    found = cascade_losses(
        tiny_config().model, detector.second_stage, [torch.ones(1, 1, 1, 1)],
        Proposals(torch.zeros(1, 1, 4), torch.zeros(1, 1)),
        torch.tensor([[64, 96]]), [target(OBJECTS)],
    )  # fmt: skip
    assert [len(boxes[0]) for boxes in watched.seen] == [3, 1, 1]  # (2, 2, 12, 12) alone ends
    assert found["class_1"].isfinite()


def test_the_gradient_into_pooled_features_is_a_third() -> None:
    gradients = []
    for stages in (1, 3):
        model = tiny_config().model
        second = replace(
            model.second_stage,
            ious=(0.5,) * stages,
            delta_weights=((10.0, 10.0, 5.0, 5.0),) * stages,
            rois_per_image=1000,
        )
        model = replace(model, second_stage=second)
        torch.manual_seed(0)
        detector = build_detector(replace(tiny_config(), model=model))
        torch.manual_seed(1)  # the cascades differ in what they drew; their stage 0 is the same
        features = [torch.randn(1, 8, 64 // s, 96 // s).requires_grad_() for s in (8, 16, 32)]
        truth = target(OBJECTS)
        proposals = Proposals(truth.boxes[None] + 1, torch.ones(1, 3))
        found = cascade_losses(
            model, detector.second_stage, features, proposals, torch.tensor([[64, 96]]), [truth]
        )
        (found["class_0"] + found["box_0"]).backward()
        gradients.append(features[0].grad)
    one, three = gradients
    assert one is not None
    assert three is not None
    assert one.norm() > 0
    torch.testing.assert_close(3 * three, one, rtol=1e-5, atol=1e-9)


def test_lowered_precision_changes_the_losses_little() -> None:
    """Convolutions in bf16, which has a step of 0.4 %; what the losses compute stays fp32."""
    full = losses_of(tiny_detector(), [target(OBJECTS), target([])])
    with torch.autocast("cpu", torch.bfloat16):
        lowered = losses_of(tiny_detector(), [target(OBJECTS), target([])])
    for key in KEYS:
        assert lowered[key].dtype == torch.float32
        torch.testing.assert_close(lowered[key], full[key], rtol=0.03, atol=0.01)


@pytest.mark.needs_cuda
def test_losses_on_a_gpu_are_those_of_the_cpu() -> None:
    pictures = [target(OBJECTS), target([]), target(OBJECTS[1:])]
    expected = losses_of(tiny_detector(), pictures)
    on_gpu = [Target(boxes=some.boxes.cuda(), classes=some.classes.cuda()) for some in pictures]
    found = losses_of(tiny_detector().cuda(), on_gpu)
    for key in KEYS:
        assert found[key].item() == pytest.approx(expected[key].item(), rel=1e-3)
