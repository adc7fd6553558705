"""Where a training's file keeps the weights, and the running mean of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cn2.runtime.errors import ModelFormatError

from .checkpoint import check_count
from .convert.foreign import OFFICIAL_HEAD
from .numpy_pickle import PickledArray

DEPTH = 3  # of tables in tables
MODEL_KEYS = (
    *("model", "state_dict", "model_state_dict", "model_state", "module", "net", "blobs"),
    "state",
)
EMA_KEYS = ("ema_state", "model_ema", "ema", "ema_model", "ema_state_dict", "state_dict_ema")
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile
MEAN_PREFIX = re.compile(r"(^|[._])ema([._]|$)|teacher", re.IGNORECASE)

Found = tuple[str, Mapping[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file's tensors by name; they may be the file itself in memory, so only read them."""

    tensors: dict[str, Tensor]
    used: str
    """The keys that lead to them, such as `model`; "" where the file is just their table."""
    other: str
    """Those of another copy in the file: the running mean beside the weights, or the reverse."""
    averaged: bool
    """Whether they are the running mean."""


def weights_of(values: Any, path: Path, *, ema: bool) -> WeightsFile:
    """The table that was asked for, from all that a training saved.

    Raises:
        ModelFormatError: there is none.
    """
    model, averaged = _find(values, MODEL_KEYS), _find(values, EMA_KEYS)
    mean = averaged is not None and (ema or model is None)
    chosen, other = (averaged, model) if mean else (model, averaged)
    if chosen is None and isinstance(values, Mapping):
        chosen = ("", values)
    table = _tensors(chosen[1], path) if chosen else {}
    if chosen is None or not table:
        raise ModelFormatError(
            f"{path}: expected a table of tensors by name, got {type(values).__name__}; "
            "save model.state_dict()"
        )
    read = _copy_of(_unwrapped(table), path, ema=ema and not mean)
    keys = [_joined(chosen[0], read.used), other[0] if other is not None else ""]
    return WeightsFile(
        tensors=read.tensors,
        used=keys[0],
        other=keys[1] or (_joined(chosen[0], read.other) if read.other else ""),
        averaged=mean or read.averaged,
    )


def _find(values: Any, keys: tuple[str, ...]) -> Found | None:
    """The first of these keys, in any case, with a table of tensors, and the table."""
    for key in keys:
        path, found = _entry(values, key)
        for _ in range(DEPTH):
            if not isinstance(found, Mapping):
                break
            if any(isinstance(value, Tensor | PickledArray) for value in found.values()):
                return path, found
            entries = (_entry(found, inner) for inner in MODEL_KEYS + EMA_KEYS)
            inner = next((name for name, value in entries if isinstance(value, Mapping)), None)
            if inner is None:
                break
            path, found = f"{path}.{inner}", found[inner]
    return None


def _entry(values: Any, key: str) -> tuple[str, Any]:
    """The key as the table spells it, and what stands there; None where there is nothing."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            if isinstance(name, str) and name.lower() == key:
                return name, value
    return key, None


def _tensors(table: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The entries that are tensors; arrays become such, one by one."""
    check_count(len(table), path)
    tensors = {}
    for name, value in table.items():
        if isinstance(value, Tensor):
            tensors[str(name)] = value.detach()
        elif isinstance(value, PickledArray) and value.is_numbers:
            try:
                tensors[str(name)] = value.tensor()
            except ValueError as error:
                raise ModelFormatError(f"{path}: {name}: {error}") from None
    return tensors


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of wrappers, where all names have them."""
    for prefix in WRAPPERS * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _copy_of(tensors: dict[str, Tensor], path: Path, *, ema: bool) -> WeightsFile:
    """One of the detectors in a table, each under a prefix of its own; `ema`: the averaged one.

    Raises:
        ModelFormatError: there is no averaged one, or several of a kind.
    """
    prefixes = _prefixes(tensors)
    means = [prefix for prefix in prefixes if MEAN_PREFIX.search(prefix)]
    plain = [prefix for prefix in prefixes if prefix not in means]
    if ema and not means:
        raise ModelFormatError(f"{path}: expected weights averaged by EMA, found none in it")
    averaged = ema or (bool(means) and not plain)
    chosen, other = (means, plain) if averaged else (plain, means)
    if len(chosen) > 1:
        raise ModelFormatError(
            f"{path}: expected one detector, got those under {', '.join(map(repr, chosen[:5]))}; "
            "save one alone"
        )
    own = chosen[0] if chosen else ""
    return WeightsFile(
        tensors=_under(tensors, own, [prefix for prefix in prefixes if prefix != own]),
        used=own.rstrip(".") if other else "",
        other=(other[0].rstrip(".") or "the rest") if other else "",
        averaged=averaged,
    )


def _prefixes(names: Iterable[str]) -> list[str]:
    """What stands before the names of CenterNet2's head: one prefix for each copy."""
    return list(dict.fromkeys(n.partition(OFFICIAL_HEAD)[0] for n in names if OFFICIAL_HEAD in n))


def _under(tensors: dict[str, Tensor], own: str, others: list[str]) -> dict[str, Tensor]:
    """Those under a prefix, without it, and those under none, such as a bare pixel_mean."""
    nested = tuple(prefix for prefix in others if prefix.startswith(own))
    inside = {n: v for n, v in tensors.items() if n.startswith(own) and not n.startswith(nested)}
    bare = {n: v for n, v in tensors.items() if not n.startswith((own, *others))}
    return bare | {name.removeprefix(own): value for name, value in inside.items()}


def _joined(*keys: str) -> str:
    return ".".join(key for key in keys if key)
