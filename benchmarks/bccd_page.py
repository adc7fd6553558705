"""Put the results of bccd.py into docs/train-on-your-own-data.md: tables and a picture of curves.

python benchmarks/bccd_page.py            # put the tables between their markers, draw the curves
python benchmarks/bccd_page.py --check    # fail if the tables are not what the results say
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe_table import markdown
from tables import ROOT, fill, read

PAGE = ROOT / "docs" / "train-on-your-own-data.md"
CURVES = "bccd_curves.png"  # beside the page
RESULT = ROOT / "benchmarks" / "results" / "bccd.json"
CLASSES = ("RBC", "WBC", "Platelets")
SCORES = ("AP", "AP50", "AP75", *(f"{name} AP50" for name in CLASSES))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    try:
        found, text = read(options.result), options.page.read_text("utf-8")
        wanted = fill(text, "bccd", score_table(found))
        wanted = fill(wanted, "bccd-errors", error_table(found))
    except (OSError, ValueError) as error:
        print(f"bccd_page: error: {error}", file=sys.stderr)
        return 2
    if options.check:
        if text != wanted:
            print(f"{options.page}: a table is stale; run python benchmarks/bccd_page.py")
        return int(text != wanted)
    options.page.write_text(wanted, "utf-8")
    draw(found["runs"], options.page.with_name(CURVES))
    print(f"{options.page}: tables and curves written")
    return 0


def score_table(found: dict[str, Any]) -> str:
    """A row per seed, and their mean; what was measured, below."""
    runs, machine = found["runs"], found["machine"]
    rows = [["seed", *SCORES, "minutes"]]
    for run in runs:
        scores = [f"{score(run['test'], key):.3f}" for key in SCORES]
        rows.append([str(run["seed"]), *scores, f"{run['minutes']:.0f}"])
    means = [found["over_seeds"][key] for key in SCORES]
    if len(runs) > 1:
        rows.append(["mean", *(f"{m['mean']:.3f} ± {m['deviation']:.3f}" for m in means), ""])
    most = max(run["cpu_minutes_at_most"] for run in runs)
    return (
        f"{markdown(rows)}\n\n"
        f"{runs[0]['pictures']} test pictures that no training has seen, the exported file in ONNX "
        f"Runtime {found['versions']['onnxruntime']}. Minutes of training on {machine['cpu']} with "
        f"{machine['threads']} thread and one data worker, other work on its {machine['cores']} "
        f"cores meanwhile: at most {most:.0f} core minutes."
    )


def score(test: dict[str, Any], key: str) -> float:
    """`AP50`, or `RBC AP50` of one class."""
    name, _, metric = key.rpartition(" ")
    value: float = (test["per_class"][name] if name else test)[metric]
    return value


def error_table(found: dict[str, Any]) -> str:
    """A row per kind of error, a column per seed."""
    runs, kinds = found["runs"], found["error_kinds"]
    rows = [["error", "what it is", *(f"seed {run['seed']}" for run in runs)]]
    for kind in runs[0]["errors"]:
        rows.append([kind, kinds[kind], *(str(run["errors"][kind]) for run in runs)])
    objects = runs[0]["objects"]
    worst = ", ".join(f"`{name}`" for name in shared_worst(runs))
    return (
        f"{markdown(rows)}\n\n"
        f"Of {objects} annotated cells; detections above score {kinds['score_above']:g}, matched "
        f"at IoU {kinds['iou']:g}. Among the {len(runs[0]['worst'])} worst pictures of "
        f"{'every' if len(runs) > 1 else 'the'} seed: {worst}."
    )


def shared_worst(runs: list[dict[str, Any]]) -> list[str]:
    """Names of the pictures that every seed has among its worst, in the first one's order."""
    lists = [[row["file"] for row in run["worst"]] for run in runs]
    return [name for name in lists[0] if all(name in names for names in lists)]


def draw(runs: list[dict[str, Any]], out: Path) -> None:
    """The sum of the losses and the scores on the validation pictures, a line per seed."""
    from matplotlib.figure import Figure

    figure = Figure((7.0, 2.6), dpi=100, layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for k, run in enumerate(runs):
        steps = [row["step"] for row in run["losses"]]
        losses.plot(steps, [row["loss"] for row in run["losses"]], color=f"C{k}", lw=1.2)
        steps = [row["step"] for row in run["val"]]
        for key, style in (("AP50", "o--"), ("AP", "o-")):
            label = f"{key}, seed {run['seed']}"
            values = [row[key] for row in run["val"]]
            scores.plot(steps, values, style, color=f"C{k}", lw=1.2, ms=3, label=label)
    losses.set(xlabel="step", ylabel="sum of the losses")
    scores.set(xlabel="step", ylabel="validation pictures", ylim=(0, 1))
    scores.legend(fontsize=7, loc="lower right", frameon=False)
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
    figure.savefig(out, format="png")


if __name__ == "__main__":
    sys.exit(main())
