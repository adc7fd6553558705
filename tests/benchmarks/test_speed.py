"""benchmarks/fps.py and tables.py: rows, and tables that are not stale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark_scripts import imported
from cn2.trainer import presets
from command_line import write_grey
from factories import tiny_config

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with imported("models", "fps", "startup", "tables") as modules:
        yield modules


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two pictures."""
    for name in ("a.jpg", "b.jpg"):
        write_grey(tmp_path / "pictures" / name, size=(64, 96))
    return tmp_path / "pictures"


@pytest.fixture
def _tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of 8 channels under the name r50-fpn, which has a figure in the paper."""
    config = replace(tiny_config(), preset="r50-fpn")
    monkeypatch.setitem(presets.PRESETS, "r50-fpn", lambda: config)


@pytest.mark.usefixtures("_tiny_preset", "quick_export")
def test_fps_script(scripts: dict[str, ModuleType], pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "fps.json"
    options = ["--runs", "3", "--warmup", "2", "--threads", "1", "--out", str(out)]
    scripts["fps"].main(["--presets", "r50-fpn", "--images", str(pictures), *options])
    document = json.loads(out.read_text())
    assert document["pictures"] == {"count": 2, "sizes": {"96x64": 2}}
    assert document["paper"]["presets"]["dla34-bifpn-p3"] == {"ms": 25, "images_per_s": 40}
    assert document["machine"]["cores"] >= 1
    (row,) = document["rows"]
    assert (row["preset"], row["model"], row["batch"]) == ("r50-fpn", "r50-fpn.onnx", 1)
    assert (row["runs"], row["threads"], row["weights"]) == (3, 1, "random")
    assert row["paper"] == {"ms": 57, "images_per_s": 18}
    assert row["canvases"] == {"64x96": 2}
    assert 0 < row["parameters"] < 100_000
    assert len(row["checkpoint_sha256"]) == 64


def test_pictures_of_the_usual_size_come_first(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    find = scripts["models"].find_pictures
    for name, size in {"a.jpg": (64, 96), "b.jpg": (480, 640), "c.jpg": (480, 640)}.items():
        write_grey(tmp_path / name, size=size)
    assert [path.name for path in find(tmp_path, 20)] == ["b.jpg", "c.jpg"]
    assert [path.name for path in find(tmp_path, 1)] == ["b.jpg"]
    (tmp_path / "b.jpg").unlink()
    assert [path.name for path in find(tmp_path, 20)] == ["a.jpg", "c.jpg"]  # one is not enough
    (tmp_path / "c.jpg").unlink()
    assert [path.name for path in find(tmp_path, 20)] == ["a.jpg"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ValueError, match="expected a folder of pictures"):
        find(tmp_path, 20)


def bench_row(preset: str, **changes: Any) -> dict[str, Any]:
    """A row of fps.json."""
    stages = {"decode": 4.0, "preprocess": 0.5, "inference": 19.0, "postprocess": 0.5, "whole": 24}
    return {
        "preset": preset,
        "batch": 1,
        "size": "384/576",
        "threads": 2,
        "runs": 100,
        "parameters": 2_410_000,
        "weights": "trained",
        "checkpoint_sha256": "a" * 64,
        "latency_ms": {stage: {"median": value} for stage, value in stages.items()},
        "images_per_s": 41.6,
        "versions": {"onnxruntime": "1.32.0"},
        "paper": None,
        **changes,
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Result files of two presets, one of them scored."""
    folder = tmp_path / "results"
    folder.mkdir()
    random = {"weights": "random", "paper": {"ms": 57}, "runs": 20, "images_per_s": 0.5}
    fps = {
        "machine": {"cpu": "a processor", "cores": 2},
        "pictures": {"count": 20, "sizes": {"640x480": 20}},
        "paper": {"source": "the paper", "gpu": "Titan Xp"},
        "rows": [bench_row("nano"), bench_row("nano", batch=8), bench_row("r50-fpn", **random)],
    }
    scored = {"AP": 0.6543, "AP50": 0.9, "images": 500}
    model = {"model": {"checkpoint_sha256": "a" * 64}}
    (folder / "fps.json").write_text(json.dumps(fps))
    (folder / "eval_nano.json").write_text(json.dumps({**scored, **model}))
    return folder


