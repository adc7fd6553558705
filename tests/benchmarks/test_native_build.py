"""benchmarks/native_build.py: its record, and the table of docs/kernels.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark_scripts import imported

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS = [
    {"kind": "without CUDA", "processor_s": 70, "architectures": [], "bytes": {"libcn2": 1234567}},
    {
        "kind": "with CUDA",
        "processor_s": 160,
        "architectures": ["75", "80-real", "120"],
        "bytes": {"libcn2": 4_000_000, "libcn2_trt_plugins": 5_286_912},
    },
]
TABLE = """\
|  | without CUDA | with CUDA |
| --- | ---: | ---: |
| processor time, s | 70 | 160 |
| `libcn2`, MB | 1.23 | 4.00 |
| `libcn2_trt_plugins`, MB | – | 5.29 |

2 cores of a CPU; sm_75, sm_80, sm_120, and PTX."""


def test_the_table_says_what_was_measured(tmp_path: Path) -> None:
    with imported("native_build_table") as scripts:
        table = scripts["native_build_table"].native_build_table
        assert table(tmp_path) == "Not measured yet."
        found = {"machine": {"cores": 2, "cpu": "a CPU"}, "rows": ROWS}
        (tmp_path / "native_build.json").write_text(json.dumps(found))
        assert table(tmp_path) == TABLE


def test_the_record_has_both_kinds_and_all_architectures() -> None:
    if not (ROOT / "benchmarks" / "results" / "native_build.json").is_file():
        pytest.skip("not measured yet; run benchmarks/native_build.py")
    with imported("cuda_resources", "native_build") as scripts:
        _, architectures = scripts["cuda_resources"].read_build(
            scripts["cuda_resources"].BUILD.read_text()
        )
        record = json.loads(scripts["native_build"].RESULT.read_text())
        assert [row["kind"] for row in record["rows"]] == list(scripts["native_build"].KINDS)
    without, with_cuda = record["rows"]
    assert {a.split("-")[0] for a in with_cuda["architectures"]} == set(architectures)
    assert set(without["bytes"]) < set(with_cuda["bytes"])
    assert "libcn2_trt_plugins" in with_cuda["bytes"]
