"""The native libraries under the address and undefined-behaviour sanitizers, by their own tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = (
    "proposal_nms",
    "detection_nms",
    "pyramid_roi_align",
    "pyramid_roi_align_limits",
    "ort_operators",
    "c_errors",
    "c_manifests",
    "c_structs",
    "c_cuda_order",
    "c_tensorrt",
    "c_tensorrt_errors",
    "c_tensorrt_graphs",
    "c_onnxruntime_cuda",
    "resize",
)
# What libcn2 loads, and what the tests load in place of NVIDIA's libraries.
MODULES = (
    *("cn2_tensorrt10", "cn2_tensorrt11", "cn2_cuda_emulated", "fake_cuda", "fake_onnxruntime"),
    *("fake_tensorrt10", "fake_tensorrt11", "cn2_ort_ops_emulated"),
)


def runtime_library(name: str) -> str:
    """A sanitizer's library, which must be loaded before all others."""
    command = ["c++", f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"expected the compiler's {name}, found none")
    return path


@pytest.mark.slow
def test_the_same_tests_are_clean(ort_ops: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("expected cmake and a C++ compiler, found none")
    libraries = [runtime_library(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    options = ("-DCN2_SANITIZE=address,undefined", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")
    subprocess.run(["cmake", "-S", ROOT / "plugins", "-B", tmp_path, *options], check=True)
    targets = ("--target", "cn2_kernels_shared", "cn2_ort_ops", "cn2", *MODULES)
    build = ["cmake", "--build", tmp_path, "--parallel", str(os.cpu_count())]
    subprocess.run([*build, *targets], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # Python itself gives back little
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "CN2_KERNELS": str(tmp_path / "libcn2_kernels.so"),
        "CN2_ORT_OPS": str(tmp_path / "libcn2_ort_ops.so"),
        "CN2_LIBRARY_DIR": str(tmp_path),
        "CN2_NATIVE_BUILD": str(tmp_path),
        "CI": "1",  # what is absent fails
    }
    files = [ROOT / "tests" / "plugins" / f"test_{name}.py" for name in TESTS]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "-k",
        # A sanitizer takes memory of its own, and NVIDIA's library is not made for it.
        "not without_memory and not memory_cannot_hold and not real_tensorrt",
        *map(str, files),
    ]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, (found.stdout + found.stderr)[-5000:]
    assert " skipped" not in found.stdout
