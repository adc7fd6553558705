"""Size of an install that only runs models: a fresh environment with `cn2[cpu]`, without torch.

usage: python benchmarks/install_size.py [--out benchmarks/results/install_size.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cn2.runtime.machine import cpu_cores, cpu_name, versions

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MB = 450


def install(folder: Path, extras: str) -> Path:
    """Make a virtual environment below `folder` with this checkout in it; its Python."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[{extras}]"], check=True
    )
    return python


def package_sizes_mb(python: Path) -> dict[str, float]:
    """MB of each entry of the environment's site-packages that has at least 0.1."""
    folder = next((python.parent.parent / "lib").glob("python*")) / "site-packages"
    sizes = {entry.name: _bytes(entry) / 1e6 for entry in folder.iterdir()}
    return {name: round(size, 1) for name, size in sorted(sizes.items()) if size >= 0.1}


def _bytes(entry: Path) -> int:
    if entry.is_file():
        return entry.stat().st_size
    return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "install_size.json"
    )
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        sizes = package_sizes_mb(install(Path(folder), "cpu"))
    tools = sum(size for name, size in sizes.items() if name.startswith(("pip", "setuptools")))
    total = round(sum(sizes.values()) - tools, 1)  # pip and setuptools come with the venv
    result = {
        "what": "site-packages of cn2[cpu], MB",
        "total_mb": total,
        "limit_mb": LIMIT_MB,
        "packages_mb": sizes,
        "machine": {"cpu": cpu_name(), "cores": cpu_cores()},
        "versions": versions("numpy", "onnxruntime", "opencv-python-headless"),
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{total} MB, limit {LIMIT_MB}: {out}")
    if total > LIMIT_MB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
