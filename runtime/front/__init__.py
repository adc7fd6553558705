"""cn2: train CenterNet2, export it to one ONNX file, run that file anywhere."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Detections", "Detector", "__version__"]

if TYPE_CHECKING:
    from cn2.runtime import Detections, Detector


def __getattr__(name: str) -> object:
    """Load `Detector` and `Detections` on first use: `import cn2` alone imports nothing heavy."""
    if name in ("Detections", "Detector"):
        import cn2.runtime

        return getattr(cn2.runtime, name)
    raise AttributeError(f"module 'cn2' has no attribute {name!r}")
