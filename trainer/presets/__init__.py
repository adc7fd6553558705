"""Named detectors; each preset is a function that returns a whole `Config`.

Settings of the published detectors are those of the official configs, training included; those of
the paper's other detectors (framework.py) are the paper's; `nano` and `lite0-fpn` are ours.
docs/training.md has the recipes as a table.
"""

from __future__ import annotations

from collections.abc import Callable

from ..config import Config
from .dla import dla34_bifpn_p3, dla34_bifpn_p5, dla34_fcosbifpn_p5
from .framework import FRAMEWORK_PRESETS
from .heads import (
    centernet_r50_fpn,
    r50_fpn_faster,
    r50_fpn_lvis,
    r50_fpn_lvis_fed,
    r50_fpn_o365,
)
from .resnet import (
    r2_101_dcn_bifpn_1280,
    r2_101_dcn_bifpn_1560,
    r2_101_dcn_fpn,
    r50_fpn,
    x101_dcn_fpn,
)
from .small import lite0_fpn, nano
from .stride4 import centernet_dla34_s4, dla34_s4_nuimages

PRESETS: dict[str, Callable[[], Config]] = {
    "dla34-bifpn-p3": dla34_bifpn_p3,
    "dla34-bifpn-p5": dla34_bifpn_p5,
    "dla34-fcosbifpn-p5": dla34_fcosbifpn_p5,
    "r50-fpn": r50_fpn,
    "r50-fpn-faster": r50_fpn_faster,
    "r50-fpn-lvis": r50_fpn_lvis,
    "r50-fpn-lvis-fed": r50_fpn_lvis_fed,
    "r50-fpn-o365": r50_fpn_o365,
    "centernet-r50-fpn": centernet_r50_fpn,
    **FRAMEWORK_PRESETS,
    "x101-dcn-fpn": x101_dcn_fpn,
    "r2-101-dcn-fpn": r2_101_dcn_fpn,
    "r2-101-dcn-bifpn-1280": r2_101_dcn_bifpn_1280,
    "r2-101-dcn-bifpn-1560": r2_101_dcn_bifpn_1560,
    "centernet-dla34-s4": centernet_dla34_s4,
    "dla34-s4-nuimages": dla34_s4_nuimages,
    "nano": nano,
    "lite0-fpn": lite0_fpn,
}
