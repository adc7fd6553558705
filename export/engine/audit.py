"""Which precision a network computes in: how much of its work, and whether the islands are fp32.

The work is the multiply-adds of convolutions and matrix products at the profile's best sizes. The
islands are what DESIGN's section on precision names: everything between the last convolutions or
products and a box or score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cn2.runtime.engine_file import EngineProfile
from cn2.runtime.errors import BuildError

from .library import Library
from .network import Network, sized

FP16_SHARE = 0.95  # of the multiply-adds of an fp16 engine, at least
SHOWN = 3  # layers in a message


@dataclass(frozen=True, kw_only=True)
class Work:
    """One layer's multiply-adds."""

    layer: str
    precision: str  # "fp16", "fp32", …
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a network computes in."""

    work: tuple[Work, ...]
    islands: tuple[str, ...]
    """Tensors of an island that are not fp32; there should be none."""

    def multiply_adds(self) -> dict[str, int]:
        """The sum per precision."""
        sums: Counter[str] = Counter()
        for work in self.work:
            sums[work.precision] += work.multiply_adds
        return dict(sums)

    def share(self, precision: str) -> float:
        """0 to 1; 0 of no work at all."""
        sums = self.multiply_adds()
        return sums.get(precision, 0) / max(1, sum(sums.values()))


def audit_network(library: Library, network: Network, profile: EngineProfile) -> Audit:
    """The precisions of a network definition."""
    types = precision_names(library.module)
    with sized(network, profile):
        work = tuple(
            Work(layer=layer.name, precision=types[layer.get_input(0).dtype], multiply_adds=count)
            for layer in network.layers
            if (count := multiply_adds(library.module, network, layer)) > 0
        )
    return Audit(work=work, islands=tuple(_lowered_islands(library.module, network)))


def precision_names(trt: Any) -> dict[Any, str]:
    """The name of each type of TensorRT's."""
    names = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "fp8": "fp8"}
    return {getattr(trt, key): name for key, name in names.items() if hasattr(trt, key)}


def multiply_adds(trt: Any, network: Network, layer: Any) -> int:
    """Of one layer, all of whose shapes are numbers; 0 for other kinds of layers."""
    kinds = trt.LayerType
    if layer.type == kinds.CONVOLUTION:
        layer.__class__ = trt.IConvolutionLayer  # the only way to a layer's own attributes
        return _of_taps(layer, layer.get_output(0), layer.get_input(0).shape[1])
    if layer.type == kinds.DECONVOLUTION:
        layer.__class__ = trt.IDeconvolutionLayer
        return _of_taps(layer, layer.get_input(0), layer.num_output_maps)
    if layer.type == kinds.MATRIX_MULTIPLY:
        return _of_product(trt, layer)
    if network.plugins.get(layer.name) == "DeformConv":
        weight = layer.get_input(1).shape  # (O, C / groups, kernel height, kernel width)
        return _volume(layer.get_output(0)) * math.prod(int(size) for size in tuple(weight)[1:])
    return 0


def _of_taps(layer: Any, tensor: Any, others: int) -> int:
    """Each number of a tensor meets, at each tap, the other side's channels of its group."""
    taps = math.prod(int(size) for size in layer.kernel_size_nd)
    return _volume(tensor) * (others // int(layer.num_groups)) * taps


def _of_product(trt: Any, layer: Any) -> int:
    layer.__class__ = trt.IMatrixMultiplyLayer
    shape = layer.get_input(0).shape
    transposed = layer.op0 == trt.MatrixOperation.TRANSPOSE
    inner: int = shape[-2] if transposed else shape[-1]
    return _volume(layer.get_output(0)) * inner


def _volume(tensor: Any) -> int:
    return math.prod(int(size) for size in tensor.shape)


def _lowered_islands(trt: Any, network: Network) -> Iterator[str]:
    """The tensors between boxes or scores and the last convolutions that have fewer bits."""
    producers = {
        layer.get_output(index).name: layer
        for layer in network.layers
        for index in range(layer.num_outputs)
    }
    lowered = {dtype for dtype, name in precision_names(trt).items() if name != "fp32"}
    waiting = list(_box_and_score_tensors(trt, network))
    seen: set[str] = set()
    while waiting:
        tensor = waiting.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        if tensor.dtype in lowered:
            yield tensor.name
        layer = producers.get(tensor.name)
        if layer is not None and not _is_border(trt, network, layer):
            waiting += _inputs(layer)


def _box_and_score_tensors(trt: Any, network: Network) -> Iterator[Any]:
    definition = network.definition
    yield from (definition.get_output(index) for index in range(definition.num_outputs))
    for layer in network.layers:
        match network.plugins.get(layer.name):
            case "ProposalNMS" | "DetectionNMS":
                yield from _inputs(layer)
            case "PyramidRoIAlign":
                yield layer.get_input(0)  # the RoIs


def _inputs(layer: Any) -> list[Any]:
    found = (layer.get_input(index) for index in range(layer.num_inputs))
    return [tensor for tensor in found if tensor is not None]


def _is_border(trt: Any, network: Network, layer: Any) -> bool:
    """Whether what goes into a layer is no longer a box or score."""
    kinds = trt.LayerType
    features = ("PyramidRoIAlign", "DeformConv")
    return (
        layer.type in (kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY, kinds.SHAPE)
        or network.plugins.get(layer.name) in features
    )


def work_text(sums: Mapping[str, int]) -> str:
    """The share of each precision in multiply-adds, as "99.5% in fp16, 0.5% in fp32"."""
    total = max(1, sum(sums.values()))
    return ", ".join(f"{count / total:.1%} in {name}" for name, count in sorted(sums.items()))


def require_precision(audit: Audit, precision: str, source: str) -> None:
    """Raise BuildError unless an fp16 network is one, and the islands of any are fp32."""
    if audit.islands:
        shown = ", ".join(audit.islands[:SHOWN])
        raise BuildError(
            f"{source}: expected boxes and scores in fp32, got fewer bits in "
            f"{len(audit.islands)} tensors ({shown}); export it again with cn2 export"
        )
    if precision == "fp16" and audit.share("fp16") < FP16_SHARE:
        raise BuildError(
            f"{source}: expected at least {FP16_SHARE:.0%} of the multiply-adds in fp16, got "
            f"{audit.share('fp16'):.1%}; most of the others: {_largest(audit.work)}"
        )


def _largest(work: Sequence[Work]) -> str:
    others = sorted(
        (entry for entry in work if entry.precision != "fp16"),
        key=lambda entry: -entry.multiply_adds,
    )
    return ", ".join(
        f"{entry.layer} ({entry.multiply_adds / 1e6:.0f} M)" for entry in others[:SHOWN]
    )
