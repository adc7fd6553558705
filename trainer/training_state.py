"""Everything that `--resume` needs, as the last few whole files of a folder; no pickle."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cn2.runtime.errors import ModelFormatError, OutputError

from .checkpoint import load_strictly, read_tensors
from .safetensors_file import write_tensors

logger = logging.getLogger(__name__)

MODEL, MEAN, MOMENTUM = "model.", "mean.", "momentum."  # prefixes of the tensors in a state
SUFFIX = ".safetensors"


class StateFolder:
    """Training states by step; a new one appears whole or not at all, then old ones go."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Take the folder, made when something is saved, and how many states it keeps."""
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """The states that are there, the newest first."""
        return sorted(self.folder.glob(f"*{SUFFIX}"), reverse=True)

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        values: dict[str, Any],
        mean: nn.Module | None = None,
    ) -> None:
        """Add a state.

        Raises:
            OutputError: it cannot be written, the disk being full for one; the older ones stay.
        """
        path = self.folder / f"{step:08d}{SUFFIX}"
        save_training_state(path, model, optimizer, values, mean)
        others = [other for other in self.paths() if other != path]
        newer = [other for other in others if other > path]  # torn: a resume passed them over
        older = [other for other in others if other < path]
        for useless in [*newer, *older[self.keep - 1 :]]:
            useless.unlink(missing_ok=True)

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, mean: nn.Module | None = None
    ) -> dict[str, Any]:
        """Put the newest whole state back; returns its values. Torn ones are named and passed over.

        Raises:
            OutputError: there is no whole state.
            ModelFormatError: a state that is not of this detector.
        """
        for torn in self.folder.glob("*.tmp"):  # a write that was killed
            torn.unlink(missing_ok=True)
        for path in self.paths():
            try:
                tensors, metadata = read_tensors(path)
            except ModelFormatError as error:
                logger.warning("%s; the state before it is taken", error)
                continue
            return restore_training_state(path, tensors, metadata, model, optimizer, mean)
        raise OutputError(f"{self.folder}: no whole state to resume from; choose another --out")


def save_training_state(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    values: dict[str, Any],
    mean: nn.Module | None = None,
) -> None:
    """Write everything a run needs to go on.

    Args:
        path: of the file; it appears whole or not at all.
        model: whose weights are trained.
        optimizer: its momentum.
        values: what else the caller wants back, JSON.
        mean: the model of the mean weights, if there is one.
    """
    tensors = {f"{MODEL}{name}": value for name, value in model.state_dict().items()}
    if mean is not None:
        tensors |= {f"{MEAN}{name}": v for name, v in mean.state_dict().items()}
    for name, parameter in model.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"{MOMENTUM}{name}"] = momentum
    tensors["random.torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    write_tensors(path, tensors, {"cn2.training": json.dumps(values)})


def restore_training_state(
    path: Path,
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    mean: nn.Module | None = None,
) -> dict[str, Any]:
    """Put a state's tensors into models, optimizer and random generators; returns its values.

    A mean that the state has not, because it was switched on later, starts from the weights.

    Raises:
        ModelFormatError: not a training state, or not of this detector.
    """
    if "cn2.training" not in metadata:
        raise ModelFormatError(f"{path}: expected a cn2 training state; was it renamed?")
    weights = _without_prefix(tensors, MODEL)
    load_strictly(model, weights, path)
    if mean is not None:
        load_strictly(mean, _without_prefix(tensors, MEAN) or weights, path)
    for name, parameter in model.named_parameters():
        momentum = tensors.get(f"{MOMENTUM}{name}")
        if momentum is not None:
            buffer = torch.empty_like(parameter).copy_(momentum)
            optimizer.state[parameter]["momentum_buffer"] = buffer
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    values: dict[str, Any] = json.loads(metadata["cn2.training"])
    return values


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
