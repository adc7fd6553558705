"""benchmarks/gpu.py without a GPU: steps, limits, verdicts; on the CPU what can be run there."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cn2.plugins import library_path
from cn2.runtime.canvas import CanvasRule
from cn2.trainer import presets
from command_line import write_grey
from factories import tiny_config
from fake_backend import make_manifest
from fake_tensorrt import write_engine
from gpu_suite import make_job, scripts
from tiny_onnx import write_tiny_onnx

Capture = pytest.CaptureFixture[str]
__all__ = ["scripts"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three pictures, two of one size."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in {"a.jpg": (64, 96), "b.jpg": (64, 96), "c.jpg": (96, 64)}.items():
        write_grey(folder / name, size=size)
    return folder


@pytest.fixture
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of 8 channels under the name of the one that the targets are about."""
    monkeypatch.setitem(presets.PRESETS, "dla34-bifpn-p3", tiny_preset)


def tiny_preset() -> Any:
    return replace(tiny_config(), preset="dla34-bifpn-p3")


@pytest.fixture(scope="module")
def exported(
    scripts: dict[str, ModuleType], pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a suite after its exports, of which the fused one has failed.

    The files are no exports, which take long: they find the whole picture and one more box.
    """
    folder = tmp_path_factory.mktemp("suite")
    job = scripts["gpu_job"].Job(
        step="export", preset="dla34-bifpn-p3", folder=folder, images=pictures, device="cpu"
    )
    job.file("").mkdir()
    write_tiny_onnx(job.file("standard.onnx"))
    write_tiny_onnx(job.file("fp16.onnx"), make_manifest(precision="fp16", ops="fused"))
    scripts["gpu_export"].write_cpu_detections(job)
    return folder


def do_step(
    scripts: dict[str, ModuleType], capsys: Capture, step: str, folder: Path, *words: str
) -> list[dict[str, Any]]:
    """The rows that a step writes, run in this process."""
    capsys.readouterr()
    preset = ["--preset", "dla34-bifpn-p3", "--folder", str(folder), "--runs", "6"]
    scripts["gpu_step"].main([step, *preset, "--batches", "1", "2", *words])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("_tiny_preset")
def test_steps_measure_and_check(
    scripts: dict[str, ModuleType], pictures: Path, exported: Path, capsys: Capture
) -> None:
    """On the CPU, where torch and ONNX Runtime run what they run on a GPU."""
    words = ["--images", str(pictures), "--device", "cpu"]
    rows = do_step(scripts, capsys, "torch", exported, *words)
    rows += do_step(scripts, capsys, "onnxruntime", exported, *words)
    skips = [row["reason"] for row in rows if row["kind"] == "skip"]
    assert skips[:3] == ["there are no CUDA graphs on the CPU"] * 3
    assert len(skips) == 4
    assert skips[3].endswith("fused.onnx: cannot be read (No such file or directory)")
    measured = [row for row in rows if row["kind"] == "row"]
    ways = [(row["implementation"], row["precision"]) for row in measured if row["batch"] == 1]
    assert ways == [
        ("torch eager", "fp32"),
        ("torch eager", "fp16"),
        ("ONNX Runtime, standard", "fp32"),
        (f"ONNX Runtime, {'kernels' if library_path('cn2_ort_ops') else 'bodies'}", "fp16"),
    ]
    for row in measured:
        assert (row["runs"], row["weights"], row["canvas"]) == (6, "random", "64x96")
        assert row["starts_at"] == "canvas on the host"
        assert row["ms"]["p99"] >= row["ms"]["median"] > 0
        assert row["images_per_s"] > 0
    checks = [row["check"] for row in measured if row["batch"] == 1]
    assert all(check["expected"] == 2 * 2 and check["pictures"] == 2 for check in checks)
    assert [check["matched"] for check in checks[2:]] == [1.0, 1.0]
    assert checks[0]["matched"] < 1  # another model
    for row in measured:  # each batch is checked
        check = row["check"]
        assert (check["pictures"], check["expected"]) == (2, 4)
        assert check["found"] == 4 or row["implementation"] == "torch eager"
        assert check["score"] < 0.01 or row["implementation"] == "torch eager"
    verdicts = scripts["gpu_verdicts"].find_verdicts(measured, [])
    kinds = [row["verdict"] for row in verdicts]
    assert kinds == [
        "not measured (none begins with the picture on the device)",
        "not measured (none begins with the picture on the device)",
        *["not measured"] * 4,  # batch 16, kernels
        *["not measured (random weights)"] * 2,
    ]


@pytest.mark.usefixtures("_tiny_preset")
@pytest.mark.parametrize("torn", [False, True])
def test_without_the_cpus_detections_times_are_kept(
    scripts: dict[str, ModuleType], pictures: Path, tmp_path: Path, capsys: Capture, torn: bool
) -> None:
    (tmp_path / "dla34-bifpn-p3").mkdir()
    write_tiny_onnx(tmp_path / "dla34-bifpn-p3" / "standard.onnx")
    if torn:
        (tmp_path / "dla34-bifpn-p3" / "reference.npz").write_bytes(b"PK half of one")
    words = ["--images", str(pictures), "--device", "cpu"]
    rows = do_step(scripts, capsys, "onnxruntime", tmp_path, *words)
    measured = [row for row in rows if row["kind"] == "row"]
    assert [row["batch"] for row in measured] == [1, 2]
    for row in measured:
        assert row["ms"]["median"] > 0
        assert row["check"] is None
        assert row["unchecked"].startswith("the CPU's detections cannot be read: ")


@pytest.mark.usefixtures("_tiny_preset")
def test_dry_steps_do_all_but_run(
    scripts: dict[str, ModuleType], pictures: Path, exported: Path, capsys: Capture
) -> None:
    document = scripts["gpu"].new_document(True)
    for step, count in (("torch", 10), ("onnxruntime", 4)):
        rows = do_step(scripts, capsys, step, exported, "--images", str(pictures), "--dry-run")
        kinds = [row["kind"] for row in rows]
        assert (kinds.count("row"), len(kinds) - count) == (count, step == "onnxruntime")
        for row in rows:
            scripts["gpu"].keep(row, document)
    assert all(row["ms"] is None and row["runs"] == 0 for row in document["rows"])
    starts = {(row["implementation"].split(",")[0], row["starts_at"]) for row in document["rows"]}
    assert starts == {  # as on a GPU
        ("torch eager", "picture on the device"),
        ("torch", "picture on the device"),
        ("ONNX Runtime", "canvas on the device"),
    }
    verdicts = scripts["gpu_verdicts"].find_verdicts(document["rows"], [])
    assert {row["verdict"] for row in verdicts} == {"not measured"}


@pytest.mark.usefixtures("_tiny_preset")
def test_rows_of_an_engine_say_where_they_begin_and_what_built_it(
    scripts: dict[str, ModuleType],
    pictures: Path,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """libcn2, which the targets are about, before the bindings; of the step's runtime alone."""
    built: list[str] = []

    def build(job: Any, file: Any, runtime: str, path: Path) -> None:
        built.append(runtime)
        write_engine(path, file.manifest, version="1.2.3")

    monkeypatch.setattr(scripts["gpu_tensorrt"], "build", build)
    words = ["--images", str(pictures), "--dry-run"]
    file, *rows = do_step(scripts, capsys, "tensorrt-rtx", exported, *words)
    assert (built, file["form"]) == (["tensorrt-rtx"], "fp16.tensorrt-rtx.engine")
    ways = [(row["implementation"], row["batch"], row["starts_at"]) for row in rows]
    assert ways == [
        ("libcn2, tensorrt-rtx", 1, "picture on the device"),
        ("libcn2, tensorrt-rtx", 2, "picture on the device"),
        ("tensorrt-rtx, Python bindings", 1, "canvas on the device"),
        ("tensorrt-rtx, Python bindings", 2, "canvas on the device"),
    ]
    assert {(row["version"], *row["targets"]) for row in rows} == {("1.2.3", "sm_75", "sm_86")}


def test_a_file_that_was_not_exported_is_a_skip(
    scripts: dict[str, ModuleType], tmp_path: Path, capsys: Capture
) -> None:
    (row,) = do_step(scripts, capsys, "torch", tmp_path, "--dry-run")
    assert row["what"] == "torch, dla34-bifpn-p3"
    assert row["reason"].endswith("standard.onnx: cannot be read (No such file or directory)")


def test_without_a_gpu_everything_is_skipped_with_the_reason(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"works": False, "reason": "no driver", "fix": "install one"}
    monkeypatch.setattr(scripts["gpu"], "run_probe", lambda *_: answer)
    scripts["gpu"].main(["--out", str(tmp_path / "gpu.json")])
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert (document["rows"], document["kernels"], document["dry_run"]) == ([], [], False)
    assert len(document["skipped"]) == 34
    assert {skip["reason"] for skip in document["skipped"]} == {"no driver; install one"}
    assert {row["verdict"] for row in document["verdicts"]} == {"not measured"}
    assert len(document["verdicts"]) == 8


def test_none_matched_is_reported(scripts: dict[str, ModuleType], capsys: Capture) -> None:
    row = {"preset": "nano", "implementation": "x", "precision": "fp16", "batch": 1}
    row |= {"ms": {"median": 1.0}, "images_per_s": 1e3, "check": {"matched": 0.0}}
    scripts["gpu"].report({"rows": [row], "skipped": [], "verdicts": []})
    assert capsys.readouterr().out.endswith("1000 images/s, 0.00% matched\n")


def test_a_failure_ends_the_suite_after_writing(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"kind": "card", "gpu": "a GPU", "copy_gb_per_s": 3000.0},
        {"kind": "failure", "what": "kernels", "reason": "1 kernels: expected"},
        {"kind": "skip", "what": "x", "reason": "y"},
        {"kind": "kernel", "error": float("nan"), "more": [float("inf"), 1.5]},
    ]
    monkeypatch.setattr(scripts["gpu"], "find_verdicts", lambda *_: [])
    monkeypatch.setattr(scripts["gpu"], "run_plan", lambda *_: iter(rows))
    with pytest.raises(SystemExit, match="1 failures"):
        scripts["gpu"].main(["--dry-run", "--out", str(tmp_path / "gpu.json")])
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert document["copy_gb_per_s"] == 3000
    assert document["skipped"] == [{"what": "x", "reason": "y"}]
    assert document["kernels"] == [{"error": None, "more": [None, 1.5]}]


