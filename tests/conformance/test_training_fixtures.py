"""Training targets, losses and gradients equal the official implementation's on its fixtures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cn2.trainer.boxes import box_ious
from cn2.trainer.convert.names import LEVEL_SCALE, our_name
from cn2.trainer.detector import AnyDetector, TwoStageDetector
from cn2.trainer.losses import HeatmapLoss, heatmap_focal_loss
from cn2.trainer.model_config import ModelConfig
from cn2.trainer.structures import Proposals, Target
from cn2.trainer.targets.cascade import BACKGROUND, match_boxes, training_proposals
from cn2.trainer.targets.centernet import FirstStageTargets, centernet_targets
from cn2.trainer.targets.federated import federated_classes
from cn2.trainer.targets.grid import PyramidGrid, pyramid_grid
from cn2.trainer.training_losses import DetectorLosses
from conformance.official import FIXTURES, HEAVY, Fixture, build_official, load_fixture

LOSS_RTOL = 1e-3  # the oracle differs from itself by 2e-5 with another thread count
GRADIENT_RTOL = 1e-2
# Norms this far below the largest one are rounding of sums that cancel; compared absolutely.
GRADIENT_FLOOR = 1e-5
# A fusion weight's gradient is one sum over a feature map that cancels to nearly nothing: with
# one thread float32 is off by 6.4e-5 of the largest norm, with two by 6e-6, float64 by 2e-7.
FUSION_FLOOR = 1e-4
FUSION_WEIGHTS = re.compile(r"neck\.cells\.\d+\.nodes\.\d+\.weights")
REGRESSION = {"regression": "loss_centernet_loc"}
HEATMAP = {
    "heatmap_positive": "loss_centernet_agn_pos",
    "heatmap_negative": "loss_centernet_agn_neg",
}
LOSS_NAMES = {  # by the number of stages behind the first one
    0: {
        **REGRESSION,
        "heatmap_positive": "loss_centernet_pos",
        "heatmap_negative": "loss_centernet_neg",
    },
    1: {**REGRESSION, **HEATMAP, "class_0": "loss_cls", "box_0": "loss_box_reg"},
    3: {
        **REGRESSION,
        **HEATMAP,
        **{f"class_{k}": f"loss_cls_stage{k}" for k in range(3)},
        **{f"box_{k}": f"loss_box_reg_stage{k}" for k in range(3)},
    },
}
# Both modes of the DLA models; frozen BatchNorm leaves the others with one.
MODES = [
    pytest.param((name, mode), marks=[pytest.mark.slow] if name in HEAVY else [])
    for name in FIXTURES
    for mode in (("train_bn_eval", "train") if "DLA" in name else ("train",))
]


@dataclass(frozen=True)
class Step:
    """One training step's forward and backward pass on the fixture's picture."""

    fixture: Fixture
    mode: str
    proposals: Proposals | None  # None: there is no second stage
    counted: list[list[int]]  # classes that the federated loss counts, of each stage
    positives: Tensor  # indices into the heat map, cell by cell, channel by channel
    losses: dict[str, Tensor]
    gradient_norms: dict[str, float]  # by our names; level scales one by one
    frozen: set[str]

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.fixture.facts[self.mode]
        return facts


def unsampled(model: ModelConfig) -> ModelConfig:
    """The config with so many RoIs that sampling keeps them all."""
    if model.second_stage is None:
        return model
    return replace(model, second_stage=replace(model.second_stage, rois_per_image=100_000))


def fixture_target(fixture: Fixture) -> Target:
    train = fixture.facts["train"]
    return Target(
        boxes=torch.tensor(train["gt_boxes"], dtype=torch.float32),
        classes=torch.tensor(train["gt_classes"]),
    )


def fixture_canvas(shared: Path, divisor: int) -> tuple[Tensor, Tensor]:
    """The original picture on its canvas, and its size."""
    with Image.open(shared / "conformance" / "image_shared.png") as image:
        picture = torch.from_numpy(np.array(image.convert("RGB")))
    height, width = picture.shape[:2]
    canvas = torch.zeros(
        1, -(-height // divisor) * divisor, -(-width // divisor) * divisor, 3, dtype=torch.uint8
    )
    canvas[0, :height, :width] = picture
    return canvas, torch.tensor([[height, width]])


def run_step(shared: Path, name: str, mode: str) -> Step:
    """Losses of the fixture's picture and the norms of their sum's gradients."""
    fixture = load_fixture(shared, name)
    detector = build_official(shared, fixture).train()
    if mode == "train_bn_eval":
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    # Pictures come as (B, H, W, 3), so the network runs in channels-last layout, where torch's CPU
    # BatchNorm sums in single precision: on one picture its statistics are off by 1e-4 and some
    # losses by 3 %. The official code runs in the other layout, which sums in double precision.
    detector.preprocess.register_forward_hook(lambda _, __, output: output.contiguous())
    seen: list[Proposals] = []
    counted: list[list[int]] = []
    positives: list[Tensor] = []
    canvas, sizes = fixture_canvas(shared, fixture.config.input.divisor)
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(detector, TwoStageDetector):
            watch(patch, detector.first_stage, "propose", seen.append)
        module = "cn2.trainer.cascade_losses"
        patch.setattr(f"{module}.draw_ranks", lambda weights, _: weights)  # as the fixture draws
        patch.setattr(f"{module}.federated_classes", noted(counted))

        def focal(logits: Tensor, targets: Tensor, some: Tensor, **settings: float) -> HeatmapLoss:
            positives.append(some)
            return heatmap_focal_loss(logits, targets, some, **settings)

        patch.setattr("cn2.trainer.first_stage_losses.centernet.heatmap_focal_loss", focal)
        losses = DetectorLosses(unsampled(fixture.config.model))(
            detector, canvas, sizes, [fixture_target(fixture)]
        )
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    norms, frozen = gradient_norms(detector)
    detached = {key: value.detach() for key, value in losses.items()}
    proposals = seen[0] if seen else None
    return Step(fixture, mode, proposals, counted, positives[0], detached, norms, frozen)


def watch(
    patch: pytest.MonkeyPatch, owner: nn.Module, name: str, see: Callable[[Any], None]
) -> None:
    """Show what a method returns."""
    method = getattr(owner, name)

    def watched(*arguments: Any) -> Any:
        output = method(*arguments)
        see(output)
        return output

    patch.setattr(owner, name, watched)


def noted(counted: list[list[int]]) -> Callable[..., Tensor]:
    """`federated_classes` that notes its answers."""

    def choose(*arguments: Any) -> Tensor:
        chosen = federated_classes(*arguments)
        counted.append(chosen.nonzero().flatten().tolist())
        return chosen

    return choose


def gradient_norms(detector: AnyDetector) -> tuple[dict[str, float], set[str]]:
    """L2 norm of each parameter's gradient, and the names of parameters without one."""
    norms, frozen = {}, set()
    for name, parameter in detector.named_parameters():
        if parameter.grad is None:
            frozen.add(name)
        elif name.endswith("level_scales"):
            values = parameter.grad.abs().tolist()
            norms |= {f"{name}.{level}": value for level, value in enumerate(values)}
        else:
            norms[name] = parameter.grad.norm().item()
    return norms, frozen


