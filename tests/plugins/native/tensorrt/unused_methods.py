"""Write a C++ header: classes with every virtual method of TensorRT's, which end the program.

    unused_methods.py FOLDER_OF_HEADERS TARGET

The tests' libnvinfer derives from them what libcn2 calls; so it has the order of methods of
whichever headers it is compiled against.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CLASSES = {
    "VRuntime": ("NvInferImpl.h", "nvinfer1::apiv"),
    "VCudaEngine": ("NvInferImpl.h", "nvinfer1::apiv"),
    "VExecutionContext": ("NvInferImpl.h", "nvinfer1::apiv"),
    "IPluginRegistry": ("NvInferRuntimeCommon.h", "nvinfer1"),
}
METHOD = re.compile(r"virtual\s+([^;{}]*?)\s*=\s*0\s*;")


def body_of(text: str, name: str) -> str:
    """What a class declares, without comments and inactive parts.

    Raises:
        ValueError: it is not there.
    """
    found = re.search(rf"class {name}\s*(?::[^{{;]*)?{{(.*?)\n}};", text, re.DOTALL)
    if found is None:
        raise ValueError(f"expected class {name} in TensorRT's headers, found none")
    body = re.sub(r"//[^\n]*", "", found[1])
    return re.sub(r"#if ENABLE_FEATURE.*?#endif", "", body, flags=re.DOTALL)


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    lines = ["#pragma once", "#include <NvInferRuntime.h>", "#include <cstdlib>"]
    for name, (header, namespace) in CLASSES.items():
        body = body_of((folder / header).read_text("utf-8"), name)
        lines += [f"namespace {namespace} {{", f"struct Unused{name} : {name} {{"]
        lines += [f"  {one} override {{ std::abort(); }}" for one in METHOD.findall(body)]
        lines += ["};", "}"]
    target.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
