"""Run an exported model with ONNX Runtime, on a CPU or through CUDA."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import BackendUnavailableError, InferenceError, ModelFormatError
from ..manifest import Manifest, manifest_from_metadata
from .base import (
    RawDetections,
    check_inputs,
    check_options,
    check_outputs,
    check_score_threshold,
)
from .onnx_header import read_metadata
from .ort_operators import add_operators

if TYPE_CHECKING:
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]

logger = logging.getLogger(__name__)

LONGEST_REASON = 300  # characters of what ONNX Runtime says; it may say pages
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
INPUTS = {"images": ("tensor(uint8)", 4), "image_sizes": ("tensor(int32)", 2)}  # type, dimensions
OUTPUTS = {
    "num_detections": ("tensor(int32)", 1),
    "boxes": ("tensor(float)", 3),
    "scores": ("tensor(float)", 2),
    "classes": ("tensor(int32)", 2),
}


class OnnxRuntimeBackend:
    """One ONNX Runtime session; `open` makes it."""

    name = "onnxruntime"

    def __init__(
        self,
        session: InferenceSession,
        manifest: Manifest,
        device: str,
        path: Path,
        *,
        fused: bool = False,
    ) -> None:
        self.manifest = manifest
        self.device = device
        self.fused = fused  # whether our kernels run
        self._path = path
        self._session: InferenceSession | None = session
        self._run_options = import_onnxruntime().RunOptions()
        self._run_options.log_severity_level = 4  # what fails is raised; not logged as well
        optional = {value.name for value in session.get_overridable_initializers()}
        self._takes_threshold = "score_threshold" in optional

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        tf32: bool = False,
        fused: bool | None = None,
    ) -> Self:
        """Open a file of `cn2 export`.

        Args:
            device: "cpu", "cuda", "cuda:<number>", or "auto": CUDA where it works, else the CPU.
            threads: CPU threads of one operator; None: one per core.
            tf32: let CUDA round the factors of products to 10 bits; faster, off by 1e-3.
            fused: run fused operators by the kernels of libcn2_ort_ops; None: where it is here, the
                file has some and the device is the CPU; True: they must, and "auto" is the CPU.
        Raises:
            ModelFormatError: torn, not ours, newer, or its graph is not what the manifest says.
            BackendUnavailableError: onnxruntime is not installed, or CUDA was asked for and does
                not work; `fused` was asked for, and there is no library or CPU.
            PluginError: `fused` was asked for, and the library does not load or fit.
        """
        check_options(device, threads)
        manifest = manifest_from_metadata(read_metadata(path), str(path))
        providers = _providers("cpu" if fused and device == "auto" else device, tf32)
        session, kernels = _open_with(path, manifest, providers, threads, fused)
        used = session.get_providers()[0]
        if device == "auto" and used == CPU and providers != [CPU]:  # CUDA did not work: kernels do
            session, kernels = _open_with(path, manifest, [CPU], threads, fused)
        if device.startswith("cuda") and used != CUDA:
            raise BackendUnavailableError(
                f"device {device!r}: ONNX Runtime could not load CUDA and would use the CPU; its "
                f"log above says why (driver, CUDA or cuDNN libraries); cn2 doctor looks for them"
            )
        _check_graph(session, manifest, path)
        where = "cpu" if used == CPU else f"cuda:{_cuda_number(device)}"
        ways = {
            "standard": "",
            "fused": f", fused operators by {'kernels' if kernels else 'bodies'}",
        }
        logger.info("%s: onnxruntime on %s%s", path, where, ways[manifest.ops])
        return cls(session, manifest, where, path, fused=kernels)

    def infer(
        self,
        images: npt.NDArray[np.uint8],
        image_sizes: npt.NDArray[np.int32],
        score_threshold: float | None = None,
    ) -> RawDetections:
        """Run the graph; see `Backend.infer`.

        Raises:
            InferenceError: ONNX Runtime failed.
            ModelFormatError: what came out is not what the manifest says.
        """
        session = self._session
        if session is None:
            raise ValueError("this detector is closed; open the model again")
        check_inputs(self.manifest, images, image_sizes)
        check_score_threshold(self.manifest, score_threshold)
        feeds: dict[str, npt.NDArray[Any]] = {"images": images, "image_sizes": image_sizes}
        if score_threshold is not None and self._takes_threshold:
            feeds["score_threshold"] = np.array(score_threshold, dtype=np.float32)
        try:
            outputs = session.run(list(OUTPUTS), feeds, self._run_options)
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise InferenceError(
                f"{self._path}: ONNX Runtime failed on images of {images.shape} on {self.device} "
                f"({_shorten(error)})"
            ) from error
        raw = RawDetections(*outputs)
        check_outputs(self.manifest, raw, len(images), str(self._path))
        return raw

    def close(self) -> None:
        """Give the session's memory back."""
        self._session = None


