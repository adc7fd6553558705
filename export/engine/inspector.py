"""What a built engine computes in, as TensorRT's inspector tells it; needs a GPU that runs it."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from cn2.runtime.errors import BackendUnavailableError, BuildError

from .audit import FP16_SHARE, Audit, work_text
from .gpu import current_gpu
from .library import Library
from .options import BuildOptions, capability

TYPES = {"fp16": ("half", "fp16"), "fp32": ("float", "fp32"), "int8": ("int8",), "bf16": ("bf16",)}
LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")  # in an engine layer's metadata, for each of ours


def audit_engine(
    library: Library, options: BuildOptions, plan: bytes, audit: Audit
) -> dict[str, Any]:
    """The multiply-adds of a built engine per precision, or why they are not known.

    Args:
        audit: the network's, which says how much each layer does.
    Returns:
        {"multiply_adds": {"fp16": …, "unknown": …}, "known_share": …} or {"skipped": reason}.
    Raises:
        BuildError: this GPU is a target, and the library does not open its own engine.
    """
    try:
        gpu = current_gpu()
    except BackendUnavailableError as error:
        return {"skipped": str(error)}
    if options.targets and gpu.target not in options.targets:
        return {"skipped": f"{gpu.name} is {gpu.target}, none of {', '.join(options.targets)}"}
    if options.runtime == "tensorrt-rtx" and capability(gpu.target) < 86 and not options.targets:
        return {"skipped": f"{gpu.name} is {gpu.target}, the engine is for sm_86 and newer"}
    return describe_built(built_multiply_adds(_inspect(library, plan), audit))


def _inspect(library: Library, plan: bytes) -> dict[str, Any]:
    trt = library.module
    runtime = trt.Runtime(library.opened.log)
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # of version-compatible engines; it is our own
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        said = library.opened.take_error()
        raise BuildError(f"{library.runtime} does not open the engine it has built: {said}")
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    found: dict[str, Any] = json.loads(text)
    return found


def built_multiply_adds(information: dict[str, Any], audit: Audit) -> dict[str, int]:
    """The multiply-adds per precision of what the engine's layers take in.

    A layer that the inspector does not name, or whose inputs have several types, is "unknown".
    """
    types: dict[str, str] = {}
    for layer in information.get("Layers", ()):
        if isinstance(layer, dict):  # else its name alone
            precision = _precision(layer)
            types |= {name: precision for name in LAYER.findall(str(layer.get("Metadata", "")))}
    sums: Counter[str] = Counter()
    for work in audit.work:
        sums[types.get(work.layer, "unknown")] += work.multiply_adds
    return dict(sums)


def _precision(layer: dict[str, Any]) -> str:
    """The one floating type of a layer's inputs."""
    texts = [str(of.get("Format/Datatype", "")).lower() for of in layer.get("Inputs", ())]
    found = {
        name
        for name, words in TYPES.items()
        if any(word in text for word in words for text in texts)
    }
    return found.pop() if len(found) == 1 else "unknown"


def describe_built(sums: dict[str, int]) -> dict[str, Any]:
    """The audit of a built engine as the JSON has it."""
    known = sum(count for name, count in sums.items() if name != "unknown")
    return {"multiply_adds": sums, "known_share": round(known / max(1, sum(sums.values())), 4)}


def built_text(found: dict[str, Any]) -> str:
    """What is known of a built engine's types, in a line; also that too little is known."""
    if "skipped" in found:
        return f"not looked into: {found['skipped']}"
    text = work_text(found["multiply_adds"])
    if found["known_share"] >= FP16_SHARE:
        return text
    return (
        f"{text}, as TensorRT's inspector does not name their layers; for these the types of the "
        f"network that it was built from count"
    )


def require_built_precision(found: dict[str, Any], precision: str, source: str) -> None:
    """Raise BuildError where an fp16 engine's layers are known to compute in something else.

    What is unknown is told and not refused: the network is strongly typed and was audited, while
    the inspector's words differ between versions of TensorRT.
    """
    sums = found.get("multiply_adds", {})
    known = {name: count for name, count in sums.items() if name != "unknown"}
    others = sum(count for name, count in known.items() if name != "fp16")
    if precision == "fp16" and others > (1 - FP16_SHARE) * sum(sums.values()):
        raise BuildError(
            f"{source}: expected at least {FP16_SHARE:.0%} of the built engine's multiply-adds in "
            f"fp16, got {known}; TensorRT chose other types than the file's"
        )
