"""Dense first stages as a whole: boxes and scores of heads, their losses, against slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cn2.trainer.build_first_stage import (
    build_class_stage,
    build_first_stage_losses,
    build_proposal_stage,
)
from cn2.trainer.first_stage.retinanet import RetinaNetHead
from cn2.trainer.first_stage.rpn import RPNHead
from cn2.trainer.first_stage_config import (
    ATSSConfig,
    FirstStage,
    GFLConfig,
    ProposalFilter,
    RetinaNetConfig,
    RPNConfig,
)
from cn2.trainer.structures import FirstStageOutput, Target
from reference import anchors_reference as loops
from reference.targets_reference import iou_of

LEVELS, SIZES, STRIDES = (3, 4, 5), ((8, 12), (4, 6), (2, 3)), (8, 16, 32)
OBJECTS = [(10.0, 8.0, 50.0, 44.0), (60.5, 20.0, 90.0, 63.0), (2.0, 2.0, 12.0, 12.0)]
RATIOS = (0.5, 1.0, 2.0)
Rows = list[list[float]]

RETINANET = RetinaNetConfig(convs=1)
ATSS = ATSSConfig(convs=1, norm_groups=2)
GFL = GFLConfig(convs=1, norm_groups=2)
DISTRIBUTIONS = GFLConfig(convs=1, norm_groups=2, largest_distance=5)
RPN = RPNConfig(sampled=None)
# Of each config the anchors and regression channels of a cell.
KINDS: list[tuple[FirstStage, int, int]] = [
    (RETINANET, 9, 4),
    (ATSS, 1, 4),
    (GFL, 1, 4),
    (DISTRIBUTIONS, 1, 24),
    (RPN, 3, 4),
]


def share(count: float) -> float:
    return max(count, 1.0)


def random_output(config: FirstStage, per_cell: int, sides: int, classes: int) -> FirstStageOutput:
    """Two pictures' predictions on the three levels."""
    generator = torch.Generator().manual_seed(3)

    def normal(channels: int) -> list[Tensor]:
        return [torch.randn(2, channels, *size, generator=generator) for size in SIZES]

    regressions = [0.5 * level for level in normal(per_cell * sides)]
    if config == GFL:
        regressions = [level.abs() * 6 for level in regressions]
    centerness = normal(1) if config.kind == "atss" else None
    return FirstStageOutput(normal(per_cell * classes), regressions, centerness)


def rows_of(levels: list[Tensor], picture: int, per_cell: int) -> Rows:
    """Channels of every place, in the order of places, by loops."""
    rows = []
    for level in levels:
        _, channels, height, width = level.shape
        each = channels // per_cell
        for row in range(height):
            for column in range(width):
                cell = level[picture, :, row, column].double().tolist()
                rows += [cell[a * each : (a + 1) * each] for a in range(per_cell)]
    return rows


def anchors_of(config: FirstStage) -> Rows:
    """The anchor of every place, a square for those that have none."""
    match config:
        case RetinaNetConfig():
            return loops.anchor_loops(SIZES, STRIDES, 4.0, 3, RATIOS)
        case RPNConfig():
            return loops.anchor_loops(SIZES, STRIDES, 8.0, 1, RATIOS)
        case _:
            return loops.anchor_loops(SIZES, STRIDES, 8.0, 1, (1.0,))


def boxes_of(config: FirstStage, regressions: Rows) -> Rows:
    """The boxes of all places."""
    found = []
    for values, anchor in zip(regressions, anchors_of(config), strict=True):
        if isinstance(config, GFLConfig):
            stride = (anchor[2] - anchor[0]) / 8
            x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
            ltrb = values
            if config.largest_distance is not None:
                ltrb = loops.mean_distance_loops(values)
            left, top, right, bottom = (side * stride for side in ltrb)
            found.append([x - left, y - top, x + right, y + bottom])
        else:
            weights = (10.0, 10.0, 5.0, 5.0) if isinstance(config, ATSSConfig) else (1.0,) * 4
            found.append(loops.delta_loops(anchor, values, weights))
    return found


