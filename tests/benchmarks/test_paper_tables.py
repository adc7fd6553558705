"""benchmarks/paper_tables.py: its rows, what it measures, and verdicts on planted times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from benchmark_scripts import imported
from cn2.trainer import presets
from cn2.trainer.build import build_detector
from cn2.trainer.config import Config, apply_overrides
from cn2.trainer.presets import PRESETS
from command_line import write_grey
from factories import shrunk

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "framework.md"
TABLES = (1, 2, 4, 5, 6)


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with imported("paper_tables_rows", "paper_tables_text", "paper_tables") as modules:
        yield modules


@pytest.fixture(scope="module")
def rows(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["paper_tables_rows"]


@pytest.fixture(scope="module")
def text(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["paper_tables_text"]


def planted(rows: ModuleType, **changes: Sequence[float]) -> dict[str, Any]:
    """A result where every run takes 50 and 100 ms in each of three rounds, but for some.

    Args:
        rows: the script with the runs.
        changes: total_ms of presets as they are, dashes as underscores.
    """
    runs = {}
    for name, run in rows.runs_of(TABLES).items():
        total = changes.get(name.replace("-", "_"), [100.0] * 3)
        runs[name] = {
            "preset": run.preset,
            "set": list(run.overrides),
            "canvas": "1088x800",
            "proposals_asked": 256,
            "proposals": 256,
            "first_ms": [50.0] * 3,
            "total_ms": list(total),
        }
    return {
        "machine": {"cpu": "a processor", "cores": 2, "load_average_before": 0.5},
        "load_average_after": 0.7,
        "versions": {"torch": "9.9"},
        "device": "cpu",
        "threads": 1,
        "rounds": 3,
        "runs": runs,
    }


@pytest.fixture
def save(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Writes a result and gives its folder."""

    def written(document: dict[str, Any]) -> Path:
        (tmp_path / "paper_tables.json").write_text(json.dumps(document))
        return tmp_path

    return written


