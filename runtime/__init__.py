"""Run an exported detector: numpy and one engine library, never torch.

The names load on first use, so that `import cn2.runtime` is quick and loads nothing heavy.
"""

from typing import TYPE_CHECKING

__all__ = ["Cn2Error", "Detections", "Detector"]

if TYPE_CHECKING:
    from .detections import Detections
    from .detector import Detector
    from .errors import Cn2Error


def __getattr__(name: str) -> object:
    if name == "Detector":
        from .detector import Detector

        return Detector
    if name == "Detections":
        from .detections import Detections

        return Detections
    if name == "Cn2Error":
        from .errors import Cn2Error

        return Cn2Error
    raise AttributeError(f"module 'cn2.runtime' has no attribute {name!r}")
