"""The shapes at which the CUDA kernels are timed, and the least that each must move and compute.

python benchmarks/cuda_cases.py            # the table of docs/kernels.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple


class Card(NamedTuple):
    """NVIDIA's data sheets."""

    gb_per_s: float  # of memory
    fp32_tflops: float
    fp16_tflops: float  # tensor cores, dense, sums in fp32


CARDS = {"H100": Card(3350.0, 67.0, 989.0), "Titan RTX": Card(672.0, 16.3, 130.0)}
MARKS = ("<!-- floors -->", "<!-- end of floors -->")  # in docs/kernels.md


class Model(NamedTuple):
    """What a preset's first and second stage work on, for one picture of 640 x 480."""

    name: str
    canvas: tuple[int, int]  # height, width
    strides: tuple[int, ...]
    pre_nms: int  # candidates per level, at most
    proposals: int
    channels: int
    classes: int = 80
    detections: int = 100
    score_threshold: float = 0.05
    detection_iou: float = 0.7
    canonical_size: float = 224.0
    sampling_ratio: int = 0
    proposal_iou: float = 0.9
    per_cell: int = 1  # candidates of a location: anchors, classes
    groups: int = 0  # that ProposalNMS keeps apart: classes, levels; 0: it suppresses all together
    own_boxes: bool = False  # of each class, for DetectionNMS

    def cells(self) -> list[tuple[int, int]]:
        """Height and width of each level."""
        height, width = self.canvas
        return [(-(-height // stride), -(-width // stride)) for stride in self.strides]

    def candidates(self) -> int:
        """Boxes that the first stage's suppression looks at."""
        return sum(min(self.pre_nms, self.per_cell * h * w) for h, w in self.cells())


NANO = Model("nano", (384, 512), (8, 16, 32), 256, 64, 48, canonical_size=96.0, sampling_ratio=2)
DLA = Model("dla34-bifpn-p3", (512, 768), (8, 16, 32), 1000, 128, 160)
R50 = Model("r50-fpn", (800, 1088), (8, 16, 32, 64, 128), 1000, 256, 256)
LVIS = R50._replace(
    name="r50-fpn-lvis", classes=1203, detections=300, score_threshold=0.02, detection_iou=0.5
)
# Each location with each class; of a one-stage detector the proposals are the detections.
ONE_STAGE = R50._replace(
    name="centernet-r50-fpn", proposals=100, proposal_iou=0.6, per_cell=80, groups=80
)
FASTER = R50._replace(
    name="faster-rcnn-r50-fpn",
    strides=(4, 8, 16, 32, 64),
    proposals=1000,
    proposal_iou=0.7,
    per_cell=3,
    groups=5,
    own_boxes=True,
    detection_iou=0.5,
)
MODELS = (NANO, DLA, R50)
PROPOSING = (*MODELS, ONE_STAGE, FASTER)
DETECTING = (*MODELS, LVIS, FASTER)


class Convolved(NamedTuple):
    """A deformable 3x3 convolution of x101-dcn-fpn."""

    name: str
    channels: int
    outputs: int
    height: int
    width: int
    groups: int = 1

    def macs(self) -> int:
        """Multiply-adds of one picture."""
        return self.height * self.width * self.outputs * self.channels // self.groups * 9


CONVOLUTIONS = (
    Convolved("tower, P3", 256, 256, 100, 136),
    Convolved("res4", 1024, 1024, 50, 68, 32),
    Convolved("res5", 2048, 2048, 25, 34, 32),
)


class Case(NamedTuple):
    """One kernel on one shape."""

    kernel: str
    shape: str
    megabytes: float  # read or written at least once
    gigaflops: float = 0.0
    half: bool = False

    def floor_us(self, card: str) -> float:
        """The longer of moving and computing, on a card."""
        peaks = CARDS[card]
        teraflops = peaks.fp16_tflops if self.half else peaks.fp32_tflops
        return 1e3 * max(self.megabytes / peaks.gb_per_s, self.gigaflops / teraflops)


def find_cases(batch: int = 1) -> Iterator[Case]:
    """In the order of the table."""
    for model in MODELS:
        for element in (4, 2):
            yield roi_align_case(model, element, batch)
    for model in PROPOSING:
        yield proposal_nms_case(model, batch)
    for model in DETECTING:
        yield detection_nms_case(model, batch)
    for convolution in CONVOLUTIONS:
        for element in (4, 2):
            yield deform_conv_case(convolution, element, batch)
    for model in MODELS:
        yield preprocess_case(model, "1920x1080 NV12", 1920 * 1080 * 3 // 2, batch)
        yield preprocess_case(model, "640x480 RGB", 640 * 480 * 3, batch)


def roi_align_case(model: Model, element: int, batch: int) -> Case:
    """Every level once, and the result."""
    cells = sum(height * width for height, width in model.cells())
    pooled = model.proposals * 49
    size = element * model.channels * (cells + pooled) + 16 * model.proposals
    shape = (
        f"{model.name}, {type_name(element)}: {model.proposals} boxes, {model.channels} channels"
    )
    return Case("PyramidRoIAlign", shape, 1e-6 * batch * size)


def proposal_nms_case(model: Model, batch: int) -> Case:
    """Boxes, scores and, where there are any, classes, in and out."""
    count, kept = model.candidates(), model.proposals
    classes = f" of {model.groups} classes" if model.groups else ""
    shape = f"{model.name}: {count} boxes{classes} to {kept}"
    row = 24e-6 if model.groups else 20e-6
    return Case("ProposalNMS", shape, row * batch * (count + kept))


def detection_nms_case(model: Model, batch: int) -> Case:
    """Every score, the boxes, the detections; of boxes of each class only those that are kept."""
    scores = model.proposals * model.classes
    boxes = model.detections if model.own_boxes else model.proposals
    size = 4 * scores + 16 * boxes + 24 * model.detections
    own = ", boxes of each class" if model.own_boxes else ""
    shape = f"{model.name}: {model.proposals} x {model.classes} to {model.detections}{own}"
    return Case("DetectionNMS", shape, 1e-6 * batch * size)


def deform_conv_case(one: Convolved, element: int, batch: int) -> Case:
    """x, offsets, masks, weights, y."""
    pixels = one.height * one.width
    tensors = batch * pixels * (one.channels + 27 + one.outputs)
    weights = one.outputs * one.channels // one.groups * 9
    groups = f", {one.groups} groups" if one.groups > 1 else ""
    shape = f"{one.name}, {type_name(element)}: {one.channels} to {one.outputs}{groups}"
    megabytes = 1e-6 * element * (tensors + weights)
    return Case("DeformConv", shape, megabytes, 2e-9 * batch * one.macs(), half=element == 2)


def preprocess_case(model: Model, picture: str, size: int, batch: int) -> Case:
    """The picture and its canvas."""
    height, width = model.canvas
    shape = f"{picture} to {model.name}'s {width}x{height}"
    return Case("preprocess", shape, 1e-6 * batch * (size + 3 * height * width))


def type_name(element: int) -> str:
    """Of a size in bytes."""
    return {4: "fp32", 2: "fp16"}[element]


def floor_table() -> str:
    """The floors as Markdown."""
    cards = list(CARDS)
    lines = [
        f"| kernel | shape, batch 1 | MB | GFLOP | {' | '.join(f'{c}, µs' for c in cards)} |",
        f"|---|---|---|---|{'---|' * len(cards)}",
    ]
    for case in find_cases():
        flops = f"{case.gigaflops:.2f}" if case.gigaflops else ""
        floors = " | ".join(f"{case.floor_us(card):.2f}" for card in cards)
        lines.append(
            f"| {case.kernel} | {case.shape} | {case.megabytes:.3f} | {flops} | {floors} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(floor_table() + "\n")