def cells(table: str, label: str) -> list[str]:
    """The cells behind the first one of the row with this label."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_every_detector_of_table_1_is_a_row(rows: ModuleType) -> None:
    """Those that docs/framework.md lists, and no others."""
    first_table = next(p for p in PAGE.read_text("utf-8").split("\n\n") if p.startswith("|"))
    names = set(first_table.split("`")) & set(PRESETS)
    assert len(names) == 14
    found = [row.run for row in rows.TABLES[1]]
    assert {run.preset for run in found} == names
    assert len(found) == 14
    assert not any(run.overrides for run in found)


def test_every_run_is_a_config_and_says_what_it_is_named_for(rows: ModuleType) -> None:
    configs = {
        name: apply_overrides(PRESETS[run.preset](), run.overrides)
        for name, run in rows.runs_of(TABLES).items()
    }

    def model(row: Any) -> Any:
        return configs[row.run.name].model

    before, levels, fewer, longer, loss, joint = map(model, rows.TABLES[4])
    assert before.neck.levels == (2, 3, 4, 5, 6)
    assert levels.neck.levels == levels.second_stage.levels == (3, 4, 5, 6, 7)
    assert [m.first_stage.test_filter.post_nms for m in (levels, fewer)] == [1000, 256]
    assert [m.first_stage.convs for m in (fewer, longer)] == [1, 4]
    assert [m.first_stage.loss for m in (longer, loss)] == ["cross-entropy", "focal"]
    assert [m.second_stage.score_rule for m in (loss, joint)] == ["class", "sqrt"]
    assert joint.neck == levels.neck  # each keeps what those above have
    rules = [model(row).second_stage.score_rule for row in rows.TABLES[5]]
    assert rules == ["class", "sqrt", "class", "sqrt"]
    counts = [model(row).first_stage.test_filter.post_nms for row in rows.TABLES[6]]
    assert counts == [1000, 512, 256, 128, 64] * 2


def test_the_settings_of_table_4_are_those_of_the_page(rows: ModuleType) -> None:
    page = PAGE.read_text("utf-8")
    for step, overrides in rows.STEPS.items():
        (line,) = [one for one in page.splitlines() if one.startswith(f"| Table 4, {step}")]
        assert f"`{' '.join(overrides)}`" in line


def test_published_figures_are_those_of_the_zoo_and_nothing_else(rows: ModuleType) -> None:
    known = {
        row.label: row.published
        for number in TABLES
        for row in rows.TABLES[number]
        if row.published != rows.Published()
    }
    plain, cascade = known["CenterNet*"], known["CascadeRCNN-CenterNet"]
    assert (plain.ap, plain.total_ms) == (40.2, 50.0)  # 20 images/s
    assert (cascade.ap, cascade.total_ms) == (42.9, 57)
    assert known["FasterRCNN-CenterNet"].total_ms == pytest.approx(1000 / 22)
    assert all(figures.first_ms is None for figures in known.values())
    assert not any("RPN" in label or "ATSS" in label or "GFL" in label for label in known)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        # every round below 1
        ([(0.8, 0.7, 0.9)], "holds"),
        # the median below, a round above
        ([(0.95, 0.9, 1.02)], "holds in the median; ranges overlap, the rounds disagree"),
        ([(0.95, 0.9, 1.0)], "holds in the median; ranges overlap, the rounds disagree"),
        # every round above 1, or as slow
        ([(1.2, 1.1, 1.3)], "does not hold"),
        ([(1.0, 1.0, 1.0)], "does not hold"),
        # the median above, a round below
        ([(1.05, 0.98, 1.1)], "does not hold in the median; ranges overlap, the rounds disagree"),
        # of several steps each counts
        ([(0.5, 0.4, 0.6), (0.9, 0.8, 0.95)], "holds"),
        ([(0.5, 0.4, 0.6), (1.1, 1.05, 1.2)], "does not hold"),
        ([(0.5, 0.4, 0.6), (0.9, 0.8, 1.01)],
         "holds in the median; ranges overlap, the rounds disagree"),
    ],
)  # fmt: skip
def test_verdicts(text: ModuleType, steps: list[tuple[float, ...]], words: str) -> None:
    assert text.verdict([text.Spread(*step) for step in steps]) == words


def test_claims_of_planted_times(
    rows: ModuleType, text: ModuleType, save: Callable[[dict[str, Any]], Path]
) -> None:
    """Ratios are of the same round: half as slow a machine in one of them changes nothing."""
    document = planted(
        rows,
        retinanet_r50_fpn=[100, 200, 100],
        retinanet_r50_fpn_faster=[80, 160, 90],
        gfl_r50_fpn_faster=[120, 110, 130],
        atss_r50_fpn_faster=[90, 95, 105],
    )
    table = text.claim_table(save(document))
    precursor = "its one-stage precursor"
    assert cells(table, f"FasterRCNN-RetinaNet is faster than RetinaNet, {precursor}") == [
        "–", "0.80 (0.80 – 0.90)", "holds"
    ]  # fmt: skip
    assert cells(table, f"FasterRCNN-GFL is faster than GFL, {precursor}")[2] == "does not hold"
    atss = cells(table, f"FasterRCNN-ATSS is faster than ATSS, {precursor}")
    assert atss[2] == "holds in the median; ranges overlap, the rounds disagree"
    centernet = cells(table, f"FasterRCNN-CenterNet is faster than CenterNet*, {precursor}")
    assert centernet[:2] == ["50 → 45: 0.91", "1.00 (1.00 – 1.00)"]
    proposals = "the fewer proposals, the faster: 1000, 512, 256, 128, 64"
    assert cells(table, f"FasterRCNN-RPN: {proposals}")[1].count("1.00 (1.00 – 1.00)") == 4
    assert table.count("| holds") == 2 + 2  # RetinaNet and ATSS, against either precursor


def test_table_rows_come_from_the_result(
    rows: ModuleType, text: ModuleType, save: Callable[[dict[str, Any]], Path]
) -> None:
    document = planted(rows, faster_rcnn_r50_fpn=[100, 200, 100], r50_fpn=[50, 120, 70])
    run = document["runs"]["r50-fpn"]
    run["first_ms"], run["proposals"] = [25.0, 25.0, 60.0], 251
    results = save(document)
    assert cells(text.paper_table(results, 1), "CascadeRCNN-CenterNet") == [
        "`r50-fpn`", "251 of 256", "25", "70", "0.50", "0.60 (0.50 – 0.70)", "– / 57", "42.9",
        "not measured",
    ]  # fmt: skip
    others = cells(text.paper_table(results, 2), "YOLOv4, others' work")
    assert set(others) == {"–", "– / –", "not ours"}
    last = cells(text.paper_table(results, 4), "+ probability")
    assert last[0] == "`faster-rcnn-r50-fpn` … `model.second_stage.score_rule=sqrt`"
    note = text.claim_table(results).splitlines()[-1]
    assert "a processor, 2 cores, load 0.5 before and 0.7 after" in note
    assert f"In 1 of {len(document['runs'])} runs fewer proposals came out" in note
    assert "differ by up to 30% in the median and 50% in a single round" in note
    assert "1 thread, the process's own time" in note


def test_a_result_of_some_tables_has_dashes_for_the_others(
    rows: ModuleType, text: ModuleType, save: Callable[[dict[str, Any]], Path]
) -> None:
    document = planted(rows)
    document["runs"] = {name: document["runs"][name] for name in rows.runs_of([4])}
    results = save(document)
    assert cells(text.paper_table(results, 1), "GFL")[2:6] == ["–"] * 4
    claims = text.claim_table(results)
    assert claims.count("not measured") == 4 + 8 + 2
    assert "| FasterRCNN-RPN: P3–P7 is faster than P2–P6 | – | 1.00" in claims


def test_features_get_unit_variance(scripts: dict[str, ModuleType]) -> None:
    """Also behind the layers that grow them: no box explodes."""
    torch.manual_seed(0)
    detector = build_detector(shrunk(PRESETS["retinanet-r50-fpn-faster"]())).eval()
    images = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8)
    sizes = torch.tensor([[128, 128]], dtype=torch.int32)
    scripts["paper_tables"].scale_features(detector, images, sizes)
    seen: list[float] = []

    def deviation(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        seen.append(output.std().item())

    convolutions = [m for m in detector.neck.modules() if isinstance(m, nn.Conv2d)]
    for convolution in convolutions:
        convolution.register_forward_hook(deviation)
    with torch.no_grad():
        detector.features(images, sizes)
    assert len(seen) == len(convolutions) > 0
    assert seen == pytest.approx([1.0] * len(seen), abs=1e-3)


@pytest.fixture
def _tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every preset at 8 channels, with few proposals."""
    for name, make in list(PRESETS.items()):
        monkeypatch.setitem(presets.PRESETS, name, tiny(make()))


