"""Parameters of detectors on ResNet-50, counted from the shapes of their layers."""

from __future__ import annotations


def conv(inputs: int, outputs: int, kernel: int, bias: bool = True) -> int:
    return inputs * outputs * kernel**2 + outputs * bias


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def resnet50() -> int:
    """Convolutions alone: the frozen BatchNorm has buffers."""
    total = conv(3, 64, 7, bias=False)
    inputs = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            total += conv(inputs, width, 1, False) + conv(width, width, 3, False)
            total += conv(width, 4 * width, 1, False)
            if block == 0:
                total += conv(inputs, 4 * width, 1, False)
            inputs = 4 * width
    return total


def fpn(inputs: tuple[int, ...], extra_convs: int) -> int:
    lateral = sum(conv(width, 256, 1) for width in inputs)
    return lateral + len(inputs) * conv(256, 256, 3) + extra_convs * conv(256, 256, 3)


def tower(convs: int, group_norm: bool) -> int:
    return convs * (conv(256, 256, 3) + 2 * 256 * group_norm)


def box_head(classes: int, boxes: int) -> int:
    layers = linear(256 * 7 * 7, 1024) + linear(1024, 1024)
    return layers + linear(1024, classes + 1) + linear(1024, 4 * boxes)


P3_P7 = fpn((512, 1024, 2048), 2)
P2_P6 = fpn((256, 512, 1024, 2048), 0)  # P6 is every other cell of P5


def first_stage(kind: str, classes: int) -> int:
    """Five levels; classes 1 with one tower for both outputs, else with two."""
    towers = 1 if classes == 1 else 2
    match kind:
        case "retinanet":
            outputs = conv(256, 9 * classes, 3) + conv(256, 9 * 4, 3)
            return towers * tower(4, False) + outputs
        case "atss":
            outputs = conv(256, classes, 3) + conv(256, 4, 3) + conv(256, 1, 3)
            return towers * tower(4, True) + outputs + 5
        case "gfl":
            sides = 4 if classes == 1 else 4 * 17
            return towers * tower(4, True) + conv(256, classes, 3) + conv(256, sides, 3) + 5
        case "centernet":
            return towers * tower(4, True) + conv(256, classes, 3) + conv(256, 4, 3) + 5
        case "rpn":
            return tower(1, False) + conv(256, 3, 1) + conv(256, 12, 1)
    raise ValueError(f"kind: got {kind}")
