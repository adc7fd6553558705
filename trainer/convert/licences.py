"""The licence that official weights came under, as it is recorded in what is made of them."""

from __future__ import annotations

OFFICIAL = "Apache-2.0 (official CenterNet2 weights)"
# Their neck was built from the official bifpn_fcos.py (the licence section of CenterNet2's README).
NON_COMMERCIAL = "non-commercial (official CenterNet2 weights, whose neck has that licence)"
NON_COMMERCIAL_PRESETS = frozenset({"dla34-bifpn-p3", "dla34-fcosbifpn-p5"})
FINE_TUNED_NON_COMMERCIAL = (
    "non-commercial (fine-tuned from CenterNet2, whose official neck has that licence)"
)
FINE_TUNED = "unspecified (fine-tuned from CenterNet2)"


def weights_license(preset: str, *, own_classes: bool) -> str:
    """The licence of a checkpoint's weights, official or fine-tuned.

    Args:
        preset: what it is.
        own_classes: whether it has the official number of classes; else somebody trained it on.
    """
    if preset in NON_COMMERCIAL_PRESETS:
        return NON_COMMERCIAL if own_classes else FINE_TUNED_NON_COMMERCIAL
    return OFFICIAL if own_classes else FINE_TUNED
