"""Seconds and memory of `cn2 convert` on the fixtures' weights, each in a process of its own.

Result: benchmarks/results/convert.json. Memory is the peak above what the imports took, as a
multiple of the checkpoint's size. The largest model is measured in other forms of file, too.

    CN2_SHARED=... python benchmarks/convert.py
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cn2.runtime.machine import versions
from cn2.runtime.reports import write_json
from models import RESULTS, machine

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("torch", "safetensors", "numpy")
NAMED = ("r2-101-dcn-bifpn-1280",)  # its tensors are those of another preset too
SECONDS_LIMIT, MEMORY_LIMIT = 30.0, 2.0  # the latter in sizes of the checkpoint


def main() -> None:
    """Measure each file, write; or, with --one, convert one file and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3, metavar=("FILE", "OUT", "PRESET"))
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(convert_here(*options.one)))
        return
    before = machine()
    rows = [measure(*checkpoint) for checkpoint in checkpoints()]
    document = {"benchmark": "convert", "command": "python benchmarks/convert.py"}
    limits = {"seconds": SECONDS_LIMIT, "memory_ratio": MEMORY_LIMIT}
    report = {
        **document,
        "machine": before,
        "versions": versions(*TOOLS),
        "limits": limits,
        "rows": rows,
    }
    write_json(str(RESULTS / "convert.json"), report)
    for row in rows:
        print(
            f"{row['name']:<48}{row['file_mb']:>8.1f} MB{row['seconds']:>7.1f} s"
            f"{row['cpu_seconds']:>7.1f} CPU s"
            f"{row['memory_ratio']:>7.2f} x"
        )


def measure(name: str, preset: str, path: Path) -> dict[str, Any]:
    """Convert one file in a fresh process; the file goes."""
    out = path.with_suffix(".safetensors")
    size = path.stat().st_size
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--one", path, out, preset], check=True, stdout=subprocess.PIPE
    )
    whole = time.perf_counter() - start
    found = json.loads(done.stdout)
    path.unlink()
    out.unlink()
    return {
        "name": name,
        "file_mb": round(size / 1e6, 1),
        "preset": found["preset"],
        "parameters": found["parameters"],
        "seconds": round(whole, 2),  # imports included, as the command takes
        "cpu_seconds": round(found["cpu_seconds"], 2),  # what it takes where nothing else runs
        "seconds_after_imports": round(found["seconds"], 2),
        "peak_mb_above_imports": round(found["peak"] / 1e6, 1),
        "memory_ratio": round(found["peak"] / size, 3),
    }


def convert_here(source: str, out: str, preset: str) -> dict[str, Any]:
    """Convert in this process: seconds, and bytes of resident memory above what imports took."""
    from cn2.trainer.convert.run import Request, convert

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    base = status_bytes("VmRSS")
    start = time.perf_counter()
    choice = preset if preset in NAMED else None
    conversion = convert(Request(source=Path(source), out=Path(out), preset=choice))
    seconds = time.perf_counter() - start
    return {
        "preset": conversion.config.preset,
        "parameters": sum(v.numel() for v in conversion.fit.tensors.values()),
        "seconds": seconds,
        "cpu_seconds": time.process_time(),
        "peak": status_bytes("VmHWM") - base,
    }


def status_bytes(key: str) -> int:
    """A size of this process as Linux counts it: VmRSS now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def checkpoints() -> Iterator[tuple[str, str, Path]]:
    """Name, preset, file with the fixture's weights, one at a time; of VARIED also other forms."""
    sys.path.insert(0, str(ROOT / "tests"))
    import torch

    from conformance.official import FIXTURES, fixture_weights, load_fixture

    shared = Path(os.environ.get("CN2_SHARED", ROOT.parent / "shared"))
    with tempfile.TemporaryDirectory() as folder:
        for name, preset in FIXTURES.items():
            arrays = fixture_weights(shared, load_fixture(shared, name))
            tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
            for form, save in FORMS.items() if name == VARIED else (("", save_plain),):
                path = Path(folder) / "model.pth"
                save(path, tensors)
                yield f"{name}{form}", preset, path


def save_plain(path: Path, tensors: dict[str, Any]) -> None:
    """As the official zoo has them."""
    import torch

    torch.save({"model": tensors}, path)


def save_half(path: Path, tensors: dict[str, Any]) -> None:
    """Of half the size, and written in single precision."""
    save_plain(path, {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()})


def save_legacy(path: Path, tensors: dict[str, Any]) -> None:
    """As before torch 1.6."""
    import torch

    torch.save({"model": tensors}, path, _use_new_zipfile_serialization=False)


def save_pickle(path: Path, tensors: dict[str, Any]) -> None:
    """As detectron2's .pkl."""
    with path.open("wb") as file:
        pickle.dump({"model": {name: value.numpy() for name, value in tensors.items()}}, file)


def save_old_pickle(path: Path, tensors: dict[str, Any]) -> None:
    """The same with protocol 2, which has no bytes."""
    with path.open("wb") as file:
        arrays = {name: value.numpy() for name, value in tensors.items()}
        pickle.dump({"model": arrays}, file, protocol=2)


VARIED = "CenterNet2_R2-101-DCN-BiFPN_1280_4x"  # 139 M parameters
FORMS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "": save_plain,
    ", half precision": save_half,
    ", legacy .pth": save_legacy,
    ", .pkl": save_pickle,
    ", .pkl of protocol 2": save_old_pickle,
}


if __name__ == "__main__":
    main()
