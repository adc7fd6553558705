"""`cn2 bench`: rows, turns, batches of one canvas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cn2.runtime.bench import (
    STAGES,
    Contestant,
    Plan,
    bench_tables,
    gpu_name,
    measure,
    plan_of,
)
from cn2.runtime.detections import Detections
from cn2.runtime.detector import Detector, Timings
from cn2.runtime.errors import PictureError
from command_line import cn2, write_grey
from fake_backend import FakeBackend, make_manifest
from tiny_onnx import write_tiny_onnx

Capture = pytest.CaptureFixture[str]
ROW_KEYS = {
    *("model", "preset", "backend", "device", "precision", "batch", "size", "proposals"),
    *("threads", "load_s", "runs", "warmup", "latency_ms", "images_per_s", "ratio", "canvases"),
    *("checkpoint_sha256", "peak_rss_mb", "cpu", "cores", "gpu", "versions"),
}


class ScriptedDetector(Detector):
    """Takes the given milliseconds a call, all in the backend, and writes its turns down."""

    def __init__(self, name: str, milliseconds: float, log: list[tuple[str, int]]) -> None:
        super().__init__(FakeBackend(make_manifest()))
        self.name, self.milliseconds, self.log = name, milliseconds, log

    def detect_timed(
        self, pictures: Any, score_threshold: float | None = None
    ) -> tuple[list[Detections], Timings]:
        self.log.append((self.name, len(pictures)))
        return [], Timings(inference_ms=self.milliseconds)


def scripted(log: list[tuple[str, int]], **milliseconds: float) -> list[Contestant]:
    return [
        Contestant(name=name, detector=ScriptedDetector(name, ms, log), load_s=0.5)
        for name, ms in milliseconds.items()
    ]


def test_models_take_turns_and_ratios_are_of_the_first(tmp_path: Path) -> None:
    log: list[tuple[str, int]] = []
    plan = Plan(pictures=[write_grey(tmp_path / "a.png")], batches=(1, 4), runs=3, warmup=2)
    rows = measure(scripted(log, a=10, b=25), plan)
    assert log == [("a", 1), ("b", 1)] * 5 + [("a", 4), ("b", 4)] * 5
    assert [(row["model"], row["batch"], row["ratio"]) for row in rows] == [
        ("a", 1, 1.0),
        ("b", 1, 2.5),
        ("a", 4, 1.0),
        ("b", 4, 2.5),
    ]
    assert [row["images_per_s"] for row in rows] == [100, 40, 400, 160]
    assert {row["runs"] for row in rows} == {3}
    assert rows[0]["latency_ms"]["whole"] == {"median": 10, "p90": 10, "p99": 10}
    assert rows[1]["latency_ms"]["inference"]["median"] == 25
    assert rows[1]["latency_ms"]["decode"]["median"] == 0


@pytest.mark.parametrize(
    ("milliseconds", "runs", "warmup"),
    [(10.0, 100, 20), (1500.0, 20, 3)],  # a call above a second is measured less often
)
def test_slow_models_are_run_less(
    milliseconds: float, runs: int, warmup: int, tmp_path: Path
) -> None:
    log: list[tuple[str, int]] = []
    (row,) = measure(scripted(log, a=milliseconds), Plan(pictures=[write_grey(tmp_path / "a.png")]))
    assert (row["runs"], row["warmup"]) == (runs, warmup)
    assert len(log) == runs + warmup


def test_percentiles(tmp_path: Path) -> None:
    detector = ScriptedDetector("a", 0, [])
    times = iter([0.0, 0.0, *range(1, 101)])
    detector.detect_timed = lambda *_: ([], Timings(inference_ms=next(times)))  # type: ignore[method-assign,assignment]
    plan = Plan(pictures=[write_grey(tmp_path / "a.png")], runs=100, warmup=2)
    (row,) = measure([Contestant(name="a", detector=detector, load_s=0)], plan)
    expected = np.percentile(np.arange(1, 101), [50, 90, 99])
    assert list(row["latency_ms"]["whole"].values()) == pytest.approx(expected)
    assert row["images_per_s"] == pytest.approx(1e3 * 100 / 5050, abs=0.01)


def test_a_batch_is_of_one_canvas(tmp_path: Path) -> None:
    """Three wide pictures and two tall ones: batches are made of the wide ones alone."""
    wide = [write_grey(tmp_path / f"w{i}.png", size=(64, 96)) for i in range(3)]
    tall = [write_grey(tmp_path / f"t{i}.png", size=(96, 64)) for i in range(2)]
    backend = FakeBackend(make_manifest())
    contestant = Contestant(name="a", detector=Detector(backend, max_batch=4), load_s=0)
    plan = Plan(pictures=[*tall, *wide], batches=(1, 4), runs=5, warmup=2)
    first, second = measure([contestant], plan)
    assert {shape[0] for shape in backend.runs[:7]} == {1}
    assert backend.runs[7:] == [(4, 64, 96, 3)] * 7
    assert first["canvases"] == {"64x96": 3, "96x64": 2}
    assert second["canvases"] == {"64x96": 3}


def test_a_model_of_fixed_batch_is_measured_with_it_once(tmp_path: Path) -> None:
    backend = FakeBackend(make_manifest(batch=2))
    contestant = Contestant(name="a", detector=Detector(backend), load_s=0)
    plan = Plan(pictures=[write_grey(tmp_path / "a.png")], batches=(1, 8), runs=1, warmup=0)
    rows = measure([contestant], plan)
    assert [row["batch"] for row in rows] == [2]
    assert {shape[0] for shape in backend.runs} == {2}


@pytest.mark.parametrize("wrong", [{"batches": (0,)}, {"batches": ()}, {"runs": 0}, {"warmup": -1}])
def test_plans_that_make_no_sense(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least"):
        Plan(**{"pictures": [tmp_path / "a.png"], **wrong})


def test_plan_takes_the_bundled_pictures_by_default() -> None:
    pictures = plan_of(None, [1], None, None).pictures
    assert len(pictures) >= 4
    assert {path.parent.name for path in pictures} == {"pictures"}


def test_plan_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no picture in this folder"):
        plan_of(tmp_path, [1], None, None)


def test_rows_of_the_command(tmp_path: Path, capfd: Capture) -> None:
    models = [write_tiny_onnx(tmp_path / name / "tiny.onnx") for name in make_folders(tmp_path)]
    write_grey(tmp_path / "p" / "a.jpg", size=(128, 192))
    options = ("--batch", "1,2", "--runs", "4", "--warmup", "2", "--threads", "1")
    json_option = ("--json", tmp_path / "rows.json")
    ran = cn2(capfd, "bench", *models, "--images", tmp_path / "p", *options, *json_option)
    assert (ran.code, ran.errors) == (0, [])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["model"], row["batch"]) for row in rows] == [
        (str(model), batch) for batch in (1, 2) for model in models
    ]
    for row in rows:
        assert set(row) == ROW_KEYS
        assert set(row["latency_ms"]) == {"whole", *STAGES}
        whole = row["latency_ms"]["whole"]
        assert 0 < whole["median"] <= whole["p90"] <= whole["p99"]
        assert (row["runs"], row["warmup"], row["threads"]) == (4, 2, 1)
        assert (row["size"], row["canvases"]) == ("64/96", {"64x96": 1})
        assert row["images_per_s"] > 0
        assert row["peak_rss_mb"] > 20
        assert row["versions"]["onnxruntime"]
        assert row["gpu"] is None
    lines = ran.out.splitlines()
    assert lines[0].split() == ["model", "batch", "ms", "p90", "p99", "images/s", "ratio"]
    assert str(models[1]) in lines[2]  # equal file names: shown by their paths
    assert lines[1].endswith("x1.00")
    assert lines[6].split() == ["model", "batch", *STAGES]


def make_folders(tmp_path: Path) -> tuple[str, str]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return "one", "two"


@pytest.mark.parametrize("batch", ["", "x", "1,x", "-1"])
def test_batches_are_numbers(batch: str, tmp_path: Path, capfd: Capture) -> None:
    ran = cn2(capfd, "bench", tmp_path / "a.onnx", f"--batch={batch}")
    assert ran.code == 2
    assert ran.errors == [f"batch: expected numbers such as 1,8, got {batch!r}"]


def test_a_bad_picture_is_one_line(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").touch()
    model = write_tiny_onnx(tmp_path / "tiny.onnx")
    ran = cn2(capfd, "bench", model, "--images", tmp_path / "p")
    assert ran.code == 2
    assert ran.errors[0].startswith(f"{tmp_path / 'p' / 'a.jpg'}: expected a picture")


def test_tables_fit_a_terminal(tmp_path: Path) -> None:
    plan = Plan(pictures=[write_grey(tmp_path / "a.png")], runs=1, warmup=0)
    rows = measure(scripted([], **{"dla34-bifpn-p3.onnx": 1234.5, "nano.onnx": 9.1}), plan)
    assert max(map(len, bench_tables(rows).splitlines())) <= 80


def test_gpu_name_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert gpu_name("cuda:0") is None
