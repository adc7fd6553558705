"""`cn2 doctor`: which backends work on this machine, and for the others why not and the fix."""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from .machine import cpu_cores, cpu_name, memory_mb, package_version, versions
from .reports import TEXT_WIDTH, format_table

TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
TENSORRT_RTX = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx")


class Row(NamedTuple):
    """A way to run a model."""

    backend: str
    device: str
    reads: str  # the suffix of its files
    distributions: Sequence[str] = ()  # that bring it; () where its probe tells the version
    library: str | None = None  # which one, where a backend has a choice

    @property
    def probe(self) -> str:
        """The name of what tries it."""
        if self.backend == "native" and self.reads == ".engine":
            return "native-engine"
        return self.library or self.backend


BACKENDS = (
    Row("onnxruntime", "cpu", ".onnx", ("onnxruntime", "onnxruntime-gpu")),
    Row("onnxruntime", "cuda", ".onnx", ("onnxruntime-gpu", "onnxruntime")),
    Row("native", "cpu", ".onnx"),
    Row("native", "cuda", ".onnx"),
    Row("native", "cuda", ".engine"),
    Row("tensorrt", "cuda", ".engine", TENSORRT, "tensorrt"),
    Row("tensorrt", "cuda", ".engine", TENSORRT_RTX, "tensorrt-rtx"),
    Row("torch", "cpu", ".safetensors", ("torch",)),
    Row("torch", "cuda", ".safetensors", ("torch",)),
)
# Commands that want more than a backend: modules they import, the extra that brings them.
COMMAND_NEEDS = (
    ("train", ("torch", "torchvision", "faster_coco_eval"), "train"),
    ("export", ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime"), "export,cpu"),
    ("eval", ("faster_coco_eval",), "eval"),
)
# Distributions that install into the same folder; the later one overwrites the earlier one.
RIVALS = (
    ("onnxruntime", "onnxruntime-gpu"),
    ("opencv-python", "opencv-python-headless"),
)
PACKAGES = (
    *("numpy", "opencv-python-headless", "pillow", "pydantic", "safetensors"),
    *("onnxruntime", "onnxruntime-gpu", "torch", "torchvision", "onnx", "faster-coco-eval"),
    *("tensorrt", "tensorrt-cu13", "tensorrt-rtx-cu13", "cuda-python", "cuda-bindings"),
)
PATIENCE_S = 120  # for one probe; a cold disk takes long to give torch


def diagnose() -> dict[str, Any]:
    """Everything `cn2 doctor --json` says (docs/json.md)."""
    return {
        "versions": versions(*PACKAGES),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": cpu_cores(),
        "memory_mb": memory_mb(),
        "backends": [_backend_row(row) for row in BACKENDS],
        "fused_operators": fused_operators(),
        "commands": [_command_row(*row) for row in COMMAND_NEEDS],
        "notices": notices(),
    }


def backends_for(suffix: str) -> list[dict[str, Any]]:
    """The backends that read files of a suffix, tried."""
    return [_backend_row(row) for row in BACKENDS if row.reads == suffix]


def fused_operators() -> dict[str, Any]:
    """Whether ONNX Runtime runs fused operators by our kernels here, tried."""
    return {"reason": None, "fix": None, **run_probe("operators", "cpu")}


def _backend_row(row: Row) -> dict[str, Any]:
    found = [version for name in row.distributions if (version := package_version(name))]
    return {
        "backend": row.backend,
        "device": row.device,
        "reads": row.reads,
        "library": row.library,
        "version": found[0] if found else None,
        "reason": None,
        "fix": None,
        **run_probe(row.probe, row.device),
    }


def run_probe(backend: str, device: str) -> dict[str, Any]:
    """Try a backend in a process of its own; `works`, and `reason` and `fix` where it does not."""
    command = [sys.executable, "-m", "cn2.runtime.probe", backend, device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return _broken(f"no answer within {PATIENCE_S} s")
    log = done.stderr.strip().splitlines()
    if done.returncode != 0:
        return _broken(f"it ended with code {done.returncode}: {log[-1] if log else 'no message'}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not answer["works"] and log:
        answer["reason"] += f" ({log[0]})"
    return answer


def _broken(reason: str) -> dict[str, Any]:
    return {"works": False, "reason": reason, "fix": "install its package again"}


def _command_row(command: str, modules: Sequence[str], extra: str) -> dict[str, Any]:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return {
        "command": command,
        "works": not missing,
        "reason": f"not installed: {', '.join(missing)}" if missing else None,
        "fix": f"pip install 'cn2[{extra}]'" if missing else None,
    }


def notices() -> list[str]:
    """What is installed in a way that will go wrong."""
    return [
        f"{first} and {second} are both installed and overwrite each other; "
        f"pip uninstall both, then install the one you want"
        for first, second in RIVALS
        if package_version(first) and package_version(second)
    ]


def doctor_text(report: dict[str, Any]) -> str:
    """The report for a terminal, at most 80 columns where the machine's own words allow."""
    memory = f", {report['memory_mb'] / 1e3:.1f} GB" if report["memory_mb"] else ""
    version = report["versions"]
    lines = [
        f"cn2 {version['cn2']}, Python {version['python']}, {report['platform']}",
        f"{report['cpu']}, {report['cores']} cores{memory}",
        "",
        backends_text(report["backends"]),
        "",
        _wrap("fused operators: ", operators_text(report["fused_operators"])),
        "",
        _commands_text(report["commands"]),
    ]
    lines += ["", *(_wrap("notice: ", notice) for notice in report["notices"])]
    return "\n".join(lines).rstrip()


def backends_text(backends: Sequence[dict[str, Any]]) -> str:
    """A row per backend; below, why the ones that do not work don't, and the fix."""
    columns = ["backend", "device", "reads", "version", "works"]
    rows = [
        [
            _name_of(row),
            *(row[key] or "-" for key in columns[1:-1]),
            "yes" if row["works"] else "no",
        ]
        for row in backends
    ]
    table = format_table(columns, rows, left=len(columns))
    reasons = [_wrap(label, text) for label, text in _reasons(backends).items()]
    return "\n".join([table, *([""] if reasons else []), *reasons])


def _reasons(backends: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Why each that does not work doesn't, and the fix; rows that share both share a line."""
    names: dict[str, list[str]] = {}
    for row in backends:
        if not row["works"]:
            label = f"{_name_of(row)} on {row['device']}"
            names.setdefault(f"{row['reason']}; {row['fix']}", []).append(label)
    return {f"{', '.join(dict.fromkeys(labels))}: ": text for text, labels in names.items()}


def _name_of(row: dict[str, Any]) -> str:
    """The backend, and in brackets which of the libraries it has a choice of: tensorrt (rtx)."""
    _, _, kind = (row.get("library") or "").partition("-")
    return f"{row['backend']} ({kind})" if kind else str(row["backend"])


def operators_text(row: dict[str, Any]) -> str:
    """What runs fused operators in ONNX Runtime on the CPU, and if not our kernels, why not."""
    if row["works"]:
        return "our kernels run them in onnxruntime on the CPU"
    return f"onnxruntime runs their standard form: {row['reason']}; {row['fix']}"


def _commands_text(commands: Sequence[dict[str, Any]]) -> str:
    return "\n".join(
        f"cn2 {row['command']}: ready"
        if row["works"]
        else _wrap(f"cn2 {row['command']}: ", f"{row['reason']}; {row['fix']}")
        for row in commands
    )


def _wrap(label: str, text: str) -> str:
    return textwrap.fill(label + text, TEXT_WIDTH, subsequent_indent="    ", break_on_hyphens=False)
