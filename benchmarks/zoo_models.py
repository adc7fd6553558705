"""What the authors published: the sixteen models of their zoo, and the paper's times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CODE = "Apache-2.0"
NON_COMMERCIAL = "non-commercial (neck)"

# Network and all post-processing, batch 1, on a Titan Xp; arXiv 2103.07461 and its model zoo.
PAPER: dict[str, Any] = {
    "gpu": "Titan Xp",
    "source": "arXiv 2103.07461",
    "presets": {
        "dla34-bifpn-p3": {"ms": 25, "images_per_s": 40},
        "dla34-bifpn-p5": {"ms": 30, "images_per_s": 33},
        "r50-fpn": {"ms": 57, "images_per_s": 18},
    },
}


@dataclass(frozen=True, kw_only=True)
class OfficialModel:
    """A row of the official model zoo, github.com/xingyizhou/CenterNet2."""

    config: str  # the yaml's name
    preset: str  # ours
    ap: float | None = None  # mAP in percent, on the data set's validation pictures
    titan_xp: int | None = None  # images/s of the network on a Titan Xp
    titan_rtx: int | None = None  # on a Titan RTX
    license: str = CODE  # of the code that the weights were trained with


ZOO = (
    OfficialModel(
        config="CenterNet2_DLA-BiFPN-P3_4x",
        preset="dla34-bifpn-p3",
        ap=43.8,
        titan_xp=40,
        titan_rtx=50,
        license=NON_COMMERCIAL,
    ),
    OfficialModel(
        config="CenterNet2_DLA-BiFPN-P3_24x",
        preset="dla34-bifpn-p3",
        ap=45.6,
        titan_xp=40,
        titan_rtx=50,
        license=NON_COMMERCIAL,
    ),
    OfficialModel(
        config="CenterNet2_DLA-BiFPN-P5_640_16x_ST",
        preset="dla34-bifpn-p5",
        ap=49.2,
        titan_xp=33,
        titan_rtx=38,
    ),
    OfficialModel(
        config="CenterNet2_DLA-fcosBiFPN-P5_640_16x_ST",
        preset="dla34-fcosbifpn-p5",
        license=NON_COMMERCIAL,
    ),
    OfficialModel(config="CenterNet2_R50_1x", preset="r50-fpn", ap=42.9, titan_xp=18, titan_rtx=24),
    OfficialModel(
        config="CenterNet2-F_R50_1x", preset="r50-fpn-faster", ap=41.7, titan_xp=22, titan_rtx=27
    ),
    OfficialModel(
        config="CenterNet2_X101-DCN_2x", preset="x101-dcn-fpn", ap=49.9, titan_xp=6, titan_rtx=8
    ),
    OfficialModel(
        config="CenterNet2_R2-101-DCN_896_4x",
        preset="r2-101-dcn-fpn",
        ap=51.2,
        titan_xp=9,
        titan_rtx=13,
    ),
    OfficialModel(
        config="CenterNet2_R2-101-DCN-BiFPN_1280_4x",
        preset="r2-101-dcn-bifpn-1280",
        ap=52.9,
        titan_xp=6,
        titan_rtx=8,
    ),
    OfficialModel(
        config="CenterNet2_R2-101-DCN-BiFPN_4x+4x_1560_ST",
        preset="r2-101-dcn-bifpn-1560",
        ap=56.1,
        titan_xp=3,
        titan_rtx=5,
    ),
    OfficialModel(
        config="CenterNet-S4_DLA_8x",
        preset="centernet-dla34-s4",
        ap=42.5,
        titan_xp=50,
        titan_rtx=71,
    ),
    OfficialModel(
        config="CenterNet-FPN_R50_1x",
        preset="centernet-r50-fpn",
        ap=40.2,
        titan_xp=20,
        titan_rtx=24,
    ),
    OfficialModel(config="LVIS_CenterNet2_R50_1x", preset="r50-fpn-lvis", ap=26.5),
    OfficialModel(config="LVIS_CenterNet2_R50_Fed_1x", preset="r50-fpn-lvis-fed", ap=28.3),
    OfficialModel(config="O365_CenterNet2_R50_1x", preset="r50-fpn-o365", ap=22.6),
    OfficialModel(config="nuImages_CenterNet2_DLA_640_8x", preset="dla34-s4-nuimages"),
)
