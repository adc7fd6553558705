"""What a detector found in one picture."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import DependencyError
from .pictures import MAX_PIXELS, Picture, Pixels, open_picture

Rows: TypeAlias = slice | npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]] | list[int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The objects found in one picture, best first; n may be 0."""

    boxes: npt.NDArray[np.float32]
    """(n, 4) xyxy, pixels of the given picture, inside it, never empty."""
    scores: npt.NDArray[np.float32]
    """(n,) in [0, 1], descending."""
    class_ids: npt.NDArray[np.int64]
    """(n,) 0-based."""
    image_size: tuple[int, int]
    """Height and width of the given picture, pixels."""
    class_names: tuple[str, ...]
    """The model's classes; `class_ids` count through them."""
    dataset_ids: tuple[int, ...]
    """The id that the dataset gives to each class."""

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.class_ids.shape != (count,):
            raise ValueError(
                f"detections: expected boxes (n, 4), scores (n,) and class_ids (n,), got "
                f"{self.boxes.shape}, {self.scores.shape}, {self.class_ids.shape}"
            )

    @property
    def labels(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[index] for index in self.class_ids]

    @property
    def category_ids(self) -> npt.NDArray[np.int64]:
        """(n,) the dataset's own id of each detection's class."""
        return np.array(self.dataset_ids, dtype=np.int64)[self.class_ids]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Rows) -> Detections:
        """Some of the detections: a slice, a mask (n,), or indices. One row: `found[3:4]`."""
        if not isinstance(rows, (slice, np.ndarray, list)):
            raise TypeError(
                f"detections: expected a slice, mask or list of indices, got {rows!r}; "
                f"one row is found[i : i + 1]"
            )
        same = {field.name: getattr(self, field.name) for field in fields(self)}
        chosen = {name: same[name][rows] for name in ("boxes", "scores", "class_ids")}
        return Detections(**{**same, **chosen})

    def __iter__(self) -> Iterator[Detections]:
        """One-row detections, best first."""
        return (self[row : row + 1] for row in range(len(self)))

    def filter(
        self, *, score_threshold: float = 0.0, labels: list[str] | None = None
    ) -> Detections:
        """The detections above a score, of some classes (default: of all).

        Raises:
            ValueError: a label is not among the model's classes.
        """
        keep = self.scores > score_threshold
        if labels is not None:
            unknown = set(labels).difference(self.class_names)
            if unknown:
                raise ValueError(
                    f"labels: expected the model's class names, got {sorted(unknown)[0]!r}"
                )
            wanted = [index for index, name in enumerate(self.class_names) if name in labels]
            keep &= np.isin(self.class_ids, wanted)
        return self[keep]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO result dicts: the dataset's category ids, bbox [x, y, width, height], pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        columns = zip(
            np.hstack([self.boxes[:, :2], sides]).tolist(),
            self.scores.tolist(),
            self.category_ids.tolist(),
            strict=True,
        )
        return [
            {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
            for box, score, category in columns
        ]

    def to_supervision(self) -> Any:
        """The same as a supervision.Detections, labels under data["class_name"].

        Raises:
            DependencyError: supervision is not installed.
        """
        try:
            supervision = importlib.import_module("supervision")
        except ImportError as error:
            raise DependencyError(
                "supervision is not installed; pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.copy(),
            data={"class_name": np.array(self.labels, dtype=str)},
        )

    def draw(self, image: Picture, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """A copy of the picture with boxes and labels on it.

        Args:
            image: the picture that was given to the detector, as path or array.
        Raises:
            ValueError: the picture has another size.
        """
        from .drawing import draw_detections

        pixels = open_picture(image, max_pixels=max_pixels)
        if pixels.shape[:2] != self.image_size:
            raise ValueError(
                f"draw: expected the picture of (height, width) {self.image_size} that was "
                f"searched, got {pixels.shape[:2]}"
            )
        return draw_detections(pixels, self)

    def __repr__(self) -> str:
        shown = [
            f"{label} {score:.2f}"
            for label, score in zip(self.labels[:5], self.scores[:5].tolist(), strict=True)
        ]
        more = [f"… {len(self) - 5} more"] if len(self) > 5 else []
        return (
            f"<Detections: {len(self)} ({', '.join(shown + more)})>" if shown else "<Detections: 0>"
        )
