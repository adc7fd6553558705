"""One training run: its detector, its folder, what it tells, and what it can go on from."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cn2.runtime.errors import ModelFormatError, OutputError

from .build import build_detector
from .checkpoint import load_weights, read_checkpoint, save_checkpoint
from .config import Config, config_to_dict
from .data.coco import CocoDataset
from .data.datasets import DataSource
from .detector import AnyDetector, set_frequency_weights
from .distributed import Ranks
from .files import write_whole
from .pretrained import load_backbone, settings_for_pretrained
from .progress import Reporter, RunLog, StepMeter, read_log
from .schedule import learning_rate
from .targets.federated import frequency_weights
from .train_step import Stepper
from .training_losses import DetectorLosses
from .training_state import StateFolder
from .validate import validate
from .watch.curves import draw_curves
from .watch.patience import Patience
from .watch.samples import draw_samples
from .watch.tensorboard import TensorBoardLog
from .watch.time_left import TimeLeft

logger = logging.getLogger(__name__)

STATES = "states"  # folder of what --resume needs
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"  # checkpoints
UNSPECIFIED = "unspecified"  # licence of weights that nobody stated one for
CONFIG_FILE, LOG_FILE, CURVES_FILE = "config.json", "log.jsonl", "curves.png"


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run reads and where it writes."""

    train: tuple[DataSource, ...]  # joined
    val: DataSource
    out: Path  # folder of the run
    license: str = UNSPECIFIED  # of the weights, into the checkpoints


def inherited_license(weights: Path | None, resumed: Path | None) -> str:
    """The licence of the checkpoint that a run starts from, or of the run that is resumed."""
    source = weights if resumed is None else resumed / LAST_FILE
    if source is None or not source.is_file():  # a missing one is an error when it is loaded
        return UNSPECIFIED
    return read_checkpoint(source)[1].get("cn2.license") or UNSPECIFIED


@dataclass(kw_only=True)
class RunState:
    """The numbers that change while training; a training state keeps them."""

    step: int = 0  # steps done
    best_ap: float = -1.0
    since_best: int = 0  # scorings without a better AP
    bad_steps: int = 0  # without a finite loss, in a row
    broken: list[str] = field(default_factory=list)  # unreadable pictures since the last resume


