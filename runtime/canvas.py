"""How large a picture is resized, and how large the canvas is that it is placed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Interpolation = Literal["antialias", "linear"]
Rounding = Literal["nearest", "down"]


@dataclass(frozen=True, kw_only=True)
class CanvasRule:
    """A model's rule for picture sizes; sizes are (height, width), pixels.

    Without `fixed`, as the official code does at test: the short side becomes `short_edge` unless
    the long side would exceed `long_edge`, and the canvas is the next multiple of `divisor`.
    With `fixed`, every picture is scaled to fit that canvas. Sides are rounded as `rounding` says.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    short_edge: int
    long_edge: int
    divisor: int
    interpolation: Interpolation = "antialias"  # antialias: Pillow bilinear; linear: OpenCV
    rounding: Rounding = "nearest"  # of the resized sides to whole pixels
    fixed: tuple[int, int] | None = None  # the canvas of every picture

    def __post_init__(self) -> None:
        if not 1 <= self.short_edge <= self.long_edge or self.divisor < 1:
            raise ValueError(
                f"canvas: expected 1 <= short_edge <= long_edge and divisor >= 1, got "
                f"{self.short_edge}, {self.long_edge}, {self.divisor}"
            )
        kind = self.interpolation
        if kind not in ("antialias", "linear"):
            raise ValueError(f"interpolation: expected antialias or linear, got {kind!r}")
        if self.rounding not in ("nearest", "down"):
            raise ValueError(f"rounding: expected nearest or down, got {self.rounding!r}")
        if self.fixed is not None and any(v < 1 or v % self.divisor for v in self.fixed):
            raise ValueError(
                f"canvas: expected a fixed size in multiples of {self.divisor}, got {self.fixed}"
            )

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """The size a picture is resized to; each side is at least 1.

        Raises:
            ValueError: the picture has no pixel.
        Source: the official test resizes (conformance/README.md, Input), in their order of
            operations, as the last bit decides the rounding: detectron2's for "nearest",
            EfficientDet's for "down". Their sides can become 0, ours cannot.
        """
        if height < 1 or width < 1:
            raise ValueError(f"picture size: expected at least 1x1, got {height}x{width}")
        if self.fixed is None and self.rounding == "nearest":
            return self._short_edge_size(height, width)
        if self.fixed is None:
            edges = self.short_edge / min(height, width), self.long_edge / max(height, width)
        else:
            edges = self.fixed[0] / height, self.fixed[1] / width
        scale = min(edges)
        return self._whole(height * scale, width * scale)

    def _short_edge_size(self, height: int, width: int) -> tuple[int, int]:
        scale = self.short_edge / min(height, width)
        if height < width:
            new_height, new_width = float(self.short_edge), scale * width
        else:
            new_height, new_width = scale * height, float(self.short_edge)
        longest = max(new_height, new_width)
        if longest > self.long_edge:
            scale = self.long_edge / longest
            new_height, new_width = new_height * scale, new_width * scale
        return self._whole(new_height, new_width)

    def _whole(self, height: float, width: float) -> tuple[int, int]:
        half = 0.5 if self.rounding == "nearest" else 0.0
        return max(1, int(height + half)), max(1, int(width + half))

    def canvas_size(self, resized: tuple[int, int]) -> tuple[int, int]:
        """The canvas of a picture resized to `resized`."""
        if self.fixed is not None:
            return self.fixed
        height, width = resized
        return -(-height // self.divisor) * self.divisor, -(-width // self.divisor) * self.divisor
