"""What a user installs: the wheel's contents, and a runtime without torch that stays small."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"trainer", "export", "runtime", "plugins"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy so that no build folder is left in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_packages_and_the_bundle(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[1] for name in names if name.startswith("cn2/") and "/" in name[4:]}
    assert packages >= FOLDERS
    for needed in (
        "cn2/__init__.py",
        "cn2/py.typed",
        "cn2/trainer/backbones/nano.py",
        "cn2/trainer/class_lists/lvis-v1.json",
        "cn2/runtime/bundled/nano.safetensors",
        "cn2/runtime/bundled/pictures/annotations.json",
    ):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"cn2"}
    assert not any("test" in name for name in zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_a_runtime_install_is_small_and_has_no_torch(tmp_path: Path, nano_onnx: Path) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from install_size import LIMIT_MB, install, package_sizes_mb
    finally:
        sys.path.pop(0)
    python = install(tmp_path, "cpu")
    sizes = package_sizes_mb(python)
    assert "torch" not in sizes
    assert sum(sizes.values()) < LIMIT_MB
    picture = ROOT / "runtime" / "bundled" / "pictures" / "scene_1900000000.jpg"
    cn2 = python.parent / "cn2"
    subprocess.run([cn2, "--help"], check=True, cwd=tmp_path, capture_output=True)
    subprocess.run([cn2, "doctor"], check=True, cwd=tmp_path, capture_output=True)
    subprocess.run(
        [cn2, "detect", nano_onnx, picture, "--json", "found.json"], check=True, cwd=tmp_path
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["images"][0]["detections"]) >= 3
    # What needs torch says so in one line.
    refused = subprocess.run(
        [cn2, "export", "x.safetensors", "-o", "x.onnx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "cn2[export]" in refused.stderr
    assert refused.stderr.count("\n") == 1