class Run:
    """What the steps of one run share; rank 0 alone writes and reports."""

    def __init__(self, config: Config, files: RunFiles, ranks: Ranks) -> None:
        """Build the detector with fresh weights; nothing is written yet."""
        self.config, self.files, self.ranks = config, files, ranks
        self.state = RunState()
        self.states = StateFolder(files.out / STATES, config.train.keep)
        self.model = build_model(config, ranks)
        losses = DetectorLosses(config.model, ranks.share)
        self.stepper = Stepper(self.model, losses, config.train, ranks)
        self.log = RunLog(files.out / LOG_FILE)
        self.reporter = Reporter(config.train.steps, silent=not ranks.is_main)
        self.left = TimeLeft(config.train.steps, eval_every=0, save_every=0)
        self._board: TensorBoardLog | None = None

    def begin(self) -> None:
        """From the state's step on; the log loses what a killed run wrote after it."""
        self.left = self._time_left()
        if self.ranks.is_main:
            self.log.rewind(self.state.step)
            if self.config.train.watch:
                self._board = TensorBoardLog(self.files.out, self.state.step)

    def _time_left(self) -> TimeLeft:
        train = self.config.train
        scorings = [row for row in read_log(self.log.path) if row["kind"] == "validation"]
        return TimeLeft(
            train.steps,
            eval_every=train.eval_every,
            save_every=train.save_every,
            first_step=self.state.step,
            eval_s=scorings[-1]["seconds"] if scorings else None,
        )

    @property
    def kept(self) -> AnyDetector:
        """The detector that is scored and saved: the mean weights where there are any."""
        mean = self.stepper.mean
        return self.model if mean is None else mean.model

    def write(self, kind: str, **values: Any) -> None:
        """A row into the log."""
        if self.ranks.is_main:
            self.log.write(kind, **values)

    def report(self, meter: StepMeter) -> None:
        """Tell and log the steps since the last report."""
        step = self.state.step
        rate = learning_rate(step - 1, self.config.train)
        row = meter.summary()
        self.reporter.show(
            step,
            row["losses"],
            row["images_per_s"],
            self.left.seconds(),
            rate=rate,
            at_least=self.left.at_least,
        )
        row = {"learning_rate": rate, **row}
        self.write("train", step=step, **row)
        self._show(lambda board: board.train(step, row))
        meter.clear()

    def score(self, data: CocoDataset) -> tuple[dict[str, Any], bool]:
        """Evaluate, tell, and keep the best checkpoint so far.

        Returns:
            The metrics, and whether patience is at an end.
        """
        self.ranks.share_buffers(self.kept)
        started = time.perf_counter()
        metrics, results = validate(self.kept, data, self.config, self.ranks)
        seconds = round(time.perf_counter() - started, 2)
        step, ap = self.state.step, metrics["AP"]
        self.write("validation", step=step, seconds=seconds, **metrics)
        shown = "no object to score on"
        if ap is not None:
            shown = f"AP {ap:.4f}, AP50 {metrics['AP50']:.4f}"
        self.reporter.say(f"step {step}: {shown} ({seconds:.0f} s)")
        self._show(lambda board: board.validation(step, metrics))
        self._show(lambda board: board.pictures(step, draw_samples(data, results)))
        return metrics, self._keep_best(ap)

    def _keep_best(self, ap: float | None) -> bool:
        state = self.state
        patience = Patience(
            limit=self.config.train.patience, best=state.best_ap, since_best=state.since_best
        )
        at_an_end = patience.update(ap)
        first = state.best_ap < 0 and ap is None  # there is a best checkpoint in any case
        if first or patience.best > state.best_ap:
            self.ranks.on_main(lambda: self._write_checkpoint(BEST_FILE))
        state.best_ap = max(patience.best, 0.0) if first else patience.best
        state.since_best = patience.since_best
        return at_an_end

    def save(self) -> None:
        """Write a state to resume from, and the checkpoint `last`.

        Raises:
            OutputError: they cannot be written; the ones before stay.
        """
        self.ranks.on_main(self._write_state)

    def _write_state(self) -> None:
        stepper = self.stepper
        values = asdict(self.state) | {"scaler": stepper.scaler.state_dict()}
        mean = None
        if stepper.mean is not None:
            values["mean_updates"] = stepper.mean.updates
            mean = stepper.mean.model
        self._write_checkpoint(LAST_FILE)  # first: where there is a state, there is its checkpoint
        self.states.save(self.state.step, self.model, stepper.optimizer, values, mean)

    def _write_checkpoint(self, name: str) -> None:
        preset, step = self.config.preset, self.state.step
        sets = ", ".join(map(str, self.files.train))
        save_checkpoint(
            self.files.out / name,
            self.kept,
            self.config,
            license=self.files.license,
            provenance=f"cn2 train {preset} on {sets}, step {step}",
        )

    def resume(self) -> None:
        """Go on where the newest whole state was saved.

        Raises:
            OutputError: there is none.
            ModelFormatError: it is not of this detector.
        """
        stepper = self.stepper
        mean = None if stepper.mean is None else stepper.mean.model
        values = self.states.load(self.model, stepper.optimizer, mean)
        scaler = values.pop("scaler", None)
        if scaler and stepper.scaler.is_enabled():  # fp16 may have been switched on or off
            stepper.scaler.load_state_dict(scaler)
        mean_updates = values.pop("mean_updates", 0)
        if stepper.mean is not None:
            stepper.mean.updates = mean_updates
        try:
            self.state = RunState(**values)
        except TypeError as error:
            raise ModelFormatError(
                f"{self.states.folder}: written by another version of cn2 ({error})"
            ) from None
        self.state.broken = []  # they may be mended
        self.reporter.say(f"continuing at step {self.state.step} of {self.config.train.steps}")

    def start_from(self, weights: Path | None, backbone: Path | None) -> None:
        """Take the weights of a checkpoint, whose classes may be others, or of a backbone, or both.

        Raises:
            ModelFormatError: a file that is not of this detector or backbone.
            ValueError: a backbone that nobody published weights of.
        """
        say = self.reporter.say
        if weights is not None and load_weights(self.model, weights, self.config.class_names):
            say(f"{weights}: has other classes; its classifiers start anew")
        if backbone is not None:
            left = load_backbone(self.model.backbone, backbone)
            say(f"{backbone}: backbone loaded; left over: {', '.join(left) or 'nothing'}")
            settings = settings_for_pretrained(self.config)
            if settings:
                say(f"{backbone}: such weights go with --set {' --set '.join(settings)}")
        self._restart_mean()

    def weigh_classes(self, data: CocoDataset) -> None:
        """Where the loss draws classes, let the pictures that show each decide how often."""
        second = self.config.model.second_stage
        if second is not None and second.federated is not None:
            counts = torch.from_numpy(data.image_counts)
            weights = frequency_weights(counts, second.federated.frequency_power)
            set_frequency_weights(self.model, weights)
            self._restart_mean()

    def _restart_mean(self) -> None:
        if self.stepper.mean is not None:
            self.stepper.mean.model.load_state_dict(self.model.state_dict())

    def end(self) -> None:
        """Close what is open, and draw the curves."""
        self._show(lambda board: board.close())
        if self.ranks.is_main and self.config.train.watch and self.log.path.exists():
            try:
                draw_curves(self.log.path, self.files.out / CURVES_FILE)
            except (OSError, OutputError) as error:  # must not hide why the run ends
                logger.warning("%s: no picture of the curves (%s)", self.files.out, error)

    def _show(self, write: Callable[[TensorBoardLog], None]) -> None:
        """Write events where that is possible: training does not depend on it."""
        if self._board is None:
            return
        try:
            write(self._board)
        except OSError as error:
            logger.warning("%s: no more TensorBoard events (%s)", self.files.out, error.strerror)
            self._board = None


