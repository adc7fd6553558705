"""What lies behind the objects, and what the camera adds: light, blur, noise."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3) RGB

MAX_BLUR = 0.8  # standard deviation, pixels
MAX_NOISE = 9.0  # standard deviation, grey levels
LIGHT = (0.65, 1.2)  # factor over the picture


def draw_background(rng: np.random.Generator, height: int, width: int) -> Picture:
    """A gradient, a noise texture or colour patches; (height, width, 3) RGB."""
    kind = rng.choice(3, p=[0.35, 0.35, 0.3])
    if kind == 0:
        return _gradient(rng, height, width)
    if kind == 1:
        return _noise_texture(rng, height, width)
    return _patches(rng, height, width)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Picture:
    rows, columns = rng.integers(2, 5, 2)
    middle = rng.uniform(20, 235, 3)
    spread = rng.uniform(10, 90)
    grid = middle + rng.uniform(-spread, spread, (rows, columns, 3))
    return _enlarge(grid, height, width)


def _noise_texture(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Two or three octaves of noise around one colour."""
    total = np.empty((height, width, 3), np.float32)
    total[:] = rng.uniform(30, 225, 3)
    for _ in range(int(rng.integers(2, 4))):
        cell = float(np.exp(rng.uniform(np.log(4), np.log(80))))
        rows, columns = int(height / cell) + 2, int(width / cell) + 2
        shared = rng.normal(0, 1, (rows, columns, 1)) @ rng.uniform(-1, 1, (1, 3))
        grid = (shared * rng.uniform(5, 35)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.convertScaleAbs(np.maximum(total, 0)).astype(np.uint8, copy=False)


def _patches(rng: np.random.Generator, height: int, width: int) -> Picture:
    picture = _gradient(rng, height, width)
    for _ in range(int(rng.integers(3, 14))):
        centre = rng.uniform(0, (width, height))
        corners = centre + rng.normal(0, 0.25, (int(rng.integers(3, 6)), 2)) * max(height, width)
        colour = rng.uniform(0, 255, 3).tolist()
        hull = cv2.convexHull(np.round(corners).astype(np.int32))
        cv2.fillConvexPoly(picture, hull, colour, lineType=cv2.LINE_AA)
    return picture


def _enlarge(grid: NDArray[np.float64], height: int, width: int) -> Picture:
    smooth = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.convertScaleAbs(np.maximum(smooth, 0)).astype(np.uint8, copy=False)


def apply_camera(rng: np.random.Generator, picture: Picture) -> Picture:
    """Uneven light, sometimes blur, sensor noise. The geometry stays as it is."""
    height, width = picture.shape[:2]
    corners = rng.uniform(*LIGHT, (2, 2)).astype(np.float32)
    light = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    lit = picture.astype(np.float32) * light[:, :, None]
    if rng.random() < 0.4:
        sigma = rng.uniform(0.3, MAX_BLUR)
        lit = np.asarray(cv2.GaussianBlur(lit, (0, 0), sigma), np.float32)
    grain = rng.standard_normal((height, width, 1), np.float32)
    strength = (rng.uniform(0, MAX_NOISE) * rng.uniform(0.6, 1.0, 3)).astype(np.float32)
    return np.clip(lit + grain * strength + 0.5, 0, 255).astype(np.uint8)
