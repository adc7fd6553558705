"""benchmarks/fp16.py: the paired bootstrap, shares of detections, and the tables of its results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from cn2.runtime.evaluation import coco_metrics
from cn2.trainer.commands import choose_config
from cn2.trainer.config import config_to_dict
from factories import coco_annotations


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with imported("paired_bootstrap", "fp16_tables", "fp16", "bccd") as modules:
        yield modules


@pytest.fixture
def truth() -> dict[str, Any]:
    """Three pictures, with two, one and no object."""
    boxes = [
        [(1, [5.0, 5.0, 20.0, 20.0]), (3, [30.0, 5.0, 20.0, 20.0])],
        [(1, [1.0, 1.0, 9.0, 9.0])],
        [],
    ]
    return coco_annotations([(64, 96)] * 3, boxes)


def perfect(truth: dict[str, Any], score: float = 0.9) -> list[dict[str, Any]]:
    """Results that are the ground truth."""
    keys = ("image_id", "category_id", "bbox")
    return [{**{key: box[key] for key in keys}, "score": score} for box in truth["annotations"]]


def test_equal_results_drop_by_nothing(
    scripts: dict[str, ModuleType], truth: dict[str, Any]
) -> None:
    found = perfect(truth)
    drops = scripts["paired_bootstrap"].paired_bootstrap(truth, found, found, draws=5)
    assert drops == [0.0] * 5


def test_a_lost_object_counts_where_its_picture_is_drawn(
    scripts: dict[str, ModuleType], truth: dict[str, Any]
) -> None:
    """By a metric that counts results: a picture drawn twice counts twice, for both models."""
    script, found = scripts["paired_bootstrap"], perfect(truth)
    drawn: list[int] = []

    def count(annotations: dict[str, Any], results: Sequence[dict[str, Any]]) -> float:
        names = [image["file_name"] for image in annotations["images"]]
        assert [image["id"] for image in annotations["images"]] == [1, 2, 3]
        drawn.append(names.count("picture_1.png"))
        return float(len(results))

    drops = script.paired_bootstrap(truth, found, found[:-1], draws=40, metric=count)
    assert drops == drawn[::2] == drawn[1::2]
    assert {0.0, 1.0, 2.0} <= set(drops)


def test_every_picture_drawn_once_is_the_set(
    scripts: dict[str, ModuleType], truth: dict[str, Any]
) -> None:
    script, found = scripts["paired_bootstrap"], perfect(truth)[:2]
    ids = [image["id"] for image in truth["images"]][::-1]
    again = coco_metrics(script.drawn_annotations(truth, ids), script.drawn_results(found, ids))
    assert again["AP"] == coco_metrics(truth, found)["AP"]


def test_the_interval_holds_95_percent(scripts: dict[str, ModuleType]) -> None:
    low, high = scripts["paired_bootstrap"].interval(np.arange(1001.0).tolist())
    assert (low, high) == (25.0, 975.0)


def row(**values: Any) -> dict[str, Any]:
    return {
        "pictures": 300,
        "compared_pictures": 300,
        "matched_of_fp32": {
            "score > 0.05": {"matched": 99, "detections": 100, "share": 0.99},
            "score > 0.3": {"matched": 0, "detections": 0, "share": None},
        },
        "gate": {"largest_score_difference": 0.00123},
        "largest_value": {"value": 28.28, "layer": "Conv a"},
        "fp32_mb": 9.59,
        "fp16_mb": 4.84,
        "machine": {"cpu": "some CPU"},
        "versions": {"onnxruntime": "1.2"},
        **values,
    }


def measured(drop: float, high: float) -> dict[str, Any]:
    score = {"fp32": 0.8, "fp16": 0.8 - drop, "drop": drop, "drop_interval_95": [-0.0004, high]}
    group_norm = {"value": 9.7, "sum_of_squares": 146284.5}
    fifty = {"fp32": 0.96, "fp16": 0.96}
    ap = {**score, "draws": 300}
    return row(checkpoint="bundled", AP=ap, AP50=fifty, group_norm=group_norm)


@pytest.mark.parametrize(
    ("drop", "high", "verdict"),
    [
        (0.0002, 0.0008, "each drop is within it; each interval ends within it"),
        (0.0002, 0.0018, "each drop is within it; each interval ends beyond it"),
        (0.0012, 0.0018, "each drop is beyond it; each interval ends beyond it"),
    ],
)
def test_the_tables_say_whether_the_goal_was_met(
    scripts: dict[str, ModuleType], tmp_path: Path, drop: float, high: float, verdict: str
) -> None:
    rows = {"scenes": measured(drop, high), "r50-fpn": row(weights="fixture")}
    (tmp_path / "fp16.json").write_text(json.dumps({"wanted_drop": 0.001, "rows": rows}))
    script = scripts["fp16_tables"]
    table = script.fp16_ap_table(tmp_path)
    assert f"| held-out scenes | 300 | 0.8000 | {0.8 - drop:.4f} | {drop:+.4f} |" in table
    assert verdict in table
    shares = script.fp16_share_table(tmp_path).splitlines()
    assert shares[2].startswith("| `nano` | bundled, held-out scenes | 300 | 99.00% of 100 | – |")
    assert shares[3].startswith("| `r50-fpn` | random |")
    assert "146,284 (held-out scenes" in script.group_norm_text(tmp_path)


def test_nothing_measured_is_said(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    script = scripts["fp16_tables"]
    for make in (script.fp16_ap_table, script.fp16_share_table, script.group_norm_text):
        assert make(tmp_path) == "Not measured yet."


def test_the_exit_code_tells_whether_the_goal_was_met(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, out = scripts["fp16"], tmp_path / "fp16.json"
    for drop, code in ((0.0009, 0), (0.0011, 1)):
        monkeypatch.setattr(script, "measured", lambda *_, d=drop: [("scenes", measured(d, 0.1))])
        assert script.main(["--json", str(out)]) == code
    assert json.loads(out.read_text())["rows"]["scenes"]["AP"]["drop"] == 0.0011


def test_it_trains_as_the_committed_row_was_trained(scripts: dict[str, ModuleType]) -> None:
    """bccd.py's recipe, shorter: the command's settings give the training that the row tells."""
    script = scripts["fp16"]
    settings = script.shorter_settings()
    names = [one.partition("=")[0] for one in settings]
    assert len(names) == len(set(names))
    config = choose_config("nano", settings, None, None)
    row = json.loads(script.RESULT.read_text())["rows"]["bccd"]
    assert config_to_dict(config)["train"] == row["training"]


@pytest.mark.parametrize(
    ("words", "checkpoint", "trainings"),
    [
        (["--train", "run"], "trained by --train", 1),
        (["--train", "there"], "trained by --train", 0),
        (["--bccd", "mine.safetensors"], "given by --bccd", 0),
    ],
)
def test_a_row_says_how_its_checkpoint_came(
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    checkpoint: str,
    trainings: int,
) -> None:
    script, bccd = scripts["fp16"], scripts["bccd"]
    trained: list[list[str]] = []
    measured_files: list[Path] = []

    def run(command: list[str], *, env: dict[str, str], check: bool) -> None:
        assert (env["OMP_NUM_THREADS"], check) == ("2", True)
        trained.append(command[3:])

    def measure_ap(path: Path, *_: Any) -> dict[str, Any]:
        measured_files.append(path)
        return {}

    monkeypatch.setattr(bccd.subprocess, "run", run)
    monkeypatch.setattr(bccd, "is_finished", lambda folder, _: folder.name == "there")
    monkeypatch.setattr(script, "read_annotations", lambda *_: None)
    monkeypatch.setattr(script, "measure_ap", measure_ap)
    monkeypatch.setenv("CN2_SHARED", "shared")
    options = script.parse([words[0], str(tmp_path / words[1]), "--threads", "2"])
    assert list(script.measured(options, tmp_path)) == [("bccd", {"checkpoint": checkpoint})]
    given = words[0] == "--bccd"
    assert measured_files == [tmp_path / words[1] / ("" if given else "best.safetensors")]
    data = bccd.Bccd(Path("shared/data/bccd"))
    command = bccd.training_command(data, tmp_path / "run", script.shorter_settings())
    assert trained == [command] * trainings


def test_a_checkpoint_is_given_or_trained(
    scripts: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_to_dict(scripts["bccd"].recipe(0))))
    assert scripts["fp16"].main(["--train", str(tmp_path), "--json", str(tmp_path / "o")]) == 2
    assert "was trained with other settings than the recipe's" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        scripts["fp16"].parse(["--bccd", "a", "--train", "b"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_pages_command_is_the_results(scripts: dict[str, ModuleType]) -> None:
    """As many scenes and draws as the file has."""
    root = Path(__file__).resolve().parents[2]
    rows = json.loads(scripts["fp16"].RESULT.read_text())["rows"]
    (draws,) = {row["AP"]["draws"] for row in rows.values()}
    command = f"fp16.py --scenes {rows['scenes']['pictures']} --draws {draws} --train runs/fp16"
    assert command in (root / "docs" / "precision.md").read_text()
