"""A detector as one ONNX file: the whole graph, the weights, and the manifest."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch.export import Dim

from cn2.runtime.errors import OutputError
from cn2.runtime.manifest import DEFAULT_OPS, Manifest, OperatorForm, Precision
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector

from .describe import Origin, describe
from .operators.fused import FusedOperators
from .operators.onnx import OPSET
from .operators.standard import standard_translations
from .precision import lower

INPUTS = ("images", "image_sizes", "score_threshold")
OUTPUTS = ("num_detections", "boxes", "scores", "classes")
EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant
EXAMPLE_CELLS = (2, 3)  # rows and columns of the coarsest level: a side of 1 becomes a constant too
MAX_CELLS = 1 << 16  # divisors per side; torch.export wants some limit for products of sides


def export_onnx(
    model: AnyDetector,
    config: Config,
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    proposals: int | None = None,
    ops: OperatorForm = DEFAULT_OPS,
    precision: Precision = "fp32",
    origin: Origin | None = None,
) -> Manifest:
    """Write a detector as one ONNX file; it appears whole or not at all.

    The same checkpoint and tools give the same bytes.

    Args:
        model: the detector; it is put into eval mode, and else left as it is.
        config: what it was built from.
        path: the file to write.
        size: the only canvas (height, width) that the file takes, pixels; None: any in multiples
            of the divisor.
        batch: the only number of pictures that a run takes; None: any.
        proposals: first-stage boxes per picture for the second stage; None: the config's.
        ops: "standard": standard operators alone; "fused": ours too, each with a body of those.
        precision: what the graph computes in, "fp32" or "fp16" (docs/precision.md).
        origin: where the weights come from, for the manifest.
    Returns:
        The manifest inside the file.
    Raises:
        OutputError: the file cannot be written.
        PrecisionError: a weight is beyond what fp16 holds.
        ValueError: size, batch or proposals that no file can have.
    """
    manifest = describe(
        config,
        origin=origin,
        size=size,
        batch=batch,
        proposals=proposals,
        ops=ops,
        precision=precision,
    )
    check_writable(path)
    proto = to_onnx(model, manifest)
    onnx.checker.check_model(proto, full_check=True)
    write_atomically(path, proto.SerializeToString(deterministic=True))
    return manifest


def to_onnx(model: AnyDetector, manifest: Manifest) -> onnx.ModelProto:
    """The graph with weights and manifest, in memory."""
    detector = with_proposals(model, manifest.proposals).eval()
    if manifest.precision == "fp16":
        detector = lower(detector)
    proto = _translate(detector, manifest)
    _strip(proto)
    _name_free_sides(proto)
    _give_default(proto, "score_threshold", manifest.score_threshold)
    onnx.helper.set_model_props(proto, manifest.metadata())
    proto.producer_name, proto.producer_version = "cn2", manifest.versions["cn2"]
    return proto


def _translate(detector: AnyDetector, manifest: Manifest) -> onnx.ModelProto:
    """The graph as torch writes it, and the functions that it calls."""
    fused = FusedOperators()
    table = fused.translations() if manifest.ops == "fused" else standard_translations()
    canvas = manifest.canvas
    height, width = canvas.fixed or _example_size(manifest)
    batch = manifest.batch or EXAMPLE_BATCH
    example = (
        torch.zeros(batch, height, width, 3, dtype=torch.uint8),
        torch.tensor([[height, width]] * batch, dtype=torch.int32),
        torch.tensor(manifest.score_threshold),
    )
    images: dict[int, object] = {}
    if manifest.batch is None:
        images[0] = Dim("batch", max=MAX_CELLS)
    if canvas.fixed is None:
        images[1] = canvas.divisor * Dim("height", max=MAX_CELLS)
        images[2] = canvas.divisor * Dim("width", max=MAX_CELLS)
    sizes = {0: images[0]} if 0 in images else {}
    with warnings.catch_warnings():
        # Says that image_sizes shares its batch axis with images, as intended.
        warnings.filterwarnings("ignore", "# The axis name: batch will not be used", UserWarning)
        program = torch.onnx.export(
            detector,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=(images, sizes, {}),
            custom_translation_table=table,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    proto.functions.extend(fused.functions)  # not earlier: the exporter's optimiser inlines them
    return proto


def _example_size(manifest: Manifest) -> tuple[int, int]:
    """A canvas with more than EXAMPLE_CELLS on the coarsest level, as many divisors at least."""
    divisor, stride = manifest.canvas.divisor, max(manifest.strides)
    height, width = (max(c, c * stride // divisor + 1) * divisor for c in EXAMPLE_CELLS)
    return height, width


def with_proposals(model: AnyDetector, proposals: int | None) -> AnyDetector:
    """The same detector and weights, with another number of proposals for the second stage.

    None: as it is, for a detector without one.
    """
    if proposals is None:
        return model
    detector = copy.copy(model)
    detector.test_filter = replace(model.test_filter, post_nms=proposals)
    return detector


def _strip(proto: onnx.ModelProto) -> None:
    """Drop what differs between machines and helps no runtime: stack traces, inferred shapes."""
    del proto.graph.value_info[:]
    del proto.graph.metadata_props[:]
    for entry in (*proto.graph.node, *proto.graph.input, *proto.graph.output):
        del entry.metadata_props[:]
        entry.doc_string = ""
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]


def _name_free_sides(proto: onnx.ModelProto) -> None:
    """Call the free sides `height` and `width`; torch writes them as products."""
    for side, name in zip(
        proto.graph.input[0].type.tensor_type.shape.dim[1:3], ("height", "width"), strict=True
    ):
        if side.HasField("dim_param"):
            side.dim_param = name


def _give_default(proto: onnx.ModelProto, name: str, value: float) -> None:
    """Make a graph input optional: an initializer of the same name is its default."""
    default = onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name)
    proto.graph.initializer.append(default)


def check_writable(path: Path) -> None:
    """Fail before the work, not after it.

    Raises:
        OutputError: the folder is missing or cannot be written, or the path is a folder.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise OutputError(f"{path}: expected a file to write, got a folder; name a .onnx file")
    if not folder.is_dir():
        raise OutputError(f"{path}: expected a folder {folder} to write to, found none; create it")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: the folder {folder} cannot be written ({error.strerror}); choose another one"
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it, so that no half of it is ever seen.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from None
