"""Put TensorRT's C++ headers into plugins/third_party/tensorrt10/ and tensorrt11/.

    python3 plugins/fetch_tensorrt.py    # nothing to do where they are or TENSORRT_ROOT is

Those of 10.14 (Apache-2.0) lie in a small wheel, which is compared with a known hash. Headers of
TensorRT 11 are in no package: where TENSORRT11_ROOT does not give them, those of 10.14 without
what 11 has dropped stand for them. These are for the classes that run engines, and nothing else
(docs/kernels.md). Needs Python and pip alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

THIRD_PARTY = Path(__file__).resolve().parent / "third_party"
HEADER = "NvInferRuntime.h"
PACKAGE = "kernel-lens==2.0.1"
SHA256 = "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0"
FOLDER = "kernel_lens/include/tensorrt"
LICENSE = "TensorRT, Copyright (c) NVIDIA CORPORATION & AFFILIATES, Apache-2.0 licence\n"
TIMEOUT_S = 120

# The virtual methods that TensorRT 11 has dropped, by class: all that 10.14 calls deprecated. That
# the others lie where this leaves them was read from the Python bindings of TensorRT 11.4 and of
# TensorRT-RTX 1.5 and 1.7 (tests/plugins/test_fetch_tensorrt.py).
DROPPED = {
    "VRuntime": ["deserializeCudaEngine(IStreamReader&"],
    "VCudaEngine": [
        "createExecutionContextWithoutDeviceMemory(",
        "getDeviceMemorySize(",
        "getProfileTensorValues(",
        "hasImplicitBatchDimension(",
        "getDeviceMemorySizeForProfile(",
        "setWeightStreamingBudget(",
        "getWeightStreamingBudget(",
        "getMinimumWeightStreamingBudget(",
    ],
    "VExecutionContext": ["allInputShapesSpecified("],
}
# The same of the one interface that is a class of pure methods itself; what is left are as many as
# in the table of TensorRT 11.4's and TensorRT-RTX 1.7's registry, in this order.
REGISTRY = "NvInferRuntimeCommon.h"
DROPPED_OF_REGISTRY = [
    r"\bregisterCreator\(\s*IPluginCreator&",
    r"getPluginCreatorList\(",
    r"getPluginCreator\(",
    r"deregisterCreator\(IPluginCreator const&",
]
# TensorRT 11's logger is a versioned interface, whose methods come before `log`.
VERSIONED_LOGGER = (
    "class ILogger\n{\npublic:\n",
    "class ILogger : public IVersionedInterface\n{\npublic:\n"
    "    InterfaceInfo getInterfaceInfo() const noexcept override\n    {\n"
    '        return InterfaceInfo{"ILogger", 1, 0};\n    }\n',
)


def main() -> int:
    """Fetch and make what is missing; the exit code."""
    try:
        if not os.environ.get("TENSORRT_ROOT") and not is_there("tensorrt10"):
            write("tensorrt10", headers(download()))
        if not os.environ.get("TENSORRT11_ROOT") and not is_there("tensorrt11"):
            write("tensorrt11", without_dropped(read_headers()))
    except (OSError, ValueError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())
        print(f"fetch_tensorrt: error: {cause}; set TENSORRT_ROOT", file=sys.stderr)
        return 1
    return 0


def is_there(name: str) -> bool:
    return (THIRD_PARTY / name / HEADER).is_file()


def download() -> bytes:
    """The wheel, by pip.

    Raises:
        OSError, subprocess.SubprocessError: pip failed.
        ValueError: another hash.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command = [*pip, "--dest", folder, PACKAGE]
        subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S)
        package = next(Path(folder).glob("*.whl")).read_bytes()
    found = hashlib.sha256(package).hexdigest()
    if found != SHA256:
        raise ValueError(f"expected a package with sha256 {SHA256}, got {found}")
    return package


