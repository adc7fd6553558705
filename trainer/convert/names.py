"""Names of the official CenterNet2 code's parameters and buffers, and ours for the same tensors."""

from __future__ import annotations

import re
from functools import lru_cache

from ..necks.bifpn import Node, plan_nodes

Rules = tuple[tuple[str, str], ...]

BESIDE_BACKBONE = r"backbone\.bottom_up\.(?!backbone|base_layer|level|stem|res\d)(?:\w+\.)+?"
DLA = r"backbone\.(?:bottom_up\.(?:backbone\.)?|base\.)"

# Official name -> ours, tried in order; the first match counts. Shared beginnings come first.
BACKBONE_RULES: Rules = (
    # Res2Net: in its stem convolutions and norms count as one sequence, with ReLUs between
    (r"backbone\.bottom_up\.stem\.conv1\.([036])\.(\w+)", r"backbone.stem.<\1/3>.0.\2"),
    (r"backbone\.bottom_up\.stem\.conv1\.([14])\.(\w+)", r"backbone.stem.<\1/3>.1.\2"),
    (r"backbone\.bottom_up\.stem\.bn1\.(\w+)", r"backbone.stem.2.1.\1"),
    (
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.1\.norm\.(\w+)",
        r"backbone.stages.<\1-2>.\2.shortcut.2.\3",
    ),
    (
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.1\.(\w+)",
        r"backbone.stages.<\1-2>.\2.shortcut.1.\3",
    ),
    (
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.convs\.(\d)\.(\w+)",
        r"backbone.stages.<\1-2>.\2.convs.\3.0.\4",
    ),
    (
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.bns\.(\d)\.(\w+)",
        r"backbone.stages.<\1-2>.\2.convs.\3.1.\4",
    ),
    (
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv2_offsets\.(\d)\.(\w+)",
        r"backbone.stages.<\1-2>.\2.convs.\3.0.offset.\4",
    ),
    # ResNet and ResNeXt
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)", r"backbone.stem.1.\1"),
    (r"backbone\.bottom_up\.stem\.conv1\.(\w+)", r"backbone.stem.0.\1"),
    (
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.(\w+)\.norm\.(\w+)",
        r"backbone.stages.<\1-2>.\2.\3.1.\4",
    ),
    (
        r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv2_offset\.(\w+)",
        r"backbone.stages.<\1-2>.\2.conv2.0.offset.\3",
    ),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.(\w+)\.(\w+)", r"backbone.stages.<\1-2>.\2.\3.0.\4"),
    # DLA, below a pyramid or the up path; what stands inside its trees is renamed by TREE_PARTS
    (rf"{DLA}base_layer\.(.+)", r"backbone.stem.\1"),
    (rf"{DLA}level([01])\.(.+)", r"backbone.level\1.\2"),
    (rf"{DLA}level([2-5])\.(.+)", r"backbone.trees.<\1-2>.\2"),
)
NECK_RULES: Rules = (
    # FPN
    (r"backbone\.fpn_(lateral|output)(\d)\.(\w+)", r"neck.\1.<\2-3>.\3"),
    (r"backbone\.top_block\.p(\d)\.(\w+)", r"neck.extra.<\1-6>.\2"),
    # BiFPN as in EfficientDet
    (r"backbone\.resample\.3\.conv\.conv\.(\w+)", r"neck.coarsest.0.\1"),
    (r"backbone\.resample\.3\.conv\.bn\.(\w+)", r"neck.coarsest.1.\1"),
    (
        r"backbone\.cell\.(\d)\.fnode\.(\d)\.combine\.edge_weights",
        r"neck.cells.\1.nodes.\2.weights",
    ),
    (
        r"backbone\.cell\.(\d)\.fnode\.(\d)\.combine\.resample\.(\d)\.conv\.conv\.(\w+)",
        r"neck.cells.\1.laterals.\3_\2.0.\4",
    ),
    (
        r"backbone\.cell\.(\d)\.fnode\.(\d)\.combine\.resample\.(\d)\.conv\.bn\.(\w+)",
        r"neck.cells.\1.laterals.\3_\2.1.\4",
    ),
    (
        r"backbone\.cell\.(\d)\.fnode\.(\d)\.after_combine\.conv\.conv\.(\w+)",
        r"neck.cells.\1.nodes.\2.conv.\3",
    ),
    (
        r"backbone\.cell\.(\d)\.fnode\.(\d)\.after_combine\.conv\.bn\.(\w+)",
        r"neck.cells.\1.nodes.\2.norm.\3",
    ),
    # BiFPN of the other flavour: <level(inputs)> becomes the node's index
    (r"backbone\.repeated_bifpn\.(\d)\.weights_f([\d_]+)", r"neck.cells.\1.nodes.<\2>.weights"),
    (
        r"backbone\.repeated_bifpn\.(\d)\.lateral_(\d)_f(\d)\.norm\.(\w+)",
        r"neck.cells.\1.laterals.\2_\3.1.\4",
    ),
    (
        r"backbone\.repeated_bifpn\.(\d)\.lateral_(\d)_f(\d)\.(\w+)",
        r"neck.cells.\1.laterals.\2_\3.0.\4",
    ),
    (
        r"backbone\.repeated_bifpn\.(\d)\.outputs_f([\d_]+)\.norm\.(\w+)",
        r"neck.cells.\1.nodes.<\2>.norm.\3",
    ),
    (
        r"backbone\.repeated_bifpn\.(\d)\.outputs_f([\d_]+)\.(\w+)",
        r"neck.cells.\1.nodes.<\2>.conv.\3",
    ),
    # Its P6 is all that may stand beside the backbone; the name of it is not in our fixtures
    (rf"{BESIDE_BACKBONE}norm\.(\w+)", r"neck.coarsest.1.\1"),
    (rf"{BESIDE_BACKBONE}(weight)", r"neck.coarsest.0.\1"),
    # DLA's up path; what stands inside its joins is renamed by JOIN_PARTS
    (r"backbone\.dla_up\.ida_(\d)\.(\w+)_(\d)\.(.+)", r"neck.rounds.\1.joins.<\3-1>.\2.\4"),
    (r"backbone\.ida_up\.(\w+)_(\d)\.(.+)", r"neck.last.joins.<\2-1>.\1.\3"),
)
FIRST_STAGE_RULES: Rules = (
    # The tower's last convolution may be deformable
    (
        r"proposal_generator\.centernet_head\.bbox_tower\.(\d+)\.conv\.(\w+)",
        r"first_stage.head.tower.\1.\2",
    ),
    (r"proposal_generator\.centernet_head\.bbox_tower\.(.+)", r"first_stage.head.tower.\1"),
    (r"proposal_generator\.centernet_head\.bbox_pred\.(\w+)", r"first_stage.head.regression.\1"),
    (r"proposal_generator\.centernet_head\.agn_hm\.(\w+)", r"first_stage.head.heatmap.\1"),
    # without a second stage
    (r"proposal_generator\.centernet_head\.cls_tower\.(.+)", r"first_stage.head.class_tower.\1"),
    (
        r"proposal_generator\.centernet_head\.cls_logits\.(\w+)",
        r"first_stage.head.class_heatmaps.\1",
    ),
)
SECOND_STAGE_RULES: Rules = (
    (r"roi_heads\.box_head\.(\d)\.fc(\d)\.(\w+)", r"second_stage.stages.\1.layers.<\2-1>.\3"),
    (
        r"roi_heads\.box_predictor\.(\d)\.cls_score\.(\w+)",
        r"second_stage.stages.\1.class_logits.\2",
    ),
    (r"roi_heads\.box_predictor\.(\d)\.bbox_pred\.(\w+)", r"second_stage.stages.\1.deltas.\2"),
    # a single stage has no number
    (r"roi_heads\.box_head\.fc(\d)\.(\w+)", r"second_stage.stages.0.layers.<\1-1>.\2"),
    (r"roi_heads\.box_predictor\.cls_score\.(\w+)", r"second_stage.stages.0.class_logits.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(\w+)", r"second_stage.stages.0.deltas.\1"),
    # the same in each stage
    (r"roi_heads\.box_predictor\.(?:\d\.)?freq_weight", r"second_stage.freq_weight"),
)
RULES = BACKBONE_RULES + NECK_RULES + FIRST_STAGE_RULES + SECOND_STAGE_RULES

