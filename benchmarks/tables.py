"""Make the tables of README and docs from benchmarks/results/*.json; no figure is typed.

    python benchmarks/tables.py            # put the tables between their markers
    python benchmarks/tables.py --check    # fail if they are not what the results say

Presets: fps.json (fps.py) gives the rows; eval_<preset>.json (`cn2 eval MODEL ... --json`) the
accuracy of those that have trained weights. Results: a row per file that is there. docs/zoo.md:
zoo.json (zoo.py) and resize.json (resize.py). docs/operators.md: operators.json (operators.py) and
fused.json (fused.py). docs/precision.md: fp16.json (fp16.py). docs/kernels.md: native_build.json
(native_build.py). docs/engines.md: engines.json (engines.py). docs/framework.md: paper_tables.json
(paper_tables.py).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine_tables import engine_table
from fp16_tables import fp16_ap_table, fp16_share_table, group_norm_text
from fused_tables import fused_table
from libcn2_tables import libcn2_rows
from native_build_table import native_build_table
from operator_tables import operator_table
from paper_tables_text import PAGE_TABLES
from zoo_tables import resize_table, zoo_table

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = (
    "preset",
    "parameters",
    "input (short side / long side)",
    "AP",
    "this CPU, ms",
    "images/s",
    "paper, Titan Xp, ms",
)
MISSING = "–"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; the exit code."""
    options = parse(arguments)
    tables: dict[Path, dict[str, Callable[[Path], str]]] = {
        options.readme: {"presets": preset_table, "results": result_table},
        options.zoo: {"zoo": zoo_table, "resize": resize_table},
        options.operators: {"operators": operator_table, "fused": fused_table},
        options.engines: {"engines": engine_table},
        options.precision: {
            "fp16-ap": fp16_ap_table,
            "fp16-shares": fp16_share_table,
            "group-norm": group_norm_text,
        },
        options.kernels: {"native-build": native_build_table},
        options.framework: PAGE_TABLES,
    }
    try:
        stale = [page for page in tables if refresh(page, tables[page], options)]
    except (OSError, ValueError) as error:
        print(f"tables: error: {error}", file=sys.stderr)
        return 2
    for page in stale:
        done = "a table is stale; run python benchmarks/tables.py"
        print(f"{page}: {done if options.check else 'tables written'}")
    return int(options.check and bool(stale))


