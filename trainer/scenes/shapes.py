"""The classes of the synthetic scenes: a shape and a texture each, never a colour.

Every class is drawn once as a template (coverage, second-colour share) with its smaller copies;
an object is a template warped by rotation, aspect and mild perspective.
"""

from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from .stencils import Bytes, Stencil

Points = NDArray[np.float64]

# Pairs share a shape (discs, squares) or a texture (stripes, dots, plain).
CLASS_NAMES = (
    "striped disc",
    "dotted disc",
    "striped square",
    "checkered square",
    "dotted triangle",
    "ring",
    "star",
    "cross",
)
SHAPES = ("disc", "disc", "square", "square", "triangle", "ring", "star", "cross")
TEXTURES = ("stripes", "dots", "stripes", "checks", "dots", "plain", "plain", "plain")

TEMPLATE_SIZES = (512, 256, 128, 64, 32)  # pixels; the drawing itself is made at twice the first
DRAWING_SIZE = 2 * TEMPLATE_SIZES[0]
RIM = 0.09  # width of the first-colour rim, in half template sides
FINENESSES = 3  # texture variants; 0, the coarsest, is all that small objects get
ASPECTS = (0.6, 1.6)
MAX_PERSPECTIVE = 0.15  # change of scale from the centre to the side


@dataclass(frozen=True)
class Template:
    """One class at one fineness: layers (s, s, 2) of alpha and tone per size; outline (P, 2)."""

    layers: tuple[Bytes, ...]
    outline: Points  # template coordinates, -1..1


def _regular_star(points: int, inner: float, outer: float) -> Points:
    angles = -pi / 2 + np.arange(2 * points) * pi / points
    radii = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _polygon(shape: str) -> Points:
    """Corners of a shape in template coordinates."""
    if shape == "square":
        return np.array([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]])
    if shape == "triangle":
        return np.array([[0.0, -0.92], [0.92, 0.72], [-0.92, 0.72]])
    if shape == "star":
        return _regular_star(5, 0.42, 0.96)
    if shape == "cross":
        a, b = 0.32, 0.92
        corner = np.array([[-a, -b], [a, -b], [a, -a]])
        turns = [np.array([[cos(t), -sin(t)], [sin(t), cos(t)]]) for t in np.arange(4) * pi / 2]
        return np.concatenate([corner @ turn.T for turn in turns])
    raise ValueError(f"shape: expected square, triangle, star or cross, got {shape!r}")


def _draw_shape(shape: str) -> Bytes:
    """(DRAWING_SIZE, DRAWING_SIZE) of 0 and 255."""
    mask = np.zeros((DRAWING_SIZE, DRAWING_SIZE), np.uint8)
    half = DRAWING_SIZE // 2
    if shape in ("disc", "ring"):
        cv2.circle(mask, (half, half), int(0.93 * half), 255, -1)
        if shape == "ring":
            cv2.circle(mask, (half, half), int(0.5 * half), 0, -1)
        return mask
    corners = np.round((_polygon(shape) + 1) * half).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255)
    return mask


def _draw_texture(texture: str, fineness: int) -> NDArray[np.bool_]:
    """Where the second colour lies, the shape and its rim apart."""
    axis = (np.arange(DRAWING_SIZE) + 0.5) / DRAWING_SIZE * 2 - 1
    x, y = np.meshgrid(axis, axis)
    if texture == "stripes":
        bars = 3 + fineness
        return np.asarray((x + 1) * (bars + 0.5) / 2 % 1 > 0.5)
    if texture == "checks":
        cells = 4 + fineness
        return np.asarray((np.floor((x + 1) * cells / 2) + np.floor((y + 1) * cells / 2)) % 2 == 0)
    if texture == "dots":
        pitch = (0.6, 0.5, 0.42)[fineness]
        row_height = pitch * sqrt(3) / 2
        row = np.round((y - 0.08) / row_height)
        dx = (x / pitch + row / 2 + 0.5) % 1 - 0.5
        dy = (y - 0.08) / row_height - row
        return np.asarray((dx * pitch) ** 2 + (dy * row_height) ** 2 < (0.34 * pitch) ** 2)
    if texture == "plain":
        return np.ones(x.shape, bool)
    raise ValueError(f"texture: expected stripes, checks, dots or plain, got {texture!r}")


@cache
def class_template(class_id: int, fineness: int) -> Template:
    """The drawn template of a class (0-based) at a fineness 0..FINENESSES-1."""
    mask = _draw_shape(SHAPES[class_id])
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside = depth > RIM * DRAWING_SIZE / 2
    tone = (_draw_texture(TEXTURES[class_id], fineness) & inside).astype(np.uint8) * 255
    drawing = np.stack([mask, tone], axis=2)
    layers = tuple(
        np.asarray(cv2.resize(drawing, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
        for size in TEMPLATE_SIZES
    )
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = contours[0].reshape(-1, 2)[::8].astype(np.float64)
    return Template(layers, (outline + 0.5) / DRAWING_SIZE * 2 - 1)


def draw_object(
    rng: np.random.Generator, class_id: int, long_side: float, fineness: int
) -> Stencil:
    """One object under a random rotation, aspect and perspective; its patch starts near (0, 0).

    Args:
        rng: consumed.
        class_id: 0-based index into CLASS_NAMES.
        long_side: longer side of the object's box, pixels (met to about 1 px).
        fineness: texture variant, 0..FINENESSES-1.
    """
    template = class_template(class_id, fineness)
    shape = _random_homography(rng)
    placed = _project(shape, template.outline)
    low, high = placed.min(axis=0), placed.max(axis=0)
    scale = long_side / float((high - low).max())
    shift = rng.uniform(1.0, 2.0, 2) - low * scale  # sub-pixel place within the patch
    to_patch = np.array([[scale, 0, shift[0] - 0.5], [0, scale, shift[1] - 0.5], [0, 0, 1]])
    width, height = (int(v) for v in np.ceil((high - low) * scale) + 4)
    level = max(i for i, size in enumerate(TEMPLATE_SIZES) if i == 0 or size >= long_side)
    size = TEMPLATE_SIZES[level]
    from_template = np.array(
        [[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1.0]]
    )
    patch: Bytes = cv2.warpPerspective(  # type: ignore[assignment]
        template.layers[level],
        to_patch @ shape @ from_template,
        (width, height),
        flags=cv2.INTER_LINEAR,
    )
    return Stencil(alpha=patch[:, :, 0], tone=patch[:, :, 1], left=0, top=0)


def _random_homography(rng: np.random.Generator) -> Points:
    """(3, 3) rotation, stretch along a random direction, perspective; about the origin."""
    turn, direction = rng.uniform(0, 2 * pi, 2)
    stretch = sqrt(float(np.exp(rng.uniform(*np.log(ASPECTS)))))
    affine = np.eye(3)
    affine[:2, :2] = (
        _rotation(direction) @ np.diag([stretch, 1 / stretch]) @ _rotation(turn - direction)
    )
    perspective = np.eye(3)
    perspective[2, :2] = rng.uniform(-MAX_PERSPECTIVE, MAX_PERSPECTIVE, 2)
    return perspective @ affine


def _rotation(angle: float) -> Points:
    return np.array([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


def _project(homography: Points, points: Points) -> Points:
    moved = np.c_[points, np.ones(len(points))] @ homography.T
    return np.asarray(moved[:, :2] / moved[:, 2:])
