"""Colour blobs as detector of the synthetic scenes: how far colour alone gets.

Boxes are connected blobs of quantised colour. Class and score come from a small network over
colour statistics, learnt on the blobs of training scenes: the histogram, how the box is shared
out between its colours whatever they are, and how much they differ from what lies around.
Result: benchmarks/results/color_blobs.json.

    python benchmarks/color_blobs.py
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cn2.runtime.evaluation import coco_metrics
from cn2.runtime.machine import cpu_cores, cpu_name
from cn2.trainer.scenes import CLASS_NAMES, HELD_OUT_SEED, SceneObject, render_scene
from cn2.trainer.scenes.write import coco_annotations

RESULT = Path(__file__).parent / "results" / "color_blobs.json"
TRAIN_SEED = 500_000_000
TEST_SEED = HELD_OUT_SEED + 500_000_000
PALETTE_SIZES = (6, 16)  # colours per picture; the blobs of both are proposals
MIN_SIDE = 10  # pixels, as the scenes' own smallest box
MAX_BLOBS = 200  # per picture, largest first
SAMPLE_SIDE = 48  # a box's statistics come from at most about so many rows and columns
SHARES = 6  # largest colour shares kept of a box
FEATURES = 64 + 2 * SHARES + 2
HIDDEN = 96
EPOCHS = 15
BATCH = 256
LEARNING_RATE = 2e-3
BACKGROUND = len(CLASS_NAMES)
MATCH_IOU = 0.5
NMS_IOU = 0.5

Floats = NDArray[np.float32]


def find_blobs(picture: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Boxes (N, 4) xyxy of colour blobs and their colour statistics (N, F)."""
    smooth = cv2.medianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), 3)
    labels = [quantise(smooth, size) for size in PALETTE_SIZES]
    boxes = np.concatenate([component_boxes(label, n) for label, n in labels])
    _, first = np.unique(boxes, axis=0, return_index=True)
    boxes = boxes[np.sort(first)]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    boxes = boxes[np.argsort(-areas, kind="stable")[:MAX_BLOBS]]
    codes = (picture >> 6).astype(np.uint8) @ np.array([16, 4, 1], np.uint8)  # (H, W), 0..63
    features = [colour_statistics(codes, labels[-1][0], box) for box in boxes]
    return boxes.astype(np.float32), np.array(features, np.float32).reshape(-1, FEATURES)


