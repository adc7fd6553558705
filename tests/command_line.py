"""Run `cn2` inside the test, and make the files that users hand it."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cn2.runtime.cli import run
from cn2.runtime.pictures import open_picture


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    errors: list[str]
    """The lines on stderr that are errors, without "cn2: error: "."""
    notes: list[str]
    """The other lines on stderr."""

    def json(self) -> Any:
        return json.loads(self.out)


def cn2(capfd: pytest.CaptureFixture[str], *words: object) -> Ran:
    """Run one command line; what went to stdout and stderr before is thrown away."""
    capfd.readouterr()
    code = run([str(word) for word in words])
    out, err = capfd.readouterr()
    prefix = "cn2: error: "
    lines = err.splitlines()
    errors = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return Ran(code, out, errors, [line for line in lines if not line.startswith(prefix)])


def write_grey(path: Path, level: int = 128, size: tuple[int, int] = (48, 64)) -> Path:
    """A picture of one grey level; size is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(path)
    return path


def write_png_of_zeros(path: Path, height: int, width: int) -> Path:
    """A whole, valid PNG of black one-bit pixels, row by row; 30000x30000 is 110 KB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def write_annotations(
    path: Path, images: Sequence[Path], boxes: Sequence[tuple[int, int, list[float]]]
) -> Path:
    """COCO annotations of the three classes of `fake_backend.make_manifest`.

    Args:
        images: pictures; their ids are 1, 2, … and their names relative to the first one's folder.
        boxes: image id, category id, xywh.
    """
    folder = images[0].parent
    shapes = [open_picture(image).shape for image in images]
    document = {
        "images": [
            {"id": i, "file_name": str(p.relative_to(folder)), "width": w, "height": h}
            for i, (p, (h, w, _)) in enumerate(zip(images, shapes, strict=True), start=1)
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": box}
            for i, (image, category, box) in enumerate(boxes, start=1)
        ],
        "categories": [
            {"id": 1, "name": "red"},
            {"id": 3, "name": "green"},
            {"id": 7, "name": "blue"},
        ],
    }
    path.write_text(json.dumps(document))
    return path
