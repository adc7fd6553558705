"""One scene from one seed: background, clutter and objects in painter's order, exact boxes."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from .backgrounds import Picture, apply_camera, draw_background
from .clutter import draw_clutter
from .colours import pick_colours
from .shapes import CLASS_NAMES, FINENESSES, draw_object
from .stencils import HALF_COVERED, Bytes, Stencil

Owners = NDArray[np.int16]  # (H, W) index of the object seen at a pixel, NOBODY elsewhere
Box = tuple[int, int, int, int]  # xyxy, pixels

NOBODY = -1
PICTURE_SIZES = (  # height, width
    (480, 640), (640, 480), (360, 640), (640, 360), (512, 512), (600, 400), (400, 600), (448, 576),
)  # fmt: skip
MIN_VISIBLE = 0.4  # of an object's own pixels: at most 60 % are hidden or outside
SIZES = (16.0, 400.0)  # longer side of an object's box, pixels
MIN_LONG_SIDE = 16  # of the box of what is visible, pixels
MIN_SHORT_SIDE = 10
EMPTY_SHARE = 0.04  # pictures without any object
MAX_OBJECTS = 15
TRIES = 12  # places tried for one object before it is left out


@dataclass(frozen=True)
class SceneObject:
    """What the ground truth says of one object."""

    class_id: int
    """0-based index into CLASS_NAMES."""
    box: Box
    """Extent of the visible pixels, xyxy, pixels, x2 and y2 exclusive."""
    visible_pixels: int
    own_pixels: int
    """Pixels of the whole object, hidden ones and those outside the picture too."""


@dataclass(frozen=True)
class Scene:
    """A picture (H, W, 3) RGB, its objects, and who is seen where (H, W)."""

    picture: Picture
    objects: list[SceneObject]
    owners: Owners


@dataclass
class Painting:
    """A scene while it is painted, back to front."""

    picture: Picture
    owners: Owners
    min_visible: float
    objects: list[SceneObject] = field(default_factory=list)

    def hide(self, stencil: Stencil) -> list[SceneObject] | None:
        """The objects as they would be behind the stencil; None where one would be hidden."""
        window = stencil.window()
        covered = self.owners[window][stencil.alpha >= HALF_COVERED]
        hidden = np.bincount(covered[covered != NOBODY], minlength=len(self.objects))
        changed = list(self.objects)
        for index in np.flatnonzero(hidden):
            old = self.objects[index]
            visible = old.visible_pixels - int(hidden[index])
            if visible < self.min_visible * old.own_pixels:
                return None
            x1, y1, x2, y2 = old.box
            mask = self.owners[y1:y2, x1:x2] == index
            _clear(mask, stencil, x1, y1)
            box = _extent(mask, x1, y1)
            if not _is_large_enough(box):
                return None
            changed[index] = SceneObject(old.class_id, box, visible, old.own_pixels)
        return changed

    def paint(self, rng: np.random.Generator, stencil: Stencil) -> None:
        """Blend a cropped stencil in colours that show against what lies around it."""
        window = stencil.window()
        first, second = pick_colours(rng, self._surroundings(rng, stencil))
        alpha = stencil.alpha.astype(np.float32)[:, :, None] * np.float32(1 / 255)
        tone = stencil.tone.astype(np.float32)[:, :, None] * np.float32(1 / 255)
        below = self.picture[window].astype(np.float32)
        blended = below + alpha * (first - below) + tone * (second - first)
        self.picture[window] = np.clip(blended + 0.5, 0, 255).astype(np.uint8)

    def _surroundings(self, rng: np.random.Generator, stencil: Stencil) -> NDArray[np.uint8]:
        """(N, 3) pixels of the picture close to the stencil, inside its patch or under its rim."""
        solid = (stencil.alpha >= HALF_COVERED).astype(np.uint8)
        kernel = np.ones((5, 5), np.uint8)
        near = cv2.dilate(solid, kernel) != cv2.erode(solid, kernel, borderValue=0)
        pixels: NDArray[np.uint8] = self.picture[stencil.window()][near]
        if len(pixels) <= 200:
            return pixels
        return np.asarray(pixels[rng.integers(0, len(pixels), 200)])


def render_scene(seed: int) -> tuple[Picture, list[SceneObject]]:
    """The picture (H, W, 3) uint8 RGB of a seed and its objects; the same on every call."""
    scene = compose_scene(seed)
    return scene.picture, scene.objects


def compose_scene(seed: int) -> Scene:
    """As `render_scene`, with the map of visible objects."""
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    rng = np.random.default_rng(seed)
    height, width = PICTURE_SIZES[int(rng.integers(len(PICTURE_SIZES)))]
    painting = Painting(
        picture=draw_background(rng, height, width),
        owners=np.full((height, width), NOBODY, np.int16),
        min_visible=float(rng.uniform(MIN_VISIBLE, 1.0)),
    )
    for _ in range(int(rng.integers(0, 16))):
        _add_clutter(rng, painting)
    for size in _draw_sizes(rng, 0.9 * min(height, width)):
        _add_object(rng, painting, float(size))
        if rng.random() < 0.15:
            _add_clutter(rng, painting)
    picture = apply_camera(rng, painting.picture)
    return Scene(picture, painting.objects, painting.owners)


def _draw_sizes(rng: np.random.Generator, limit: float) -> NDArray[np.float64]:
    """Long sides in painting order: mostly large to small, 0 to MAX_OBJECTS of them."""
    if rng.random() < EMPTY_SHARE:
        return np.empty(0)
    count = min(MAX_OBJECTS, 1 + int(rng.gamma(2.2, 2.4)))
    ranges = np.array([(SIZES[0] + 2, 32.0), (32.0, 128.0), (128.0, 250.0), (250.0, SIZES[1])])
    kinds = rng.choice(4, count, p=[0.12, 0.55, 0.24, 0.09])
    low, high = np.log(ranges[kinds]).T
    sizes = np.minimum(np.exp(rng.uniform(low, high)), limit)
    order = np.argsort(-sizes * rng.uniform(0.6, 1.6, count), kind="stable")
    return np.asarray(sizes[order])


def _add_object(rng: np.random.Generator, painting: Painting, long_side: float) -> None:
    """Draw one object where no other loses too much; leave it out after TRIES places."""
    class_id = int(rng.integers(len(CLASS_NAMES)))
    finest = 1 if long_side < 40 else 2 if long_side < 70 else FINENESSES
    stencil = draw_object(rng, class_id, long_side, int(rng.integers(finest)))
    own_pixels = stencil.own_pixels
    for _ in range(TRIES):
        placed = _place(rng, stencil, painting.picture.shape[:2], overhang=0.25)
        if placed is None:
            continue
        solid = placed.alpha >= HALF_COVERED
        visible = int(np.count_nonzero(solid))
        if visible < painting.min_visible * own_pixels:
            continue
        box = _extent(solid, placed.left, placed.top)
        changed = painting.hide(placed) if _is_large_enough(box) else None
        if changed is None:
            continue
        painting.paint(rng, placed)
        painting.owners[placed.window()][solid] = len(changed)
        painting.objects = [*changed, SceneObject(class_id, box, visible, own_pixels)]
        return


def _add_clutter(rng: np.random.Generator, painting: Painting) -> None:
    size = float(np.exp(rng.uniform(np.log(10), np.log(180))))
    stencil = draw_clutter(rng, size)
    placed = _place(rng, stencil, painting.picture.shape[:2], overhang=0.6)
    if placed is None:
        return
    changed = painting.hide(placed)
    if changed is None:
        return
    painting.paint(rng, placed)
    painting.owners[placed.window()][placed.alpha >= HALF_COVERED] = NOBODY
    painting.objects = changed


def _place(
    rng: np.random.Generator, stencil: Stencil, picture_size: tuple[int, ...], *, overhang: float
) -> Stencil | None:
    """The stencil at a random place, now and then over the border by that share of its side."""
    height, width = picture_size
    h, w = stencil.alpha.shape
    share = overhang if rng.random() < 0.3 else 0.0
    x = rng.uniform(-share * w, max(width - w + share * w, 1.0))
    y = rng.uniform(-share * h, max(height - h + share * h, 1.0))
    moved = Stencil(alpha=stencil.alpha, tone=stencil.tone, left=int(x), top=int(y))
    return moved.crop(height, width)


def _clear(mask: NDArray[np.bool_], stencil: Stencil, left: int, top: int) -> None:
    """Take the stencil's pixels out of a mask whose corner lies at (left, top)."""
    h, w = mask.shape
    moved = Stencil(
        alpha=stencil.alpha, tone=stencil.tone, left=stencil.left - left, top=stencil.top - top
    ).crop(h, w)
    if moved is not None:
        mask[moved.window()] &= moved.alpha < HALF_COVERED


def _extent(mask: Bytes | NDArray[np.bool_], left: int, top: int) -> Box:
    """Tight box of a mask whose corner lies at (left, top); zeros for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return 0, 0, 0, 0
    return (
        left + int(columns[0]),
        top + int(rows[0]),
        left + int(columns[-1]) + 1,
        top + int(rows[-1]) + 1,
    )


def _is_large_enough(box: Box) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    return max(width, height) >= MIN_LONG_SIDE and min(width, height) >= MIN_SHORT_SIDE
