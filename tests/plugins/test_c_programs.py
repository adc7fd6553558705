"""Programs against cn2.h: the example in C99, C++20, how libcn2 is found; sanitizers, fuzz."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from c_library import Library, Model, image
from cn2.runtime.demo import PICTURES
from cn2.runtime.pictures import open_picture
from fake_backend import make_manifest
from native_libraries import INCLUDE, ROOT, missing
from tiny_onnx import write_tiny_onnx

NATIVE = ROOT / "tests" / "plugins" / "native"
FAKE_DRIVER = ("fake_libcuda", "fake_libcuda_streams", "fake_cuda_work")
EXAMPLE = ROOT / "examples" / "c"
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
WARNINGS = ("-pedantic", "-Wall", "-Werror")
# The stub has an operator new of its own, which is malloc, and libstdc++ has the sanitizer's.
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "alloc_dealloc_mismatch=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
FUZZ_CALLS = 1_000_000


def run(*command: str | Path, timeout: float = 600, **environment: str) -> str:
    """What a program prints; it must succeed, and say nothing on stderr."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def find_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(f"{name}: not installed")
    return path


def compile_against(library: Path, source: Path, target: Path, *flags: str) -> Path:
    """Compile and link a program with a built libcn2."""
    compiler = find_tool("cc" if source.suffix == ".c" else "c++")
    folder = library.parent
    link = (f"-L{folder}", "-lcn2", f"-Wl,-rpath,{folder}")
    run(compiler, *flags, f"-I{INCLUDE}", source, "-o", target, *link)
    return target


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A bundled picture as PPM."""
    path = tmp_path / "scene.ppm"
    Image.open(sorted(PICTURES.glob("*.jpg"))[0]).save(path)
    return path


def test_the_example_prints_what_is_found(
    library: Library, nano: Model, nano_onnx: Path, scene: Path, onnxruntime_path: bytes
) -> None:
    flags = ("-std=c99", *WARNINGS)
    program = compile_against(library.path, EXAMPLE / "detect.c", scene.parent / "detect", *flags)
    runtime = onnxruntime_path.decode()
    lines = run(program, nano_onnx, scene, "0.5", CN2_ONNXRUNTIME=runtime).splitlines()
    found = nano.detect([image(open_picture(scene))], 0.5)[0]
    assert len(lines) == len(found.scores) > 5
    for line, box, score, class_id in zip(lines, *found, strict=True):
        name = nano.library.model_class_name(nano.handle, int(class_id)).decode()
        numbers = " ".join(f"{side:.1f}" for side in box)
        assert line == f"{score:.3f}  {name}  {numbers}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected MODEL.onnx PICTURE.ppm"),
        (["absent.onnx", "scene.ppm"], "absent.onnx: no such file"),
        (["m.onnx", "absent.ppm"], "expected a binary PPM"),
        (["m.onnx", "torn.ppm"], "expected a binary PPM"),
    ],
)
def test_the_example_says_what_is_wrong(
    library: Library, scene: Path, arguments: list[str], said: str
) -> None:
    program = compile_against(library.path, EXAMPLE / "detect.c", scene.parent / "detect")
    (scene.parent / "torn.ppm").write_bytes(scene.read_bytes()[:1000])
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, cwd=scene.parent, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("detect: error: ")
    assert said in done.stderr


def test_the_header_is_cpp_too(
    library: Library, tiny_path: Path, tmp_path: Path, onnxruntime_path: bytes
) -> None:
    flags = ("-std=c++20", "-Wextra", *WARNINGS)
    program = compile_against(library.path, NATIVE / "header.cpp", tmp_path / "header", *flags)
    assert run(program, tiny_path, onnxruntime_path.decode()) == "ok 2 22\n"


def test_the_header_alone_is_clean(tmp_path: Path) -> None:
    """Included twice, with all warnings, and as the oldest C and C++ that it promises."""
    source = '#include <cn2.h>\n#include "cn2.h"\nint main(void) { return CN2_OK; }\n'
    for compiler, suffix, standard in (("cc", "c", "c99"), ("c++", "cpp", "c++11")):
        path = tmp_path / f"twice.{suffix}"
        path.write_text(source)
        flags = ("-Wextra", "-Wconversion", "-Wshadow", *WARNINGS)
        command = (find_tool(compiler), f"-std={standard}", *flags, f"-I{INCLUDE}", "-c", path)
        run(*command, "-o", "/dev/null")


@pytest.fixture(scope="module")
def installed(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `cmake --install` puts somewhere, of the build that `make native` made."""
    build = ROOT / "build" / "native"
    if not (build / "cn2-config.cmake").is_file():
        missing("build/native: nothing is built there; make native")
    prefix = tmp_path_factory.mktemp("prefix")
    run(find_tool("cmake"), "--install", build, "--prefix", prefix)
    moved = prefix.with_name("moved")  # it finds itself wherever it is
    prefix.rename(moved)
    return moved


