"""DeformConv as a CUDA kernel, emulated, against torchvision and ONNX Runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision.ops  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, helper

from native_cuda import Convolution, CudaKernels, deform_conv
from native_kernels import INVALID_ARGUMENT, address

Tensors = list[NDArray[Any] | None]
TOLERANCE = 1e-5  # relative to the largest sum; sums in another order
HALF_STEP = 2.0**-11  # relative, of rounding to half precision


def random_tensors(
    rng: np.random.Generator, sizes: Convolution, reach: float = 2.0
) -> list[NDArray[np.float32]]:
    """x, weight, offset, bias, mask; offsets reach across the edges, some are whole numbers."""
    taps, out = sizes.kernel[0] * sizes.kernel[1], sizes.out_size()
    offset = rng.normal(0, reach, (sizes.batch, sizes.offset_groups * taps * 2, *out))
    offset[rng.random(offset.shape) < 0.2] = rng.integers(-3, 4)
    shapes = (
        (sizes.batch, sizes.channels, sizes.height, sizes.width),
        (sizes.outputs, sizes.channels // sizes.groups, *sizes.kernel),
        (sizes.outputs,),
    )
    x, weight, bias = (rng.standard_normal(shape) for shape in shapes)
    mask = rng.random((sizes.batch, sizes.offset_groups * taps, *out))
    return [one.astype(np.float32) for one in (x, weight, offset, bias, mask)]


def by_torchvision(sizes: Convolution, tensors: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
    """In double precision; its groups follow from the shapes."""
    x, weight, offset, bias, mask = (
        None if one is None else torch.from_numpy(one.astype(np.float64)) for one in tensors
    )
    y = torchvision.ops.deform_conv2d(
        x, offset, weight, bias, sizes.stride, sizes.pads[:2], sizes.dilation, mask
    )
    result: NDArray[Any] = y.numpy()
    return result


CASES = {
    "3x3": Convolution(2, 5, 9, 11, 7),
    "more channels than a step": Convolution(1, 37, 7, 9, 20),
    "more outputs than a block": Convolution(1, 3, 6, 7, 131),
    "32 outputs": Convolution(1, 16, 8, 8, 32),
    "64 outputs": Convolution(1, 16, 8, 8, 64),
    "stride": Convolution(2, 4, 13, 10, 3, stride=(2, 2)),
    "another stride and kernel": Convolution(
        1, 4, 14, 11, 5, kernel=(5, 2), stride=(1, 3), pads=(2, 0, 2, 0)
    ),
    "dilation": Convolution(1, 4, 12, 12, 5, dilation=(2, 3), pads=(2, 3, 2, 3)),
    "1x1": Convolution(1, 8, 5, 6, 4, kernel=(1, 1), pads=(0, 0, 0, 0)),
    "groups": Convolution(2, 12, 6, 7, 8, groups=4),
    "groups as in ResNeXt": Convolution(1, 64, 5, 6, 64, groups=32),
    "offset groups": Convolution(2, 12, 6, 7, 5, offset_groups=3),
    "both groups": Convolution(1, 24, 6, 7, 6, groups=2, offset_groups=3),
    "more pixels than a block": Convolution(1, 2, 17, 23, 3),
}


@pytest.mark.parametrize("sizes", CASES.values(), ids=CASES.keys())
def test_cases(cuda: CudaKernels, sizes: Convolution) -> None:
    tensors = random_tensors(np.random.default_rng(0), sizes)
    expected = by_torchvision(sizes, tensors)
    y = deform_conv(cuda, sizes, tensors)
    assert np.abs(y - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_mask", [True, False])
def test_what_may_be_absent(cuda: CudaKernels, with_bias: bool, with_mask: bool) -> None:
    sizes = Convolution(1, 4, 6, 7, 5)
    tensors: Tensors = list(random_tensors(np.random.default_rng(1), sizes))
    tensors[3] = tensors[3] if with_bias else None
    tensors[4] = tensors[4] if with_mask else None
    expected = by_torchvision(sizes, tensors)
    y = deform_conv(cuda, sizes, tensors)
    assert np.abs(y - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_pads_that_differ_as_in_onnx(cuda: CudaKernels) -> None:
    """torchvision has one pad per axis; ONNX Runtime takes four."""
    sizes = Convolution(1, 6, 8, 9, 4, pads=(2, 0, 1, 3), groups=2, offset_groups=3)
    tensors = random_tensors(np.random.default_rng(2), sizes)
    names = ["x", "weight", "offset", "bias", "mask"]
    node = helper.make_node(
        "DeformConv", names, ["y"], pads=sizes.pads, group=2, offset_group=3, kernel_shape=[3, 3]
    )
    graph = helper.make_graph(
        [node],
        "deform",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, dict(zip(names, tensors, strict=True)))
    y = deform_conv(cuda, sizes, tensors)
    assert np.abs(y - expected).max() <= TOLERANCE * np.abs(expected).max()


# 20 outputs of 16 rounded up to 32; as many tiles as warps, more, and fewer.
@pytest.mark.parametrize("outputs", [5, 20, 64, 130])
def test_half_precision(cuda: CudaKernels, outputs: int) -> None:
    """Sums are float32: what is rounded is the inputs, each sample, and, once, the result."""
    sizes = Convolution(1, 40, 9, 10, outputs)
    tensors = [t.astype(np.float16) for t in random_tensors(np.random.default_rng(3), sizes)]
    expected = by_torchvision(sizes, tensors)
    y = deform_conv(cuda, sizes, tensors).astype(np.float64)
    x, weight, offset, bias, mask = tensors
    products = by_torchvision(sizes, [np.abs(x), np.abs(weight), offset, 0 * bias, mask])
    bound = HALF_STEP * (np.abs(expected) + products) + TOLERANCE * np.abs(expected).max()
    assert (np.abs(y - expected) <= bound).all()
    assert np.std(y - expected) < 1e-3 * np.std(expected)  # roundings do not add up


def test_far_offsets_read_nothing(cuda: CudaKernels) -> None:
    """Not even cells that hold no number; nor do offsets that are none."""
    sizes = Convolution(1, 2, 5, 5, 3)
    tensors = random_tensors(np.random.default_rng(4), sizes)
    tensors[0][:] = np.inf
    for far in (1e9, -1e9, 6.0, np.inf, np.nan):
        tensors[2][:] = far
        y = deform_conv(cuda, sizes, tensors)
        np.testing.assert_array_equal(y, np.broadcast_to(tensors[3][:, None, None], y.shape))


def test_order_of_threads_does_not_matter(cuda: CudaKernels) -> None:
    sizes = Convolution(2, 34, 9, 9, 20, groups=2, offset_groups=1)
    tensors = random_tensors(np.random.default_rng(5), sizes)
    first = deform_conv(cuda, sizes, tensors)
    for seed in range(1, 4):
        cuda.set_seed(seed)
        np.testing.assert_array_equal(deform_conv(cuda, sizes, tensors), first)


def test_nothing_to_do(cuda: CudaKernels) -> None:
    rng = np.random.default_rng(6)
    for sizes in (Convolution(0, 2, 5, 5, 3), Convolution(1, 2, 5, 5, 0)):
        assert deform_conv(cuda, sizes, random_tensors(rng, sizes)).size == 0
    no_channels = Convolution(1, 0, 5, 5, 3)
    tensors = random_tensors(rng, no_channels)
    y = deform_conv(cuda, no_channels, tensors)
    np.testing.assert_array_equal(y, np.broadcast_to(tensors[3][:, None, None], y.shape))


@pytest.mark.parametrize(
    "changed",
    [
        {"batch": -1},
        {"channels": 5, "groups": 2},
        {"outputs": 5, "groups": 2},
        {"channels": 5, "offset_groups": 2},
        {"groups": 0},
        {"offset_groups": -1},
        {"stride": (0, 1)},
        {"dilation": (1, 0)},
        {"kernel": (0, 3)},
        {"kernel": (65, 3)},
        {"pads": (-1, 0, 0, 0)},
        {"height": 1, "pads": (0, 0, 0, 0), "kernel": (4, 4)},
        {"height": 2**31},
        {"height": 2**20, "width": 2**20},
        {"outputs": 2**20, "groups": 2**20, "channels": 2**20},  # more than a grid has blocks
    ],
)
def test_what_no_call_can_have(cuda: CudaKernels, changed: dict[str, Any]) -> None:
    sizes = Convolution(1, 4, 6, 6, 4)._replace(**changed)
    numbers = np.array(sizes.numbers(), np.int64)
    status = cuda.library.cn2_cuda_deform_conv(
        *[None] * 5, address(numbers), 0, ctypes.c_int64(0), None
    )
    assert status == INVALID_ARGUMENT


def test_too_small_a_workspace(cuda: CudaKernels) -> None:
    sizes = Convolution(1, 2, 4, 4, 3)
    tensors = random_tensors(np.random.default_rng(7), sizes)
    deform_conv(cuda, sizes, tensors, workspace_more=4)
    with pytest.raises(ValueError, match="invalid argument"):
        deform_conv(cuda, sizes, tensors, workspace_more=-4)
