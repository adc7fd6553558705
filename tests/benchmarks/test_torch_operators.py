"""Our CUDA kernels as torch operators, emulated: what torchvision's give, inside a detector too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.ops  # type: ignore[import-untyped]

from benchmark_scripts import imported
from cn2.export.precision import lower
from cn2.runtime.preprocess import resize_into
from cn2.trainer import ops
from cn2.trainer.build import build_detector
from factories import tiny_config, tiny_one_stage_config
from native_libraries import missing

LIBRARY = Path(__file__).resolve().parents[2] / "build/native/libcn2_kernels_cuda_emulated.so"


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    with imported("torch_operators") as modules:
        yield modules["torch_operators"]


@pytest.fixture
def kernels(module: ModuleType) -> Any:
    if not LIBRARY.is_file():
        missing(f"{LIBRARY.name}: not built; make native")
    return module.Launchers(LIBRARY)


def boxes(*shape: int) -> torch.Tensor:
    corners = torch.rand(*shape, 2) * torch.tensor([70.0, 40.0])
    return torch.cat([corners, corners + 4 + 30 * torch.rand(*shape, 2)], dim=-1)


def pyramid(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.randn(2, 6, 64 // s, 96 // s).to(dtype) for s in (8, 16, 32)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_pooling(kernels: Any, dtype: torch.dtype, sampling_ratio: int) -> None:
    torch.manual_seed(0)
    features, rois = pyramid(dtype), boxes(2, 9)
    rule = ((8, 16, 32), 4, 32.0, 7, sampling_ratio)
    found = kernels.pyramid_roi_align(rois, features, *rule)
    expected = ops.pyramid_roi_align(rois, [level.float() for level in features], *rule)
    assert found.dtype == dtype
    tolerance = 2e-3 if dtype == torch.float16 else 1e-5
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_suppressions(kernels: Any) -> None:
    torch.manual_seed(1)
    some, scores = boxes(2, 60), torch.rand(2, 60)
    scores[:, 50:] = 0
    labels = torch.randint(0, 3, (2, 60))
    own = boxes(2, 60, 3)  # of each class
    per_class, threshold = torch.rand(2, 60, 3), torch.tensor(0.4)
    for ours, theirs in (
        (kernels.proposal_nms(some, scores, 20, 0.5), ops.proposal_nms(some, scores, 20, 0.5)),
        (
            kernels.class_nms(some, scores, labels, 3, 20, 0.3),
            ops.class_nms(some, scores, labels, 3, 20, 0.3),
        ),
        (
            kernels.detection_nms(some, per_class, threshold, 15, 0.3),
            ops.detection_nms(some, per_class, threshold, 15, 0.3),
        ),
        (
            kernels.detection_nms(own, per_class, threshold, 15, 0.3),
            ops.detection_nms(own, per_class, threshold, 15, 0.3),
        ),
    ):
        for one, other in zip(ours, theirs, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
def test_pictures_onto_canvases(kernels: Any, interpolation: Any) -> None:
    """Of different sizes, rows any distance apart."""
    torch.manual_seed(4)
    pictures = [torch.randint(0, 256, (h, w, 3), dtype=torch.uint8) for h, w in ((40, 60), (9, 7))]
    pictures[1] = pictures[1][:, :5]
    resized = [(20, 30), (30, 17)]
    canvases, sizes = kernels.preprocess(pictures, resized, interpolation, (32, 48))
    assert sizes.tolist() == [[20, 30], [30, 17]]
    assert sizes.dtype == torch.int32
    for canvas, one, (height, width) in zip(canvases, pictures, resized, strict=True):
        expected = np.zeros((32, 48, 3), np.uint8)
        resize_into(expected[:height, :width], one.numpy().copy(), interpolation)
        np.testing.assert_array_equal(canvas.numpy(), expected)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("with_mask", [True, False])
def test_deformable_convolution(kernels: Any, groups: int, with_mask: bool) -> None:
    torch.manual_seed(2)
    x, weight = torch.randn(2, 4, 6, 7), torch.randn(8, 4 // groups, 3, 3)
    offset, bias = torch.randn(2, 18, 6, 7), torch.randn(8)
    mask = torch.rand(2, 9, 6, 7) if with_mask else None
    found = kernels.deform_conv(x, weight, offset, mask, bias, groups=groups)
    expected = torchvision.ops.deform_conv2d(x, offset, weight, bias, padding=(1, 1), mask=mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("make", [tiny_config, tiny_one_stage_config])
@pytest.mark.parametrize("half", [False, True])
def test_a_detector_runs_them_and_then_no_longer(
    module: ModuleType, kernels: Any, make: Any, half: bool
) -> None:
    torch.manual_seed(3)
    model = build_detector(make()).eval()
    model = lower(model) if half else model
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    inputs = (images, torch.tensor([[64, 96], [50, 90]], dtype=torch.int32), torch.tensor(0.0))
    with torch.inference_mode():
        expected = model(*inputs)
        with module.our_kernels(kernels, "cpu"):
            found = model(*inputs)
        calls = kernels.calls
        again = model(*inputs)
    assert kernels.calls == calls >= (1 if make is tiny_one_stage_config else 5)
    assert expected[0].sum() > 0
    for one, other, third in zip(expected, found, again, strict=True):
        assert torch.equal(one, third)
        torch.testing.assert_close(one, other, rtol=1e-2, atol=0.5 if half else 1e-3)


def test_shapes_without_running(module: ModuleType, kernels: Any) -> None:
    """As torch.compile and torch.export ask for them: the operators' own fakes stay."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with module.our_kernels(kernels, "cuda"), FakeTensorMode():
        rois = torch.empty(2, 9, 4, device="cuda")
        levels = [torch.empty(2, 6, 8, 12, device="cuda", dtype=torch.float16)]
        pooled = ops.pyramid_roi_align(rois, levels, (8,), 4, 32.0, 7, 0)
        assert (tuple(pooled.shape), pooled.dtype) == ((2, 9, 6, 7, 7), torch.float16)
    assert kernels.calls == 0


def test_what_a_kernel_refuses(kernels: Any) -> None:
    with pytest.raises(ValueError, match="pyramid_roi_align: expected what the kernel takes"):
        kernels.pyramid_roi_align(boxes(2, 3), pyramid(), (8, 16, 32), 4, 32.0, 0, 0)
