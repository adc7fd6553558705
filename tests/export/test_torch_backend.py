"""The backend that runs a checkpoint as it is."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend_contract import BackendContract
from cn2.export.describe import LOWEST_SCORE_THRESHOLD, describe
from cn2.export.torch_backend import TorchBackend
from cn2.runtime import Detector
from cn2.runtime.backends.base import Backend
from cn2.runtime.errors import BackendUnavailableError, ModelFormatError
from cn2.trainer.checkpoint import save_checkpoint
from cn2.trainer.presets import PRESETS
from exported import canvases, lively_detector
from factories import picture, shrunk, tiny_config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    config = tiny_config()
    save_checkpoint(
        path, lively_detector(config), config, license="CC0-1.0", provenance="seed 0 of a test"
    )
    return path


class TestTorch(BackendContract):
    batch_noise = 0.01

    @pytest.fixture
    def backend(self, checkpoint: Path) -> Backend:
        return TorchBackend.open(checkpoint, device="cpu")


def test_detector_opens_a_checkpoint(checkpoint: Path) -> None:
    with Detector.open(checkpoint, device="cpu") as detector:
        assert (detector.backend.name, detector.backend.device) == ("torch", "cpu")
        found = detector(picture(128, 192))
        manifest = detector.manifest
    assert len(found) >= 1
    assert set(found.labels) <= {"disc", "box", "star"}
    assert found.boxes.max() > 64  # in pixels of the picture, twice those of the canvas
    assert manifest.checkpoint_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (manifest.weights_license, manifest.provenance) == ("CC0-1.0", "seed 0 of a test")
    assert (manifest.preset, manifest.ops, manifest.precision) == ("tiny", "standard", "fp32")


def test_it_finds_what_the_module_finds(checkpoint: Path) -> None:
    backend = TorchBackend.open(checkpoint, device="cpu")
    images, sizes = canvases(3, 64, 96)
    model = lively_detector(tiny_config())
    for threshold in (None, LOWEST_SCORE_THRESHOLD, 0.4, 1.0):
        value = None if threshold is None else torch.tensor(threshold)
        with torch.no_grad():
            expected = model(torch.from_numpy(images), torch.from_numpy(sizes), value)
        found = backend.infer(images, sizes, threshold)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs.numpy())


def test_a_framework_detector_finds_what_its_module_finds(tmp_path: Path) -> None:
    """Anchors, suppression within levels and boxes of each class, from a checkpoint."""
    config = shrunk(PRESETS["faster-rcnn-r50-fpn"]())
    model, path = lively_detector(config), tmp_path / "faster.safetensors"
    save_checkpoint(path, model, config, license="CC0-1.0", provenance="seed 0 of a test")
    images, sizes = canvases(2, 64, 96)
    with torch.no_grad():
        expected = model(torch.from_numpy(images), torch.from_numpy(sizes), torch.tensor(0.1))
    with Detector.open(path, device="cpu") as detector:
        found = detector.backend.infer(images, sizes, 0.1)
    assert found.num_detections.min() >= 1
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_threads_agree(checkpoint: Path) -> None:
    backend = TorchBackend.open(checkpoint, device="cpu")
    images, sizes = canvases(6, 64, 96)
    alone = [backend.infer(images[i : i + 1], sizes[i : i + 1]) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        together = list(
            pool.map(lambda i: backend.infer(images[i : i + 1], sizes[i : i + 1]), range(6))
        )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_wrong_inputs(checkpoint: Path) -> None:
    backend = TorchBackend.open(checkpoint, device="cpu")
    images, sizes = canvases(1, 64, 96)
    with pytest.raises(ValueError, match="uint8"):
        backend.infer(images.astype(np.float32), sizes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="multiples of 32"):
        backend.infer(images[:, :60], sizes)
    with pytest.raises(ValueError, match="score_threshold"):
        backend.infer(images, sizes, -0.5)


def test_closing(checkpoint: Path) -> None:
    backend = TorchBackend.open(checkpoint, device="cpu")
    backend.close()
    backend.close()
    with pytest.raises(ValueError, match="closed"):
        backend.infer(*canvases(1, 64, 96))


def test_threads_option(checkpoint: Path) -> None:
    before = torch.get_num_threads()
    try:
        TorchBackend.open(checkpoint, device="cpu", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        TorchBackend.open(checkpoint, device="cpu", threads=0)


@pytest.mark.parametrize("device", ["tpu7", "gpu", "cpu:x", ""])
def test_unknown_devices(checkpoint: Path, device: str) -> None:
    with pytest.raises(ValueError, match="expected auto, cpu, cuda or cuda:<number>"):
        TorchBackend.open(checkpoint, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error_if_asked_for_by_name(checkpoint: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="torch sees 0 CUDA devices"):
        TorchBackend.open(checkpoint, device="cuda")
    assert TorchBackend.open(checkpoint).device == "cpu"  # auto


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x10" * 20)
    with pytest.raises(ModelFormatError, match="expected a safetensors file"):
        TorchBackend.open(torn)
    with pytest.raises(ModelFormatError, match="no such file"):
        TorchBackend.open(tmp_path / "none.safetensors")


def test_the_manifest_of_a_config() -> None:
    manifest = describe(tiny_config())
    assert (manifest.canvas.short_edge, manifest.canvas.long_edge) == (64, 96)
    assert manifest.canvas.interpolation == "linear"
    assert (manifest.proposals, manifest.detections, manifest.batch) == (16, 100, None)
    assert (manifest.checkpoint_sha256, manifest.provenance) == ("", "")
    assert manifest.canvas.rounding == "nearest"
    rounded = replace(tiny_config(), input=replace(tiny_config().input, rounding="down"))
    assert describe(rounded).canvas.rounding == "down"
    changed = describe(tiny_config(), size=(96, 96), batch=4, proposals=7)
    assert (changed.canvas.fixed, changed.batch, changed.proposals) == ((96, 96), 4, 7)
