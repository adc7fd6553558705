"""Things that belong to no class, in the colours and textures of those that do."""

from collections.abc import Callable
from math import pi

import cv2
import numpy as np
from numpy.typing import NDArray

from .stencils import Bytes, Stencil

MARGIN = 3  # pixels around what is drawn


def draw_clutter(rng: np.random.Generator, size: float) -> Stencil:
    """One thing of about `size` pixels: line, curve, arc, polygon, ellipse, blob or splinter."""
    draw = DRAWERS[int(rng.integers(len(DRAWERS)))]
    side = int(size) + 2 * MARGIN
    alpha = np.zeros((side, side), np.uint8)
    draw(rng, alpha, size / 2)
    tone = _random_tone(rng, alpha)
    return Stencil(alpha=alpha, tone=tone, left=0, top=0)


def _random_tone(rng: np.random.Generator, alpha: Bytes) -> Bytes:
    """Nothing, a two-tone split, or stripes of the second colour."""
    kind = rng.random()
    if kind < 0.4:
        return np.zeros_like(alpha)
    height, width = alpha.shape
    angle = rng.uniform(0, 2 * pi)
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    along = (x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle)
    if kind < 0.75:
        second = along > 0
    else:
        period = max(6.0, width / rng.uniform(2.0, 5.0))
        second = (along / period) % 1 > 0.5
    return np.where(second, alpha, 0).astype(np.uint8)


def _to_pixels(alpha: Bytes, points: NDArray[np.float64]) -> NDArray[np.int32]:
    centre = np.array(alpha.shape[::-1]) / 2
    return np.round(points + centre).astype(np.int32)


def _draw_line(rng: np.random.Generator, alpha: Bytes, radius: float) -> None:
    angle = rng.uniform(0, pi)
    end = radius * np.array([np.cos(angle), np.sin(angle)])
    ends = _to_pixels(alpha, np.stack([-end, end]))
    cv2.polylines(alpha, [ends], False, 255, _thickness(rng, radius), cv2.LINE_AA)


def _draw_curve(rng: np.random.Generator, alpha: Bytes, radius: float) -> None:
    knots = rng.uniform(-radius, radius, (4, 2))
    t = np.linspace(0, 1, 24)[:, None]
    basis = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    points = _to_pixels(alpha, basis @ knots)
    cv2.polylines(alpha, [points], False, 255, _thickness(rng, radius), cv2.LINE_AA)


def _draw_arc(rng: np.random.Generator, alpha: Bytes, radius: float) -> None:
    """At most half a turn, so that it never passes for a ring."""
    start = rng.uniform(0, 360)
    thickness = max(2, int(radius * rng.uniform(0.1, 0.35)))
    inner = max(2, int(radius - thickness / 2))
    height, width = alpha.shape
    turn, span = rng.uniform(0, 360), rng.uniform(50, 180)
    cv2.ellipse(
        alpha,
        (width // 2, height // 2),
        (inner, max(2, int(inner * rng.uniform(0.5, 1)))),
        turn,
        start,
        start + span,
        255,
        thickness,
        cv2.LINE_AA,
    )


def _draw_polygon(rng: np.random.Generator, alpha: Bytes, radius: float) -> None:
    count = int(rng.integers(3, 7))
    angles = np.sort(rng.uniform(0, 2 * pi, count))
    radii = rng.uniform(0.4, 1.0, count) * radius
    _fill_polar(alpha, angles, radii)


def _draw_ellipse(rng: np.random.Generator, alpha: Bytes, radius: float) -> None:
    height, width = alpha.shape
    axes = (max(2, int(radius)), max(2, int(radius * rng.uniform(0.3, 0.9))))
    turn = rng.uniform(0, 180)
    cv2.ellipse(alpha, (width // 2, height // 2), axes, turn, 0, 360, 255, -1, cv2.LINE_AA)


def _draw_blob(rng: np.random.Generator, alpha: Bytes, radius: float) -> None:
    angles = np.linspace(0, 2 * pi, 40, endpoint=False)
    radii = np.full(40, 0.65)
    for wave in range(2, 6):
        radii += 0.09 * rng.normal() * np.cos(wave * angles + rng.uniform(0, 2 * pi))
    _fill_polar(alpha, angles, np.clip(radii, 0.2, 1.0) * radius)


def _draw_splinter(rng: np.random.Generator, alpha: Bytes, radius: float) -> None:
    """A bent bar: two arms of unlike lengths."""
    angle, bend = rng.uniform(0, 2 * pi), rng.uniform(0.6, 2.4)
    arms = np.array([[angle, 1.0], [angle, 0.0], [angle + bend, rng.uniform(0.4, 0.8)]])
    points = radius * arms[:, 1:] * np.stack([np.cos(arms[:, 0]), np.sin(arms[:, 0])], axis=1)
    thickness = max(2, int(radius * rng.uniform(0.2, 0.45)))
    cv2.polylines(alpha, [_to_pixels(alpha, points * 0.8)], False, 255, thickness, cv2.LINE_AA)


def _fill_polar(alpha: Bytes, angles: NDArray[np.float64], radii: NDArray[np.float64]) -> None:
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    cv2.fillPoly(alpha, [_to_pixels(alpha, points)], 255, cv2.LINE_AA)


def _thickness(rng: np.random.Generator, radius: float) -> int:
    return int(rng.integers(1, max(3, int(radius / 6) + 1)))


DRAWERS: tuple[Callable[[np.random.Generator, Bytes, float], None], ...] = (
    _draw_line,
    _draw_curve,
    _draw_arc,
    _draw_polygon,
    _draw_ellipse,
    _draw_blob,
    _draw_splinter,
)
