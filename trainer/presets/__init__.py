"""Named detectors; each preset is a function that returns a whole `Config`.

Settings of the published detectors are those of the official configs, training included; `nano`
and `lite0-fpn` are ours. docs/training.md has the recipes as a table.
"""

from __future__ import annotations

from collections.abc import Callable

from ..config import Config
from .dla import dla34_bifpn_p3, dla34_bifpn_p5
from .heads import (
    centernet_r50_fpn,
    r50_fpn_faster,
    r50_fpn_lvis,
    r50_fpn_lvis_fed,
    r50_fpn_o365,
)
from .resnet import r50_fpn
from .small import lite0_fpn, nano

PRESETS: dict[str, Callable[[], Config]] = {
    "dla34-bifpn-p3": dla34_bifpn_p3,
    "dla34-bifpn-p5": dla34_bifpn_p5,
    "r50-fpn": r50_fpn,
    "r50-fpn-faster": r50_fpn_faster,
    "r50-fpn-lvis": r50_fpn_lvis,
    "r50-fpn-lvis-fed": r50_fpn_lvis_fed,
    "r50-fpn-o365": r50_fpn_o365,
    "centernet-r50-fpn": centernet_r50_fpn,
    "nano": nano,
    "lite0-fpn": lite0_fpn,
}