FAILING = """#!/bin/sh
echo "[1/9] nvcc -Werror a.cu"
echo "a.cu(7): Error: expected a ;"
echo "b.cu(8): error: another"
echo "ninja: build stopped" >&2
exit 1
"""


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("works", [False, True])
def test_libraries_count_if_all_was_compiled(
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    works: bool,
    dry_run: bool,
) -> None:
    """Whatever an earlier build has left; those for the GPU of a dry run in a dry run alone."""
    build = tmp_path / "build"
    build.mkdir()
    (build / "libcn2.so").touch()
    for module in (scripts["gpu_export"], scripts["gpu_steps"]):
        monkeypatch.setattr(module, "BUILD", build)
        monkeypatch.setattr(module, "STAMP", build / "compiled.json")
    for tool in ("nvcc", "cmake"):
        (tmp_path / tool).write_text("#!/bin/sh\n" if works else FAILING)
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    folder = scripts["gpu_steps"].library_folder
    job = replace(make_job(scripts, tmp_path, "compile"), dry_run=dry_run)
    assert folder(job) == {}
    (build / "compiled.json").write_text('{"architecture": "older"}')
    (row,) = scripts["gpu_export"].compile_kernels(job)
    assert folder(replace(job, dry_run=True)) == ({"CN2_LIBRARY_DIR": str(build)} if works else {})
    assert bool(folder(replace(job, dry_run=False))) == (works and not dry_run)
    if works:
        assert (row["form"], row["libraries"]) == (
            "sm_86" if dry_run else "sm_native",
            ["libcn2.so"],
        )
    else:
        assert row["reason"] == "cmake -S failed: a.cu(7): Error: expected a ;"
        assert row["log"][-2:] == ["", "ninja: build stopped"]
        document = scripts["gpu"].new_document(True)
        scripts["gpu"].keep(row, document)
        assert document["skipped"][0]["log"] == row["log"]


