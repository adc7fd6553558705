"""What the speed benchmarks share: presets as model files, pictures, the paper's figures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cn2.export.describe import open_checkpoint
from cn2.export.onnx_file import export_onnx
from cn2.runtime.demo import CHECKPOINT, PICTURES
from cn2.runtime.machine import cpu_cores, cpu_name, memory_mb
from cn2.runtime.pictures import PICTURE_SUFFIXES
from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import save_checkpoint
from cn2.trainer.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PICTURE_SIZE = (640, 480)  # width, height: the commonest size in COCO; one canvas for all runs
RANDOM_SEED = 0
# Of the README's table; the other detectors of the zoo are timed by zoo.py.
TIMED_PRESETS = ("dla34-bifpn-p3", "dla34-bifpn-p5", "r50-fpn", "nano", "lite0-fpn")


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """One preset, ready to be measured."""

    preset: str
    checkpoint: Path
    onnx: Path
    weights: str
    """ "trained", or "random": those find nothing, but the network and its sizes are the same."""
    parameters: int


def make_checkpoint(preset: str, folder: Path) -> Path:
    """A checkpoint of a preset: the bundled one if it is of this preset, else random weights.

    Raises:
        ValueError: no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    if is_trained(preset):
        return CHECKPOINT
    path = folder / f"{preset}.safetensors"
    torch.manual_seed(RANDOM_SEED)
    config = PRESETS[preset]()
    weights = f"random, seed {RANDOM_SEED}"
    save_checkpoint(path, build_detector(config), config, license="none", provenance=weights)
    return path


def is_trained(preset: str) -> bool:
    """Whether the bundled checkpoint is of this preset."""
    return CHECKPOINT.stem == preset and CHECKPOINT.is_file()


def make_files(preset: str, folder: Path) -> ModelFiles:
    """Checkpoint and ONNX file of a preset, see `make_checkpoint`.

    Raises:
        ValueError: no such preset.
    """
    checkpoint = make_checkpoint(preset, folder)
    model, config, origin = open_checkpoint(checkpoint)
    onnx = folder / f"{preset}.onnx"
    export_onnx(model, config, onnx, origin=origin)
    return ModelFiles(
        preset=preset,
        checkpoint=checkpoint,
        onnx=onnx,
        weights="trained" if is_trained(preset) else "random",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def find_pictures(folder: Path | None, count: int) -> list[Path]:
    """Real pictures of PICTURE_SIZE, or of any size where there is one of it at most.

    Args:
        folder: None: COCO pictures of $CN2_SHARED, or the bundled scenes without it.
        count: at most so many.
    Raises:
        ValueError: the folder holds no picture.
    """
    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    coco = shared / "data" / "coco128" / "images"
    folder = folder or (coco if coco.is_dir() else PICTURES)
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: expected a folder of pictures, found none")
    usual = [path for path in files if _size(path) == PICTURE_SIZE]
    return (usual if len(usual) > 1 else files)[:count]  # of the bundled ones each has its own


def picture_sizes(pictures: Sequence[Path]) -> dict[str, int]:
    """ "WIDTHxHEIGHT" -> how many of the pictures have it, the most frequent first."""
    sizes = Counter(_size(path) for path in pictures)
    return {f"{width}x{height}": count for (width, height), count in sizes.most_common()}


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was before."""
    return {
        "cpu": cpu_name(),
        "cores": cpu_cores(),
        "memory_mb": memory_mb(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
