"""Put what the framework's detectors learned into docs/framework.md: tables and pictures of curves.

overfit_table1.json is by `overfit.py --data table1`, bccd_proposals.json by bccd_proposals.py.

    python benchmarks/framework_page.py            # tables between their markers, curves
    python benchmarks/framework_page.py --check    # fail if the tables are not what results say
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cn2.trainer.presets import PRESETS
from recipe_table import markdown
from tables import ROOT, fill, read

PAGE = ROOT / "docs" / "framework.md"
RESULTS = ROOT / "benchmarks" / "results"
OVERFIT_CURVES, PROPOSAL_CURVES = "overfit_curves.png", "proposal_curves.png"  # beside the page
RULES = {"joint": "joint score", "class": "class score alone", "alone": "no second stage"}
FEW, MANY = ("64", "16"), "256"  # proposals that the reading compares
FIRST_STAGES = {
    "centernet": "CenterNet*", "retinanet": "RetinaNet", "atss": "ATSS", "gfl": "GFL", "rpn": "RPN"
}  # fmt: skip
STYLES = {"alone": ":", "+ Faster": "--", "+ Cascade": "-"}

Result = dict[str, Any]
Values = dict[str, list[float]]  # by number of proposals, one for each seed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        overfit = read(options.results / "overfit_table1.json")
        found = read(options.results / "bccd_proposals.json")
        text = wanted = options.page.read_text("utf-8")
        for name, table in tables(overfit, found).items():
            wanted = fill(wanted, name, table)
    except (OSError, ValueError) as error:
        print(f"framework_page: error: {error}", file=sys.stderr)
        return 2
    if options.check:
        if text != wanted:
            print(f"{options.page}: a table is stale; run python benchmarks/framework_page.py")
        return int(text != wanted)
    options.page.write_text(wanted, "utf-8")
    draw_overfit(overfit["presets"], options.page.with_name(OVERFIT_CURVES))
    draw_proposals(found, options.page.with_name(PROPOSAL_CURVES))
    print(f"{options.page}: tables and curves written")
    return 0


def tables(overfit: Result, found: Result) -> dict[str, str]:
    """Each marker's text."""
    return {
        "overfit-table1": overfit_table(overfit["presets"]),
        "bccd-ap": ap_table(found),
        "bccd-recall": recall_table(found),
        "bccd-reading": reading(found),
    }


def overfit_table(presets: Result) -> str:
    """A row per detector."""
    rows = [["preset, at `nano`'s size", "steps", "AP50", "AP", "AP50 0.9 reached at", "minutes"]]
    for preset, row in presets.items():
        scores = [point for point in row["curve"] if "AP50" in point]
        reached = [point["step"] for point in scores if point["AP50"] >= row["wanted_AP50"]]
        first = f"step {reached[0]}" if reached else "never"
        ap50, ap = f"{row['AP50']:.3f}", f"{row['AP']:.3f}"
        rows.append(
            [f"`{preset}`", str(row["steps"]), ap50, ap, first, f"{row['seconds'] / 60:.1f}"]
        )
    some = next(iter(presets.values()))
    passed = sum(row["AP50"] >= row["wanted_AP50"] for row in presets.values())
    return (
        f"{markdown(rows)}\n\n{passed} of {len(presets)} reach {some['wanted_AP50']:g}. The first "
        f"{some['pictures']} pictures of BCCD, {some['boxes']} boxes, short edge "
        f"{some['short_edge']} pixels, fresh weights, {some['cpu']}, {some['threads']} thread, "
        "other work on the machine meanwhile."
    )


def values_of(runs: Sequence[Result], rule: str | None, key: str = "AP") -> Values:
    """A score by rule for each number of proposals; of no rule, the recall."""
    counts = runs[0]["recall"]
    if rule is None:
        return {count: [run["recall"][count] for run in runs] for count in counts}
    return {count: [run["AP"][rule][count][key] for run in runs] for count in counts}


def each_rule(found: Result) -> list[tuple[str, str, Values]]:
    """Detector, rule and AP of every row."""
    return [
        (name, rule, values_of(part["runs"], rule))
        for name, part in found["detectors"].items()
        for rule in part["runs"][0]["AP"]
    ]


def ap_table(found: Result) -> str:
    """AP by number of proposals, the mean over the seeds and how far they are apart."""
    rows = [["AP", "score", *(str(count) for count in found["counts"])]]
    for name, rule, values in each_rule(found):
        rows.append([name, RULES[rule], *(mean_text(values[str(n)]) for n in found["counts"])])
    runs = [run for part in found["detectors"].values() for run in part["runs"]]
    seeds = len({run["seed"] for run in runs})
    spread = f"mean over {seeds} seeds ± half their range" if seeds > 1 else "one seed"
    minutes = [run["minutes"] for run in runs]
    return (
        f"{markdown(rows)}\n\n{runs[0]['pictures']} test pictures, {spread}. Trained for "
        f"{found['steps']} steps of {found['batch']} pictures at a short edge of about "
        f"{found['short_edge']} pixels, from the bundled backbone, {min(minutes):.0f} to "
        f"{max(minutes):.0f} minutes each: {found['machine']['cpu']}, "
        f"{found['machine']['threads']} thread and a data worker, other work meanwhile."
    )


def recall_table(found: Result) -> str:
    """Average recall of the first stage's best boxes."""
    rows = [["AR of the best boxes", *(str(count) for count in found["counts"])]]
    for name, part in found["detectors"].items():
        values = values_of(part["runs"], None)
        rows.append([name, *(mean_text(values[str(count)]) for count in found["counts"])])
    return (
        f"{markdown(rows)}\n\nClasses do not matter. Proposals before a second stage; of "
        "CenterNet* its detections from a score of 1e-4 on, which a suppression at IoU 0.6 of each "
        "class has thinned out where proposals are suppressed at 0.9 (an RPN's at 0.7)."
    )