def test_without_the_shared_folder_all_bundled_pictures_are_used(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CN2_SHARED", str(tmp_path))
    nano = CanvasRule(short_edge=384, long_edge=576, divisor=32, interpolation="linear")
    found = scripts["gpu_measure"].read_pictures(None, nano)  # no two share a canvas
    assert len(found.placed) == len(found.pixels) == 8
    assert {one.shape for one in found.pixels} == {(480, 640, 3)}
    assert len({one.canvas.shape for one in found.placed}) == 1
    assert len({one.tobytes() for one in found.pixels}) == 8


def test_the_result_in_the_repository_is_whole(scripts: dict[str, ModuleType]) -> None:
    """Measured or skipped: every step is there with a reason, and no verdict without a value."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "gpu.json"
    document = json.loads(path.read_text())
    assert document["dry_run"] is False
    for row in document["verdicts"]:
        assert (row["value"] is None) == row["verdict"].startswith("not measured")
    if document["gpu"] is None:
        assert document["rows"] == []
        assert all("driver" in skip["reason"] for skip in document["skipped"])
        plan, job = scripts["gpu_plan"], make_job(scripts, path.parent)
        stages = plan.make_plan(scripts["gpu"].PRESETS, list(plan.LIMITS_S), 2, job)
        names = [one.name for stage in stages for one in stage.jobs]
        assert sorted(skip["what"] for skip in document["skipped"]) == sorted(names)


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny_preset", "quick_export")
def test_exports_are_found_again(
    scripts: dict[str, ModuleType], pictures: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Real exports: torch in fp32 finds all that ONNX Runtime does, in fp16 most of it."""
    words = ["--images", str(pictures), "--device", "cpu"]
    for form in ("standard", "fused", "fp16"):
        (row,) = do_step(scripts, capsys, "export", tmp_path, "--form", form, *words)
        assert (row["kind"], row["form"]) == ("file", form)
        assert row["bytes"] > 10_000
    rows = do_step(scripts, capsys, "torch", tmp_path, *words)
    rows += do_step(scripts, capsys, "onnxruntime", tmp_path, *words)
    checked = [row for row in rows if row["kind"] == "row" and row["check"]]
    assert len(checked) == 10
    for row in checked:
        assert row["check"]["expected"] > 0
        assert row["check"]["matched"] == 1 or row["precision"] == "fp16"


@pytest.mark.slow
def test_the_whole_dry_run(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    """Of the smallest preset: nvcc, exports, engines, captures, the kernels emulated."""
    out = tmp_path / "dry.json"
    scripts["gpu"].main(
        [
            *("--dry-run", "--presets", "nano", "--workers", "2"),
            *("--out", str(out), "--folder", str(tmp_path / "files")),
        ]
    )
    document = json.loads(out.read_text())
    assert {row["ended"] for row in document["steps"]} == {"done"}
    ways = {row["implementation"] for row in document["rows"]}
    assert {"torch eager", "torch, our kernels, CUDA graph", "ONNX Runtime, standard"} <= ways
    assert all(row["right"] for row in document["kernels"])
    assert all(skip["reason"] for skip in document["skipped"])
    assert {row["verdict"] for row in document["verdicts"]} == {"not measured"}
    tools = dry_tools(scripts)
    assert bool(document["kernels"]) == tools["emulated kernels"]
    forms = {row["form"] for row in document["files"]}
    assert {"standard", "fused", "fp16"} <= forms
    assert ("sm_86" in forms) == tools["nvcc"]
    assert ("fp16.tensorrt-rtx.engine" in forms) == tools["TensorRT-RTX"]
    skipped = {skip["what"] for skip in document["skipped"]} - {"nano, tensorrt, fp16: its engine"}
    kernels = "times, and torchvision's" if tools["emulated kernels"] else "check"
    assert skipped == {
        f"the kernels' {kernels}",
        *([] if tools["nvcc"] else ["the CUDA kernels"]),
        *([] if tools["libcn2"] else ["nano, libcn2"]),
        *([] if tools["TensorRT-RTX"] else ["nano, tensorrt-rtx, fp16: its engine"]),
    }


def dry_tools(scripts: dict[str, ModuleType]) -> dict[str, bool]:
    """What a dry run needs beside Python, and whether it is here.

    TensorRT builds for the GPU that is here alone, TensorRT-RTX for any, but not without plugins.
    """
    from cn2.plugins import library_path, trt_plugins_path

    emulated = scripts["gpu_kernels"].cuda_kernels.BUILD / "libcn2_kernels_cuda_emulated.so"
    compiled = scripts["gpu_steps"].STAMP.is_file()  # by the run itself
    has_bindings = importlib.util.find_spec("tensorrt_rtx") is not None
    return {
        "nvcc": shutil.which("nvcc") is not None and shutil.which("cmake") is not None,
        "emulated kernels": emulated.is_file(),
        "libcn2": compiled or library_path("cn2") is not None,
        "TensorRT-RTX": has_bindings and (compiled or trt_plugins_path() is not None),
    }
