"""The form of standard operators, operator set 20, which any ONNX runtime has.

`standard_translations()` goes to `torch.onnx.export(custom_translation_table=...)`. Each function
gets graph values and Python numbers in the order of the operator's schema, and writes nodes of
`ai.onnx` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import cn2.trainer.ops  # noqa: F401  # registers torch.ops.cn2

from .deformable import deform_conv
from .pooling import pyramid_roi_align
from .suppression import class_nms, detection_nms, proposal_nms, stable_topk


def standard_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table for `torch.onnx.export`: each operator's overload and its translation."""
    return {
        torch.ops.cn2.stable_topk.default: stable_topk,
        torch.ops.cn2.proposal_nms.default: proposal_nms,
        torch.ops.cn2.detection_nms.default: detection_nms,
        torch.ops.cn2.class_nms.default: class_nms,
        torch.ops.cn2.pyramid_roi_align.default: pyramid_roi_align,
        torch.ops.torchvision.deform_conv2d.default: deform_conv,
    }
