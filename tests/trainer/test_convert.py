"""Recognition, names of what is wrong, classes, licences: with full shapes and no numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from cn2.runtime.errors import ModelFormatError
from cn2.trainer.config import Config
from cn2.trainer.convert.fit import detector_shapes, lay_over
from cn2.trainer.convert.foreign import what_it_is
from cn2.trainer.convert.licences import (
    FINE_TUNED,
    FINE_TUNED_NON_COMMERCIAL,
    NON_COMMERCIAL,
    NON_COMMERCIAL_PRESETS,
    OFFICIAL,
    weights_license,
)
from cn2.trainer.convert.recognise import recognise
from cn2.trainer.convert.run import official_presets
from cn2.trainer.presets import PRESETS
from command_line import cn2
from conformance.official import FIXTURES
from thin_checkpoints import DLA_P3, LVIS_FED, R50, State, planned, refused, thin, thin_state

HEAD = "proposal_generator.centernet_head."
ALIKE = ("r2-101-dcn-bifpn-1280", "r2-101-dcn-bifpn-1560")  # the same but for their settings


@pytest.fixture
def state(shared: Path) -> State:
    return thin_state(shared, R50)


@pytest.mark.parametrize(("fixture", "preset"), FIXTURES.items())
def test_each_official_model_is_recognised(
    fixture: str, preset: str, shared: Path, tmp_path: Path
) -> None:
    state = thin_state(shared, fixture)
    choice = None
    if preset in ALIKE:
        assert f"has the tensors of {' and '.join(ALIKE)} alike" in refused(tmp_path, state)
        choice = preset
    found = planned(tmp_path, {"model": state}, preset=choice)
    assert found.config == PRESETS[preset]()
    assert found.license == (NON_COMMERCIAL if preset in NON_COMMERCIAL_PRESETS else OFFICIAL)
    assert found.fit.left_over == ()
    assert set(found.fit.tensors) == set(detector_shapes(found.config))


def test_the_licence_of_a_neck_that_is_not_free() -> None:
    assert weights_license("dla34-bifpn-p3", own_classes=True) == NON_COMMERCIAL
    assert weights_license("dla34-fcosbifpn-p5", own_classes=False) == FINE_TUNED_NON_COMMERCIAL
    assert "official CenterNet2 weights" not in FINE_TUNED_NON_COMMERCIAL
    assert weights_license("dla34-bifpn-p5", own_classes=True) == OFFICIAL


def test_shapes_are_those_of_the_real_detector() -> None:
    from cn2.trainer.build import build_detector
    from factories import tiny_config

    state = build_detector(tiny_config()).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: shape.sides for name, shape in detector_shapes(tiny_config()).items()
    }


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    "name",
    [
        "backbone.bottom_up.stem.conv1.norm.running_var",
        "backbone.bottom_up.res3.2.conv2.weight",
        "backbone.fpn_lateral4.bias",
        "backbone.top_block.p7.weight",
        f"{HEAD}bbox_tower.3.weight",
        f"{HEAD}agn_hm.weight",
        f"{HEAD}scales.3.scale",
        "roi_heads.box_head.1.fc2.weight",
        "roi_heads.box_predictor.2.cls_score.bias",
    ],
)
def test_what_is_missing_is_named(name: str, state: State, tmp_path: Path) -> None:
    line = refused(tmp_path, without(state, name))
    assert f"preset r50-fpn, which is nearest, but expected {name}, got none" in line


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("backbone.fpn_lateral4.weight", [256, 9, 1, 1], "(256, 1024, 1, 1), got (256, 9, 1, 1)"),
        ("roi_heads.box_predictor.1.cls_score.weight", [81, 9], "(81, 1024), got (81, 9)"),
        ("roi_heads.box_predictor.1.cls_score.bias", [80], "(81,), got (80,)"),
        (f"{HEAD}agn_hm.weight", [256, 3, 3], "(1, 256, 3, 3), got (256, 3, 3)"),
        ("roi_heads.box_head.0.fc1.bias", [], "(1024,), got ()"),
    ],
)
def test_a_wrong_shape_is_named(
    name: str, shape: list[int], words: str, state: State, tmp_path: Path
) -> None:
    assert f"{name}: expected shape {words}" in refused(tmp_path, state | {name: thin(shape)})


@pytest.mark.parametrize("shape", [[], [2], [1, 1]])
def test_a_scale_is_one_number(shape: list[int], state: State, tmp_path: Path) -> None:
    name = f"{HEAD}scales.2.scale"
    assert f"{name}: expected a tensor of shape (1,)" in refused(
        tmp_path, state | {name: thin(shape)}
    )


def test_parts_of_another_pyramid_have_no_place(state: State, tmp_path: Path) -> None:
    line = refused(tmp_path, state | {f"{HEAD}scales.5.scale": thin([1])})
    assert f"no place for {HEAD}scales.5.scale" in line


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((4,), float("nan")), "expected finite weights, got NaN or infinity"),
        (torch.tensor([0.0, 1.0, 2.0, float("inf")]), "expected finite weights"),
        (torch.tensor([0.0, 1.0, 2.0, 1e300], dtype=torch.float64), "expected finite weights"),
        (torch.ones(4, dtype=torch.int8), "expected plain torch.float32 values, got torch.int8"),
        (torch.ones(4, dtype=torch.complex64), "got torch.complex64"),
        (torch.ones(4).to_sparse(), "expected plain torch.float32 values"),
        (torch.ones(4, device="meta"), "got torch.float32 on meta"),
    ],
)
def test_values_that_are_no_weights(
    value: Tensor, words: str, state: State, tmp_path: Path
) -> None:
    line = refused(tmp_path, state | {f"{HEAD}bbox_pred.bias": value})
    assert f"{HEAD}bbox_pred.bias" in line
    assert words in line


def test_what_is_not_needed_and_what_is_left_over(state: State, tmp_path: Path) -> None:
    extra = {
        "pixel_mean": torch.tensor([103.53, 116.28, 123.675]).reshape(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "backbone.bottom_up.stem.conv1.norm.num_batches_tracked": torch.tensor(7),
        "backbone.bottom_up.linear.weight": thin([1000, 2048]),
        "roi_heads.keypoint_head.conv.weight": thin([3]),
        "teacher.something": thin([3]),
    }
    found = planned(tmp_path, state | extra)
    assert sorted(found.fit.not_needed) == sorted(list(extra)[:4])
    assert sorted(found.fit.left_over) == sorted(list(extra)[4:])
    assert sorted(found.fit.used) == sorted(state)


@pytest.mark.parametrize(
    ("key", "values"),
    [("pixel_mean", [123.675, 116.28, 103.53]), ("pixel_std", [57.375, 57.12, 58.395])],
)
def test_another_normalisation_is_an_error_with_a_way_out(
    key: str, values: list[float], state: State, tmp_path: Path
) -> None:
    content = state | {key: torch.tensor(values).reshape(3, 1, 1)}
    line = refused(tmp_path, content)
    assert f"{key}: expected" in line
    way_out = line.partition("--set ")[2].partition(" (")[0]
    found = planned(tmp_path, content, overrides=[way_out])
    assert getattr(found.config.input, key) == tuple(values)


def test_a_tensor_kept_once_must_be_the_same_everywhere(shared: Path, tmp_path: Path) -> None:
    state = thin_state(shared, LVIS_FED)
    name = "roi_heads.box_predictor.{}.freq_weight"
    state[name.format(2)] = torch.arange(1203.0)
    expected = f"{name.format(2)}: expected the numbers of {name.format(0)}, got others"
    assert refused(tmp_path, state).endswith(expected)


def test_counters_that_a_file_lacks_are_zero(shared: Path, tmp_path: Path) -> None:
    full = thin_state(shared, DLA_P3)
    counters = [name for name in full if name.endswith("num_batches_tracked")]
    found = planned(tmp_path, {n: v for n, v in full.items() if n not in counters})
    own = [name for name in found.fit.tensors if name.endswith("num_batches_tracked")]
    assert len(own) == len(counters) == 39
    assert all(found.fit.tensors[name].dtype == torch.int64 for name in own)


class TestClasses:
    """Fine-tuned checkpoints: other classes than the preset's."""

    def test_without_a_list_they_are_numbered(self, shared: Path, tmp_path: Path) -> None:
        found = planned(tmp_path, thin_state(shared, R50, classes=3))
        assert found.config.preset == "r50-fpn"
        assert found.config.class_names == ("class 0", "class 1", "class 2")
        assert found.config.category_ids == (0, 1, 2)
        assert found.license == FINE_TUNED
        logits = found.fit.tensors["second_stage.stages.0.class_logits.weight"]
        assert logits.shape == (4, 1024)

    @pytest.mark.parametrize(
        ("name", "content", "ids"),
        [
            ("names.txt", "cat\ndog\nred panda\n", (0, 1, 2)),
            ("data.yaml", "names: [cat, dog, red panda]\n", (0, 1, 2)),
            (
                "instances.json",
                json.dumps(
                    {
                        "categories": [
                            {"id": 9, "name": "red panda"},
                            {"id": 1, "name": "cat"},
                            {"id": 5, "name": "dog"},
                        ]
                    }
                ),
                (1, 5, 9),  # as detectron2 numbers them: by id
            ),
        ],
    )
    def test_with_a_list(
        self, name: str, content: str, ids: tuple[int, ...], shared: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / name
        file.write_text(content)
        found = planned(tmp_path, thin_state(shared, DLA_P3, classes=3), classes=file)
        assert found.config.class_names == ("cat", "dog", "red panda")
        assert found.config.category_ids == ids
        assert found.license == FINE_TUNED_NON_COMMERCIAL

    def test_a_list_of_another_length(self, state: State, shared: Path, tmp_path: Path) -> None:
        file = tmp_path / "names.txt"
        file.write_text("cat\ndog\n")
        assert "expected the 80 classes of" in refused(tmp_path, state, classes=file)
        fewer = thin_state(shared, R50, classes=3)
        assert "model.pth, got 2" in refused(tmp_path, fewer, classes=file)

    def test_a_licence_of_their_own(self, shared: Path, tmp_path: Path) -> None:
        found = planned(tmp_path, thin_state(shared, R50, classes=3), license="CC-BY-4.0")
        assert found.license == "CC-BY-4.0"


def another(config: Config, name: str, classes: int) -> Config:
    """The same detector under another name, for other classes."""
    names = tuple(f"thing {k}" for k in range(classes))
    return replace(config, preset=name, class_names=names, category_ids=tuple(range(classes)))


class TestPresetsAlike:
    """Detectors that share all names and shapes, or all but the number of classes."""

    presets: ClassVar = {
        "r50-fpn": PRESETS["r50-fpn"],
        "r50-fpn-lvis": lambda: another(PRESETS["r50-fpn"](), "r50-fpn-lvis", 1203),
        "twin": lambda: replace(PRESETS["r50-fpn"](), preset="twin"),
    }

    def test_twins_need_a_word(self, state: State) -> None:
        with pytest.raises(ModelFormatError, match=r"of r50-fpn and twin alike.*--preset"):
            recognise(state, self.presets, "model.pth")

    def test_the_number_of_classes_decides(self, shared: Path) -> None:
        for classes, preset in ((80, "r50-fpn"), (1203, "r50-fpn-lvis")):
            state = thin_state(shared, R50, classes=classes)
            two = {name: self.presets[name] for name in ("r50-fpn", "r50-fpn-lvis")}
            fit, others = recognise(state, two, "model.pth")
            assert fit.config.preset == preset
            assert fit.own_classes
            assert others == []

    def test_with_other_classes_that_of_coco_is_taken(self, shared: Path) -> None:
        state = thin_state(shared, R50, classes=7)
        two = {name: self.presets[name] for name in ("r50-fpn-lvis", "r50-fpn")}
        fit, others = recognise(state, two, "model.pth")
        assert (fit.config.preset, others) == ("r50-fpn", ["r50-fpn-lvis"])
        assert not fit.own_classes


def test_a_preset_by_name(state: State, tmp_path: Path) -> None:
    assert planned(tmp_path, state, preset="r50-fpn").config.preset == "r50-fpn"
    line = refused(tmp_path, state, preset="dla34-bifpn-p3")
    assert "preset dla34-bifpn-p3" in line
    assert "expected one of" in refused(tmp_path, state, preset="nano")  # there is no official one
    assert "nano" not in official_presets()
    assert refused(tmp_path, state, preset="r50fpn").endswith("did you mean r50-fpn?")
    assert "did you mean" not in refused(tmp_path, state, preset="zzz")


def test_settings_that_change_the_tensors(state: State, tmp_path: Path) -> None:
    found = planned(tmp_path, state, overrides=["model.second_stage.score_threshold=0.2"])
    assert found.config.model.second_stage.score_threshold == 0.2
    line = refused(tmp_path, state, overrides=["model.second_stage.fc_channels=[8,8]"])
    assert "--set: expected settings that leave the tensors' shapes" in line


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (
            ["proposal_generator.rpn_head.conv.weight", "roi_heads.mask_head.mask_fcn1.weight"],
            "Mask",
        ),
        (["rpn.head.conv.0.0.weight", "roi_heads.mask_predictor.conv5_mask.weight"], "Mask R-CNN"),
        (
            ["proposal_generator.rpn_head.conv.weight", "roi_heads.keypoint_head.a"],
            "Keypoint R-CNN",
        ),
        (["proposal_generator.rpn_head.conv.weight", "roi_heads.box_head.0.fc1.weight"], "Cascade"),
        (
            ["proposal_generator.rpn_head.conv.weight", "roi_heads.box_predictor.cls_score.weight"],
            "plain Faster R-CNN (RPN)",
        ),
        (
            ["rpn.head.conv.weight", "roi_heads.box_predictor.cls_score.weight"],
            "plain Faster R-CNN",
        ),
        (["rpn_head.rpn_conv.weight", "roi_head.bbox_head.fc_cls.weight"], "plain Faster R-CNN"),
        (["proposal_generator.fcos_head.cls_tower.0.weight"], "FCOS"),
        (["head.cls_subnet.0.weight", "head.bbox_subnet.0.weight"], "RetinaNet"),
        (["bbox_head.retina_cls.weight"], "RetinaNet"),
        (["model.0.conv.weight", "model.24.m.0.weight"], "YOLO"),
        (["model.model.0.conv.weight"], "YOLO"),
        (["backbone.backbone.stem.conv.conv.weight", "head.cls_preds.0.weight"], "YOLOX"),
        (["transformer.encoder.layers.0.linear1.weight", "class_embed.weight"], "DETR"),
        (["base.base_layer.0.weight", "hm.0.weight", "wh.0.weight"], "the older CenterNet"),
        (["conv1.weight", "layer4.2.conv3.weight", "fc.weight"], "a backbone only (ResNet)"),
        (["stem.conv1.weight", "res5.2.conv3.weight"], "a backbone only (ResNet)"),
        (["res5_2_branch2c_w"], "a backbone only (ResNet)"),
        (["base_layer.0.weight", "level5.root.conv.weight"], "a backbone only (DLA)"),
        (["patch_embed.proj.weight"], "a backbone only (transformer)"),
        (["first_stage.head.heatmap.weight"], "a checkpoint of cn2 itself"),
        (["a.weight", "b.weight", "c.weight"], "3 tensors begin with a.weight, b.weight"),
    ],
)
def test_other_detectors_are_named(names: list[str], kind: str, tmp_path: Path) -> None:
    assert kind in what_it_is(names)
    line = refused(tmp_path, {name: torch.zeros(1) for name in names})
    assert f"this is not CenterNet2: {what_it_is(names)}" in line


