"""The rows of the paper's Tables 1, 2, 4, 5 and 6: our run for each, and the authors' figures.

Source: arXiv 2103.07461. Its tables were not at hand; figures are those of the authors' model zoo
and of README, see zoo_models.py. What is in neither is None, not a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zoo_models import PAPER, ZOO


@dataclass(frozen=True, kw_only=True)
class Run:
    """A detector to be timed: a preset, and `--set` overrides of it."""

    preset: str
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tells it from other runs, as one would type it."""
        return " ".join([self.preset, *(f"--set {override}" for override in self.overrides)])


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the authors say of a detector; None: not found."""

    ap: float | None = None  # percent
    first_ms: float | None = None  # up to the proposals
    total_ms: float | None = None  # batch 1, Titan Xp


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table: the paper's name for it, our run, None for others' detectors."""

    label: str
    run: Run | None
    published: Published = Published()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that the paper says of speed: of these runs each is faster than the one before."""

    text: str
    runs: tuple[Run, ...]
    published_ms: tuple[float, ...] | None = None  # of the runs; None: no figures at hand


def published(config: str) -> Published:
    """Of a model of the authors' zoo, by its config's name; its time by images/s, if not by ms."""
    model = next(model for model in ZOO if model.config == config)
    total = PAPER["presets"].get(model.preset, {}).get("ms")
    if total is None and model.titan_xp is not None:
        total = 1000 / model.titan_xp
    return Published(ap=model.ap, total_ms=total)


BASELINE = Run(preset="faster-rcnn-r50-fpn")
CENTERNET2 = Run(preset="r50-fpn")
PUBLISHED = {
    "centernet-r50-fpn": published("CenterNet-FPN_R50_1x"),
    "r50-fpn-faster": published("CenterNet2-F_R50_1x"),
    "r50-fpn": published("CenterNet2_R50_1x"),
}

# One-stage detector -> itself, and before Faster and Cascade R-CNN.
FAMILIES = {
    "RetinaNet": ("retinanet-r50-fpn", "retinanet-r50-fpn-faster", "retinanet-r50-fpn-cascade"),
    "GFL": ("gfl-r50-fpn", "gfl-r50-fpn-faster", "gfl-r50-fpn-cascade"),
    "ATSS": ("atss-r50-fpn", "atss-r50-fpn-faster", "atss-r50-fpn-cascade"),
    "CenterNet*": ("centernet-r50-fpn", "r50-fpn-faster", "r50-fpn"),
}
PRECURSORS = {"FasterRCNN": "faster-rcnn-r50-fpn", "CascadeRCNN": "cascade-rcnn-r50-fpn"}

PROPOSALS = (1000, 512, 256, 128, 64)
P3_P7 = (
    "model.neck.levels=[3,4,5,6,7]",
    "model.second_stage.levels=[3,4,5,6,7]",
    "model.first_stage.anchors.size=4",
)
# What Table 4 changes of FasterRCNN-RPN, one after another, as docs/framework.md has it.
STEPS: dict[str, tuple[str, ...]] = {
    "P3–P7": P3_P7,
    "256 proposals": ("model.first_stage.test_filter.post_nms=256",),
    "4-layer head": ("model.first_stage.convs=4",),
    "loss": (
        "model.first_stage.positive_iou=0.5",
        "model.first_stage.negative_iou=0.4",
        "model.first_stage.sampled=null",
        "model.first_stage.loss=focal",
        "model.first_stage.prior=0.01",
    ),
    "probability": ("model.second_stage.score_rule=sqrt",),
}


def with_proposals(run: Run, usual: int, count: int) -> Run:
    """The run with so many proposals; itself where that is what it has anyway."""
    if count == usual:
        return run
    override = f"model.first_stage.test_filter.post_nms={count}"
    return Run(preset=run.preset, overrides=(*run.overrides, override))


def with_score(run: Run, rule: str) -> Run:
    """The run with another rule of the score."""
    return Run(preset=run.preset, overrides=(f"model.second_stage.score_rule={rule}",))


def preset_row(label: str, preset: str) -> Row:
    """A row that is a preset as it is."""
    known = PUBLISHED.get(preset, Published())
    return Row(label=label, run=Run(preset=preset), published=known)


def detector_rows() -> Iterator[Row]:
    """Table 1: two with an RPN, then every one-stage detector alone and before either stage."""
    for second, preset in PRECURSORS.items():
        yield preset_row(f"{second}-RPN", preset)
    for name, presets in FAMILIES.items():
        labels = (name, f"FasterRCNN-{name.rstrip('*')}", f"CascadeRCNN-{name.rstrip('*')}")
        yield from map(preset_row, labels, presets)


def road() -> Iterator[Row]:
    """Table 4: from FasterRCNN-RPN to a probabilistic detector; each row keeps those above."""
    yield Row(label="FasterRCNN-RPN", run=BASELINE)
    overrides: tuple[str, ...] = ()
    for step, more in STEPS.items():
        overrides += more
        yield Row(label=f"+ {step}", run=Run(preset=BASELINE.preset, overrides=overrides))


def proposal_runs(run: Run, usual: int) -> tuple[Run, ...]:
    """Table 6: the run with each number of proposals, most first."""
    return tuple(with_proposals(run, usual, count) for count in PROPOSALS)


def real_time_rows() -> Iterator[Row]:
    """Table 2: the authors' own on DLA-34, and who the abstract says they outperform."""
    official = {
        "CenterNet-DLA": "CenterNet-S4_DLA_8x",
        "CenterNet2-DLA-BiFPN-P3 (4x)": "CenterNet2_DLA-BiFPN-P3_4x",
        "CenterNet2-DLA-BiFPN-P3 (24x)": "CenterNet2_DLA-BiFPN-P3_24x",
        "CenterNet2-DLA-BiFPN-P5 (ST)": "CenterNet2_DLA-BiFPN-P5_640_16x_ST",
    }
    yield Row(label="YOLOv4, others' work", run=None)
    for label, config in official.items():
        preset = next(model.preset for model in ZOO if model.config == config)
        yield Row(label=label, run=Run(preset=preset), published=published(config))