def likelihoods(output: FirstStageOutput, picture: int, per_cell: int) -> Rows:
    """Of each class, of all places."""
    rows = [[_sigmoid(x) for x in row] for row in rows_of(output.logits, picture, per_cell)]
    if output.centerness is None:
        return rows
    central = rows_of(output.centerness, picture, 1)
    return [[p * _sigmoid(c[0]) for p in row] for row, c in zip(rows, central, strict=True)]


@pytest.mark.parametrize(("config", "per_cell", "sides"), KINDS)
def test_proposals_equal_the_loops(config: FirstStage, per_cell: int, sides: int) -> None:
    output = random_output(config, per_cell, sides, classes=1)
    stage = build_proposal_stage(config, LEVELS, 8)
    everything = ProposalFilter(pre_nms=5000, post_nms=1200, nms_iou=1.0)
    found = stage.propose(output, everything)
    for picture in range(2):
        boxes = boxes_of(config, rows_of(output.regressions, picture, per_cell))
        scores = [row[0] for row in likelihoods(output, picture, per_cell)]
        order = sorted(range(len(scores)), key=lambda k: -scores[k])[:1200]
        expected = torch.tensor([boxes[k] for k in order], dtype=torch.float32)
        roots = torch.tensor([math.sqrt(scores[k]) for k in order])
        count = len(order)
        torch.testing.assert_close(found.boxes[picture, :count], expected, atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(found.objectness[picture, :count], roots)
        assert not found.objectness[picture, count:].any()


@pytest.mark.parametrize(("config", "per_cell", "sides"), KINDS[:4])
def test_candidates_of_a_one_stage_detector_equal_the_loops(
    config: FirstStage, per_cell: int, sides: int
) -> None:
    """The best ten pairs of place and class of each level."""
    output = random_output(config, per_cell, sides, classes=3)
    stage = build_class_stage(config, LEVELS, 8, 3)
    boxes, scores, classes = stage.candidates(output, 10, torch.tensor(0.05))
    offset = 0
    for level, (height, width) in enumerate(SIZES):
        places = height * width * per_cell
        own = likelihoods(output, 1, per_cell)[offset : offset + places]
        decoded = boxes_of(config, rows_of(output.regressions, 1, per_cell))[
            offset : offset + places
        ]
        pairs = [(-p, place, c) for place, row in enumerate(own) for c, p in enumerate(row)]
        best = sorted(pairs)[:10]
        rows = slice(level * 10, level * 10 + 10)
        assert classes[1, rows].tolist() == [c for _, _, c in best]
        assert scores[1, rows].tolist() == pytest.approx([-p for p, _, _ in best], rel=1e-5)
        expected = torch.tensor([decoded[place] for _, place, _ in best])
        torch.testing.assert_close(boxes[1, rows], expected, atol=1e-3, rtol=1e-5)
        offset += places


def test_boxes_of_other_levels_do_not_suppress_behind_an_rpn() -> None:
    """The same box on two levels: RPN keeps it on each, the others once."""
    logits = [torch.full((1, 3, *size), -9.0) for size in SIZES[:2]]
    deltas = [torch.zeros(1, 12, *size) for size in SIZES[:2]]
    logits[0][0, 1, 3, 3] = 2.0  # square anchors of 64 and 128 pixels
    logits[1][0, 1, 1, 1] = 1.0
    deltas[1][0, 4:8, 1, 1] = torch.tensor([4 / 128, 4 / 128, -math.log(2), -math.log(2)])
    output = FirstStageOutput(logits, deltas)
    keep = ProposalFilter(pre_nms=50, post_nms=2, nms_iou=0.7)
    apart = build_proposal_stage(RPN, LEVELS[:2], 8).propose(output, keep)
    torch.testing.assert_close(apart.boxes[0, 0], apart.boxes[0, 1])
    assert apart.objectness[0].tolist() == pytest.approx([_sigmoid(2) ** 0.5, _sigmoid(1) ** 0.5])
    together = RPNConfig(suppress_within_levels=False)
    joined = build_proposal_stage(together, LEVELS[:2], 8).propose(output, keep)
    assert joined.objectness[0, 1] < 0.1


def targets_of(classes: int) -> list[Target]:
    """Two pictures: three objects, and one twice."""
    labels = torch.arange(3) % classes
    return [
        Target(boxes=torch.tensor(OBJECTS), classes=labels),
        Target(boxes=torch.tensor(OBJECTS[:1] * 2), classes=labels[:2]),
    ]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(
    ("config", "per_cell"),
    [(RETINANET, 9), (RPN, 3), (RPNConfig(sampled=None, loss="focal"), 3)],
)
def test_losses_of_anchors_equal_the_loops(
    config: RetinaNetConfig | RPNConfig, per_cell: int, classes: int
) -> None:
    output, targets = random_output(config, per_cell, 4, classes), targets_of(classes)
    found = build_first_stage_losses(config, share)(output, targets, STRIDES)
    anchors, positives = anchors_of(config), 0
    classification = regression = 0.0
    for picture, target in enumerate(targets):
        objects = target.boxes.tolist()
        kinds, owners = loops.threshold_loops(
            anchors, objects, config.positive_iou, config.negative_iou
        )
        logits = rows_of(output.logits, picture, per_cell)
        deltas = rows_of(output.regressions, picture, per_cell)
        for anchor, kind, owner, row, moves in zip(
            anchors, kinds, owners, logits, deltas, strict=True
        ):
            if kind == -1:
                continue
            wanted = [float(kind == 1 and c == target.classes[owner]) for c in range(classes)]
            if config.kind == "retinanet" or config.loss == "focal":
                classification += loops.focal_loops([row], [wanted], 0.25, 2.0)
            else:
                classification += sum(map(loops.entropy_loops, row, wanted))
            if kind == 1:
                positives += 1
                true = loops.wanted_deltas(anchor, objects[owner], (1.0,) * 4)
                regression += loops.smooth_l1_loops(moves, true, config.smooth_l1_beta)
    assert positives > 4
    assert found["anchors"].item() == pytest.approx(classification / positives, rel=1e-4)
    assert found["regression"].item() == pytest.approx(regression / positives, rel=1e-4)


def test_losses_of_drawn_anchors_are_over_all_of_them() -> None:
    """With every anchor at log 2, whichever are drawn."""
    zeros = FirstStageOutput(
        [torch.zeros(2, 3, *size) for size in SIZES], [torch.zeros(2, 12, *size) for size in SIZES]
    )
    targets = [Target(boxes=torch.zeros(0, 4), classes=torch.zeros(0, dtype=torch.int64))] * 2
    found = build_first_stage_losses(RPNConfig(sampled=20), share)(zeros, targets, STRIDES)
    assert found["anchors"].item() == pytest.approx(math.log(2))
    assert found["regression"] == 0


@pytest.mark.parametrize("classes", [1, 3])
def test_losses_of_atss_equal_the_loops(classes: int) -> None:
    output, targets = random_output(ATSS, 1, 4, classes), targets_of(classes)
    assert output.centerness is not None
    found = build_first_stage_losses(ATSS, share)(output, targets, STRIDES)
    focal = regression = central = weights = 0.0
    positives = 0
    for picture, target in enumerate(targets):
        objects = target.boxes.tolist()
        owners = loops.adaptive_loops(objects, SIZES, STRIDES, 8.0, 9)
        boxes = boxes_of(ATSS, rows_of(output.regressions, picture, 1))
        centerness = rows_of(output.centerness, picture, 1)
        for k, (owner, row) in enumerate(
            zip(owners, rows_of(output.logits, picture, 1), strict=True)
        ):
            wanted = [float(owner >= 0 and c == target.classes[owner]) for c in range(classes)]
            focal += loops.focal_loops([row], [wanted], 0.25, 2.0)
            if owner < 0:
                continue
            anchor = anchors_of(ATSS)[k]
            x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
            weight = loops.centerness_loops(x, y, objects[owner])
            regression += weight * loops.box_giou_loops(boxes[k], objects[owner])
            central += loops.entropy_loops(centerness[k][0], weight)
            weights += weight
            positives += 1
    assert positives > 4
    assert found["anchors"].item() == pytest.approx(focal / positives, rel=1e-4)
    assert found["regression"].item() == pytest.approx(2 * regression / weights, rel=1e-4)
    assert found["centerness"].item() == pytest.approx(central / positives, rel=1e-4)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("config", "sides"), [(GFL, 4), (DISTRIBUTIONS, 24)])
