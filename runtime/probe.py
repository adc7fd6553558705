"""Try one backend on one device; `cn2 doctor` runs this in a process of its own.

A library that crashes, fills stderr, or is slow to import then harms nobody. Call:
`python -m cn2.runtime.probe onnxruntime cuda`; the answer is one JSON object on stdout.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .backends.libcn2 import BROKEN_FIX, NO_LIBRARY
from .backends.ort_operators import GET_IT
from .errors import BackendUnavailableError, PluginError
from .machine import has_cuda_driver

PROBE_MODEL = Path(__file__).parent / "bundled" / "probe.onnx"  # finds two boxes in any picture
PROBE_SCORES = [0.9, 0.4]  # in one of grey level 204
# One node, y = -x, float32 [1], opset 13: the smallest model there is.
TINY_MODEL = (
    b'\x08\x08:4\n\r\n\x01x\x12\x01y"\x03Neg:\x00\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04'
    b"\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
NO_DRIVER = ("no NVIDIA driver (libcuda.so.1) here", "needs an NVIDIA GPU and its driver")


def probe(backend: str, device: str) -> dict[str, Any]:
    """What came of trying.

    Returns:
        `works`; `reason` and `fix`, of one line each, where it does not.
    """
    if device == "cuda" and not has_cuda_driver():
        return _no(*NO_DRIVER)
    return PROBES[backend](device)


def _no(reason: str, fix: str) -> dict[str, Any]:
    return {"works": False, "reason": reason, "fix": fix}


def _probe_onnxruntime(device: str) -> dict[str, Any]:
    extra = "gpu" if device == "cuda" else "cpu"
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as error:
        return _no(f"onnxruntime cannot be imported ({error})", f"pip install 'cn2[{extra}]'")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if provider not in ort.get_available_providers():
        fix = "pip uninstall onnxruntime, then pip install 'cn2[gpu]'"
        return _no("this onnxruntime is built for the CPU alone", fix)
    session = ort.InferenceSession(TINY_MODEL, providers=[provider])
    if session.get_providers()[0] != provider:
        return _no(
            "ONNX Runtime could not load CUDA",
            "install the CUDA and cuDNN that this onnxruntime-gpu was built with",
        )
    numpy = importlib.import_module("numpy")
    (answer,) = session.run(None, {"x": numpy.ones(1, numpy.float32)})
    return {"works": True} if answer[0] == -1 else _no("a wrong result: -(1) was not -1", "report")


def _probe_native(device: str) -> dict[str, Any]:
    numpy = importlib.import_module("numpy")
    native = importlib.import_module("cn2.runtime.backends.native")
    if importlib.import_module("cn2.plugins").library_path("cn2") is None:
        return _no(NO_LIBRARY, GET_IT)
    try:
        backend = native.NativeBackend.open(PROBE_MODEL, device=device)
        ((found,), _) = backend.detect([numpy.full((64, 96, 3), 204, numpy.uint8)])
    except BackendUnavailableError as error:
        return _no(str(error), f"pip install 'cn2[{'gpu' if device == 'cuda' else 'cpu'}]'")
    except PluginError as error:
        return _no(str(error).removesuffix(f"; {BROKEN_FIX}"), BROKEN_FIX)
    if [round(float(score), 3) for score in found.scores] != PROBE_SCORES:
        return _no(f"a wrong result: scores {found.scores.tolist()}", "report")
    return {"works": True, "version": backend.version}


def _probe_torch(device: str) -> dict[str, Any]:
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")
        importlib.import_module("cn2.export.torch_backend")
    except ImportError as error:
        return _no(f"cannot be imported ({error})", "pip install 'cn2[export]'")
    if device == "cuda" and not torch.cuda.is_available():
        if torch.version.cuda is None:
            return _no("this torch is built for the CPU alone", "install a CUDA build of torch")
        return _no(
            f"torch {torch.__version__} sees no GPU", f"a driver for CUDA {torch.version.cuda}"
        )
    answer = (-torch.ones(1, device=device)).item()
    return {"works": True} if answer == -1 else _no("a wrong result: -(1) was not -1", "report")


PROBES: dict[str, Callable[[str], dict[str, Any]]] = {
    "onnxruntime": _probe_onnxruntime,
    "native": _probe_native,
    "torch": _probe_torch,
}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(*sys.argv[1:])) + "\n")
