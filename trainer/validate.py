"""Score a detector on a COCO data set: its detections in original pixels, its metrics."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cn2.runtime.evaluation import coco_metrics

from .config import Config
from .data.coco import CocoDataset, Picture
from .data.loader import Batch, validation_batches
from .data.transforms import clip_boxes, scale_boxes
from .detector import AnyDetector
from .distributed import Ranks
from .structures import RawDetections

logger = logging.getLogger(__name__)


def validate(
    model: AnyDetector, data: CocoDataset, config: Config, ranks: Ranks, batch: int = 8
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO metrics of the detector on every picture, with the input rule of the exported model.

    Each process detects in its share of the pictures; all get the same answer.

    Returns:
        The metrics, and the COCO result dicts that they are of.
    """
    results = ranks.gather(detect_all(model, data, config, ranks, batch))
    return ranks.on_main(lambda: _metrics(data, results)), results


def _metrics(data: CocoDataset, results: list[dict[str, Any]]) -> dict[str, Any]:
    """As `cn2 eval` gives them: 100 detections of a picture and class count, 300 of LVIS's."""
    metrics: dict[str, Any] = coco_metrics(
        data.annotations,
        results,
        image_ids=[picture.image_id for picture in data.pictures],
    )
    return metrics


@torch.inference_mode()
def detect_all(
    model: AnyDetector, data: CocoDataset, config: Config, ranks: Ranks, batch: int = 8
) -> list[dict[str, Any]]:
    """COCO result dicts of this process's share of the pictures.

    The model's training mode is put back after.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    results: list[dict[str, Any]] = []
    try:
        for pictures in validation_batches(data, config, batch, rank=ranks.rank, world=ranks.world):
            for path, reason in pictures.broken:
                logger.warning("%s: %s; not scored", path, reason)
            if not pictures.pictures:
                continue
            raw = model(pictures.images.to(device), pictures.image_sizes.to(device))
            results += to_coco(raw, pictures, data.category_ids)
    finally:
        model.train(was_training)
    return results


def to_coco(
    raw: RawDetections, batch: Batch, category_ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Detections on the canvas as COCO result dicts in the pictures' own pixels."""
    counts, boxes, scores, classes = (values.cpu().numpy() for values in raw)
    results: list[dict[str, Any]] = []
    for b, picture in enumerate(batch.pictures):
        size = (int(batch.image_sizes[b, 0]), int(batch.image_sizes[b, 1]))
        found = int(counts[b])
        original = _original_boxes(boxes[b, :found], size, picture)
        for box, score, label in zip(original, scores[b, :found], classes[b, :found], strict=True):
            x0, y0, x1, y1 = (float(v) for v in box)
            if x1 > x0 and y1 > y0:
                results.append(
                    {
                        "image_id": picture.image_id,
                        "category_id": category_ids[int(label)],
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "score": float(score),
                    }
                )
    return results


def _original_boxes(
    boxes: NDArray[np.float32], size: tuple[int, int], picture: Picture
) -> NDArray[np.float32]:
    scaled = scale_boxes(boxes, size, (picture.height, picture.width))
    return clip_boxes(scaled, picture.height, picture.width)