def test_losses_of_gfl_equal_the_loops(config: GFLConfig, sides: int, classes: int) -> None:
    output, targets = random_output(config, 1, sides, classes), targets_of(classes)
    found = build_first_stage_losses(config, share)(output, targets, STRIDES)
    quality = regression = distribution = weights = 0.0
    positives = 0
    for picture, target in enumerate(targets):
        objects = target.boxes.tolist()
        owners = loops.adaptive_loops(objects, SIZES, STRIDES, 8.0, 9)
        sides_of = rows_of(output.regressions, picture, 1)
        boxes = boxes_of(config, sides_of)
        for k, (owner, row) in enumerate(
            zip(owners, rows_of(output.logits, picture, 1), strict=True)
        ):
            wanted = [0.0] * classes
            if owner >= 0:
                wanted[int(target.classes[owner])] = iou_of(boxes[k], objects[owner])
                weight = max(map(_sigmoid, row))
                regression += weight * loops.box_giou_loops(boxes[k], objects[owner])
                anchor = anchors_of(config)[k]
                stride = (anchor[2] - anchor[0]) / 8
                x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
                x1, y1, x2, y2 = objects[owner]
                true = [side / stride for side in (x - x1, y - y1, x2 - x, y2 - y)]
                if config.largest_distance is not None:
                    distribution += weight * loops.distribution_loops(sides_of[k], true)
                weights += weight
                positives += 1
            quality += loops.quality_loops([row], [wanted], 2.0)
    assert positives > 4
    assert found["quality"].item() == pytest.approx(quality / positives, rel=1e-4)
    assert found["regression"].item() == pytest.approx(2 * regression / weights, rel=1e-4)
    if config.largest_distance is not None:
        expected = 0.25 * distribution / weights
        assert found["distribution"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("config", "per_cell", "sides"), KINDS)
