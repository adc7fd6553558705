"""The ONNX file as TensorRT gets it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx

from cn2.runtime.backends.onnx_header import read_metadata
from cn2.runtime.errors import ModelFormatError
from cn2.runtime.manifest import Manifest, manifest_from_metadata

THRESHOLD = "score_threshold"
DOMAIN = "cn2"
PLUGINS = ("PyramidRoIAlign", "ProposalNMS", "DetectionNMS", "DeformConv")  # our library's


@dataclass(frozen=True, kw_only=True)
class EngineModel:
    """What an engine is built from."""

    manifest: Manifest
    sha256: str  # of the ONNX file
    onnx: bytes
    plugins: dict[str, str]
    """The nodes that become plugins: name and operator."""


def read_model(path: Path) -> EngineModel:
    """Read an exported file and make of it what TensorRT is to build.

    `score_threshold` loses its default, as in TensorRT that would be its only value. The operators'
    bodies go too: TensorRT cannot build them, and so says which plugin it misses.

    Raises:
        ModelFormatError: no such file, not ours, or without fused operators.
    """
    manifest = manifest_from_metadata(read_metadata(path), str(path))
    if manifest.ops != "fused":
        raise ModelFormatError(
            f"{path}: expected a file with fused operators, got {manifest.ops} ones, which "
            f"TensorRT cannot build; export it with --ops fused"
        )
    data = path.read_bytes()
    model = onnx.load_model_from_string(data)
    _drop_threshold_default(model.graph)
    _drop_bodies(model)
    return EngineModel(
        manifest=manifest,
        sha256=hashlib.sha256(data).hexdigest(),
        onnx=model.SerializeToString(deterministic=True),
        plugins={node.name: node.op_type for node in model.graph.node if node.op_type in PLUGINS},
    )


def _drop_threshold_default(graph: onnx.GraphProto) -> None:
    kept = [tensor for tensor in graph.initializer if tensor.name != THRESHOLD]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _drop_bodies(model: onnx.ModelProto) -> None:
    kept = [function for function in model.functions if function.domain != DOMAIN]
    del model.functions[:]
    model.functions.extend(kept)
