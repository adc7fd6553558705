"""The synthetic scenes: decided by the seed, boxes exact, classes not told by colour."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from cn2.runtime.errors import OutputError
from cn2.trainer.scenes import CLASS_NAMES, HELD_OUT_SEED, Scene, compose_scene, render_scene
from cn2.trainer.scenes.clutter import draw_clutter
from cn2.trainer.scenes.compose import (
    MAX_OBJECTS,
    MIN_LONG_SIDE,
    MIN_SHORT_SIDE,
    MIN_VISIBLE,
    NOBODY,
    PICTURE_SIZES,
    SIZES,
)
from cn2.trainer.scenes.shapes import FINENESSES, class_template, draw_object
from cn2.trainer.scenes.stencils import HALF_COVERED, Stencil
from cn2.trainer.scenes.write import scene_seeds, write_scenes

SCENES = 200


@pytest.fixture(scope="module")
def many_scenes() -> list[Scene]:
    """Scenes of training seeds and of held-out seeds, half and half."""
    half = SCENES // 2
    seeds = [*range(half), *range(HELD_OUT_SEED, HELD_OUT_SEED + half)]
    return [compose_scene(seed) for seed in seeds]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 written scenes, made in this process."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 12, 40, processes=1)
    return folder


# --- the seed decides


def test_a_seed_gives_the_same_scene_twice_and_another_seed_another() -> None:
    first, objects = render_scene(7)
    again, objects_again = render_scene(7)
    other, _ = render_scene(8)
    np.testing.assert_array_equal(first, again)
    assert objects == objects_again
    assert first.shape != other.shape or (first != other).any()


def test_processes_write_the_same_files(written: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, 12, 40, processes=2)
    names = sorted(path.name for path in written.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (written / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_training_and_held_out_seeds_never_meet() -> None:
    last = HELD_OUT_SEED - 1
    assert scene_seeds(1, last, held_out=False)[-1] == last
    assert scene_seeds(1, 0, held_out=True)[0] == HELD_OUT_SEED
    with pytest.raises(ValueError, match="seed: expected 0 to 999999998 for 2 scenes, got 9999"):
        scene_seeds(2, last, held_out=False)
    with pytest.raises(ValueError, match="got -1"):
        scene_seeds(2, -1, held_out=True)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed: expected at least 0, got -3"):
        render_scene(-3)


# --- pictures and objects


def test_pictures_are_rgb_bytes_of_every_listed_size(many_scenes: list[Scene]) -> None:
    assert {scene.picture.shape[:2] for scene in many_scenes} == set(PICTURE_SIZES)
    assert all(s.picture.dtype == np.uint8 and s.picture.shape[2] == 3 for s in many_scenes)
    ratios = {width / height for height, width in PICTURE_SIZES}
    assert len(ratios) >= 5
    assert min(ratios) < 0.6
    assert max(ratios) > 1.7


def test_boxes_are_the_extent_of_the_visible_pixels(many_scenes: list[Scene]) -> None:
    for scene in many_scenes:
        for index, item in enumerate(scene.objects):
            rows, columns = np.nonzero(scene.owners == index)
            expected = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert item.box == expected
            assert item.visible_pixels == len(rows)
        assert scene.owners.max(initial=NOBODY) == len(scene.objects) - 1


def test_at_most_60_percent_of_an_object_are_hidden(many_scenes: list[Scene]) -> None:
    shares = np.array([o.visible_pixels / o.own_pixels for s in many_scenes for o in s.objects])
    assert shares.min() >= MIN_VISIBLE
    assert shares.max() <= 1
    assert shares.min() < 0.5  # heavy occlusion occurs
    assert (shares < 0.95).mean() > 0.15


def test_object_sizes(many_scenes: list[Scene]) -> None:
    sides = np.array(
        [(o.box[2] - o.box[0], o.box[3] - o.box[1]) for s in many_scenes for o in s.objects]
    )
    long_sides = sides.max(axis=1)
    assert long_sides.min() >= MIN_LONG_SIDE
    assert long_sides.max() <= SIZES[1] + 1
    assert sides.min() >= MIN_SHORT_SIDE
    assert (long_sides < 24).any()
    assert (long_sides > 330).any()
    assert 0.6 < ((long_sides >= 32) & (long_sides <= 250)).mean() < 0.95


def test_object_counts_and_empty_pictures(many_scenes: list[Scene]) -> None:
    counts = np.array([len(scene.objects) for scene in many_scenes])
    assert counts.max() <= MAX_OBJECTS
    assert 4 < counts.mean() < 7
    assert 0.01 <= (counts == 0).mean() <= 0.1


def test_classes_are_balanced(many_scenes: list[Scene]) -> None:
    counts = Counter(o.class_id for s in many_scenes for o in s.objects)
    assert len(CLASS_NAMES) >= 8
    expected = sum(counts.values()) / len(CLASS_NAMES)
    chi_square = sum((counts[c] - expected) ** 2 / expected for c in range(len(CLASS_NAMES)))
    assert chi_square < 24.3  # 7 degrees of freedom, p = 0.001


def test_mean_colour_does_not_tell_the_classes(many_scenes: list[Scene]) -> None:
    """Per channel, means differ between classes no more than chance allows (F test)."""
    colours: dict[int, list[np.ndarray]] = {c: [] for c in range(len(CLASS_NAMES))}
    for scene in many_scenes:
        for index, item in enumerate(scene.objects):
            colours[item.class_id].append(scene.picture[scene.owners == index].mean(axis=0))
    groups = [np.array(values) for values in colours.values()]
    everything = np.concatenate(groups)
    between = sum(len(g) * (g.mean(axis=0) - everything.mean(axis=0)) ** 2 for g in groups)
    within = sum(((g - g.mean(axis=0)) ** 2).sum(axis=0) for g in groups)
    freedom = len(groups) - 1, len(everything) - len(groups)
    f_statistic = (between / freedom[0]) / (within / freedom[1])
    assert f_statistic.max() < 3.5  # p = 0.001 at 7 and about 1300 degrees of freedom
    assert everything.std(axis=0).min() > 40  # colours do vary


def test_objects_stand_out_from_what_lies_around(many_scenes: list[Scene]) -> None:
    """The rim's colour and that of the ring around differ by more than the camera's noise."""
    kernel = np.ones((3, 3), np.uint8)
    distances = []
    for scene in many_scenes[:60]:
        pixels = scene.picture.astype(np.float32)
        for index in range(len(scene.objects)):
            mask = (scene.owners == index).astype(np.uint8)
            eroded = cv2.erode(mask, kernel)
            rim = (mask - eroded).astype(bool)
            far = cv2.dilate(mask, kernel, iterations=3) - cv2.dilate(mask, kernel, iterations=2)
            if far.any():
                distances.append(
                    np.linalg.norm(
                        np.median(pixels[rim], axis=0) - np.median(pixels[far > 0], axis=0)
                    )
                )
    assert np.quantile(distances, 0.05) > 25


# --- drawing


@pytest.mark.parametrize("class_id", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_templates_have_both_colours_at_every_fineness(class_id: int) -> None:
    for fineness in range(FINENESSES):
        for layer in class_template(class_id, fineness).layers:
            alpha, tone = layer[:, :, 0].astype(float), layer[:, :, 1].astype(float)
            assert (tone <= alpha).all()
            assert 0.15 < tone.sum() / alpha.sum() < 0.85


def test_templates_differ_by_texture_where_they_share_the_shape() -> None:
    striped, dotted = class_template(0, 0).layers[0], class_template(1, 0).layers[0]
    np.testing.assert_array_equal(striped[:, :, 0], dotted[:, :, 0])
    assert (striped[:, :, 1] != dotted[:, :, 1]).mean() > 0.1


@pytest.mark.parametrize("long_side", [16.0, 33.3, 100.0, 400.0])
def test_a_drawn_object_has_the_size_asked_for(long_side: float) -> None:
    rng = np.random.default_rng(3)
    for class_id in range(len(CLASS_NAMES)):
        stencil = draw_object(rng, class_id, long_side, 0)
        solid = stencil.alpha >= HALF_COVERED
        sides = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
        extent = max(side[-1] - side[0] + 1 for side in sides)
        tip = 2 if long_side < 40 else 1  # pixels that a star's sharp tip covers less than half
        assert long_side - 1 - tip < extent < long_side + 2  # a pixel straddled at either end
        assert not solid[[0, -1]].any()  # nothing is cut off by the patch
        assert not solid[:, [0, -1]].any()


def test_clutter_of_any_size_is_drawn() -> None:
    rng = np.random.default_rng(0)
    for size in [10.0, 11.0, 47.0, 180.0] * 25:
        stencil = draw_clutter(rng, size)
        assert stencil.alpha.shape == stencil.tone.shape
        assert (stencil.tone <= stencil.alpha).all()


def test_crop_keeps_the_part_inside() -> None:
    alpha = np.arange(12, dtype=np.uint8).reshape(3, 4)
    stencil = Stencil(alpha=alpha, tone=alpha, left=-1, top=4)
    cropped = stencil.crop(6, 9)
    assert cropped is not None
    assert (cropped.left, cropped.top) == (0, 4)
    np.testing.assert_array_equal(cropped.alpha, alpha[:2, 1:])
    assert stencil.crop(4, 9) is None  # below the picture


# --- written sets


def test_written_annotations_are_coco(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(written / "annotations.json"))
    capsys.readouterr()  # pycocotools prints
    assert [c["id"] for c in coco.loadCats(coco.getCatIds())] == list(range(1, 9))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASS_NAMES)
    assert len(coco.getImgIds()) == 12
    for image in coco.loadImgs(coco.getImgIds()):
        picture = cv2.imread(str(written / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        _, objects = render_scene(int(image["file_name"][6:-4]))
        assert len(annotations) == len(objects)
        for annotation, item in zip(annotations, objects, strict=True):
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == item.box
            assert annotation["area"] == item.visible_pixels
            assert annotation["iscrowd"] == 0
            assert annotation["segmentation"] == []
            assert annotation["category_id"] == item.class_id + 1


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[int] = []
    write_scenes(tmp_path / "new" / "folder", 3, 0, processes=1, report=seen.append)
    assert seen == [1, 2, 3]


def test_no_scene_and_a_folder_that_is_a_file_are_one_line_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count: expected at least 1 scene, got 0"):
        write_scenes(tmp_path, 0, 0)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match=r"cannot write scenes \(.*\); choose another") as caught:
        write_scenes(blocked, 1, 0, processes=1)
    assert "\n" not in str(caught.value)


def test_command_line(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cn2.trainer.scenes", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = run(str(tmp_path / "out"), "--count", "2", "--seed", "5", "--held-out")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"annotations.json", "scene_1000000005.jpg", "scene_1000000006.jpg"}
    none = run(str(tmp_path / "none"), "--count", "0")
    assert none.returncode == 2
    assert none.stderr == "scenes: error: count: expected at least 1 scene, got 0\n"
    assert not (tmp_path / "none").exists()


def test_the_generator_loads_no_torch() -> None:
    code = "import sys, cn2.trainer.scenes; print(sorted({'torch', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- the demo's pictures


def test_bundled_pictures_are_those_of_the_rule() -> None:
    from importlib.resources import files

    from cn2.trainer.scenes.bundle import bundled_seeds

    folder = files("cn2.runtime") / "bundled" / "pictures"
    annotations = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    names = [f"scene_{seed:010d}.jpg" for seed in bundled_seeds()]
    assert [image["file_name"] for image in annotations["images"]] == names
    sizes = {(image["height"], image["width"]) for image in annotations["images"]}
    assert sizes == set(PICTURE_SIZES)
    stored = sum(len((folder / name).read_bytes()) for name in names)
    assert stored < 600_000
    boxes = [annotation["bbox"] for annotation in annotations["annotations"]]
    rendered = [
        [o.box[0], o.box[1], o.box[2] - o.box[0], o.box[3] - o.box[1]]
        for seed in bundled_seeds()
        for o in render_scene(seed)[1]
    ]
    assert boxes == rendered
