"""`cn2 info`: what a model file says of itself, its graph, and what can run it here."""

from __future__ import annotations

import json
import math
import textwrap
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeGuard

from .backends.onnx_header import TornError, read_metadata
from .doctor import backends_for, backends_text, fused_operators, operators_text
from .errors import ModelFormatError
from .info_engine import engine_facts, inspect_engine
from .info_facts import canvas_text, classes_text, input_facts, origin_facts, output_facts
from .manifest import manifest_from_metadata
from .onnx_summary import summarize_onnx
from .reports import TEXT_WIDTH

HEADER_LIMIT = 100_000_000  # bytes; the safetensors format's own limit
CHECKPOINT_VERSION = 2  # newest format of a checkpoint that this package reads
CHECKPOINT_KEYS = ("format_version", "license", "provenance")  # in the metadata, after "cn2."


def inspect_model(path: Path) -> dict[str, Any]:
    """Everything `cn2 info --json` says (docs/json.md).

    Raises:
        ModelFormatError: no such file, torn, not ours, or newer than this package.
    """
    readers = {
        ".onnx": _inspect_onnx,
        ".engine": inspect_engine,
        ".safetensors": _inspect_checkpoint,
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        expected = ", ".join(readers)
        raise ModelFormatError(f"{path}: expected a model file ({expected}), got {path.name!r}")
    if not path.is_file():
        raise ModelFormatError(f"{path}: no such file")
    found = readers[suffix](path)
    return {
        "file": str(path),
        "size_bytes": path.stat().st_size,
        **found,
        "runs_here": backends_for(suffix),
    }


def _inspect_onnx(path: Path) -> dict[str, Any]:
    manifest = manifest_from_metadata(read_metadata(path), str(path))
    try:
        graph = summarize_onnx(path)
    except (TornError, ValueError, StopIteration) as error:
        raise ModelFormatError(f"{path}: its graph cannot be read ({error})") from error
    found = {"manifest": asdict(manifest), "graph": asdict(graph)}
    return found | ({"fused_operators": fused_operators()} if manifest.ops == "fused" else {})


def _inspect_checkpoint(path: Path) -> dict[str, Any]:
    header = read_safetensors_header(path)
    metadata = header.pop("__metadata__", {})
    config = _read_config(metadata, path)
    types = Counter(tensor["dtype"] for tensor in header.values())
    return {
        "checkpoint": {key: metadata.get(f"cn2.{key}", "") for key in CHECKPOINT_KEYS},
        "config": config,
        "tensors": len(header),
        "parameters": sum(math.prod(tensor["shape"]) for tensor in header.values()),
        "types": dict(types.most_common()),
    }


def _read_config(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """The config of a checkpoint that this package can load, as far as `cn2 info` looks into it."""
    version = metadata.get("cn2.format_version", "")
    if "cn2.config" not in metadata or not version.isdecimal():
        raise ModelFormatError(
            f"{path}: expected a cn2 checkpoint, found no cn2.config in its metadata; "
            f"was it written by cn2 train?"
        )
    if int(version) > CHECKPOINT_VERSION:
        raise ModelFormatError(
            f"{path}: format version {version}, this package reads up to {CHECKPOINT_VERSION}; "
            f"update cn2"
        )
    try:
        config = json.loads(metadata["cn2.config"])
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: its config cannot be read: {error}") from error
    if not _is_config(config):
        raise ModelFormatError(
            f"{path}: its config cannot be read: expected an object with class_names and input, "
            f"got {config!r:.80}"
        )
    return config


def _is_config(config: Any) -> TypeGuard[dict[str, Any]]:
    """Whether `_checkpoint_facts` can read it."""
    if not isinstance(config, dict) or not isinstance(config.get("input", {}), dict):
        return False
    names, fixed = config.get("class_names", []), config.get("input", {}).get("fixed")
    if fixed is not None and not (_are_counts(fixed) and len(fixed) == 2):
        return False
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def read_safetensors_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: tensors by name, and `__metadata__`.

    Raises:
        ModelFormatError: no such file, torn, or of another kind.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            text = stream.read(length) if length <= HEADER_LIMIT else b""
        header = json.loads(text) if len(text) == length else None
    except OSError as error:
        raise ModelFormatError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or not _is_whole(header, path.stat().st_size - 8 - length):
        raise ModelFormatError(f"{path}: expected a safetensors file, got another or a torn one")
    return header


def _is_whole(header: dict[str, Any], size: int) -> bool:
    """Whether a header is of the format's form, and its tensors fill `size` bytes."""
    tensors = dict(header)
    metadata = tensors.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        return False
    if not all(_is_tensor(tensor) for tensor in tensors.values()):
        return False
    return size == max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)


def _is_tensor(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    return _are_counts(shape) and _are_counts(offsets) and len(offsets) == 2


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def info_text(report: dict[str, Any]) -> str:
    """The report for a terminal, at most 80 columns where names allow."""
    if "engine" in report:
        facts = engine_facts(report)
    else:
        facts = _onnx_facts(report) if "manifest" in report else _checkpoint_facts(report)
    head = {"file": f"{report['file']}, {report['size_bytes'] / 1e6:.2f} MB", **facts}
    width = max(map(len, head)) + 2
    lines = [_wrap(f"{name:<{width}}", value, width) for name, value in head.items()]
    return "\n".join([*lines, "", backends_text(report["runs_here"])])


def _wrap(label: str, text: str, indent: int) -> str:
    return textwrap.fill(
        label + text,
        TEXT_WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _onnx_facts(report: dict[str, Any]) -> dict[str, str]:
    manifest, graph, fused = report["manifest"], report["graph"], "fused_operators" in report
    return {
        **input_facts(manifest),
        "parameters": f"{graph['parameters'] / 1e6:.2f} M",
        "operators": f"{manifest['ops']}, opset {graph['opset']}; {_operators(graph['operators'])}",
        **({"fused here": operators_text(report["fused_operators"])} if fused else {}),
        **output_facts(manifest),
        **{f"in {name}": kind for name, kind in graph["inputs"].items()},
        **{f"out {name}": kind for name, kind in graph["outputs"].items()},
        **origin_facts(manifest),
    }


def _checkpoint_facts(report: dict[str, Any]) -> dict[str, str]:
    config, checkpoint = report["config"], report["checkpoint"]
    return {
        "preset": str(config.get("preset", "unknown")),
        "classes": classes_text(config.get("class_names", ())),
        "input": canvas_text(config.get("input", {})),
        "parameters": f"{report['parameters'] / 1e6:.2f} M in {report['tensors']} tensors",
        "types": ", ".join(f"{kind} ({count})" for kind, count in report["types"].items()),
        "licence": checkpoint["license"] or "not stated",
        "provenance": checkpoint["provenance"] or "not stated",
    }


def _operators(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{sum(counts.values())} nodes: {shown}"
