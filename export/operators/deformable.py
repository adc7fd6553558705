"""The deformable convolution, which ONNX has."""

from __future__ import annotations

from .onnx import Value, op


def deform_conv(
    x: Value,
    weight: Value,
    offset: Value,
    mask: Value,
    bias: Value,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Value:
    """Modulated deformable convolution; arguments and layouts are torchvision's, and ONNX's alike.

    Args:
        x: (B, C, h, w).
        weight: (C', C / groups, kh, kw), of known shape.
        offset: (B, 2 * offset_groups * kh * kw, h', w'), dy and dx of each tap, cells.
        mask: (B, offset_groups * kh * kw, h', w') in [0, 1]; not read unless `use_mask`.
        bias: (C',).
    Returns:
        (B, C', h', w').
    """
    return op.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        dilations=[dilation_h, dilation_w],
        group=groups,
        kernel_shape=list(weight.shape[2:]),
        offset_group=offset_groups,
        pads=[pad_h, pad_w, pad_h, pad_w],
        strides=[stride_h, stride_w],
    )
