"""The backend `torch`: a checkpoint run as it is, the reference for all others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from cn2.runtime.backends.base import RawDetections, check_inputs, check_score_threshold
from cn2.runtime.errors import BackendUnavailableError
from cn2.runtime.manifest import Manifest
from cn2.trainer.detector import FeaturePyramid

from .describe import describe, open_checkpoint


class TorchBackend:
    """A detector in eager PyTorch. `infer` may be called from several threads at once."""

    name = "torch"

    def __init__(
        self,
        model: FeaturePyramid,
        manifest: Manifest,
        *,
        device: str = "auto",
    ) -> None:
        """Take a detector and what it says of itself; `device` is auto, cpu, cuda or cuda:1.

        Raises:
            BackendUnavailableError: the device that was asked for is not here.
        """
        self.manifest = manifest
        self._device = _find_device(device)
        self._model: FeaturePyramid | None = model.to(self._device).eval()

    @classmethod
    def open(cls, path: Path, device: str = "auto", *, threads: int | None = None) -> Self:
        """Open a .safetensors checkpoint.

        Args:
            device: auto, cpu, cuda, or cuda:1 and so on.
            threads: CPU threads of one operator, of all torch in this process; None: as they are.
        Raises:
            ModelFormatError: missing, torn, or not a cn2 checkpoint.
            BackendUnavailableError: the device that was asked for is not here.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        model, config, origin = open_checkpoint(path)
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(model, describe(config, origin=origin), device=device)

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0"."""
        return str(self._device)

    def infer(
        self,
        images: npt.NDArray[np.uint8],
        image_sizes: npt.NDArray[np.int32],
        score_threshold: float | None = None,
    ) -> RawDetections:
        """Run the detector; see `cn2.runtime.backends.base.Backend`."""
        if self._model is None:
            raise ValueError("torch backend: expected an open backend, got a closed one; open anew")
        check_inputs(self.manifest, images, image_sizes)
        check_score_threshold(self.manifest, score_threshold)
        threshold = None
        if score_threshold is not None:
            threshold = torch.tensor(score_threshold, dtype=torch.float32, device=self._device)
        with torch.inference_mode():
            found = self._model(
                torch.from_numpy(np.ascontiguousarray(images)).to(self._device),
                torch.from_numpy(np.ascontiguousarray(image_sizes)).to(self._device),
                threshold,
            )
        return RawDetections(*(value.cpu().numpy() for value in found))

    def close(self) -> None:
        """Let go of the weights; the backend is of no use afterwards."""
        self._model = None


def _find_device(name: str) -> torch.device:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:<number>, got {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    number = int(name.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        raise BackendUnavailableError(
            f"device {name}: torch sees {torch.cuda.device_count()} CUDA devices; take "
            f"device='cpu', or install the driver and a CUDA build of torch"
        )
    return torch.device("cuda", number)
