"""An exported ONNX file in, an engine out: parse, audit, build, audit, put in place."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cn2 import __version__
from cn2.runtime.engine_file import EngineFile
from cn2.runtime.errors import BuildError

from .audit import Audit, audit_network, require_precision
from .config import make_config
from .files import current_engine, place_engine
from .gpu import Gpu, gpu_to_build_on
from .inspector import audit_engine, require_built_precision
from .library import Library
from .model import EngineModel
from .network import Network, check_turing, parse_network
from .options import BuildOptions, check_targets
from .progress import Phases, Stopped, make_monitor
from .timing_cache import load_timing_cache, save_timing_cache

NEWER = ("sm_86+",)  # what TensorRT-RTX builds for where no target is named


@dataclass(frozen=True, kw_only=True)
class Built:
    """What became of a build."""

    about: EngineFile
    is_new: bool  # False: the engine that was there is the one that was asked for


def build_engine(
    library: Library,
    model: EngineModel,
    options: BuildOptions,
    out: Path,
    phases: Phases,
    stop: threading.Event,
    *,
    source: str,
    timing_cache: Path | None = None,
    rebuild: bool = False,
) -> Built:
    """Build an engine, unless it is there already.

    Args:
        phases: is told how far it is.
        stop: once it is set, the build ends soon, and no file changes any more.
        source: the ONNX file's name, for messages.
        timing_cache: of tensorrt: where measurements are kept; None: nowhere.
        rebuild: build even what is there.
    Raises:
        BackendUnavailableError: tensorrt without a GPU.
        BuildError: the library cannot build it, or the audit fails.
        OutputError: the files cannot be written.
        Stopped: `stop` was set.
        ValueError: a target that the library does not know.
    """
    check_targets(options.targets, library.targets or options.targets)
    gpu = gpu_to_build_on() if options.runtime == "tensorrt" else None
    key = engine_key(library, model, options, gpu)
    found = None if rebuild else current_engine(out, key)
    if found is not None:
        return Built(about=found, is_new=False)
    network = parse_network(library, model, source)
    check_turing(library, network, options.targets, source)
    audit = audit_network(library, network, options.profile)
    require_precision(audit, model.manifest.precision, source)
    started = time.perf_counter()
    plan = _build_plan(library, network, options, phases, stop, source, timing_cache)
    seconds = time.perf_counter() - started
    built = audit_engine(library, options, plan, audit)
    require_built_precision(built, model.manifest.precision, source)
    about = EngineFile(
        manifest=model.manifest,
        sha256=hashlib.sha256(plan).hexdigest(),
        runtime=options.runtime,
        version=library.version,
        targets=engine_targets(options, gpu),
        device="" if gpu is None else gpu.name,
        profiles=(options.profile,),
        precision=model.manifest.precision,
        build={
            "key": key,
            "onnx_sha256": model.sha256,
            "plugins_sha256": file_hash(library.plugins),
            "cn2": __version__,
            "options": asdict(options),
            "seconds": round(seconds, 2),
            "audit": {**describe_audit(audit), "engine": built},
        },
    )
    _check(stop)
    place_engine(out, plan, about)
    return Built(about=about, is_new=True)


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def engine_key(library: Library, model: EngineModel, options: BuildOptions, gpu: Gpu | None) -> str:
    """A hash of all that an engine depends on."""
    parts = {
        "onnx": model.sha256,
        "cn2": __version__,
        "runtime": library.runtime,
        "version": library.version,
        "plugins": file_hash(library.plugins),
        "gpu": None if gpu is None else asdict(gpu),
        "options": asdict(options),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def engine_targets(options: BuildOptions, gpu: Gpu | None) -> tuple[str, ...]:
    """What an engine runs on."""
    if gpu is None:
        return options.targets or NEWER
    return ("sm_80+",) if options.hardware_compatible == "ampere" else (gpu.target,)


def describe_audit(audit: Audit) -> dict[str, Any]:
    """An audit as the JSON has it: multiply-adds at the profile's best sizes."""
    return {
        "multiply_adds": audit.multiply_adds(),
        "fp16_share": round(audit.share("fp16"), 4),
        "lowered_islands": list(audit.islands),
    }


def _build_plan(
    library: Library,
    network: Network,
    options: BuildOptions,
    phases: Phases,
    stop: threading.Event,
    source: str,
    timing_cache: Path | None,
) -> bytes:
    config = make_config(library, network, options)
    monitor = make_monitor(library.module, phases, stop)
    config.progress_monitor = monitor
    if timing_cache is not None:
        load_timing_cache(config, timing_cache)
    _check(stop)
    plan = network.builder.build_serialized_network(network.definition, config)
    _check(stop)
    if plan is None:
        raise BuildError(
            f"{source}: {library.runtime} {library.version} cannot build it: "
            f"{library.opened.take_error()}"
        )
    if timing_cache is not None:
        save_timing_cache(config, timing_cache)
    return bytes(plan)
