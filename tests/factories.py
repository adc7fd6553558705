"""Small real things for tests: a detector config of 8 channels, pictures, annotation files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cn2.trainer.config import Config, InputConfig
from cn2.trainer.model_config import (
    CascadeRCNNConfig,
    CenterNetConfig,
    ExtraPositivesConfig,
    FederatedConfig,
    FPNConfig,
    ModelConfig,
    NanoConfig,
    ProposalFilter,
)
from cn2.trainer.train_config import ShortEdgeConfig, TrainConfig

TINY_HEIGHT, TINY_WIDTH = 64, 96


def tiny_model_config() -> ModelConfig:
    """The real parts at 8 channels: levels P3 to P5, three cascade stages."""
    return ModelConfig(
        backbone=NanoConfig(widths=(8, 8, 8, 8, 8), hidden=(8, 8, 8, 8), blocks=(1, 1, 1, 1)),
        neck=FPNConfig(levels=(3, 4, 5), channels=8),
        first_stage=CenterNetConfig(
            sizes_of_interest=((0.0, 32.0), (24.0, 64.0), (48.0, 1e6)),
            convs=1,
            norm_groups=2,
            test_filter=ProposalFilter(pre_nms=40, post_nms=16),
            train_filter=ProposalFilter(pre_nms=60, post_nms=24),
        ),
        second_stage=CascadeRCNNConfig(
            levels=(3, 4, 5), fc_channels=(16, 16), canonical_size=64.0, rois_per_image=16
        ),
    )


def tiny_one_stage_config() -> Config:
    """`tiny_config` without a second stage: a heat map per class, extra positives."""
    config = tiny_config()
    keep = ProposalFilter(pre_nms=40, post_nms=16, nms_iou=0.6)
    first_stage = replace(
        config.model.first_stage,
        class_convs=1,
        objectness_floor=0.05,
        test_filter=keep,
        train_filter=keep,
        ignore_high_negatives=1.0,
        heatmap_weight=1.0,
        regression_weight=2.0,
        extra_positives=ExtraPositivesConfig(),
    )
    model = replace(config.model, first_stage=first_stage, second_stage=None)
    return replace(config, preset="tiny-one-stage", model=model)


def shrunk(config: Config) -> Config:
    """A preset's own parts at 8 channels, NMS and all, on `tiny_config`'s backbone and pictures."""
    tiny, model = tiny_config(), config.model
    first: dict[str, Any] = {
        "test_filter": replace(model.first_stage.test_filter, pre_nms=40, post_nms=16),
        "train_filter": replace(model.first_stage.train_filter, pre_nms=40, post_nms=24),
    }
    if hasattr(model.first_stage, "norm_groups"):
        first["norm_groups"] = 2
    neck = {"channels": 8, **({"norm_groups": 2} if hasattr(model.neck, "norm_groups") else {})}
    second = model.second_stage
    if second is not None:
        second = replace(second, fc_channels=(16, 16), canonical_size=64.0, rois_per_image=16)
    model = replace(
        model,
        backbone=tiny.model.backbone,
        neck=replace(model.neck, **neck),
        first_stage=replace(model.first_stage, **first),
        second_stage=second,
    )
    return replace(tiny, preset=f"tiny-{config.preset}", model=model)


def tiny_federated_config() -> Config:
    """`tiny_config` with sigmoid classifiers and two classes a batch."""
    config = tiny_config()
    second = config.model.second_stage
    assert second is not None
    second = replace(second, classifier="sigmoid", federated=FederatedConfig(classes=2))
    return replace(config, preset="tiny-fed", model=replace(config.model, second_stage=second))


def tiny_many_classes_config(count: int = 1203) -> Config:
    """`tiny_federated_config` with as many classes as LVIS has, and its 300 detections."""
    config = tiny_federated_config()
    second = config.model.second_stage
    assert second is not None
    second = replace(second, score_threshold=0.02, detections=300)
    return replace(
        config,
        preset="tiny-many",
        class_names=tuple(f"class {index}" for index in range(count)),
        category_ids=tuple(range(1, count + 1)),
        model=replace(config.model, second_stage=second),
    )


def tiny_config() -> Config:
    """Three classes, category ids with gaps, a 64 x 96 canvas, two steps of training."""
    return Config(
        preset="tiny",
        class_names=("disc", "box", "star"),
        category_ids=(1, 3, 7),
        input=InputConfig(
            color_order="RGB",
            pixel_mean=(120.0, 115.0, 100.0),
            pixel_std=(58.0, 57.0, 57.0),
            short_edge=TINY_HEIGHT,
            long_edge=TINY_WIDTH,
            divisor=32,
            interpolation="linear",
        ),
        model=tiny_model_config(),
        train=TrainConfig(
            batch=2,
            steps=2,
            lr_batch=2,
            warmup_steps=1,
            resize=short_edges(TINY_HEIGHT),
            workers=0,
            log_every=1,
            eval_every=0,
            save_every=1,
            watch=False,
        ),
    )


def short_edges(smallest: int, largest: int | None = None, step: int = 16) -> ShortEdgeConfig:
    """Short edges smallest, smallest + step, ... up to largest (None: one size), pixels."""
    return ShortEdgeConfig(
        smallest=smallest, largest=largest or smallest, step=step, long_edge=TINY_WIDTH
    )


def with_training(config: Config, **values: Any) -> Config:
    """The config with other training settings."""
    return replace(config, train=replace(config.train, **values))


def picture(height: int = TINY_HEIGHT, width: int = TINY_WIDTH, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a smooth gradient with noise, so that every pixel matters."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 120, height)[:, None, None]
    columns = np.linspace(0, 100, width)[None, :, None]
    noise = rng.integers(0, 36, (height, width, 3))
    return (rows + columns + noise).astype(np.uint8)


def coco_annotations(
    sizes: list[tuple[int, int]], boxes: list[list[tuple[int, list[float]]]]
) -> dict[str, Any]:
    """COCO annotations: per picture its (height, width) and its (category_id, xywh) boxes."""
    images = [
        {"id": 10 + i, "file_name": f"picture_{i}.png", "height": h, "width": w}
        for i, (h, w) in enumerate(sizes)
    ]
    rows = [(10 + i, category, box) for i, of in enumerate(boxes) for category, box in of]
    annotations = [
        {
            "id": 100 + k,
            "image_id": image_id,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for k, (image_id, category, box) in enumerate(rows)
    ]
    names = {1: "disc", 3: "box", 7: "star"}
    categories = [{"id": i, "name": name} for i, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_dataset(folder: Path, annotations: dict[str, Any]) -> tuple[Path, Path]:
    """Write the annotations and a picture for each image; (annotation file, picture folder)."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for k, image in enumerate(annotations["images"]):
        pixels = picture(image["height"], image["width"], seed=k)
        Image.fromarray(pixels).save(pictures / image["file_name"])
    path = folder / "annotations.json"
    path.write_text(json.dumps(annotations))
    return path, pictures
