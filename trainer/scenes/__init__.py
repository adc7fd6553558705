"""Generator of synthetic scenes: numpy and OpenCV only, everything decided by the seed."""

from .compose import Scene, SceneObject, compose_scene, render_scene
from .shapes import CLASS_NAMES
from .write import HELD_OUT_SEED, write_scenes

__all__ = [
    "CLASS_NAMES",
    "HELD_OUT_SEED",
    "Scene",
    "SceneObject",
    "compose_scene",
    "render_scene",
    "write_scenes",
]