def test_no_official_model_is_taken_for_another(shared: Path) -> None:
    for fixture, preset in FIXTURES.items():
        state = thin_state(shared, fixture)
        fits = [lay_over(state, make()) for make in official_presets().values()]
        good = [fit.config.preset for fit in fits if not fit.faults and fit.own_classes]
        assert good == (list(ALIKE) if preset in ALIKE else [preset])


def test_the_help_fits_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    ran = cn2(capfd, "convert", "--help")
    assert ran.code == 0
    for word in ("--preset", "--classes", "--ema", "--json", "--set", "--license", "-o"):
        assert word in ran.out


def test_tensors_of_another_shape_do_not_fit(state: State, tmp_path: Path) -> None:
    line = refused(tmp_path, state | {f"{HEAD}agn_hm.bias": thin([7])})
    in_place = len(detector_shapes(PRESETS["r50-fpn"]())) - 1
    assert line.endswith(f"; {in_place} others fit")


def test_a_file_that_is_far_from_every_preset(tmp_path: Path) -> None:
    line = refused(tmp_path, {f"{HEAD}strange.{k}.weight": thin([3]) for k in range(9)})
    assert "none is near" in line
    assert f"got {HEAD}strange.0.weight, {HEAD}strange.1.weight" in line


def test_official_files_pass_over_no_sister(state: State, tmp_path: Path) -> None:
    assert planned(tmp_path, state).also_fits == ()


@pytest.mark.parametrize(
    ("fixture", "part"),
    [
        (R50, "backbone.bottom_up."),
        (R50, "backbone.fpn_"),
        (R50, "roi_heads."),
        (R50, f"{HEAD}bbox_tower."),
        (DLA_P3, "backbone.bottom_up."),
        (DLA_P3, "backbone.repeated_bifpn."),
        (DLA_P3, "roi_heads."),
    ],
)
def test_a_whole_part_that_is_missing_is_named(fixture: str, part: str, shared: Path) -> None:
    state = thin_state(shared, fixture)
    rest = {name: value for name, value in state.items() if not name.startswith(part)}
    fit = lay_over(rest, PRESETS[FIXTURES[fixture]]())
    missing = list(islice(fit.missing(), 12))
    assert missing
    assert set(missing) <= state.keys() - rest.keys()
