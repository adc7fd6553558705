"""The demo's pictures: `python -m cn2.trainer.scenes.bundle runtime/bundled/pictures`.

One scene per picture size, from held-out seeds that the validation sets do not reach; which
scenes is a rule and not a choice, so that the AP on them is not flattered.
"""

import sys
from pathlib import Path

from .compose import PICTURE_SIZES, compose_scene
from .write import HELD_OUT_SEED, write_seeds

FIRST_SEED = HELD_OUT_SEED + 900_000_000
MIN_OBJECTS = 4


def bundled_seeds() -> list[int]:
    """The first seed of each picture size whose scene has MIN_OBJECTS objects or more."""
    found: dict[tuple[int, int], int] = {}
    seed = FIRST_SEED
    while len(found) < len(PICTURE_SIZES):
        scene = compose_scene(seed)
        height, width = scene.owners.shape
        if len(scene.objects) >= MIN_OBJECTS:
            found.setdefault((height, width), seed)
        seed += 1
    return sorted(found.values())


def main() -> None:
    """Write the pictures and annotations.json to the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m cn2.trainer.scenes.bundle FOLDER")
    write_seeds(Path(sys.argv[1]), bundled_seeds(), processes=1)


if __name__ == "__main__":
    main()
