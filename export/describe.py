"""What a model file says of itself, from the detector's config and where its weights come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from cn2 import __version__
from cn2.runtime.canvas import CanvasRule
from cn2.runtime.manifest import DEFAULT_OPS, Manifest, OperatorForm, Precision
from cn2.trainer.checkpoint import load_checkpoint
from cn2.trainer.config import Config
from cn2.trainer.detector import AnyDetector
from cn2.trainer.model_config import ModelConfig

# A score is > 0 wherever there is a detection, so 0 returns the best D whatever their scores.
LOWEST_SCORE_THRESHOLD = 0.0
TOOLS = ("torch", "torchvision", "onnx", "onnxscript")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the weights of a model file come from."""

    checkpoint_sha256: str = ""
    license: str = ""
    provenance: str = ""


def open_checkpoint(path: Path) -> tuple[AnyDetector, Config, Origin]:
    """A detector in eval mode, its config and where it comes from.

    Raises:
        ModelFormatError: missing, torn, or not a cn2 checkpoint.
    """
    model, config, metadata = load_checkpoint(path)
    origin = Origin(
        checkpoint_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        license=metadata.get("cn2.license", ""),
        provenance=metadata.get("cn2.provenance", ""),
    )
    return model, config, origin


def describe(
    config: Config,
    *,
    origin: Origin | None = None,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    proposals: int | None = None,
    ops: OperatorForm = DEFAULT_OPS,
    precision: Precision = "fp32",
) -> Manifest:
    """The manifest of a detector.

    Args:
        config: of the checkpoint.
        origin: where the weights come from; None: unknown.
        size: the only canvas (height, width) in pixels; None: the preset's rule.
        batch: pictures a run; None: any number.
        proposals: first-stage boxes per picture; None: the config's.
        ops: the form of our operators, docs/operators.md.
        precision: what the graph computes in.
    Raises:
        ValueError: size is no multiple of the divisor; batch or proposals is below 1; proposals of
            a detector without a second stage.
    """
    origin = origin or Origin()
    input, model = config.input, config.model
    second, limits = model.second_stage, model.limits
    return Manifest(
        preset=config.preset,
        class_names=config.class_names,
        category_ids=config.category_ids,
        canvas=CanvasRule(
            short_edge=input.short_edge,
            long_edge=input.long_edge,
            divisor=input.divisor,
            interpolation=input.interpolation,
            rounding=input.rounding,
            fixed=size,
        ),
        batch=batch,
        precision=precision,
        ops=ops,
        proposals=_proposals(model, proposals),
        detections=limits.detections,
        strides=tuple(2**level for level in model.neck.levels),
        score_rule="heatmap" if second is None else second.score_rule,
        score_threshold=limits.score_threshold,
        lowest_score_threshold=LOWEST_SCORE_THRESHOLD,
        checkpoint_sha256=origin.checkpoint_sha256,
        weights_license=origin.license,
        provenance=origin.provenance,
        versions={"cn2": __version__, **{tool: version(tool) for tool in TOOLS}},
    )


def _proposals(model: ModelConfig, wanted: int | None) -> int | None:
    """First-stage boxes per picture, as asked for or as configured; None without a second stage."""
    if model.second_stage is not None:
        return model.first_stage.test_filter.post_nms if wanted is None else wanted
    if wanted is not None:
        raise ValueError(
            f"proposals: expected none, as this detector has no second stage, got {wanted}"
        )
    return None
