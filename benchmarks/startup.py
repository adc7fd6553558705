"""How long `cn2 --help` and the imports of the runtime take, in fresh processes.

Result: benchmarks/results/startup.json.

    python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from cn2.runtime.machine import versions
from cn2.runtime.reports import write_json
from models import RESULTS, machine

RUNS = 15
CALLS = {
    "python alone": "pass",
    "cn2 --help": "from cn2.runtime.cli import run; run(['--help'])",
    "import cn2.runtime": "import cn2.runtime",
    "from cn2 import Detector": "from cn2 import Detector",
}


def main() -> None:
    """Measure in turns, write."""
    before = machine()
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(RUNS):
        for name, code in CALLS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - start) * 1e3)
    rows = {name: round(statistics.median(values), 1) for name, values in times.items()}
    document = {"benchmark": "startup", "command": "python benchmarks/startup.py"}
    path = RESULTS / "startup.json"
    write_json(
        str(path),
        {**document, "machine": before, "versions": versions(), "runs": RUNS, "median_ms": rows},
    )
    for name, value in rows.items():
        print(f"{name:<26}{value:>8.1f} ms")


if __name__ == "__main__":
    main()
