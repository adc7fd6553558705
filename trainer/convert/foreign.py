"""What a checkpoint is that is not CenterNet2, from the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable

OFFICIAL_HEAD = "proposal_generator.centernet_head."

# What it is, and patterns that all must occur in some name; the first entry that fits counts.
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a checkpoint of cn2 itself; use it as it is", (r"^first_stage\.head\.",)),
    ("Mask R-CNN (RPN and masks)", (r"rpn", r"mask_(head|predictor)")),
    ("Keypoint R-CNN (RPN and keypoints)", (r"rpn", r"keypoint_(head|predictor)")),
    ("Cascade R-CNN with an RPN", (r"rpn", r"(box_head|bbox_head)\.[012]\.")),
    ("plain Faster R-CNN (RPN)", (r"rpn", r"(box_predictor|bbox_head|box_head)")),
    ("an RPN alone", (r"rpn",)),
    ("FCOS", (r"fcos|head\.centerness|conv_centerness|bbox_ctrness",)),
    ("RetinaNet", (r"(cls_subnet|retina_cls|classification_head)",)),
    ("DETR or one of its family", (r"transformer|query_embed|class_embed",)),
    ("YOLOX", (r"^head\.(cls_preds|obj_preds)\.",)),
    ("YOLO", (r"^(model\.)*\d+\.(conv|cv1|m|bn)\.",)),
    ("YOLO", (r"^(module_list|models)\.\d+\.",)),
    ("EfficientDet", (r"^(class_net|classifier|box_net|regressor)\..*(predict|header|conv)",)),
    ("the older CenterNet (objects as points)", (r"(^|\.)hm(\.|_)", r"(^|\.)(wh|reg)(\.|_)")),
    ("CenterNet's head of another project", (r"heatmap_head|center_heatmap|centernet",)),
    ("SSD", (r"^(loc|conf|extras)\.\d+\.",)),
    ("a backbone only (ResNet)", (r"(^|\.)(layer4|res5)[._]\d",)),
    ("a backbone only (DLA)", (r"(^|\.)level5\.",)),
    ("a backbone only (transformer)", (r"(^|\.)(patch_embed|blocks\.0\.attn)",)),
    ("a backbone only (EfficientNet)", (r"(^|\.)_?blocks\.\d",)),
)
BACKBONE_HINT = "; a detector starts from it with cn2 train --backbone"


def what_it_is(names: Iterable[str]) -> str:
    """A few words for an error: `it looks like RetinaNet`."""
    names = list(names)
    for kind, patterns in KINDS:
        if all(any(re.search(pattern, name) for name in names) for pattern in patterns):
            return f"it looks like {kind}{BACKBONE_HINT if kind.startswith('a backbone') else ''}"
    return f"its {len(names)} tensors begin with {', '.join(sorted(names)[:2])}"
