"""The manifest: what a model file says of itself, one JSON in the file's metadata."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

from .canvas import CanvasRule
from .errors import ModelFormatError

FORMAT_VERSION = 2  # of the manifest that this package writes, and the newest it reads
# 2 has canvas.rounding, which in 1 is "nearest", and detectors without proposals.
# How a score comes about: root of P(class) times the root of P(object), their product, P(class) as
# the second stage has it, or P(class) as a detector without a second stage has it.
ScoreRule = Literal["sqrt", "product", "class", "heatmap"]
OperatorForm = Literal[
    "standard", "fused"
]  # of the steps with operators of ours: docs/operators.md
Precision = Literal["fp32", "fp16", "int8"]  # what most of the graph computes in: docs/precision.md
DEFAULT_OPS: OperatorForm = "standard"  # of an export
METADATA_KEY = "cn2.manifest"  # in the ONNX file's metadata_props


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a runtime needs to know beside the graph, and where the file comes from."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    format_version: int = FORMAT_VERSION
    preset: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]  # the dataset's own id of each class
    canvas: CanvasRule
    batch: int | None = None  # pictures a run; None: any number
    precision: Precision = "fp32"
    ops: OperatorForm = "standard"
    proposals: int | None  # first-stage boxes per picture; None: there is no second stage
    detections: int  # most detections per picture
    strides: tuple[int, ...]  # of the pyramid levels, pixels per cell, fine to coarse
    score_rule: ScoreRule = "sqrt"
    score_threshold: float  # detections at or below it are left out, unless asked otherwise
    lowest_score_threshold: float  # the lowest that may be asked for
    checkpoint_sha256: str = ""
    weights_license: str = ""
    provenance: str = ""  # data and command that made the weights
    versions: dict[str, str] = field(default_factory=dict)  # of the tools that wrote the file

    def __post_init__(self) -> None:
        if not self.class_names or len(self.class_names) != len(self.category_ids):
            raise ValueError(
                f"manifest: expected a category id for each of at least one class, got "
                f"{len(self.class_names)} names and {len(self.category_ids)} ids"
            )
        if not 0 <= self.lowest_score_threshold <= self.score_threshold <= 1:
            raise ValueError(
                f"manifest: expected 0 <= lowest_score_threshold <= score_threshold <= 1, got "
                f"{self.lowest_score_threshold}, {self.score_threshold}"
            )
        counts = [n for n in (self.proposals, self.detections, self.batch) if n is not None]
        if min(counts) < 1 or not self.strides:
            raise ValueError(
                f"manifest: expected proposals, detections, batch >= 1 and some strides, got "
                f"{self.proposals}, {self.detections}, {self.batch}, {self.strides}"
            )

    def to_json(self) -> str:
        """The manifest as JSON on one line; the same manifest gives the same text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str = "manifest") -> Manifest:
        """Read a manifest back.

        Args:
            text: what `to_json` gave.
            source: the file's name, for messages.
        Raises:
            ModelFormatError: not JSON, a newer format version, an unknown or missing key, a value
                of the wrong type or range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelFormatError(f"{source}: its cn2 manifest is no JSON ({error})") from error
        version = values.get("format_version") if isinstance(values, dict) else None
        if type(version) is not int or version < 1:
            raise ModelFormatError(
                f"{source}: expected a cn2 manifest with a format_version, got {version!r}"
            )
        if version > FORMAT_VERSION:
            raise ModelFormatError(
                f"{source}: its manifest has format version {version}, this cn2 reads up to "
                f"{FORMAT_VERSION}; upgrade cn2, or export the model again with this version"
            )
        return _validate(text, source)

    def metadata(self) -> dict[str, str]:
        """The model file's metadata: the manifest, and the keys that other tools look for."""
        canvas = self.canvas
        size = canvas.fixed or (canvas.short_edge, canvas.long_edge)
        return {
            METADATA_KEY: self.to_json(),
            "names": str(dict(enumerate(self.class_names))),
            "stride": str(canvas.divisor),
            "imgsz": str(list(size)),
        }


def manifest_from_metadata(metadata: Mapping[str, str], source: str) -> Manifest:
    """The manifest in a model file's metadata.

    Raises:
        ModelFormatError: there is none, or it cannot be read.
    """
    if METADATA_KEY not in metadata:
        raise ModelFormatError(
            f"{source}: no cn2 manifest in its metadata; was it exported with cn2 export?"
        )
    return Manifest.from_json(metadata[METADATA_KEY], source)


def _validate(text: str, source: str) -> Manifest:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Manifest).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        message = first["msg"].removeprefix("Value error, manifest: ")
        if first["type"] == "unexpected_keyword_argument":
            message = "unknown key" + _nearest(str(first["loc"][-1]))
        elif first["type"] != "value_error":  # those say what they got
            message += f", got {first['input']!r:.80}"
        raise ModelFormatError(
            f"{source}: its cn2 manifest is not valid: {place}{message}"
        ) from error


def _nearest(key: str) -> str:
    known = [item.name for kind in (Manifest, CanvasRule) for item in fields(kind)]
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
