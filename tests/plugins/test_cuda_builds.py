"""What takes long: nvcc for all architectures, sanitizers, the CPU kernels' own tests."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmark_scripts import imported
from native_cuda import CudaKernels
from native_kernels import INVALID_ARGUMENT, OK, address, sizes
from native_libraries import missing

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
NO_DRIVER, NO_DEVICE = 35, 100  # cudaError_t
# As `nvcc -Xptxas=-v` prints it.
REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN3cn211some_kernelIfLi16EEEvPf' for 'sm_75'
ptxas info    : Function properties for _ZN3cn211some_kernelIfLi16EEEvPf
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 16 bytes cumulative stack size, 128 bytes smem
ptxas info    : Compiling entry function '_ZN3cn211some_kernelIfLi16EEEvPf' for 'sm_90'
ptxas info    : Function properties for _ZN3cn211some_kernelIfLi16EEEvPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers
"""


def test_the_assemblers_report_is_read() -> None:
    with imported("cuda_resources") as scripts:
        resources = scripts["cuda_resources"]
        (usages,) = resources.read_usage(REPORT).values()
        name = resources.kernel_name("_ZN3cn211some_kernelIfLi16EEEvPf")
    assert usages["sm_75"]["spill_store_bytes"] == 12
    assert usages["sm_75"]["static_shared_bytes"] == 128
    assert usages["sm_90"] == {
        "stack_bytes": 0,
        "spill_store_bytes": 0,
        "spill_load_bytes": 0,
        "registers": 32,
        "static_shared_bytes": 0,
    }
    assert name == "some_kernel<float, 16>"


def test_the_record_is_of_all_sources_and_architectures_and_without_spills() -> None:
    with imported("cuda_resources") as scripts:
        resources = scripts["cuda_resources"]
        sources, architectures = resources.read_build(resources.BUILD.read_text())
        document = json.loads(resources.RESULT.read_text())
    with_kernels = {source for source in sources if has_kernel(source)}
    assert {row["source"] for row in document["kernels"]} == with_kernels
    assert {f"sm_{a}" for a in ("75", "80", "86", "89", "90", "100", "120")} == {
        f"sm_{a}" for a in architectures
    }
    for row in document["kernels"]:
        assert list(row["architectures"]) == [f"sm_{a}" for a in architectures]
        assert_no_spills(row)


def has_kernel(source: str) -> bool:
    return "__global__" in (ROOT / "plugins" / "src" / "kernels" / source).read_text()


def assert_no_spills(row: dict[str, dict[str, dict[str, int]]]) -> None:
    for architecture, usage in row["architectures"].items():
        spilled = usage["spill_store_bytes"] + usage["spill_load_bytes"] + usage["stack_bytes"]
        assert spilled == 0, (row["kernel"], architecture)


def test_the_real_library_says_that_there_is_no_driver() -> None:
    """An error comes back from the first call, and nothing else happens. On a GPU: success."""
    path = ROOT / "build" / "native" / "libcn2_kernels_cuda_tests.so"
    if not path.is_file():
        pytest.skip(f"{path}: built only where nvcc is")
    library = CudaKernels(path).library
    nothing, boxes = [None] * 3, np.zeros((1, 4, 4), np.float32)
    call = library.cn2_kernels_proposal_nms
    found = [address(boxes), address(boxes), None]
    settings = (*sizes(1, 4, 2), ctypes.c_float(0.5), ctypes.c_int32(0))
    assert call(*found, *settings, *found) in (OK, NO_DRIVER, NO_DEVICE)
    assert call(*nothing, *sizes(-1, 4, 2), *settings[3:], *nothing) == INVALID_ARGUMENT


@pytest.fixture
def resources() -> ModuleType:
    if shutil.which("nvcc") is None:
        missing("no nvcc")
    with imported("cuda_resources") as scripts:
        module: ModuleType = scripts["cuda_resources"]
        return module


@pytest.mark.slow
def test_kernels_compile_without_warnings_or_spills_as_recorded(
    resources: ModuleType, tmp_path: Path
) -> None:
    resources.main(["--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    for row in found["kernels"]:
        assert_no_spills(row)
    recorded = json.loads(resources.RESULT.read_text())
    if found["nvcc"] == recorded["nvcc"]:
        assert found == recorded, "kernels have changed; run benchmarks/cuda_resources.py"


def run_tests(files: list[str], variables: dict[str, str], *options: str) -> None:
    """In a process of their own, with other libraries."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    done = subprocess.run(
        [*command, *options, *(str(HERE / file) for file in files)],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        "test_proposal_nms.py",
        "test_detection_nms.py",
        "test_pyramid_roi_align.py",
        "test_pyramid_roi_align_limits.py",
    ],
)
def test_emulated_kernels_pass_the_cpu_kernels_tests(cuda: CudaKernels, file: str) -> None:
    """Some 20,000 random cases with ties and IoUs on the threshold among them."""
    run_tests([file], {"CN2_KERNELS": cuda.library._name})


@pytest.mark.slow
def test_emulated_kernels_stay_within_their_memory(tmp_path: Path) -> None:
    """Built with AddressSanitizer, which knows the arrays' and the block's memory, and UBSan."""
    build = tmp_path / "build"
    options = ["-DCN2_CUDA=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    sanitizers = "-DCN2_SANITIZE=address,undefined"
    run("cmake", "-S", str(ROOT / "plugins"), "-B", str(build), *options, sanitizers)
    targets = ["cn2_kernels_cuda_emulated", "cn2_trt_plugins_emulated"]
    run("cmake", "--build", str(build), "--target", *targets)
    runtimes = [run("c++", f"-print-file-name=lib{name}.so").strip() for name in ("asan", "ubsan")]
    variables = {
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "CN2_CUDA_KERNELS": str(build / f"lib{targets[0]}.so"),
        "CN2_EMULATED_PLUGINS": str(build / f"lib{targets[1]}.so"),
    }
    names = ("nms", "preprocess", "roi_align", "deform_conv")
    run_tests(
        [
            *(f"test_cuda_{name}.py" for name in names),
            "test_trt_plugins.py",
            "test_trt_plugin_results.py",
        ],
        variables,
    )


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
