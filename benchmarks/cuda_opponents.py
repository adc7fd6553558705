"""torchvision's operators on the same tensors and the same GPU, timed with events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cuda_cases import Model
from cuda_inputs import CudaKernels, level_borders

WARM_UPS, REPEATS = 5, 30
COPIED = 1 << 28  # bytes


def gpu_name() -> str | None:
    """Of the GPU that torch sees, if any."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def measure_bandwidth() -> float | None:
    """GB/s that a copy within the GPU's memory reads and writes."""
    import torch

    if not torch.cuda.is_available():
        return None
    source = torch.zeros(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return round(2 * COPIED / (time_us(lambda: target.copy_(source)) * 1e3), 1)


def find_opponent(operator: str, cuda: CudaKernels, *arguments: Any) -> float | None:
    """Microseconds of torchvision's counterpart; None without a GPU, or where ours is emulated."""
    import torch

    if cuda.emulated or not torch.cuda.is_available():
        return None
    return round(time_us(OPPONENTS[operator](*arguments)), 2)


def time_us(call: Callable[[], Any]) -> float:
    """The median of calls, synchronised only where the call itself does so."""
    import torch

    times = []
    for repeat in range(WARM_UPS + REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        if repeat >= WARM_UPS:
            times.append(begin.elapsed_time(end) * 1e3)
    return float(np.median(times))


def on_gpu(*arrays: Any) -> list[Any]:
    """As tensors there."""
    import torch

    return [torch.from_numpy(array).cuda() for array in arrays]


def roi_align(model: Model, rois: Any, features: Sequence[Any], half: bool) -> Callable[[], Any]:
    """The boxes of each level chosen, pooled, and put back to their places."""
    import torch
    import torchvision.ops  # type: ignore[import-untyped]

    maps = on_gpu(*(feature.astype(np.float16 if half else np.float32) for feature in features))
    (boxes,) = on_gpu(rois)
    batch, count, _ = boxes.shape
    index = torch.arange(batch, device=boxes.device).repeat_interleave(count)[:, None]
    flat = torch.cat([index.to(boxes.dtype), boxes.reshape(-1, 4)], dim=1)
    (borders,) = on_gpu(np.array(level_borders(model.strides, 4), np.float32))

    def call() -> Any:
        area = (flat[:, 3] - flat[:, 1]) * (flat[:, 4] - flat[:, 2])
        levels = torch.bucketize(area.sqrt() / model.canonical_size + 1e-8, borders, right=True)
        pooled = maps[0].new_zeros((len(flat), maps[0].shape[1], 7, 7))
        for level, (values, stride) in enumerate(zip(maps, model.strides, strict=True)):
            chosen = (levels == level).nonzero()[:, 0]
            pooled[chosen] = torchvision.ops.roi_align(
                values, flat[chosen].to(values.dtype), 7, 1 / stride, model.sampling_ratio, True
            )
        return pooled

    return call


def proposal_nms(model: Model, boxes: Any, scores: Any, classes: Any) -> Callable[[], Any]:
    """nms of each picture, within each class where there are classes, then the best."""
    import torchvision.ops

    all_boxes, all_scores = on_gpu(boxes, scores)
    labels = [None] * len(scores) if classes is None else on_gpu(classes)[0].long()

    def one_picture(one: Any, score: Any, label: Any) -> Any:
        kept = (
            torchvision.ops.nms(one, score, model.proposal_iou)
            if label is None
            else torchvision.ops.batched_nms(one, score, label, model.proposal_iou)
        )[: model.proposals]
        return one[kept], score[kept]

    return lambda: [one_picture(*p) for p in zip(all_boxes, all_scores, labels, strict=True)]


def detection_nms(model: Model, boxes: Any, scores: Any) -> Callable[[], Any]:
    """The scores above the threshold, nms within each class, then the best."""
    import torchvision.ops

    all_boxes, all_scores = on_gpu(boxes, scores)

    def one_picture(one: Any, score: Any) -> Any:
        rows, classes = (score > model.score_threshold).nonzero(as_tuple=True)
        own = one[rows, classes if model.own_boxes else 0]
        kept = torchvision.ops.batched_nms(own, score[rows, classes], classes, model.detection_iou)[
            : model.detections
        ]
        return own[kept], score[rows[kept], classes[kept]], classes[kept]

    return lambda: [one_picture(*pair) for pair in zip(all_boxes, all_scores, strict=True)]


def deform_conv(tensors: Sequence[Any], half: bool) -> Callable[[], Any]:
    """deform_conv2d."""
    import torchvision.ops

    kind = np.float16 if half else np.float32
    x, weight, offset, bias, mask = on_gpu(*(tensor.astype(kind) for tensor in tensors))
    options = {"padding": (1, 1), "mask": mask}
    return lambda: torchvision.ops.deform_conv2d(x, offset, weight, bias, **options)


OPPONENTS: dict[str, Callable[..., Callable[[], Any]]] = {
    "roi_align": roi_align,
    "proposal_nms": proposal_nms,
    "detection_nms": detection_nms,
    "deform_conv": deform_conv,
}