def build_model(config: Config, ranks: Ranks) -> AnyDetector:
    """The detector with fresh weights, on its device."""
    torch.manual_seed(config.train.seed)
    model = build_detector(config).to(ranks.device)
    model = synchronise_norms(model, config, ranks)
    model.to(memory_format=torch.channels_last)  # faster on GPUs and with bf16 on CPUs
    return model


def synchronise_norms(model: AnyDetector, config: Config, ranks: Ranks) -> AnyDetector:
    """BatchNorm over all GPUs where the config asks for it and there are several; else as it is."""
    if not config.train.sync_batch_norm or ranks.world == 1 or ranks.device.type != "cuda":
        return model
    synchronised: AnyDetector = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return synchronised


def open_folder(config: Config, files: RunFiles, resume: bool) -> None:
    """Make the run's folder and write its config; refuse to mix two runs.

    Raises:
        OutputError: it cannot be written, holds another run, or nothing to resume from.
        ValueError: on resume, settings outside `train` have changed.
    """
    config_file = files.out / CONFIG_FILE
    begun = bool(StateFolder(files.out / STATES, config.train.keep).paths())
    if resume and not begun:
        raise OutputError(f"{files.out}: no states to resume from; start without --resume")
    if not resume and begun:
        raise OutputError(f"{files.out}: holds a run already; add --resume or choose another --out")
    values = config_to_dict(config)
    if resume:
        before = _read_config(config_file)
        changed = [key for key in values if key != "train" and before.get(key) != values[key]]
        if changed:
            raise ValueError(
                f"--resume: {', '.join(changed)} differ from {config_file}; only train.* may change"
            )
    for torn in files.out.glob("*.tmp"):  # a write that was killed
        torn.unlink(missing_ok=True)
    write_whole(config_file, json.dumps(values, indent=1).encode())


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path}: expected the config of the run to resume, got {error}; choose another --out"
        ) from None
    return values
