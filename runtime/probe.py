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

from .backends.libcn2 import NO_LIBRARY
from .backends.ort_operators import BROKEN_FIX, GET_IT, LIBRARY, add_library
from .errors import BackendUnavailableError, InferenceError, PluginError
from .machine import has_cuda_driver

PROBE_MODEL = Path(__file__).parent / "bundled" / "probe.onnx"  # finds two boxes in any picture
PROBE_SCORES = [0.9, 0.4]  # in one of grey level 204
# One node, y = -x, float32 [1], opset 13: the smallest model there is.
TINY_MODEL = (
    b'\x08\x08:4\n\r\n\x01x\x12\x01y"\x03Neg:\x00\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04'
    b"\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
# One node, a box (1, 1, 4) and its score (1, 1) through ProposalNMS, without a body, opset 13.
OPERATOR_MODEL = (
    b'\x08\x08:\xaa\x01\nI\n\x01b\n\x01s\x12\x01x\x12\x01y"\x0bProposalNMS*\x17\n\riou_threshold\x15'
    b"\x00\x00\x00?\xa0\x01\x01*\x10\n\tproposals\x18\x01\xa0\x01\x02:\x03cn2\x12\x01gZ\x17\n\x01b"
    b"\x12\x12\n\x10\x08\x01\x12\x0c\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x04Z\x13\n\x01s\x12\x0e"
    b"\n\x0c\x08\x01\x12\x08\n\x02\x08\x01\n\x02\x08\x01b\x17\n\x01x\x12\x12\n\x10\x08\x01\x12\x0c"
    b"\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x04b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02"
    b"\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\rB\x07\n\x03cn2\x10\x01"
)
CUDA_FIX = "install 'cn2[gpu]', and the CUDA and cuDNN that its onnxruntime-gpu was built with"
ENGINE_FIX = "python3 plugins/fetch_headers.py in a source tree, then make native"
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
    except (BackendUnavailableError, PluginError) as error:
        reason, _, fix = str(error).rpartition("; ")  # expected and got; what to do
        return _no(reason, CUDA_FIX if device == "cuda" else fix)
    if [round(float(score), 3) for score in found.scores] != PROBE_SCORES:
        return _no(f"a wrong result: scores {found.scores.tolist()}", "report")
    return {"works": True, "version": backend.version}


def _probe_native_engine(device: str) -> dict[str, Any]:
    plugins = importlib.import_module("cn2.plugins")
    opening = importlib.import_module("cn2.runtime.backends.opening")
    if plugins.library_path("cn2") is None:
        return _no(NO_LIBRARY, GET_IT)
    if not opening.reads_engines():
        return _no("libcn2 was built without TensorRT's headers", ENGINE_FIX)
    return _probe_any_tensorrt()


def _probe_any_tensorrt() -> dict[str, Any]:
    """Whether libcn2 opens an engine of a TensorRT that works here."""
    answers = {name: _probe_tensorrt(name) for name in ("tensorrt", "tensorrt-rtx")}
    working = [name for name, answer in answers.items() if answer["works"]]
    tried = [_probe_tensorrt(name, "open_with_libcn2") for name in working]
    if tried:
        return next((one for one in tried if one["works"]), tried[0])
    first = answers["tensorrt"]
    why = "libcn2 was not tried, as Python's bindings build the engine for it"
    return _no(f"{why}: {first['reason']}", first["fix"])


def _probe_tensorrt(runtime: str, step: str = "negate_one") -> dict[str, Any]:
    tensorrt = importlib.import_module("cn2.runtime.probe_tensorrt")
    try:
        version = getattr(tensorrt, step)(runtime)
    except (BackendUnavailableError, PluginError) as error:
        reason, _, fix = str(error).rpartition("; ")
        return _no(reason, fix)
    except InferenceError as error:
        return _no(str(error), "install its package again, or a driver that fits it")
    return {"works": True, "version": version}


def _probe_operators(device: str) -> dict[str, Any]:
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as error:
        return _no(f"onnxruntime cannot be imported ({error})", "pip install 'cn2[cpu]'")
    library = importlib.import_module("cn2.plugins").library_path(LIBRARY)
    if library is None:
        return _no(f"lib{LIBRARY} is not here", GET_IT)
    options = ort.SessionOptions()
    try:
        add_library(options, library)
    except PluginError as error:
        return _no(str(error).removesuffix(f"; {BROKEN_FIX}"), BROKEN_FIX)
    session = ort.InferenceSession(OPERATOR_MODEL, options, providers=["CPUExecutionProvider"])
    numpy = importlib.import_module("numpy")
    box = numpy.array([[[1, 2, 3, 4]]], numpy.float32)
    found, _ = session.run(None, {"b": box, "s": numpy.ones((1, 1), numpy.float32)})
    if (found != box).any():
        return _no(f"a wrong result: ProposalNMS of one box gave {found.tolist()}", "report")
    return {"works": True}


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
    "native-engine": _probe_native_engine,
    "tensorrt": lambda _: _probe_tensorrt("tensorrt"),
    "tensorrt-rtx": lambda _: _probe_tensorrt("tensorrt-rtx"),
    "operators": _probe_operators,
    "torch": _probe_torch,
}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(*sys.argv[1:])) + "\n")