def test_preset_table(scripts: dict[str, ModuleType], results: Path) -> None:
    lines = scripts["tables"].preset_table(results).splitlines()
    assert lines[2] == "| `nano` | 2.4 M | 384 / 576 | 0.654 | 24 | 41.6 | – |"
    assert lines[3] == "| `r50-fpn` | 2.4 M | 384 / 576 | – | 24 | 0.5 | 57 |"
    assert len(lines) == 6  # batch 8 is not in it
    for part in ("20 to 100 calls", "640x480", "a processor, 2 cores", "1.32.0", "Titan Xp"):
        assert part in lines[5]
    assert "Random weights, so no AP: `r50-fpn`." in lines[5]
    assert "AP of `nano`: 500 held-out pictures, AP50 0.900." in lines[5]


def test_accuracy_of_other_weights_is_refused(
    scripts: dict[str, ModuleType], results: Path
) -> None:
    found = json.loads((results / "eval_nano.json").read_text())
    found["model"]["checkpoint_sha256"] = "b" * 64
    (results / "eval_nano.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"expected the checkpoint that fps\.json timed"):
        scripts["tables"].preset_table(results)


def test_result_table_has_a_row_per_file_that_is_there(
    scripts: dict[str, ModuleType], results: Path
) -> None:
    lines = scripts["tables"].result_table(results).splitlines()
    link = "[fps.json](benchmarks/results/fps.json)"
    assert lines[2].startswith("| `nano` on 500 held-out scenes, AP | 0.654 | 0.60 |")
    assert f"| 41.6 | 30 | {link} |" in lines[4]
    assert f"| 5.0% | below 15 % | {link} |" in lines[5]
    assert len(lines) == 6


def test_tables_are_written_once_and_then_checked(
    scripts: dict[str, ModuleType], results: Path, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    tables = "<!-- table:{0} -->\n<!-- /table -->\n"
    readme.write_text("# x\n" + tables.format("presets") + "y\n" + tables.format("results"))
    zoo = tmp_path / "zoo.md"
    zoo.write_text(tables.format("zoo") + tables.format("resize"))
    operators = tmp_path / "operators.md"
    operators.write_text(tables.format("operators") + tables.format("fused"))
    engines = tmp_path / "engines.md"
    engines.write_text(tables.format("engines"))
    kernels = tmp_path / "kernels.md"
    kernels.write_text(tables.format("native-build"))
    framework = tmp_path / "framework.md"
    names = ("paper-1", "paper-2", "paper-4", "paper-5", "paper-6", "paper-claims")
    framework.write_text("".join(tables.format(name) for name in names))
    precision = tmp_path / "precision.md"
    names = ("fp16-ap", "fp16-shares", "group-norm")
    precision.write_text("".join(tables.format(name) for name in names))
    pages = {"--readme": readme, "--zoo": zoo, "--operators": operators, "--kernels": kernels}
    pages |= {"--precision": precision, "--engines": engines, "--framework": framework}
    pages |= {"--results": results}
    arguments = [str(part) for page in pages.items() for part in page]
    main = scripts["tables"].main
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    text = readme.read_text()
    assert text.startswith("# x\n<!-- table:presets -->\n| preset |")
    assert "<!-- /table -->\ny\n<!-- table:results -->\n| what |" in text
    assert "| `CenterNet2_R50_1x` | `r50-fpn` | – |" in zoo.read_text()
    assert main([*arguments, "--check"]) == 0
    assert readme.read_text() == text
    readme.write_text(text.replace("41.6", "42.0"))
    assert main([*arguments, "--check"]) == 1
    readme.write_text(text)
    assert main([*arguments, "--check"]) == 0
    zoo.write_text(zoo.read_text().replace("42.9", "43.0"))
    assert main([*arguments, "--check"]) == 1
    assert "| detector | proposals |" in operators.read_text()
    assert "| detector | precision | canvas |" in engines.read_text()
    assert "Nothing measured yet: `python benchmarks/paper_tables.py`." in framework.read_text()


@pytest.mark.parametrize("text", ["no markers", "<!-- table:presets -->\n"])
def test_missing_markers_are_an_error(
    text: str,
    scripts: dict[str, ModuleType],
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "README.md").write_text(text)
    pages = ["--readme", str(tmp_path / "README.md"), "--zoo", str(tmp_path / "zoo.md")]
    assert scripts["tables"].main([*pages, "--results", str(results)]) == 2
    assert "expected <!-- table:presets -->" in capsys.readouterr().err


def test_the_readme_says_what_the_results_say(scripts: dict[str, ModuleType]) -> None:
    if not (ROOT / "benchmarks" / "results" / "fps.json").is_file():
        pytest.skip("benchmarks/results/fps.json: not measured yet; run benchmarks/fps.py")
    assert scripts["tables"].main(["--check"]) == 0