@pytest.mark.parametrize(
    "objects",
    [
        [],
        [(5, 5, 5, 5)],  # no area
        [(5, 5, 5, 5), (10, 8, 50, 44)],
        [(0, 0, 0.01, 64), (-500, -500, 700, 700)],
        [OBJECTS[0]] * 200,
    ],
    ids=["none", "no area", "one without area", "sliver and huge", "crowd"],
)
def test_losses_are_finite_whatever_the_objects(
    config: FirstStage, per_cell: int, sides: int, objects: list[tuple[float, ...]]
) -> None:
    output = random_output(config, per_cell, sides, classes=3)
    for level in (*output.logits, *output.regressions):
        level.requires_grad_()
    boxes = torch.tensor(objects, dtype=torch.float32).reshape(-1, 4)
    target = Target(boxes=boxes, classes=torch.arange(len(boxes)) % 3)
    empty = Target(boxes=torch.zeros(0, 4), classes=torch.zeros(0, dtype=torch.int64))
    losses = build_first_stage_losses(config, share)(output, [target, empty], STRIDES)
    for loss in losses.values():
        assert loss.isfinite()
        assert loss >= 0
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for level in (*output.logits, *output.regressions):
        assert level.grad is not None
        assert level.grad.isfinite().all()


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("kind", ["retinanet", "rpn"])
def test_a_narrow_tower_passes_on_as_much_as_a_wide_one(kind: str) -> None:
    """Without normalisation nothing else makes up for the narrower sums."""
    strength = []
    for channels in (256, 48):
        torch.manual_seed(0)
        head: RetinaNetHead | RPNHead = (
            RetinaNetHead(channels, 1, 3, convs=4, merged=True, prior=0.01)
            if kind == "retinanet"
            else RPNHead(channels, 3, convs=4, prior=0.5)
        )
        with torch.no_grad():
            strength.append(head.tower(torch.randn(2, channels, 12, 12)).square().mean().sqrt())
    assert strength[1] == pytest.approx(strength[0], rel=0.5)
