"""TensorRT's network definition of a model, and what it cannot build, found before it tries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cn2.runtime.engine_file import EngineProfile
from cn2.runtime.errors import BuildError

from .library import Library
from .model import EngineModel

TURING = "sm_75"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A parsed model; the fields that are not read keep the definition alive."""

    builder: Any
    definition: Any
    parser: Any
    layers: tuple[Any, ...]
    plugins: dict[str, str]
    """The layers that are plugins of ours: name and operator."""


def parse_network(library: Library, model: EngineModel, source: str) -> Network:
    """A strongly typed network: each tensor has the type that the file gives it.

    Raises:
        BuildError: the parser refuses the file, or took another implementation than our plugin.
    """
    trt = library.module
    builder = trt.Builder(library.opened.log)
    definition = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(definition, library.opened.log)
    if not parser.parse(model.onnx):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise BuildError(
            f"{source}: {library.runtime} {library.version} cannot read it: "
            f"{one_line(errors[0] if errors else 'no reason given')}"
        )
    layers = tuple(definition.get_layer(index) for index in range(definition.num_layers))
    found = {layer.name for layer in layers if layer.type == trt.LayerType.PLUGIN_V3}
    missing = sorted(set(model.plugins) - found)
    if missing:
        raise BuildError(
            f"{source}: expected {missing[0]} to become the plugin {model.plugins[missing[0]]}, "
            f"found another implementation; run `make native` again"
        )
    return Network(
        builder=builder,
        definition=definition,
        parser=parser,
        layers=layers,
        plugins=dict(model.plugins),
    )


def _strongly_typed(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)  # without the flag all networks are


def one_line(text: str) -> str:
    """The first of some lines, shortened."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else "no reason given"


@contextmanager
def sized(network: Network, profile: EngineProfile) -> Iterator[None]:
    """Let the network's inputs have the profile's best sizes, so that all shapes are numbers."""
    batch, height, width = profile.batch[1], profile.height[1], profile.width[1]
    wanted = {"images": (batch, height, width, 3), "image_sizes": (batch, 2)}
    tensors = inputs_of(network)
    before = {name: tuple(tensors[name].shape) for name in wanted}
    try:
        for name, shape in wanted.items():
            tensors[name].shape = shape
        yield
    finally:
        for name, shape in before.items():
            tensors[name].shape = shape


def inputs_of(network: Network) -> dict[str, Any]:
    """The network's inputs by name."""
    definition = network.definition
    found = [definition.get_input(index) for index in range(definition.num_inputs)]
    return {tensor.name: tensor for tensor in found}


def check_turing(library: Library, network: Network, targets: Sequence[str], source: str) -> None:
    """Raise BuildError where TensorRT-RTX would fail: a product of fp32 matrices on Turing."""
    trt = library.module
    if TURING not in targets:
        return
    for layer in network.layers:
        if layer.type == trt.LayerType.MATRIX_MULTIPLY and layer.get_input(0).dtype == trt.float32:
            raise BuildError(
                f"{source}: --target {TURING}: TensorRT-RTX has no fp32 matrix product for it, and "
                f"{layer.name} is one; leave {TURING} out, or export with --precision fp16"
            )