def mean_text(values: Sequence[float]) -> str:
    """Mean and half the range, in 0..1."""
    half = (max(values) - min(values)) / 2
    return f"{statistics.fmean(values):.3f}" + (f" ± {half:.3f}" if len(values) > 1 else "")


def reading(found: Result) -> str:
    """Whether the paper's directions show, by the sign of the change with each seed."""
    ours, theirs = (found["detectors"][name]["runs"] for name in ("CenterNet2", "CascadeRCNN-RPN"))
    lines = []
    for name, runs, wanted in (("CenterNet2", ours, "helps"), ("CascadeRCNN-RPN", theirs, None)):
        gains = difference(values_of(runs, "joint")[MANY], values_of(runs, "class")[MANY])
        direction = f"the joint score {wanted} {name}" if wanted else f"the joint score in {name}"
        lines.append(
            f"- **Table 5**, {direction}: {verdict(gains) if wanted else 'for comparison'}; AP "
            f"{change(gains)} with {MANY} proposals."
        )
    for few in FEW:
        lost = [fewer(ours, "joint", few), fewer(theirs, "class", few)]  # each as it is published
        kept = difference(*lost)
        lines.append(
            f"- **Table 6**, CenterNet2 needs fewer proposals: {verdict(kept)}; with {few} in "
            f"place of {MANY} its AP changes by {change(lost[0])}, that of CascadeRCNN-RPN by "
            f"{change(lost[1])}."
        )
    return "\n".join(lines)


def fewer(runs: Sequence[Result], rule: str, few: str) -> list[float]:
    """By how much AP changes, of each seed, where fewer proposals go on."""
    values = values_of(runs, rule)
    return difference(values[few], values[MANY])


def difference(one: Sequence[float], two: Sequence[float]) -> list[float]:
    """Seed by seed."""
    return [a - b for a, b in zip(one, two, strict=True)]


def verdict(gains: Sequence[float]) -> str:
    """Whether every seed gains, none does, or they disagree."""
    if all(gain > 0 for gain in gains):
        return "it shows"
    return "it does not show" if all(gain <= 0 for gain in gains) else "the seeds disagree"


def change(gains: Sequence[float]) -> str:
    """The mean, and the range over the seeds."""
    mean = f"{statistics.fmean(gains):+.3f}"
    return mean if len(gains) == 1 else f"{mean} ({min(gains):+.3f} to {max(gains):+.3f})"


def draw_overfit(presets: Result, out: Path) -> None:
    """AP50 over the steps, a panel for each first stage, a style for each second stage."""
    from matplotlib.figure import Figure

    figure = Figure((10.0, 2.6), dpi=100, layout="constrained")
    panels = dict(zip(FIRST_STAGES.values(), figure.subplots(1, 5, sharey=True), strict=True))
    for preset, row in presets.items():
        first, second = parts_of(preset)
        points = [point for point in row["curve"] if "AP50" in point]
        steps, scores = [p["step"] for p in points], [p["AP50"] for p in points]
        panels[first].plot(steps, scores, STYLES[second], color="C0", lw=1.4, label=second)
    for first, axes in panels.items():
        axes.axhline(0.9, color="grey", lw=0.8)
        axes.set(title=first, xlabel="step", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="lower right")
    next(iter(panels.values())).set_ylabel("AP50")
    figure.savefig(out, format="png")


def parts_of(preset: str) -> tuple[str, str]:
    """The first and the second stage of a preset of Table 1, as the pictures name them."""
    model = PRESETS[preset]().model
    second = model.second_stage
    name = "alone" if second is None else "+ Cascade" if len(second.ious) > 1 else "+ Faster"
    return FIRST_STAGES[model.first_stage.kind], name


def draw_proposals(found: Result, out: Path) -> None:
    """AP and recall against the number of proposals; bands from the worst seed to the best."""
    from matplotlib.figure import Figure

    figure = Figure((8.0, 3.2), dpi=100, layout="constrained")
    scores, recall = figure.subplots(1, 2)
    colours = {name: f"C{n}" for n, name in enumerate(found["detectors"])}
    for name, rule, values in each_rule(found):
        style = "o--" if rule == "class" else "o-"
        draw_line(scores, values, f"{name}, {RULES[rule]}", style, colours[name])
    for name, part in found["detectors"].items():
        draw_line(recall, values_of(part["runs"], None), name, "o-", colours[name])
    scores.set(ylabel="AP")
    recall.set(ylabel="AR")
    for axes in (scores, recall):
        axes.set_xscale("log", base=2)
        axes.set_xticks(found["counts"], [str(count) for count in found["counts"]])
        axes.set_xlabel("boxes of the first stage")
        axes.legend(fontsize=7, frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(out, format="png")


def draw_line(axes: Any, values: Values, label: str, style: str, colour: str) -> None:
    """The means, and a band over the seeds."""
    counts = [int(count) for count in values]
    means = [statistics.fmean(seeds) for seeds in values.values()]
    axes.plot(counts, means, style, color=colour, lw=1.2, ms=3, label=label)
    lows, highs = [min(v) for v in values.values()], [max(v) for v in values.values()]
    axes.fill_between(counts, lows, highs, color=colour, alpha=0.15, lw=0)


if __name__ == "__main__":
    sys.exit(main())