def test_cmake_finds_the_package(
    installed: Path, tmp_path: Path, scene: Path, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    cmake, build = find_tool("cmake"), tmp_path / "build"
    run(cmake, "-S", EXAMPLE, "-B", build, f"-DCMAKE_PREFIX_PATH={installed}")
    run(cmake, "--build", build)
    runtime = onnxruntime_path.decode()
    lines = run(build / "detect", tiny_path, scene, CN2_ONNXRUNTIME=runtime).splitlines()
    assert lines[0].startswith("0.900  red  0.0 0.0 ")


def test_pkg_config_finds_it(
    installed: Path, tmp_path: Path, scene: Path, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    make, _ = find_tool("make"), find_tool("pkg-config")
    shutil.copytree(EXAMPLE, tmp_path / "example")
    found = [path.parent for path in installed.rglob("cn2.pc")]
    run(make, "-C", tmp_path / "example", PKG_CONFIG_PATH=str(found[0]))
    program = tmp_path / "example" / "detect"
    lines = run(program, tiny_path, scene, CN2_ONNXRUNTIME=onnxruntime_path.decode()).splitlines()
    assert lines[0].startswith("0.900  red  0.0 0.0 ")


@pytest.mark.slow
def test_valgrind_finds_nothing_in_the_example(
    library: Library, scene: Path, tiny_path: Path, onnxruntime_path: bytes
) -> None:
    """No leak is suppressed; of errors, those of ONNX Runtime itself and of the loader."""
    valgrind = find_tool("valgrind")
    program = compile_against(library.path, EXAMPLE / "detect.c", scene.parent / "detect", "-g")
    small = scene.with_name("small.ppm")
    Image.open(scene).resize((96, 64)).save(small)
    checks = (
        "--leak-check=full",
        "--error-exitcode=9",
        "--errors-for-leak-kinds=definite,indirect",
    )
    suppressions = f"--suppressions={NATIVE.parent / 'onnxruntime.supp'}"
    runtime = onnxruntime_path.decode()
    run(
        *(valgrind, *checks, suppressions, program, tiny_path, small),
        CN2_ONNXRUNTIME=runtime,
    )


def write_engine(folder: Path) -> Path:
    """A plan, of no engine, with its sidecar; two pictures a run."""
    path = folder / "m.engine"
    path.write_bytes(b"plan" * 1000)
    manifest = json.loads(make_manifest(batch=2).to_json())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar = Path(f"{path}.json")
    sidecar.write_text(json.dumps({"manifest": manifest, "sha256": digest}))
    return path


def build_library(folder: Path, *settings: str) -> Path:
    """libcn2 built with the sanitizers."""
    cmake = find_tool("cmake")
    ninja = ("-G", "Ninja") if shutil.which("ninja") else ()
    common = ("-DCMAKE_BUILD_TYPE=Release", "-DCN2_SANITIZE=address,undefined")
    run(cmake, "-S", ROOT / "plugins", "-B", folder, *ninja, *common, *settings)
    run(cmake, "--build", folder, "--target", "cn2", timeout=1500)
    return folder / "libcn2.so"


@pytest.fixture(scope="module")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libcn2 with the stub engine, and the sanitizers."""
    stub = f"-DCN2_STUB_ENGINE={NATIVE / 'stub_engine.cpp'}"
    return build_library(tmp_path_factory.mktemp("stub"), stub)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cuda", "none"])
def test_the_stubs_checks_are_clean(stub_library: Path, tmp_path: Path, device: str) -> None:
    """Memory that runs out anywhere, none taken in the steady state, device memory, failures."""
    flags = ("-std=c99", *WARNINGS, *SANITIZE)
    program = compile_against(stub_library, NATIVE / "checks.c", tmp_path / "checks", *flags)
    model, engine = write_tiny_onnx(tmp_path / "m.onnx"), write_engine(tmp_path)
    environment = dict(SANITIZER_OPTIONS)
    if device == "cuda":
        driver = tmp_path / "driver" / "libcuda.so.1"
        driver.parent.mkdir()
        sources = [NATIVE / f"{name}.c" for name in FAKE_DRIVER]
        run(find_tool("cc"), "-std=c99", *WARNINGS, "-shared", "-fPIC", *sources, "-o", driver)
        environment["LD_LIBRARY_PATH"] = str(driver.parent)
    said = run(program, model, engine, device, **environment)
    assert said == "all checks passed\n"


@pytest.mark.slow
def test_a_million_fuzzed_calls(stub_library: Path, tmp_path: Path) -> None:
    flags = ("-std=c99", *WARNINGS, *SANITIZE)
    program = compile_against(stub_library, NATIVE / "fuzz.c", tmp_path / "fuzz", *flags)
    model, engine = write_tiny_onnx(tmp_path / "m.onnx"), write_engine(tmp_path)
    said = run(program, model, engine, str(FUZZ_CALLS), "1", **SANITIZER_OPTIONS)
    rows = re.findall(r"(\w+) (\d+) (\d+)", said)
    counts = {name: (int(good), int(bad)) for name, good, bad in rows}
    assert sum(map(sum, counts.values())) == FUZZ_CALLS
    assert all(min(pair) > 1000 for pair in counts.values()), counts


@pytest.mark.slow
def test_nano_is_clean_under_the_sanitizers(
    nano: Model, nano_onnx: Path, scene: Path, onnxruntime_path: bytes, tmp_path: Path
) -> None:
    built = build_library(tmp_path / "build")
    flags = ("-std=c99", *WARNINGS, *SANITIZE)
    program = compile_against(built, EXAMPLE / "detect.c", tmp_path / "detect", *flags)
    suppressions = tmp_path / "leaks.supp"
    suppressions.write_text("leak:libonnxruntime\n")
    options = {"LSAN_OPTIONS": f"suppressions={suppressions}:print_suppressions=0"}
    runtime = onnxruntime_path.decode()
    lines = run(program, nano_onnx, scene, "0.5", CN2_ONNXRUNTIME=runtime, **options).splitlines()
    found = nano.detect([image(open_picture(scene))], 0.5)[0]
    assert [float(line.split()[0]) for line in lines] == pytest.approx(
        found.scores.tolist(), abs=1e-3
    )
    assert np.all(found.scores > 0.5)
