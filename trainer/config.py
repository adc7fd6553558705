"""The whole description of a detector and of its training, as frozen dataclasses.

A preset is a value of `Config`; where the official models' values look odd, docs/differences.md
has the reason. What comes from outside (`--set`, a checkpoint) goes through
`config_from_dict`, which refuses unknown keys and names the nearest known one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from .model_config import ModelConfig
from .strict import Strict
from .train_config import TrainConfig

Interpolation = Literal["antialias", "linear"]
Rounding = Literal["nearest", "down"]


@dataclass(frozen=True, kw_only=True)
class InputConfig(Strict):
    """How a picture becomes the network's input."""

    color_order: Literal["RGB", "BGR"]
    pixel_mean: tuple[float, float, float]  # in color_order, grey levels 0..255
    pixel_std: tuple[float, float, float]  # in color_order
    short_edge: int  # pixels; the short side is resized to this ...
    long_edge: int  # ... unless the long side would exceed this
    divisor: int  # the canvas is padded to a multiple of this, pixels
    interpolation: Interpolation = "antialias"  # antialias: Pillow bilinear; linear: OpenCV
    rounding: Rounding = "nearest"  # of the resized sides to whole pixels


@dataclass(frozen=True, kw_only=True)
class Config(Strict):
    """A detector, its input and its training."""

    preset: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    input: InputConfig
    model: ModelConfig
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.category_ids):
            raise ValueError(
                f"category_ids: expected one per class ({len(self.class_names)}), "
                f"got {len(self.category_ids)}"
            )
        if not self.class_names:
            raise ValueError("class_names: expected at least one class, got none")


def config_to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON-ready nested dicts."""
    values: dict[str, Any] = TypeAdapter(Config).dump_python(config, mode="json")
    return values


def config_from_dict(values: dict[str, Any]) -> Config:
    """Read a config back from nested dicts, strictly.

    Raises:
        ValueError: an unknown key (with the nearest known one), a missing key, a wrong type or a
            broken invariant; the message begins with the key's dotted path.
    """
    try:
        return TypeAdapter(Config).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ValueError(_first_error(error, values)) from None


def apply_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """Replace single values, each given as `key.path=value`.

    Args:
        config: the config to start from; it is not changed.
        overrides: such as `train.base_lr=0.01`; a value is JSON, or else taken as text.
    Raises:
        ValueError: no `=`, an unknown key (with the nearest known one), or an unfit value.
    """
    values = config_to_dict(config)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"{override}: expected key.path=value, got no '='")
        *parents, last = path.strip().split(".")
        table = values
        for depth, key in enumerate(parents):
            table = _known(table, key, ".".join(parents[: depth + 1]))
        _known(table, last, path.strip())
        table[last] = _parse(text.strip())
    return config_from_dict(values)


def with_classes(config: Config, names: Sequence[str], category_ids: Sequence[int]) -> Config:
    """The same detector for other classes; `category_ids` are the dataset's own, in that order."""
    return replace(config, class_names=tuple(names), category_ids=tuple(category_ids))


def _known(table: Any, key: str, path: str) -> Any:
    """The entry of a table, or an error that names the nearest key."""
    if not isinstance(table, dict):
        raise ValueError(f"{path}: expected a key of a group of settings, got one below a value")
    if key not in table:
        raise ValueError(_unknown_key(path, key, list(table)))
    return table[key]


def _unknown_key(path: str, key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(known))}"
    return f"{path}: unknown key; {hint}"


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _first_error(error: ValidationError, values: dict[str, Any]) -> str:
    """One line for the first thing wrong: dotted path, what was expected, what came."""
    first = error.errors()[0]
    keys = _without_union_tags(first["loc"], values)
    path = ".".join(keys)
    if first["type"] == "unexpected_keyword_argument":
        return _unknown_key(path, keys[-1], [f.name for f in fields(_class_of(keys[:-1], values))])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    if first["type"].startswith("missing"):
        return f"{path}: expected a value, got none"
    return f"{path}: {message}, got {first['input']!r}"


def _without_union_tags(location: tuple[int | str, ...], values: Any) -> list[str]:
    """The keys that lead to an error, without the tags of unions that pydantic puts between."""
    keys: list[str] = []
    for part in location:
        if isinstance(values, dict) and part not in values and values.get("kind") == part:
            continue
        keys.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
    return keys


def _class_of(keys: Sequence[str], values: dict[str, Any]) -> type[Any]:
    """The config class that the group of settings under these keys belongs to."""
    found: type[Any] = Config
    for key in keys:
        values = values[key]
        hint = get_type_hints(found)[key]
        options = get_args(hint) or (hint,)
        found = next(o for o in options if getattr(o, "kind", None) == values.get("kind"))
    return found