def refresh(
    page: Path, tables: dict[str, Callable[[Path], str]], options: argparse.Namespace
) -> bool:
    """Whether a page's tables were stale; without --check they are written."""
    text = wanted = page.read_text("utf-8")
    for name, make in tables.items():
        wanted = fill(wanted, name, make(options.results))
    if text != wanted and not options.check:
        page.write_text(wanted, "utf-8")
    return text != wanted


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--zoo", type=Path, default=ROOT / "docs" / "zoo.md")
    parser.add_argument("--operators", type=Path, default=ROOT / "docs" / "operators.md")
    parser.add_argument("--engines", type=Path, default=ROOT / "docs" / "engines.md")
    parser.add_argument("--precision", type=Path, default=ROOT / "docs" / "precision.md")
    parser.add_argument("--kernels", type=Path, default=ROOT / "docs" / "kernels.md")
    parser.add_argument("--framework", type=Path, default=ROOT / "docs" / "framework.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    return parser.parse_args(arguments)


def fill(text: str, name: str, table: str) -> str:
    """The text with the part between a table's markers replaced.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    start, end = f"<!-- table:{name} -->", "<!-- /table -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"expected {start} ... {end} once, got {len(pattern.findall(text))}")
    return pattern.sub(lambda _: f"{start}\n{table}\n{end}", text)


def preset_table(results: Path) -> str:
    """The presets: size, accuracy where weights are, speed here and in the paper.

    Raises:
        ValueError: accuracy and speed were measured on different weights.
    """
    document = read(results / "fps.json")
    rows = [row for row in document["rows"] if row["batch"] == 1]
    lines = [" | ".join(COLUMNS), " | ".join(["---", *["---:"] * (len(COLUMNS) - 1)])]
    accuracies = {row["preset"]: accuracy(results, row) for row in rows}
    for row in rows:
        paper = (row["paper"] or {}).get("ms", MISSING)
        score = accuracies[row["preset"]]
        cells = [
            f"`{row['preset']}`",
            f"{row['parameters'] / 1e6:.1f} M",
            row["size"].replace("/", " / "),
            MISSING if score is None else f"{score['AP']:.3f}",
            f"{row['latency_ms']['whole']['median']:.0f}",
            f"{row['images_per_s']:.1f}",
            str(paper),
        ]
        lines.append(" | ".join(cells))
    table = "\n".join(f"| {line} |" for line in lines)
    return f"{table}\n\n{footnote(document, rows, accuracies)}"


def accuracy(results: Path, row: dict[str, Any]) -> dict[str, Any] | None:
    """What `cn2 eval` wrote for a preset, None where it has not been scored.

    Raises:
        ValueError: it scored other weights than those that were timed.
    """
    path = results / f"eval_{row['preset']}.json"
    if not path.is_file():
        return None
    found = read(path)
    scored, timed = found["model"]["checkpoint_sha256"], row["checkpoint_sha256"]
    if scored != timed:
        raise ValueError(
            f"{path.name}: expected the checkpoint that fps.json timed ({timed[:12]}), got "
            f"{scored[:12]}; measure both on the same file"
        )
    return found


def footnote(
    document: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    accuracies: dict[str, dict[str, Any] | None],
) -> str:
    """What the figures are of."""
    machine, first = document["machine"], rows[0]
    runs = sorted({str(row["runs"]) for row in rows}, key=int)
    sizes = " and ".join(document["pictures"]["sizes"])
    random = [f"`{row['preset']}`" for row in rows if row["weights"] == "random"]
    sentences = [
        f"Median of {' to '.join(runs)} calls, JPEG file to detections, one picture of {sizes} at "
        f"a time, fp32, ONNX Runtime {first['versions']['onnxruntime']}, {first['threads']} "
        f"threads, {machine['cpu']}, {machine['cores']} cores."
    ]
    if random:
        sentences.append(f"Random weights, so no AP: {', '.join(random)}.")
    for preset, found in accuracies.items():
        if found is not None:
            sentences.append(
                f"AP of `{preset}`: {found['images']} held-out pictures, AP50 {found['AP50']:.3f}."
            )
    paper = document["paper"]
    sentences.append(f"Paper: {paper['source']}, on a {paper['gpu']}.")
    return " ".join(sentences)


def result_table(results: Path) -> str:
    """What was measured, what was asked for, and the file that says so."""
    lines = ["what | measured | asked for | file", "--- | ---: | ---: | ---"]
    for name, describe in RESULT_ROWS:
        path = results / name
        if path.is_file():
            file = f"[{name}](benchmarks/results/{name})"
            lines += [" | ".join([*row, file]) for row in describe(read(path))]
    return "\n".join(f"| {line} |" for line in lines)


Rows = list[tuple[str, str, str]]


def accuracy_rows(found: dict[str, Any]) -> Rows:
    """Of eval_nano.json."""
    pictures = f"`nano` on {found['images']} held-out scenes"
    return [
        (f"{pictures}, AP", f"{found['AP']:.3f}", "0.60"),
        (f"{pictures}, AP50", f"{found['AP50']:.3f}", MISSING),
    ]


def baseline_rows(found: dict[str, Any]) -> Rows:
    """Of color_blobs.json."""
    what = f"colour alone on {found['test']['scenes']} such scenes, AP50"
    return [(what, f"{found['metrics']['AP50']:.3f}", "below 0.3")]


def speed_rows(found: dict[str, Any]) -> Rows:
    """Of fps.json: `nano` at batch 1."""
    rows = [row for row in found["rows"] if (row["preset"], row["batch"]) == ("nano", 1)]
    if not rows:
        return []
    row, latency = rows[0], rows[0]["latency_ms"]
    outside = latency["preprocess"]["median"] + latency["postprocess"]["median"]
    share = outside / (outside + latency["inference"]["median"])
    speed = f"`nano`, JPEG file to detections on {row['threads']} cores, images/s"
    return [
        (speed, f"{row['images_per_s']:.1f}", "30"),
        ("of that, outside ONNX Runtime (decoding apart)", f"{share:.1%}", "below 15 %"),
    ]


def agreement_rows(found: dict[str, Any]) -> Rows:
    """Of agreement.json: trained weights, of which the limits are asked; random ones, a stress."""
    trained, random, limits = found["trained_weights"], found["random_weights"], found["limits"]
    pair, counts = "torch against ONNX Runtime", "pictures beyond a limit / unexplained / excused"
    rows = [
        (
            f"{pair}, {weights_of(found, trained=True)}: {trained['detections']} detections on "
            "COCO pictures, px / score",
            distance(trained),
            f"{limits['box_px']:g} / {limits['score']:g}",
        ),
        (f"of these: {counts}, as on a threshold", tally(trained), f"0 / 0 / {MISSING}"),
    ]
    if not random["runs"]:
        return rows
    rows += [
        (
            f"stress test, no limit asked: random weights of {weights_of(found, trained=False)}, "
            "where torch's own float32 and float64 differ as much: "
            f"{random['detections']} detections, px / score",
            distance(random),
            MISSING,
        ),
        (f"of the {random['runs']} runs: {counts}", tally(random), f"{MISSING} / 0 / {MISSING}"),
    ]
    exact = random["to_float64"]
    if exact["torch"]["runs"]:
        what = f"{exact['torch']['runs']} of its runs against torch in float64"
        names = {"torch": "torch", "onnxruntime": "ONNX Runtime"}
        rows += [(f"{what}: {names[k]}", distance(exact[k]), MISSING) for k in names]
    return rows


def weights_of(found: dict[str, Any], *, trained: bool) -> str:
    """The presets with such weights."""
    rows = [row for row in found["rows"] if (row["weights"] == "trained") == trained]
    return ", ".join(dict.fromkeys(f"`{row['preset']}`" for row in rows))


def distance(found: dict[str, float]) -> str:
    """Largest differences of a box and a score, as a cell."""
    return f"{found['box_px']:.4f} / {found['score']:.1e}"


def tally(found: dict[str, int]) -> str:
    """What is not the same, as a cell."""
    return f"{found['beyond']} / {found['unexplained']} / {found['excused']}"


def overfit_rows(found: dict[str, Any]) -> Rows:
    """Of overfit_bccd8.json and overfit_coco128.json."""
    which = "COCO" if "person" in found["per_class"] else "BCCD"
    what = f"`nano` trained on {found['pictures']} {which} pictures for {found['seconds']:.0f} s"
    wanted = f"{found['wanted_AP50']} in {found['limit_s']} s"
    return [(f"{what}, AP50 on the same", f"{found['AP50']:.3f}", wanted)]


def framework_rows(found: dict[str, Any]) -> Rows:
    """Of overfit_table1.json."""
    rows = found["presets"].values()
    wanted, pictures = (next(iter(rows))[key] for key in ("wanted_AP50", "pictures"))
    reached = sum(row["AP50"] >= wanted for row in rows)
    what = f"Table 1's detectors, small, that reach AP50 {wanted} on {pictures} BCCD pictures"
    return [(what, str(reached), "14")]


def own_data_rows(found: dict[str, Any]) -> Rows:
    """Of bccd.json."""
    runs, scores = found["runs"], found["over_seeds"]["AP50"]
    seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
    what = f"`nano` on {runs[0]['pictures']} BCCD test pictures, AP50, mean and least of {seeds}"
    minutes = max(run["minutes"] for run in runs)
    limit = found["limit"]
    return [
        (what, f"{scores['mean']:.3f} / {scores['least']:.3f}", f"{found['wanted_AP50']}"),
        (
            "the longest of these trainings, minutes",
            f"{minutes:.0f}",
            f"{limit['minutes']} of {limit['cores']} cores",
        ),
    ]


def install_rows(found: dict[str, Any]) -> Rows:
    """Of install_size.json."""
    what = "install of `cn2[cpu]`, without torch, MB"
    return [(what, f"{found['total_mb']:.0f}", f"below {found['limit_mb']}")]


def convert_rows(found: dict[str, Any]) -> Rows:
    """Of convert.json: the slowest file, and the worst in memory."""
    slow = max(found["rows"], key=lambda row: row["seconds"])
    ratio = max(row["memory_ratio"] for row in found["rows"])
    what = f"`cn2 convert`, the slowest of {len(found['rows'])} files, seconds"
    return [
        (what, f"{slow['seconds']:.1f}", f"below {found['limits']['seconds']:.0f}"),
        (
            "memory above the imports of any, in sizes of its file",
            f"{ratio:.2f}",
            f"below {found['limits']['memory_ratio']:.0f}",
        ),
    ]


def startup_rows(found: dict[str, Any]) -> Rows:
    """Of startup.json."""
    return [("`cn2 --help`, ms", f"{found['median_ms']['cn2 --help']:.0f}", MISSING)]


RESULT_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], Rows]], ...] = (
    ("eval_nano.json", accuracy_rows),
    ("color_blobs.json", baseline_rows),
    ("fps.json", speed_rows),
    ("libcn2.json", libcn2_rows),
    ("agreement.json", agreement_rows),
    ("bccd.json", own_data_rows),
    ("overfit_bccd8.json", overfit_rows),
    ("overfit_coco128.json", overfit_rows),
    ("overfit_table1.json", framework_rows),
    ("convert.json", convert_rows),
    ("install_size.json", install_rows),
    ("startup.json", startup_rows),
)


def read(path: Path) -> dict[str, Any]:
    """One result file."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main())
