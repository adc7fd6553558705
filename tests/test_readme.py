"""The README does not rot: its Python gives the output it prints, its commands and files exist."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from cn2.runtime.backends.native import find_onnxruntime
from cn2.runtime.cli import COMMANDS
from cn2.trainer.commands import choose_config
from native_libraries import built_library, compile_c, needs_library

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_python_example_prints_what_the_readme_says(nano_onnx: Path, tmp_path: Path) -> None:
    code, printed = blocks("python")[0], blocks("text")[0]
    (tmp_path / "out" / "demo").mkdir(parents=True)
    (tmp_path / "out" / "demo" / "nano.onnx").symlink_to(nano_onnx)
    (tmp_path / "runtime").symlink_to(ROOT / "runtime")
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == printed.split()


@needs_library("cn2")
def test_the_c_example_prints_what_the_readme_says(nano_onnx: Path, tmp_path: Path) -> None:
    scene = ROOT / "runtime" / "bundled" / "pictures" / "scene_1900000002.jpg"
    Image.open(scene).save(tmp_path / "scene.ppm")
    folder, runtime = built_library("cn2").parent, find_onnxruntime()
    assert runtime is not None
    flags = (f"-L{folder}", "-lcn2", f"-Wl,-rpath,{folder}")
    program = compile_c(ROOT / "examples" / "c" / "detect.c", tmp_path / "detect", *flags)
    run = subprocess.run(
        [program, nano_onnx, tmp_path / "scene.ppm", "0.5"],
        env={"CN2_ONNXRUNTIME": str(runtime)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == blocks("text")[1]


def cn2_commands(text: str) -> list[list[str]]:
    """The words after `cn2` of each command line, lines that go on after a backslash joined."""
    lines = re.findall(r"^(?:\$ )?cn2 (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_cn2_command_in_the_documents_is_understood(document: Path) -> None:
    for words in cn2_commands(document.read_text(encoding="utf-8")):
        name, *rest = words
        if name.startswith("-"):
            continue
        assert name in COMMANDS, words
        if rest[-1:] == ["…"]:  # only begun
            continue
        app = typer.Typer()
        app.callback()(lambda: None)  # or an only command would lose its name
        importlib.import_module(COMMANDS[name].module).register(app)
        group = typer.main.get_command(app)
        assert isinstance(group, typer.core.TyperGroup)
        options = group.commands[name].make_context(name, rest).params
        if name == "train":
            overrides = options["set_"] or []
            choose_config(options["preset"], overrides, options["schedule"], options["resize"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
