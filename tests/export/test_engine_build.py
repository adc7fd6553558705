"""`cn2 build` with TensorRT-RTX, as users call it; no GPU is needed for any of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import redirect_stdout
from copy import copy
from dataclasses import replace
from io import StringIO
from pathlib import Path
from shutil import copyfile

import onnx
import pytest

from cn2.export.engine.build import engine_key
from cn2.export.engine.files import current_engine
from cn2.export.engine.gpu import Gpu
from cn2.export.engine.library import open_library
from cn2.export.engine.model import EngineModel
from cn2.export.engine.options import BuildOptions
from cn2.runtime.cli import run
from cn2.runtime.engine_file import read_engine, sidecar_path
from command_line import cn2
from exported import Exported
from native_libraries import needs_library
from tiny_onnx import write_tiny_onnx

pytestmark = needs_library("cn2_trt_plugins")
Capture = pytest.CaptureFixture[str]
RTX = ("--runtime", "tensorrt-rtx")


@pytest.fixture(scope="module")
def first(
    tiny_fused: Exported, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, list[str], Path]:
    """The tiny detector's engine for sm_86: the command's exit code, its lines, the file."""
    path = tmp_path_factory.mktemp("first") / "tiny.engine"
    out = StringIO()
    with redirect_stdout(out):
        code = run(["build", str(tiny_fused.path), "-o", str(path), *RTX, "--target", "sm_86"])
    return code, out.getvalue().splitlines(), path


@pytest.fixture
def engine(first: tuple[int, list[str], Path], tmp_path: Path) -> Path:
    """A copy of that engine."""
    path = tmp_path / "tiny.engine"
    for name in (path, sidecar_path(path)):
        copyfile(first[2].with_name(name.name), name)
    return path


def test_an_engine_and_what_it_says_of_itself(
    first: tuple[int, list[str], Path], tiny_fused: Exported
) -> None:
    code, _, path = first
    assert code == 0
    about = read_engine(path)
    assert about.manifest == tiny_fused.backend.manifest
    assert (about.runtime, about.version) == ("tensorrt-rtx", open_library("tensorrt-rtx").version)
    assert (about.targets, about.device, about.precision) == (("sm_86",), "", "fp32")
    profile = about.profiles[0]
    assert (profile.batch, profile.height, profile.width) == ((1, 1, 8), (32, 64, 96), (32, 96, 96))
    audit = about.build["audit"]
    assert audit["multiply_adds"]["fp32"] > 1e6
    assert audit["lowered_islands"] == []
    assert "no GPU" in audit["engine"]["skipped"] or "sm_" in audit["engine"]["skipped"]
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, sidecar_path(path).name]


def test_what_is_printed(first: tuple[int, list[str], Path]) -> None:
    _, lines, path = first
    for part in ("runs on", "sm_86", "1 to 8, fastest at 1", "100.0% in fp32"):
        assert any(part in line for line in lines)
    last = lines[-1]
    assert last.startswith("tensorrt_rtx --onnx=")
    assert f"--saveEngine={path}" in last
    assert "--computeCapabilities=86 --noTF32" in last


def test_the_same_engine_is_not_built_again(
    engine: Path, tiny_fused: Exported, capfd: Capture
) -> None:
    path = engine
    command = ("build", tiny_fused.path, "-o", path, *RTX, "--target", "sm_86")
    before = path.stat().st_mtime_ns
    ran = cn2(capfd, *command)
    assert (ran.code, path.stat().st_mtime_ns) == (0, before)
    assert "there already" in ran.out
    assert cn2(capfd, *command, "--rebuild").code == 0
    assert path.stat().st_mtime_ns != before
    path.write_bytes(path.read_bytes()[:-1])  # torn
    assert cn2(capfd, *command, "--batch", "1").code == 0  # and of another option
    assert read_engine(path).profiles[0].batch == (1, 1, 1)


def test_another_file_version_or_plugin_is_another_engine(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of what was built is not that of anything else; no need to build those."""
    path = engine
    about = read_engine(path)
    rtx = open_library("tensorrt-rtx")
    model = EngineModel(
        manifest=about.manifest, sha256=about.build["onnx_sha256"], onnx=b"", plugins={}
    )
    options = BuildOptions(runtime="tensorrt-rtx", profile=about.profiles[0], targets=about.targets)
    key = engine_key(rtx, model, options, None)
    assert current_engine(path, key) == about
    newer = copy(rtx.opened)
    newer.version = "1.7.1.117"
    others = [
        engine_key(rtx, replace(model, sha256="0" * 64), options, None),
        engine_key(replace(rtx, opened=newer), model, options, None),
        engine_key(replace(rtx, plugins=path), model, options, None),
        engine_key(rtx, model, replace(options, targets=("sm_86", "sm_89")), None),
        engine_key(rtx, model, replace(options, tf32=True), None),
        engine_key(rtx, model, options, Gpu(name="RTX", target="sm_86")),
        engine_key(rtx, model, options, Gpu(name="RTX", target="sm_89")),
    ]
    monkeypatch.setattr("cn2.export.engine.build.__version__", "0.0.0")
    others.append(engine_key(rtx, model, options, None))
    assert len({key, *others}) == len(others) + 1
    assert [current_engine(path, other) for other in others] == [None] * len(others)