def _providers(device: str, tf32: bool) -> list[Any]:
    """The execution providers to ask for, best first."""
    ort = import_onnxruntime()
    has_cuda = CUDA in ort.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise BackendUnavailableError(
            f"device {device!r}: this onnxruntime has no CUDA; "
            f"pip uninstall onnxruntime, then pip install 'cn2[gpu]'"
        )
    if device == "cpu" or not has_cuda:
        return [CPU]
    load_cuda_libraries(ort)
    options = {
        "device_id": _cuda_number(device),
        "use_tf32": int(tf32),
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE searches anew for every canvas
    }
    return [(CUDA, options), CPU]


def load_cuda_libraries(ort: Any) -> None:
    """Load CUDA and cuDNN out of pip's nvidia packages, which are on no library path."""
    preload = getattr(ort, "preload_dlls", None)  # onnxruntime >= 1.21
    if preload is None:
        return
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it did not find
        preload()
    if said.getvalue():
        logger.info("onnxruntime: %s", " ".join(said.getvalue().split()))


def _cuda_number(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def import_onnxruntime() -> Any:
    """The module; BackendUnavailableError, naming the extra, where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(
            f"onnxruntime is not installed ({error}); pip install 'cn2[cpu]' (for CUDA 'cn2[gpu]')"
        ) from error
    return onnxruntime


def _session_options(threads: int | None) -> Any:
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 3  # errors only
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _open_with(
    path: Path,
    manifest: Manifest,
    providers: list[Any],
    threads: int | None,
    fused: bool | None,
) -> tuple[InferenceSession, bool]:
    """A session, and whether kernels run its fused operators."""
    options = _session_options(threads)
    on_cpu = providers == [CPU]
    kernels = add_operators(options, manifest, path, on_cpu=on_cpu, wanted=fused)
    return _open_session(path, providers, options), kernels


def _open_session(path: Path, providers: list[Any], options: Any) -> InferenceSession:
    ort = import_onnxruntime()
    try:
        session: InferenceSession = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelFormatError(
            f"{path}: ONNX Runtime {ort.__version__} cannot load it ({_shorten(error)})"
        ) from error
    return session


def _shorten(error: Exception) -> str:
    """What ONNX Runtime said, on one line of bounded length."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"


def _check_graph(session: InferenceSession, manifest: Manifest, path: Path) -> None:
    """Raise ModelFormatError unless inputs and outputs are the contract's (`Backend.infer`)."""
    for what, expected, values in (
        ("inputs", INPUTS, session.get_inputs()),
        ("outputs", OUTPUTS, session.get_outputs()),
    ):
        found = {value.name: (value.type, len(value.shape)) for value in values}
        if found != expected:
            raise ModelFormatError(
                f"{path}: expected the {what} {_describe(expected)}, got {_describe(found)}"
            )
    batch, height, width, channels = next(
        value.shape for value in session.get_inputs() if value.name == "images"
    )
    fixed_height, fixed_width = manifest.canvas.fixed or (None, None)
    wanted = (manifest.batch, fixed_height, fixed_width, 3)
    actual = tuple(
        side if isinstance(side, int) else None for side in (batch, height, width, channels)
    )
    if actual != wanted:
        raise ModelFormatError(
            f"{path}: expected images of shape {wanted} by its manifest, got {actual} (None: any)"
        )


def _describe(values: dict[str, tuple[str, int]]) -> str:
    return ", ".join(
        f"{name} {kind} of {count} dimensions" for name, (kind, count) in values.items()
    )