def headers(package: bytes) -> dict[str, bytes]:
    """The headers of a wheel, by name.

    Raises:
        ValueError: the one that is needed is not there.
    """
    with tempfile.TemporaryFile() as file:
        file.write(package)
        with zipfile.ZipFile(file) as wheel:
            paths = [PurePosixPath(name) for name in wheel.namelist()]
            found = {
                path.name: wheel.read(path.as_posix())
                for path in paths
                if path.suffix == ".h" and path.parent.as_posix() == FOLDER
            }
    if HEADER not in found:
        raise ValueError(f"expected {FOLDER}/{HEADER} in the package, found none")
    return found


def read_headers() -> dict[str, bytes]:
    """TensorRT 10's headers, by name: TENSORRT_ROOT's, else the fetched ones.

    Raises:
        ValueError: none below TENSORRT_ROOT.
    """
    root = Path(os.environ.get("TENSORRT_ROOT") or THIRD_PARTY / "tensorrt10")
    for found in sorted(root.rglob(HEADER)):
        return {path.name: path.read_bytes() for path in found.parent.glob("NvInfer*.h")}
    raise ValueError(f"expected {HEADER} below {root}, found none")


def without_dropped(found: dict[str, bytes]) -> dict[str, bytes]:
    """Headers of TensorRT 10 as those of 11.

    Raises:
        ValueError: what is to be dropped is not there just once; headers of another version?
    """
    texts = {name: data.decode() for name, data in found.items()}
    for virtual_class, methods in DROPPED.items():
        for method in methods:
            drop(
                texts, "NvInferImpl.h", virtual_class, rf"virtual [^;]*?{re.escape(method)}[^;]*;\n"
            )
            body = r"[^{;]*\{.*?\n    \}\n"
            public_class = "I" + virtual_class[1:]
            drop(texts, HEADER, public_class, rf"TRT_DEPRECATED [^;{{]*?{re.escape(method)}{body}")
    for method in DROPPED_OF_REGISTRY:
        pattern = rf"TRT_DEPRECATED virtual [^;]*?{method}[^;]*;\n"
        drop(texts, REGISTRY, "IPluginRegistry", pattern)
    texts[HEADER] = replace_once(texts[HEADER], *VERSIONED_LOGGER)
    version = re.sub(r"(_MAJOR_ENTERPRISE) \d+", r"\1 11", texts["NvInferVersion.h"])
    texts["NvInferVersion.h"] = re.sub(r"((?:MINOR|PATCH|BUILD)_ENTERPRISE) \d+", r"\1 0", version)
    return {name: text.encode() for name, text in texts.items()}


def drop(texts: dict[str, str], name: str, class_name: str, pattern: str) -> None:
    """Take what a pattern finds out of a class of a header, in place.

    Raises:
        ValueError: see `without_dropped`.
    """
    text = texts[name]
    start = re.search(rf"^class {class_name}\b[^;{{]*{{", text, re.MULTILINE)
    if start is None:
        raise ValueError(f"expected class {class_name} in {name}, found none")
    end = text.index("\n};", start.end())
    left, count = re.subn(rf"^    {pattern}", "", text[start.end() : end], flags=re.M | re.S)
    if count != 1:
        raise ValueError(f"expected one {pattern!r} in {class_name} of {name}, found {count}")
    texts[name] = text[: start.end()] + left + text[end:]


def replace_once(text: str, old: str, new: str) -> str:
    """The text with another part.

    Raises:
        ValueError: what is to be replaced is not there just once.
    """
    if text.count(old) != 1:
        raise ValueError(f"expected one {old!r} in {HEADER}, found {text.count(old)}")
    return text.replace(old, new)


def write(name: str, found: dict[str, bytes]) -> None:
    """Into a folder of third_party/; the header that the build looks for comes last."""
    target = THIRD_PARTY / name
    target.mkdir(parents=True, exist_ok=True)
    (target / "LICENSE").write_text(LICENSE, "utf-8")
    for file in sorted(found, key=lambda file: file == HEADER):
        (target / file).write_bytes(found[file])
    print(f"{target}: TensorRT's headers")


if __name__ == "__main__":
    sys.exit(main())