TREE_PARTS = (
    (".tree1", ".first"),
    (".tree2", ".second"),
    (".conv1.", ".conv1.0."),
    (".bn1.", ".conv1.1."),
    (".conv2.", ".conv2.0."),
    (".bn2.", ".conv2.1."),
    (".root.conv.", ".root.0."),
    (".root.bn.", ".root.1."),
)
JOIN_PARTS = (
    (".proj.", ".project."),
    (".offset.", ".0.offset."),
    (".conv.", ".0."),
    (".actf.0.", ".1."),
)
# In some official files, and no detection needs them: the input's constants (compared elsewhere),
# anchors, ImageNet's classifiers, weights of detectron2's own federated loss, which the
# official code does not use, and nuImages' masks.
UNUSED = re.compile(
    r"pixel_(mean|std)|iteration|.*anchor_generator\..*"
    r"|backbone\.base\.fc\.\w+|backbone\.bottom_up\.(linear|fc)\.\w+"
    r"|roi_heads\.box_predictor\.(\d\.)?fed_loss_cls_weights|roi_heads\.mask_head\..+"
)
LEVEL_SCALE = re.compile(r"proposal_generator\.centernet_head\.scales\.(\d)\.scale")


def our_name(official: str, levels: int) -> str:
    """Our name of an official parameter or buffer; `levels` is the pyramid's level count."""
    open_name = name_by_rule(official)
    if open_name is None:
        raise ValueError(
            f"{official}: expected a name of a known part, got none; add a rule for it"
        )
    name = re.sub(r"<([\d_/-]+)>", lambda m: _resolve(m.group(1), levels), open_name)
    parts = TREE_PARTS if name.startswith("backbone.trees.") else ()
    for theirs, our in JOIN_PARTS if ".joins." in name else parts:
        name = name.replace(theirs, our)
    return name


@lru_cache(maxsize=8192)
def name_by_rule(official: str) -> str | None:
    """Our name with its numbers as the rule gives them, in <>; None: of no part that we know."""
    for pattern, ours in RULES:
        match = re.fullmatch(pattern, official)
        if match:
            return match.expand(ours)
    return None


def _resolve(text: str, levels: int) -> str:
    """`5-2` -> 3; `4/3` -> 1; `1_1_2`, a level and its inputs, -> the index of that node."""
    if "/" in text:
        value, parts = text.split("/")
        return str(int(value) // int(parts))
    if "_" not in text:
        value, less = text.split("-")
        return str(int(value) - int(less))
    level, *inputs = map(int, text.split("_"))
    return str(plan_nodes(levels).index(Node(level, tuple(inputs))))