def tiny(config: Config) -> Callable[[], Config]:
    """Room for P7 at 128 pixels, which are not its own size."""
    small = shrunk(config)
    large = replace(small.input, long_edge=256, divisor=128)
    return lambda: replace(small, input=large)


@pytest.mark.usefixtures("_tiny_presets")
def test_script(
    scripts: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every table at 128 px, from pictures to what is printed."""
    for name in ("a.jpg", "b.jpg"):
        write_grey(tmp_path / "pictures" / name, size=(64, 96))
    places = ["--images", str(tmp_path / "pictures"), "--results", str(tmp_path)]
    assert scripts["paper_tables"].main(["--rounds", "2", "--short-edge", "128", *places]) == 0
    document = json.loads((tmp_path / "paper_tables.json").read_text())
    assert set(document["runs"]) == set(scripts["paper_tables_rows"].runs_of(TABLES))
    assert (document["rounds"], document["device"]) == (2, "cpu")
    for name, row in document["runs"].items():
        assert row["canvas"] == "256x128"
        assert len(row["first_ms"]) == len(row["total_ms"]) == 2
        pairs = list(zip(row["first_ms"], row["total_ms"], strict=True))
        alone = row["proposals_asked"] is None
        assert all(0 < first == total if alone else 0 < first < total for first, total in pairs)
        if not alone:
            assert 0 < row["proposals"] <= row["proposals_asked"], name
            assert row["proposal_size_px"] > 0
    fewer = document["runs"]["r50-fpn --set model.first_stage.test_filter.post_nms=64"]
    assert fewer["proposals_asked"] == 64
    printed = capsys.readouterr().out
    assert "Median of 2 rounds" in printed
    assert printed.count("\nTable ") == 5
    assert scripts["paper_tables"].main(["--show", *places]) == 0
    assert capsys.readouterr().out in printed


def test_without_a_gpu_one_line_says_so(
    scripts: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["--device", "cuda", "--results", str(tmp_path)]
    assert scripts["paper_tables"].main(words) == 2
    assert capsys.readouterr().err == (
        "paper_tables: error: cuda: expected a GPU, torch sees none\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_page_says_what_the_result_says(text: ModuleType) -> None:
    page = PAGE.read_text("utf-8")
    for name, make in text.PAGE_TABLES.items():
        table = make(ROOT / "benchmarks" / "results")
        assert f"<!-- table:{name} -->\n{table}\n<!-- /table -->" in page
