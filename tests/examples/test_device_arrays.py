"""examples/device_arrays.py with arrays that only claim to be in CUDA memory."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cn2.runtime.backends import cuda_runtime, tensorrt_library
from cn2.runtime.detections import Detections
from fake_cuda import CudaArray, DlpackArray
from fake_cuda_runtime import FakeCudaRuntime
from fake_tensorrt import FakeTensorRT, write_engine

SCRIPT = Path(__file__).resolve().parent.parent.parent / "examples" / "device_arrays.py"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("device_arrays", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A model and a picture."""
    pixels = np.zeros((100, 150, 3), np.uint8)
    pixels[20:60, 30:90, 1] = 230
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return [str(write_engine(tmp_path / "m.engine")), str(tmp_path / "a.png")]


@pytest.fixture
def _fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    cuda = FakeCudaRuntime()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", FakeTensorRT(cuda))  # type: ignore[arg-type]
    monkeypatch.setattr(cuda_runtime, "has_cuda_driver", lambda: True)
    tensorrt_library.open_tensorrt.cache_clear()
    yield
    tensorrt_library.open_tensorrt.cache_clear()


# Two names that are installed, as CuPy and PyCUDA are not here.
MAKERS: dict[str, Any] = {"torch": DlpackArray, "numpy": DlpackArray, "json": CudaArray}


@pytest.mark.usefixtures("_fakes")
def test_arrays_of_each_library_give_the_same(
    script: ModuleType, words: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "MAKERS", MAKERS)
    script.main([*words, "--backend", "tensorrt"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "host memory: 1 objects by <Detector: fake, tensorrt on cuda:0>"
    same = "1 objects, boxes at most 0 px from those of the picture in host memory"
    assert lines[4:] == [f"{name}: {same}" for name in ("torch", "numpy", "json")]


@pytest.mark.usefixtures("_fakes")
def test_another_result_ends_it(
    script: ModuleType, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "MAKERS", {"torch": lambda picture: CudaArray(0 * picture)})
    with pytest.raises(SystemExit, match=r"expected \['green'\], got \[\]"):
        script.main([*words, "--backend", "tensorrt"])


@pytest.mark.parametrize("moved", [0.0, 0.4, 0.6, float("nan")])
def test_boxes_elsewhere_end_it(script: ModuleType, moved: float) -> None:
    first, second = (
        Detections(
            boxes=np.array([[0, 0, 10, 10 + shift]], np.float32),
            scores=np.array([0.9], np.float32),
            class_ids=np.array([0]),
            image_size=(100, 100),
            class_names=("a",),
            dataset_ids=(0,),
        )
        for shift in (0.0, moved)
    )
    if moved <= script.TOLERANCE_PX:
        assert script.compare(first, second).startswith(f"boxes at most {moved:.2g} px")
        return
    with pytest.raises(SystemExit, match=r"expected at most 0\.5 px apart, got"):
        script.compare(first, second)


def test_dry_run_touches_no_gpu(
    script: ModuleType, words: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(picture: Any) -> None:
        raise AssertionError("a dry run makes no array")

    monkeypatch.setattr(script, "MAKERS", {"torch": fail, "no_such_library": fail})
    script.main([*words, "--dry-run"])
    assert capsys.readouterr().out.splitlines() == [
        "torch: would be tried",
        "no_such_library: not installed, left out",
    ]


@pytest.mark.needs_cuda
def test_torchs_arrays_on_a_gpu(script: ModuleType) -> None:
    from cn2.runtime.arrays import DevicePicture, as_array

    found = as_array(script.with_torch(np.zeros((4, 5, 3), np.uint8)))
    assert isinstance(found, DevicePicture)
    assert found.shape == (4, 5, 3)