def test_ampere_and_newer_where_no_target_is_named(
    tiny_fused: Exported, tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "a.engine"
    assert cn2(capfd, "build", tiny_fused.path, "-o", path, *RTX).code == 0
    assert read_engine(path).targets == ("sm_86+",)


def test_the_onnx_file_for_nvidias_tool(
    engine: Path, tiny_fused: Exported, tmp_path: Path, capfd: Capture
) -> None:
    saved = tmp_path / "for tool.onnx"
    command = ("build", tiny_fused.path, "-o", engine, *RTX, "--target", "sm_86")
    ran = cn2(capfd, *command, "--save-onnx", saved)
    assert f"'--onnx={saved}'" in ran.out.splitlines()[-1]
    graph = onnx.load(saved).graph
    assert [value.name for value in graph.input] == ["images", "image_sizes", "score_threshold"]
    assert "score_threshold" not in {tensor.name for tensor in graph.initializer}


def test_info_of_an_engine(engine: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "info", engine)
    assert (ran.code, ran.errors) == (0, [])
    for part in ("tiny", "tensorrt-rtx", "sm_86", "32x32 to 96x96", "64x96"):
        assert part in ran.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "sm_75"], "--target sm_75: TensorRT-RTX has no fp32 matrix product for it"),
        (["--target", "sm_90"], "which TensorRT-RTX can build for, got sm_90"),
        (["--target", "ampere"], "--target: expected compute capabilities"),
        (["--timing-cache", "t"], "--timing-cache: TensorRT-RTX measures nothing"),
        (["--version-compatible"], "--version-compatible: TensorRT-RTX has no such engines"),
        (["--hardware-compatible", "same"], "name the GPUs with --target"),
        (["--size", "60x96"], "--size 60x96: expected sides in multiples of 32"),
        (["-o", "a.plan"], "--out: expected a name that ends in .engine, got 'a.plan'"),
        (["-o", "nowhere/a.engine"], "nowhere/a.engine: expected a folder to write to"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    words: list[str], message: str, tiny_fused: Exported, capfd: Capture, tmp_path: Path
) -> None:
    out = [] if "-o" in words else ["-o", tmp_path / "a.engine"]
    ran = cn2(capfd, "build", tiny_fused.path, *out, *RTX, *words)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert message in ran.errors[0]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_standard_operators_is_refused(tmp_path: Path, capfd: Capture) -> None:
    path = write_tiny_onnx(tmp_path / "a.onnx")
    ran = cn2(capfd, "build", path, "-o", tmp_path / "a.engine", *RTX)
    assert ran.code == 2
    assert "expected a file with fused operators, got standard ones" in ran.errors[0]


def test_what_the_parser_refuses_is_one_line(
    tiny_fused: Exported, tmp_path: Path, capfd: Capture
) -> None:
    model = onnx.load(tiny_fused.path)
    next(node for node in model.graph.node if node.op_type == "ProposalNMS").op_type = "Nonsense"
    onnx.save(model, tmp_path / "a.onnx")
    ran = cn2(capfd, "build", tmp_path / "a.onnx", "-o", tmp_path / "a.engine", *RTX)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "a.onnx: tensorrt-rtx 1." in ran.errors[0]
    assert "cannot read it: " in ran.errors[0]


def test_without_the_plugins_it_stops_and_names_them(
    tiny_fused: Exported, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_library.cache_clear()
    monkeypatch.setenv("CN2_LIBRARY_DIR", str(tmp_path))
    ran = cn2(capfd, "build", tiny_fused.path, "-o", tmp_path / "a.engine", *RTX)
    open_library.cache_clear()
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert ran.errors[0].startswith("libcn2_trt_plugins.so: expected it beside libcn2, found none")
    assert "make native" in ran.errors[0]


def test_ctrl_c_stops_the_build(tiny_fused: Exported, tmp_path: Path) -> None:
    """Once the build has begun: no file of it is left, and the exit code says so."""
    out = tmp_path / "a.engine"
    code = (
        "import sys\n"
        "from cn2.export.engine import progress\n"
        "start = progress.Bars.start\n"
        "def tell(self, *arguments):\n"
        "    print('begun', flush=True)\n"
        "    start(self, *arguments)\n"
        "progress.Bars.start = tell\n"
        "from cn2.runtime.cli import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    words = ["build", str(tiny_fused.path), "-o", str(out), *RTX, "--target", "sm_86"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
        process.wait()
    assert process.returncode == 130, error
    assert error.splitlines()[-1] == "cn2: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_no_torch_is_needed() -> None:
    """A machine that builds has an .onnx file, and no trainer."""
    code = (
        "import sys\n"
        "from cn2.export.engine import build, commands, inspector, model, timing_cache\n"
        "print([m for m in ('torch', 'onnxruntime', 'onnxscript') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_nothing_heavy_is_imported_for_the_help() -> None:
    code = (
        "import sys; from cn2.runtime.cli import run; run(['build', '--help'])\n"
        "print([m for m in ('torch', 'onnx', 'tensorrt_rtx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "sm_75,sm_86" in done.stdout
