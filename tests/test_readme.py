"""The README does not rot: its Python gives the output it prints, its commands and files exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cn2.runtime.cli import COMMANDS

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


def test_every_cn2_command_in_the_documents_exists() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for line in re.findall(r"^(?:\$ )?(cn2 .*)$", text, re.MULTILINE):
            words = shlex.split(line, comments=True)
            assert words[1] in COMMANDS or words[1].startswith("-"), f"{document.name}: {line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
