"""Who may import whom, what is public, and what must not load early."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cn2
import cn2.runtime

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("trainer", "export", "runtime", "plugins")
HEAVY = ("torch", "cv2", "onnxruntime", "pydantic")

# Which other folders each may import; "folder.module" allows that module alone.
ALLOWED = {
    # Its sample pictures and the sheet of --check are drawn like those of `cn2 detect`.
    "trainer": {
        "runtime.detections",
        "runtime.drawing",
        "runtime.errors",
        "runtime.evaluation",
        "runtime.formats.class_list",
        "runtime.reports",
    },
    "export": {"trainer", "runtime", "plugins"},
    "runtime": {"plugins"},
    "plugins": set(),
}
EXCEPTIONS = {
    # The one way up: a checkpoint is run by torch where torch is; imported inside a function.
    ("runtime/backends/opening.py", "export.torch_backend"),
    ("runtime/backends/opening.py", "export.first_stage"),
    # This file is the package cn2, above the folders.
    ("runtime/front/__init__.py", "runtime"),
}


def sources() -> Iterator[tuple[str, Path]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield folder, path


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of everything a file imports, in functions too; relative ones are skipped."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_allowed(folder: str, target: str) -> bool:
    """Whether a file in `folder` may import cn2.<target>, for example "runtime.errors.Cn2Error"."""
    return any(target == name or target.startswith(f"{name}.") for name in ALLOWED[folder])


@pytest.mark.parametrize("folder", FOLDERS)
def test_import_directions(folder: str) -> None:
    crossings = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in imported_modules(path):
            target = name.removeprefix("cn2.")
            if target == name or target.split(".")[0] not in FOLDERS:
                continue
            place = path.relative_to(ROOT).as_posix()
            excused = any(place == file and target.startswith(to) for file, to in EXCEPTIONS)
            if not excused and not is_allowed(folder, target):
                crossings.append(f"{place} imports {name}")
    assert crossings == []


def test_no_second_copy_and_no_torch_in_the_runtime() -> None:
    wrong = []
    for folder, path in sources():
        tops = {name.split(".")[0] for name in imported_modules(path)}
        banned = set(FOLDERS) | ({"torch", "torchvision", "onnx"} if folder == "runtime" else set())
        wrong += [f"{path.relative_to(ROOT)} imports {name}" for name in sorted(tops & banned)]
    assert wrong == []


def test_relative_imports_stay_in_their_folder() -> None:
    wrong = []
    for folder, path in sources():
        depth = len(path.relative_to(ROOT / folder).parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level > depth:
                wrong.append(str(path.relative_to(ROOT)))
    assert wrong == []


def test_files_exist_that_the_rules_name() -> None:
    for file, _ in EXCEPTIONS:
        assert (ROOT / file).is_file()


def test_public_names() -> None:
    assert cn2.__all__ == ["Detections", "Detector", "__version__"]
    assert cn2.runtime.__all__ == ["Cn2Error", "Detections", "Detector"]
    for module in (cn2, cn2.runtime):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="has no attribute 'Detectors'"):
            module.Detectors  # noqa: B018
    assert cn2.Detector is cn2.runtime.Detector


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("module", ["cn2", "cn2.runtime", "cn2.plugins"])
def test_nothing_heavy_loads_early(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_detector_itself_loads_no_engine() -> None:
    """The class is there without any of them; opening a model loads what it needs."""
    code = f"import sys; from cn2 import Detector; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(code).strip() == "[]"