def score_rows() -> Iterator[Row]:
    """Table 5: with the joint score, and with the second stage's alone."""
    with_joint = with_score(BASELINE, "sqrt")
    yield Row(label="FasterRCNN-RPN, without", run=BASELINE)
    yield Row(label="FasterRCNN-RPN, with", run=with_joint)
    yield Row(label="CascadeRCNN-CenterNet, without", run=with_score(CENTERNET2, "class"))
    yield preset_row("CascadeRCNN-CenterNet, with", "r50-fpn")


def proposal_rows() -> Iterator[Row]:
    """Table 6: two detectors, five numbers of proposals."""
    for label, run, usual in (
        ("FasterRCNN-RPN", BASELINE, 1000),
        ("CascadeRCNN-CenterNet", CENTERNET2, 256),
    ):
        for count, one in zip(PROPOSALS, proposal_runs(run, usual), strict=True):
            known = PUBLISHED.get(one.name, Published())
            yield Row(label=f"{label}, {count}", run=one, published=known)


TABLES: dict[int, tuple[Row, ...]] = {
    1: tuple(detector_rows()),
    2: tuple(real_time_rows()),
    4: tuple(road()),
    5: tuple(score_rows()),
    6: tuple(proposal_rows()),
}


def runs_of(tables: Sequence[int]) -> dict[str, Run]:
    """Every run of these tables once, by name; the baseline always, as all are divided by it."""
    rows = [row.run for number in tables for row in TABLES[number] if row.run is not None]
    return {run.name: run for run in (BASELINE, *rows)}


def claims() -> Iterator[Claim]:
    """What the paper says of speed, as runs that get faster."""
    for name, (alone, *probabilistic) in FAMILIES.items():
        runs = (Run(preset=alone), Run(preset=probabilistic[0]))
        text = f"FasterRCNN-{name.rstrip('*')} is faster than {name}, its one-stage precursor"
        yield Claim(text=text, runs=runs, published_ms=_known_ms(runs))
    for name, (_, *probabilistic) in FAMILIES.items():
        for preset, (second, before) in zip(probabilistic, PRECURSORS.items(), strict=True):
            runs = (Run(preset=before), Run(preset=preset))
            text = f"{second}-{name.rstrip('*')} is faster than {second}-RPN"
            yield Claim(text=f"{text}, its two-stage precursor", runs=runs)
    steps = tuple(row.run for row in road() if row.run is not None)
    yield Claim(text="FasterRCNN-RPN: P3–P7 is faster than P2–P6", runs=steps[:2])
    yield Claim(text="the same on P3–P7: 256 proposals are faster than 1000", runs=steps[1:3])
    fewer = "the fewer proposals, the faster: 1000, 512, 256, 128, 64"
    for label, run, usual in (
        ("FasterRCNN-RPN", BASELINE, 1000),
        ("CascadeRCNN-CenterNet", CENTERNET2, 256),
    ):
        yield Claim(text=f"{label}: {fewer}", runs=proposal_runs(run, usual))


def controls() -> tuple[tuple[Run, Run], ...]:
    """Pairs that compute as much: how far their times differ is noise."""
    steps = [row.run for row in road() if row.run is not None]
    joint = [row.run for row in score_rows() if row.run is not None]
    return ((steps[3], steps[4]), (steps[4], steps[5]), (joint[0], joint[1]), (joint[2], joint[3]))


def _known_ms(runs: tuple[Run, ...]) -> tuple[float, ...] | None:
    """The published times of runs, if there is one of each."""
    found = [PUBLISHED.get(run.name, Published()).total_ms for run in runs]
    known = tuple(value for value in found if value is not None)
    return known if len(known) == len(runs) else None
