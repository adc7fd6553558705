"""An official checkpoint becomes one of ours: read, recognise, check, write."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from cn2 import __version__
from cn2.runtime.errors import ModelFormatError
from cn2.runtime.formats.class_list import read_class_list

from ..checkpoint import describe_checkpoint
from ..config import Config, apply_overrides, with_classes
from ..presets import PRESETS
from ..safetensors_file import write_tensors
from ..weights_file import read_weights
from ..weights_table import WeightsFile
from .fit import COUNTER, SCALES, Fit, Shape, detector_shapes
from .licences import weights_license
from .recognise import Presets, recognise

OURS = ("nano", "efficientnet-lite")  # backbones that no official model has
TOLERANCE = 1e-3  # grey levels, between pixel_mean in a checkpoint and the preset's
CHUNK = 1 << 20  # bytes hashed at a time
PART = 1 << 20  # numbers looked at at a time


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user wants converted, and how."""

    source: Path
    out: Path
    preset: str | None = None
    classes: Path | None = None
    ema: bool = False
    overrides: Sequence[str] = ()
    license: str | None = None
    """Of weights that are not the official ones; None: what those came under."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was made of a checkpoint."""

    fit: Fit
    config: Config
    license: str
    sha256: str
    """Of the source."""
    read: WeightsFile
    also_fits: tuple[str, ...]
    """Presets with the same parts, passed over as they are for other classes."""


def convert(request: Request) -> Conversion:
    """Read an official checkpoint and write it as ours; whole, or not at all.

    Raises:
        ModelFormatError: it cannot be read, is not CenterNet2, or not of the preset.
        ValueError: another number of classes than in the list, an unknown setting.
        OutputError: it cannot be written.
    """
    conversion = plan(request)
    provenance = (
        f"converted from {request.source.name} (SHA-256 {conversion.sha256}) by cn2 {__version__}"
    )
    metadata = describe_checkpoint(
        conversion.config, license=conversion.license, provenance=provenance
    )
    write_tensors(request.out, conversion.fit.tensors, metadata)
    return conversion


def plan(request: Request) -> Conversion:
    """All of a conversion but the writing: nothing that can be wrong is found after it."""
    source = request.source
    read = read_weights(source, ema=request.ema)
    fit, also_fits = choose(read.tensors, request.preset, str(source))
    config = apply_overrides(_with_classes(fit.config, request.classes, source), request.overrides)
    shapes = detector_shapes(config)
    if any(shapes[name].sides != tuple(value.shape) for name, value in fit.tensors.items()):
        raise ValueError("--set: expected settings that leave the tensors' shapes as they are")
    check_input(read.tensors, config, source)
    check_repeats(read.tensors, fit.source.ours, source)
    for name, value in fit.tensors.items():
        check_tensor(value, shapes[name], f"{source}: {fit.source.official(name, config)}")
    counters = [name for name in shapes if COUNTER in name and name not in fit.tensors]
    fit.tensors.update({name: torch.zeros((), dtype=torch.int64) for name in counters})
    license = request.license or weights_license(config.preset, own_classes=fit.own_classes)
    return Conversion(
        fit=fit,
        config=config,
        license=license,
        sha256=_sha256(source),
        read=read,
        also_fits=tuple(also_fits),
    )


def choose(state: dict[str, Tensor], preset: str | None, source: str) -> tuple[Fit, list[str]]:
    """The preset that was named, or the one that the tensors are of.

    Raises:
        ModelFormatError: the tensors are not those of the preset, or of any.
        ValueError: no official model has a preset of that name.
    """
    presets = official_presets()
    if preset is None:
        return recognise(state, presets, source)
    if preset not in presets:
        raise ValueError(
            f"--preset: expected one of {', '.join(presets)}, got {preset!r}{_nearest(preset)}"
        )
    recognisable = {preset: presets[preset]}
    return recognise(state, recognisable, source)


def _nearest(preset: str) -> str:
    near = get_close_matches(preset, official_presets(), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def official_presets() -> Presets:
    """The presets that there are official checkpoints of."""
    return {
        name: preset
        for name, preset in PRESETS.items()
        if (model := preset().model).backbone.kind not in OURS
        and model.first_stage.kind == "centernet"  # the official code has no other
    }


def check_input(state: dict[str, Tensor], config: Config, source: Path) -> None:
    """Refuse a checkpoint that knows pictures of another normalisation than the preset.

    Raises:
        ModelFormatError: its pixel_mean or pixel_std differ, where it has them.
    """
    for key in ("pixel_mean", "pixel_std"):
        if key not in state:
            continue
        found = [float(f"{value:.7g}") for value in state[key].flatten().tolist()]
        wanted = getattr(config.input, key)
        close = [abs(a - b) <= TOLERANCE for a, b in zip(found, wanted, strict=False)]
        if len(found) != len(wanted) or not all(close):
            values = str(found).replace(" ", "")
            raise ModelFormatError(
                f"{source}: {key}: expected {list(wanted)} as in preset {config.preset}, got "
                f"{values}; all detections depend on it; if it was trained so, say "
                f"--set input.{key}={values} (and input.color_order)"
            )


def check_repeats(state: dict[str, Tensor], ours: dict[str, str], source: Path) -> None:
    """Refuse different numbers where we keep one tensor for several: weights of the federated loss.

    Raises:
        ModelFormatError: two of them differ.
    """
    first: dict[str, str] = {}
    for official, name in ours.items():
        if name == SCALES:  # one number of each level
            continue
        other = first.setdefault(name, official)
        if other != official and not torch.equal(state[other], state[official]):
            raise ModelFormatError(
                f"{source}: {official}: expected the numbers of {other}, got others"
            )


def check_tensor(value: Tensor, shape: Shape, name: str) -> None:
    """Refuse a tensor that is not plain, finite numbers.

    Raises:
        ModelFormatError: it is without data, sparse, complex, quantised, of integers where weights
            are expected, or holds NaN or infinity.
    """
    plain = value.device.type == "cpu" and value.layout == torch.strided and not value.is_quantized
    if not plain or value.is_floating_point() != shape.dtype.is_floating_point:
        raise ModelFormatError(
            f"{name}: expected plain {shape.dtype} values, got {value.dtype} on {value.device}"
        )
    parts = torch.split(value.flatten(), PART) if value.is_floating_point() else ()
    if not all(bool(torch.isfinite(part.float()).all()) for part in parts):
        raise ModelFormatError(f"{name}: expected finite weights, got NaN or infinity")


def _with_classes(config: Config, file: Path | None, source: Path) -> Config:
    """The config with the classes of a list; without one, those of the fit."""
    if file is None:
        return config
    classes = read_class_list(file)
    if len(classes) != len(config.class_names):
        raise ValueError(
            f"{file}: expected the {len(config.class_names)} classes of {source}, "
            f"got {len(classes)}"
        )
    return with_classes(config, tuple(classes.values()), tuple(classes))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
