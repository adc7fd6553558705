"""A detector as one safetensors file that says what it is; no pickle is written or read.

The header's metadata holds the config as JSON (class names and category ids among it), the format
version, the licence of the weights and where they come from.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cn2.runtime.errors import ModelFormatError

from .build import build_detector
from .config import Config, config_from_dict, config_to_dict
from .detector import AnyDetector
from .safetensors_file import write_tensors

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
MOST_TENSORS = 5_000  # in a file, a training's included; the largest official model has 1,231
# Parts of the names of tensors with a row per class.
CLASSIFIERS = (".class_logits.", ".class_heatmaps.", ".freq_weight")


def save_checkpoint(
    path: Path, model: nn.Module, config: Config, *, license: str, provenance: str
) -> None:
    """Write the weights in fp32 and what they are; the file appears whole or not at all."""
    metadata = describe_checkpoint(config, license=license, provenance=provenance)
    write_tensors(path, model.state_dict(), metadata)


def describe_checkpoint(config: Config, *, license: str, provenance: str) -> dict[str, str]:
    """The metadata of a checkpoint."""
    return {
        "cn2.config": json.dumps(config_to_dict(config)),
        "cn2.format_version": str(FORMAT_VERSION),
        "cn2.license": license,
        "cn2.provenance": provenance,
    }


def load_checkpoint(path: Path) -> tuple[AnyDetector, Config, dict[str, str]]:
    """Read a checkpoint: the detector in eval mode on the CPU, its config, the metadata.

    Raises:
        ModelFormatError: torn, not ours, of a newer format, or not the tensors of its config.
    """
    config, metadata, tensors = read_checkpoint(path)
    model = build_detector(config)
    load_strictly(model, tensors, path)
    return model.eval(), config, metadata


def read_checkpoint(path: Path) -> tuple[Config, dict[str, str], dict[str, Tensor]]:
    """Config, metadata and tensors of a checkpoint, without building the detector."""
    metadata = read_metadata(path)  # before the tensors: it may be a stranger's file
    config = _config_of(metadata, path)
    return config, metadata, read_tensors(path)[0]


def _config_of(metadata: dict[str, str], path: Path) -> Config:
    version = metadata.get("cn2.format_version", "")
    if "cn2.config" not in metadata or not version.isdecimal():
        raise ModelFormatError(
            f"{path}: expected a cn2 checkpoint, found no cn2.config in its metadata; "
            "was it written by cn2 train?"
        )
    if int(version) > FORMAT_VERSION:
        raise ModelFormatError(
            f"{path}: format version {version}, this package reads up to {FORMAT_VERSION}; "
            "update cn2"
        )
    try:
        values = json.loads(metadata["cn2.config"])
        return config_from_dict(_from_version_1(values) if int(version) == 1 else values)
    except ValueError as error:
        raise ModelFormatError(f"{path}: its config cannot be read: {error}") from None


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """The config of a format 1 checkpoint as format 2 has it; training settings moved."""
    train = dict(values["train"])
    edges, long_edge = train.pop("short_edges"), train.pop("long_edge")
    step = max(edges[1] - edges[0], 1) if len(edges) > 1 else 1
    resize = {"smallest": edges[0], "largest": edges[-1], "step": step, "long_edge": long_edge}
    train |= {"resize": {"kind": "short-edge", **resize}, "lr_batch": train["batch"]}
    return values | {"train": train}


def load_weights(model: nn.Module, path: Path, class_names: tuple[str, ...]) -> list[str]:
    """Start from another checkpoint; where its classes are others, the classifiers stay fresh.

    Args:
        model: gets the weights.
        path: of the checkpoint.
        class_names: the model's classes, in order.
    Returns:
        The names of the tensors that were left as they are.
    Raises:
        ModelFormatError: not a checkpoint, or not of this detector.
    """
    config, _, tensors = read_checkpoint(path)
    own = model.state_dict()
    same = config.class_names == class_names
    fresh = [] if same else [name for name in own if is_classifier(name) and name in tensors]
    load_strictly(model, tensors | {name: own[name] for name in fresh}, path)
    return fresh


def is_classifier(name: str) -> bool:
    """Whether a tensor has a row for each class, so that other classes need another one."""
    return any(part in name for part in CLASSIFIERS)


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put tensors into a model that has just these, by name and shape.

    Raises:
        ModelFormatError: a tensor is missing, unknown or of another shape.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise ModelFormatError(
            f"{path}: expected the {len(own)} tensors of this detector, missing {_some(missing)}, "
            f"unknown {_some(unknown)}; is it of another preset?"
        )
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise ModelFormatError(
                f"{path}: {name}: expected shape {tuple(value.shape)}, "
                f"got {tuple(tensors[name].shape)}; is it of another preset?"
            )
    model.load_state_dict(tensors)


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" if names else "none"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file.

    Raises:
        ModelFormatError: no such file, truncated, not safetensors, or of very many tensors.
    """
    with _opened(path) as file:
        names = file.keys()
        check_count(len(names), path)
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors.

    Raises:
        ModelFormatError: no such file, truncated, or not safetensors.
    """
    with _opened(path) as file:
        return file.metadata() or {}


def check_count(count: int, path: Path) -> None:
    """Refuse more tensors than any detector has, before time is spent on them.

    Raises:
        ModelFormatError: there are more than `MOST_TENSORS`.
    """
    if count > MOST_TENSORS:
        raise ModelFormatError(f"{path}: expected at most {MOST_TENSORS} tensors, got {count}")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; what is wrong with it becomes one line."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise ModelFormatError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(
            f"{path}: expected a safetensors file, got {error}; is it torn or of another kind?"
        ) from None
