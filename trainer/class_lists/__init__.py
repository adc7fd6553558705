"""The classes of published data sets: names, category ids, and of LVIS how common each one is.

The JSON files beside this one were made by `python -m cn2.trainer.class_lists $CN2_SHARED/data`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

ClassListName = Literal["lvis-v1", "objects365-v1", "nuimages"]


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The classes of a data set, in the order of a detector's outputs."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...]  # the data set's own, ascending
    frequencies: tuple[str, ...] = ()  # LVIS: r (rare), c (common), f (frequent); else empty
    image_counts: tuple[int, ...] = ()  # LVIS: training pictures with the class; else empty


@cache
def class_list(name: ClassListName) -> ClassList:
    """Read a list; the file is opened at the first call only.

    Raises:
        ValueError: no list of that name.
    """
    known = get_args(ClassListName)
    if name not in known:
        raise ValueError(f"class list: expected one of {', '.join(known)}, got {name!r}")
    text = files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    columns = json.loads(text)
    return ClassList(**{key: tuple(values) for key, values in columns.items()})