def our_gradient_name(official: str, levels: int) -> str:
    scale = LEVEL_SCALE.fullmatch(official)
    if scale:
        return f"first_stage.head.level_scales.{scale.group(1)}"
    return our_name(official, levels)


@pytest.fixture(scope="module", params=MODES, ids="-".join)
def step(request: pytest.FixtureRequest, shared: Path) -> Step:
    """One training step per fixture and mode; all tests of it look at the same."""
    return run_step(shared, *request.param)


@pytest.fixture(scope="module", params=FIXTURES)
def fixture(request: pytest.FixtureRequest, shared: Path) -> Fixture:
    """Each official model's numbers, for the targets, which need no weights."""
    return load_fixture(shared, request.param)


def fixture_grid(fixture: Fixture) -> PyramidGrid:
    divisor = fixture.config.input.divisor
    height, width = (-(-side // divisor) * divisor for side in (427, 640))
    strides = [2**level for level in fixture.config.model.neck.levels]
    sizes = [(-(-height // stride), -(-width // stride)) for stride in strides]
    return pyramid_grid(sizes, strides, torch.device("cpu"))


def targets_of(fixture: Fixture) -> FirstStageTargets:
    config, channels = (
        fixture.config.model.first_stage,
        fixture.facts["train"]["heatmap"]["shape"][1],
    )
    return centernet_targets([fixture_target(fixture)], fixture_grid(fixture), config, channels)


def test_heatmap_targets(fixture: Fixture) -> None:
    heatmap, facts = targets_of(fixture).heatmap, fixture.facts["train"]["heatmap"]
    cells, channels = facts["shape"]
    assert heatmap.shape == (cells * channels,)
    assert int((heatmap > 0).sum()) == facts["nonzero"]
    assert int((heatmap == 1).sum()) == facts["n_eq_1"]
    assert heatmap.double().sum().item() == pytest.approx(facts["sum"], rel=1e-7)
    cell, channel = fixture.arrays["train/hm_index"].T
    found = heatmap.reshape(cells, channels)[cell, channel].numpy()
    np.testing.assert_allclose(found, fixture.arrays["train/hm_value"], atol=1e-6, rtol=0)


def test_regression_targets(fixture: Fixture) -> None:
    found, arrays = targets_of(fixture), fixture.arrays
    order = np.argsort(arrays["train/reg_inds"])
    np.testing.assert_array_equal(found.regression.indices, arrays["train/reg_inds"][order])
    np.testing.assert_array_equal(found.regression.ltrb_strides, arrays["train/reg_targets"][order])


def test_positives(step: Step) -> None:
    """With the extra ones, which depend on what the detector predicts."""
    if step.mode != "train":
        pytest.skip("the fixture has no positives of this mode")
    arrays, channels = step.fixture.arrays, step.facts["heatmap"]["shape"][1]
    channel = arrays["train/pos_labels"] if channels > 1 else 0
    expected = arrays["train/pos_inds"] * channels + channel
    assert sorted(step.positives.tolist()) == sorted(expected.tolist())


def test_classes_of_the_federated_loss(step: Step) -> None:
    second = step.fixture.config.model.second_stage
    if second is None or second.federated is None:
        assert step.counted == []
        return
    background = len(step.fixture.config.class_names)
    expected = [step.fixture.arrays[f"train/fed_inds_call{k}"].tolist() for k in range(3)]
    assert [sorted(set(some) - {background}) for some in expected] == step.counted


def test_loss_terms(step: Step) -> None:
    expected, second = step.facts["losses"], step.fixture.config.model.second_stage
    names = LOSS_NAMES[0 if second is None else len(second.ious)]
    assert step.losses.keys() == names.keys()
    found = {official: step.losses[ours].item() for ours, official in names.items()}
    assert found == pytest.approx(expected, rel=LOSS_RTOL)
    total = torch.stack(list(step.losses.values())).sum().item()
    assert total == pytest.approx(step.facts["total"], rel=LOSS_RTOL)


def test_best_proposals(step: Step) -> None:
    if step.mode != "train" or step.proposals is None:
        pytest.skip("the fixture has no proposals, or not of this mode")
    expected = torch.from_numpy(step.fixture.arrays["train/proposals_top100"])
    objectness = step.proposals.objectness[0, :100]
    torch.testing.assert_close(objectness, expected[:, 4], atol=1e-3, rtol=0)
    overlap, partner = box_ious(expected[:, :4], step.proposals.boxes[0, :200]).max(dim=1)
    assert overlap.min() > 0.99
    matched = step.proposals.boxes[0, partner]
    torch.testing.assert_close(matched, expected[:, :4], atol=0.05, rtol=0)


def test_positives_of_the_first_cascade_stage(step: Step) -> None:
    second = step.fixture.config.model.second_stage
    if step.proposals is None or second is None:
        pytest.skip("no second stage")
    target = fixture_target(step.fixture)
    (boxes,) = training_proposals(step.proposals, [target])
    classes = match_boxes(boxes, target, second.ious[0]).classes
    positives = int((classes != BACKGROUND).sum())
    assert positives == step.facts["stage0_fg"]
    if "stage0_bg" in step.facts:
        assert len(classes) - positives == step.facts["stage0_bg"]
        assert len(classes) == step.facts["num_proposals"] + len(target.boxes)


def test_gradient_norms(step: Step) -> None:
    if step.mode == "train" and "DLA" in step.fixture.name:
        pytest.skip("batch statistics of one picture: the official norms themselves vary by 30 %")
    levels = len(step.fixture.config.model.neck.levels)
    norms = {
        our_gradient_name(name, levels): norm for name, norm in step.facts["grad_norm"].items()
    }
    trained = {name: norm for name, norm in norms.items() if name not in step.frozen}
    assert step.gradient_norms.keys() == trained.keys()
    largest = max(trained.values())
    for name, norm in trained.items():
        floor = largest * (FUSION_FLOOR if FUSION_WEIGHTS.fullmatch(name) else GRADIENT_FLOOR)
        found = step.gradient_norms[name]
        assert found == pytest.approx(norm, rel=GRADIENT_RTOL, abs=floor), name
    # Besides frozen parameters: projections of DLA's upper trees, which nothing uses.
    frozen = {our_name(name, levels) for name in step.fixture.facts["train"]["frozen"]}
    unused = step.frozen - frozen
    assert frozen <= step.frozen
    assert all(".project." in name and norms.get(name, 0) == 0 for name in unused)
