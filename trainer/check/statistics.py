"""A scanned set in numbers: what the report and its tables show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scan import SetScan

SMALL, LARGE = 32.0**2, 96.0**2  # COCO's limits of area, pixels^2
PERCENTILES = (5, 50, 95)


def summarize(scan: SetScan, decoded: int) -> dict[str, Any]:
    """The numbers of a set, ready for JSON; docs/datasets.md explains the keys."""
    objects = scan.objects
    counts = np.bincount(objects.owners, minlength=len(scan.images))
    return {
        "set": scan.name,
        "annotations": str(scan.source),
        "images": str(scan.folder),
        "format": scan.format,
        "pictures": len(scan.images),
        "decoded": decoded,
        "without_objects": int((counts == 0).sum()),
        "objects": len(objects.ids),
        "crowds": scan.crowds,
        "most_objects": int(counts.max(initial=0)),
        "picture_sizes": _picture_sizes(scan.sizes),
        "objects_by_area": {
            "small": int((objects.areas < SMALL).sum()),
            "medium": int(((objects.areas >= SMALL) & (objects.areas < LARGE)).sum()),
            "large": int((objects.areas >= LARGE).sum()),
        },
        "object_px": _percentiles(objects.boxes[:, 2:] - objects.boxes[:, :2]),
        "object_px_at_training_size": _percentiles(objects.scaled),
        "classes": [
            {
                "id": identity,
                "name": name,
                "objects": len(rows := scan.objects_of(identity)),
                "pictures": len(np.unique(objects.owners[rows])),
            }
            for identity, name in scan.classes.items()
        ],
    }


def _picture_sizes(sizes: NDArray[np.int64]) -> dict[str, Any]:
    """[width, height] of the smallest, the median and the largest picture by pixels."""
    if not len(sizes):
        return {"smallest": None, "median": None, "largest": None, "distinct": 0, "portrait": 0}
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    chosen = {"smallest": order[0], "median": order[len(order) // 2], "largest": order[-1]}
    return {
        **{name: sizes[index, ::-1].tolist() for name, index in chosen.items()},
        "distinct": len(np.unique(sizes, axis=0)),
        "portrait": int((sizes[:, 0] > sizes[:, 1]).sum()),
    }


def _percentiles(sides: NDArray[np.float32]) -> dict[str, float] | None:
    """Of the square root of width times height, pixels; None without an object."""
    if not len(sides):
        return None
    values = np.percentile(np.sqrt(sides.astype(np.float64).prod(axis=1)), PERCENTILES)
    return {f"p{p}": round(float(v), 1) for p, v in zip(PERCENTILES, values, strict=True)}