def quantise(smooth: NDArray[np.uint8], size: int) -> tuple[NDArray[np.int32], int]:
    """Nearest palette colour per pixel (H, W), and how many colours the palette has."""
    pixels = smooth.reshape(-1, 3).astype(np.float32)
    sample = pixels[:: max(1, len(pixels) // 4000)]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0)
    cv2.setRNGSeed(0)
    _, _, palette = cv2.kmeans(sample, size, np.empty(0), stop, 1, cv2.KMEANS_PP_CENTERS)
    scores = pixels @ palette.T - (palette**2).sum(axis=1) / 2
    return scores.argmax(axis=1).astype(np.int32).reshape(smooth.shape[:2]), size


def component_boxes(labels: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Boxes (N, 4) xyxy of the connected parts of every label, small ones left out."""
    found = [np.empty((0, 4), np.int32)]
    for label in range(count):
        mask = (labels == label).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        x, y, w, h, area = stats[1:].T
        keep = (np.minimum(w, h) >= MIN_SIDE) & (area >= 0.04 * w * h)
        found.append(np.stack([x, y, x + w, y + h], axis=1)[keep].astype(np.int32))
    return np.concatenate(found)


def colour_statistics(
    codes: NDArray[np.uint8], labels: NDArray[np.int32], box: NDArray[np.int32]
) -> Floats:
    """(FEATURES,): RGB histogram, largest colour shares inside and of the same colours around,
    the overlap of both, log size of the box."""
    x1, y1, x2, y2 = box
    step = max(1, max(x2 - x1, y2 - y1) // SAMPLE_SIDE)
    margin = max(3, (x2 - x1 + y2 - y1) // 12)
    top, left = max(y1 - margin, 0), max(x1 - margin, 0)
    histogram = np.bincount(codes[y1:y2:step, x1:x2:step].ravel(), minlength=64)
    size = PALETTE_SIZES[-1]
    inside = np.bincount(labels[y1:y2:step, x1:x2:step].ravel(), minlength=size)
    wide = labels[top : y2 + margin : step, left : x2 + margin : step]
    around = np.clip(np.bincount(wide.ravel(), minlength=size) - inside, 0, None)
    inside, around = inside / inside.sum(), around / max(1, around.sum())
    order = np.argsort(-inside, kind="stable")[:SHARES]
    overlap = np.minimum(inside, around).sum()
    area = np.log((x2 - x1) * (y2 - y1))
    parts = histogram / histogram.sum(), inside[order], around[order], [overlap, area]
    return np.concatenate(parts).astype(np.float32)


def pairwise_iou(a: Floats, b: Floats) -> Floats:
    """(N, M) IoU of boxes (N, 4) and (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return np.asarray(inter / (areas[0][:, None] + areas[1][None] - inter), np.float32)


def label_blobs(boxes: Floats, objects: list[SceneObject]) -> NDArray[np.int64]:
    """Class of the object each blob covers, BACKGROUND where it covers none."""
    if not objects or not len(boxes):
        return np.full(len(boxes), BACKGROUND)
    truth = np.array([item.box for item in objects], np.float32)
    classes = np.array([item.class_id for item in objects])
    iou = pairwise_iou(boxes, truth)
    return np.where(iou.max(axis=1) >= MATCH_IOU, classes[iou.argmax(axis=1)], BACKGROUND)


class Classifier:
    """Standardised statistics, one hidden layer, softmax over the classes and background."""

    def __init__(self, samples: Floats, answers: NDArray[np.int64]) -> None:
        """Learn with Adam on the cross-entropy."""
        rng = np.random.default_rng(0)
        self.mean, self.scale = samples.mean(axis=0), samples.std(axis=0) + 1e-3
        outputs = BACKGROUND + 1
        self.weights = [
            rng.normal(0, (2 / FEATURES) ** 0.5, (FEATURES, HIDDEN)).astype(np.float32),
            np.zeros(HIDDEN, np.float32),
            rng.normal(0, 0.05, (HIDDEN, outputs)).astype(np.float32),
            np.zeros(outputs, np.float32),
        ]
        moments = [[np.zeros_like(w), np.zeros_like(w)] for w in self.weights]
        batches = len(samples) // BATCH
        for step in range(EPOCHS * batches):
            rows = rng.integers(0, len(samples), BATCH)
            rate = LEARNING_RATE * (1 - step / (EPOCHS * batches))
            for weight, moment, grad in zip(
                self.weights, moments, self._gradients(samples[rows], answers[rows]), strict=True
            ):
                moment[0] += 0.1 * (grad - moment[0])
                moment[1] += 0.001 * (grad**2 - moment[1])
                unbiased = moment[1] / (1 - 0.999 ** (step + 1))
                weight -= rate * moment[0] / (np.sqrt(unbiased) + 1e-8)

    def probabilities(self, samples: Floats) -> Floats:
        """(N, classes + 1), background last."""
        return self._forward(samples)[2]

    def _forward(self, samples: Floats) -> tuple[Floats, Floats, Floats]:
        standard = (samples - self.mean) / self.scale
        hidden = np.maximum(standard @ self.weights[0] + self.weights[1], 0)
        logits = hidden @ self.weights[2] + self.weights[3]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return standard, hidden, odds / odds.sum(axis=1, keepdims=True)

    def _gradients(self, samples: Floats, answers: NDArray[np.int64]) -> list[Floats]:
        standard, hidden, error = self._forward(samples)
        error[np.arange(len(answers)), answers] -= 1
        error /= len(answers)
        back = (error @ self.weights[2].T) * (hidden > 0)
        return [standard.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


def learn(count: int) -> tuple[Classifier, int]:
    """A classifier of all blobs of `count` training scenes, and how many blobs there were."""
    features, classes = [], []
    for seed in range(TRAIN_SEED, TRAIN_SEED + count):
        picture, objects = render_scene(seed)
        boxes, statistics = find_blobs(picture)
        features.append(statistics)
        classes.append(label_blobs(boxes, objects))
    samples, answers = np.concatenate(features), np.concatenate(classes)
    return Classifier(samples, answers), len(answers)


def detect(
    boxes: Floats, statistics: Floats, image_id: int, classifier: Classifier
) -> list[dict[str, Any]]:
    """COCO results of one picture's blobs, overlapping ones of a class suppressed."""
    if not len(boxes):
        return []
    scores = classifier.probabilities(statistics)
    results = []
    for class_id in range(len(CLASS_NAMES)):
        sides = np.c_[boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]
        kept = cv2.dnn.NMSBoxes(sides.tolist(), scores[:, class_id].tolist(), 1e-6, NMS_IOU)
        results += [
            {
                "image_id": image_id,
                "category_id": class_id + 1,
                "bbox": sides[i].tolist(),
                "score": float(scores[i, class_id]),
            }
            for i in np.asarray(kept, int).ravel()
        ]
    return results


def recall(boxes: Floats, objects: list[SceneObject]) -> int:
    """How many objects some blob covers at IoU MATCH_IOU, whatever its class."""
    if not objects or not len(boxes):
        return 0
    truth = np.array([item.box for item in objects], np.float32)
    return int((pairwise_iou(boxes, truth).max(axis=0) >= MATCH_IOU).sum())


def run(train: int, test: int) -> dict[str, Any]:
    """Learn, detect, score; the record that is committed."""
    classifier, blobs = learn(train)
    records, results, found = [], [], 0
    for image_id, seed in enumerate(range(TEST_SEED, TEST_SEED + test), start=1):
        picture, objects = render_scene(seed)
        height, width = picture.shape[:2]
        records.append((seed, height, width, objects))
        boxes, statistics = find_blobs(picture)
        results += detect(boxes, statistics, image_id, classifier)
        found += recall(boxes, objects)
    metrics = coco_metrics(coco_annotations(records), results)
    total = sum(len(record[3]) for record in records)
    return {
        "benchmark": "color_blobs",
        "command": f"python benchmarks/color_blobs.py --train {train} --test {test}",
        "machine": {"cpu": cpu_name(), "cores": cpu_cores()},
        "train": {"first_seed": TRAIN_SEED, "scenes": train, "blobs": blobs},
        "test": {"first_seed": TEST_SEED, "scenes": test, "objects": total},
        "objects_covered_by_a_blob": round(found / total, 4),
        "metrics": {key: round(metrics[key], 4) for key in ("AP", "AP50", "AP75", "AR100")},
        "per_class_AP50": {k: round(v["AP50"], 4) for k, v in metrics["per_class"].items()},
    }


def main() -> None:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=400, help="training scenes")
    parser.add_argument("--test", type=int, default=200, help="held-out scenes")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    record = run(arguments.train, arguments.test)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
