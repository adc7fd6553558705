"""The training loop: data, losses, step, log, score, save. No hooks; read `train` top to bottom."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cn2.runtime.errors import Cn2Error, ModelFormatError, OutputError, PictureError

from .build import build_detector
from .checkpoint import load_weights, save_checkpoint
from .config import Config, config_to_dict, with_classes
from .data.coco import CocoDataset, load_coco
from .data.loader import Batch, BrokenPicture, train_batches
from .detector import TwoStageDetector
from .distributed import Ranks, joined_ranks
from .progress import Reporter, RunLog, StepMeter
from .schedule import learning_rate
from .train_step import Stepper, StepResult
from .training_losses import DetectorLosses
from .training_state import StateFolder
from .validate import validate

STATES = "states"  # folder of what --resume needs
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"  # checkpoints
CONFIG_FILE, LOG_FILE = "config.json", "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run reads and where it writes."""

    train: Path  # COCO JSON
    train_images: Path  # folder
    val: Path
    val_images: Path
    out: Path  # folder of the run
    license: str = "unspecified"  # of the weights, into the checkpoints


@dataclass(kw_only=True)
class RunState:
    """The numbers that change while training; a training state keeps them."""

    step: int = 0  # steps done
    best_ap: float = -1.0
    bad_steps: int = 0  # without a finite loss, in a row
    broken: list[str] = field(default_factory=list)  # pictures that could not be read


class TrainingError(Cn2Error):
    """The losses stopped being numbers."""


def train(
    config: Config,
    files: RunFiles,
    *,
    weights: Path | None = None,
    resume: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Train a detector; the metrics of its last state on the validation pictures.

    Classes come from the training annotations. Writes into `files.out` the config, a log of JSON
    lines, the checkpoints `last` and `best`, and the states that `resume` continues from. The first
    Ctrl-C or SIGTERM saves after the current step and raises KeyboardInterrupt. Under torchrun
    every process calls this; rank 0 writes and reports.

    Args:
        config: detector and training; its classes are replaced by those of the data.
        files: data and the run's folder.
        weights: checkpoint to start from; its classifiers may have other classes.
        resume: continue the run in `files.out`; only `train.*` settings may have changed.
        device: "auto", "cpu", "cuda" or "cuda:1".
    Raises:
        AnnotationError, PictureError: bad data.
        OutputError: the run's folder cannot be written, or holds another run.
        TrainingError: `max_bad_steps` steps in a row without a finite loss.
    """
    train_data = load_coco(files.train, files.train_images)
    config = with_classes(config, train_data.class_names, train_data.category_ids)
    val_data = load_coco(files.val, files.val_images, config.category_ids)
    with joined_ranks(device) as ranks:
        ranks.on_main(lambda: _open_run(config, files, resume))
        run = _Run(config, files, ranks)
        if resume:
            _resume(run)
        elif weights is not None:
            _start_from(run, weights)
        with run.reporter.running(run.state.step), _stop_signals() as stop:
            try:
                metrics = _loop(run, train_data, val_data, stop)
            except PictureError:  # what is done so far need not be lost
                if run.state.step and ranks.world == 1:
                    _save(run)
                    run.reporter.say(f"saved at step {run.state.step}; --resume continues there")
                raise
        return _score(run, val_data) if metrics is None else metrics


class _Run:
    """What the steps of one run share."""

    def __init__(self, config: Config, files: RunFiles, ranks: Ranks) -> None:
        self.config, self.files, self.ranks = config, files, ranks
        self.state = RunState()
        self.states = StateFolder(files.out / STATES, config.train.keep)
        self.model = _build_model(config, ranks)
        losses = DetectorLosses(config.model, ranks.share)
        self.stepper = Stepper(self.model, losses, config.train, ranks)
        self.log = RunLog(files.out / LOG_FILE)
        self.reporter = Reporter(config.train.steps, silent=not ranks.is_main)

    def write(self, kind: str, **values: Any) -> None:
        """A row into the log, by rank 0."""
        if self.ranks.is_main:
            self.log.write(kind, **values)

    @property
    def kept(self) -> TwoStageDetector:
        """The detector that is scored and saved: the mean weights where there are any."""
        mean = self.stepper.mean
        return self.model if mean is None else mean.model


def _build_model(config: Config, ranks: Ranks) -> TwoStageDetector:
    torch.manual_seed(config.train.seed)
    model = build_detector(config).to(ranks.device)
    if config.train.sync_batch_norm:
        if ranks.device.type != "cuda":
            raise ValueError(
                f"train.sync_batch_norm: expected GPUs, got {ranks.device.type}; switch it off"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.to(memory_format=torch.channels_last)  # faster on GPUs and with bf16 on CPUs
    return model


def _loop(
    run: _Run, train_data: CocoDataset, val_data: CocoDataset, stop: list[int]
) -> dict[str, Any] | None:
    """All steps from the state's step on; the last step's metrics, None without a step."""
    settings, state = run.config.train, run.state
    meter = StepMeter()
    metrics: dict[str, Any] | None = None
    run.model.train()
    ranks = run.ranks
    batches = train_batches(train_data, run.config, state.step, rank=ranks.rank, world=ranks.world)
    for parts in _grouped(batches, settings.accumulate):
        meter.data_arrived()
        result = run.stepper.step(parts, learning_rate(state.step, settings))
        state.step += 1
        meter.step_done(result.losses, result.norm, settings.batch)
        _watch_for_bad_steps(run, parts, result)
        broken = [picture for part in parts for picture in part.broken]
        stops, breaks = ranks.sum([len(stop), len(broken)])
        if breaks:
            _watch_for_broken_pictures(run, broken, len(train_data.pictures))
        last = state.step == settings.steps
        if last or state.step % settings.log_every == 0:
            _report(run, meter)
        run.reporter.advance(state.step)
        if last or (settings.eval_every and state.step % settings.eval_every == 0):
            metrics = _score(run, val_data)
        if last or stops or state.step % settings.save_every == 0:
            _save(run)
        if stops:
            run.reporter.say(f"stopped and saved at step {state.step}; --resume continues there")
            raise KeyboardInterrupt
        meter.resume_clock()
    return metrics


def _grouped(batches: Iterator[Batch], count: int) -> Iterator[list[Batch]]:
    """The parts of each step."""
    parts: list[Batch] = []
    for batch in batches:
        parts.append(batch)
        if len(parts) == count:
            yield parts
            parts = []


def _watch_for_bad_steps(run: _Run, parts: list[Batch], result: StepResult) -> None:
    """Name the pictures of a step without a finite loss; give up after several in a row."""
    if result.good:
        run.state.bad_steps = 0
        return
    run.state.bad_steps += 1
    names = run.ranks.gather([str(picture.path) for part in parts for picture in part.pictures])
    bad = [name for name, value in result.losses.items() if not math.isfinite(value)]
    bad = bad or ["gradient"]
    run.write("skipped", step=run.state.step, not_finite=bad, pictures=names)
    run.reporter.say(
        f"step {run.state.step} skipped: {', '.join(bad)} not finite; pictures {', '.join(names)}"
    )
    if run.state.bad_steps >= run.config.train.max_bad_steps:
        raise TrainingError(
            f"no finite loss in {run.state.bad_steps} steps in a row (last: {', '.join(bad)}); "
            f"lower train.base_lr, or look at the pictures named in {run.log.path}"
        )


def _watch_for_broken_pictures(run: _Run, broken: list[BrokenPicture], pictures: int) -> None:
    """Name each unreadable picture once; give up when they are too large a share.

    Raises:
        PictureError: more than `broken_limit` of the pictures.
    """
    known = run.state.broken
    for path, reason in dict(run.ranks.gather(broken)).items():
        if str(path) not in known:
            known.append(str(path))
            run.write("broken", step=run.state.step, picture=str(path), reason=reason)
            run.reporter.say(f"{reason}; skipped, the {len(known)}. of {pictures} pictures")
    limit = run.config.train.broken_limit
    if len(known) > limit * pictures:
        raise PictureError(
            f"{len(known)} of {pictures} pictures cannot be read, more than train.broken_limit "
            f"{limit:g} allows (last: {known[-1]}); mend them and --resume, or raise the limit"
        )


def _report(run: _Run, meter: StepMeter) -> None:
    """Tell and log the steps since the last report."""
    settings, step = run.config.train, run.state.step
    row = meter.summary()
    left_s = (settings.steps - step) * settings.batch / max(row["images_per_s"], 1e-9)
    run.reporter.show(step, row["losses"], row["images_per_s"], left_s)
    run.write("train", step=step, learning_rate=learning_rate(step - 1, settings), **row)
    meter.clear()


def _score(run: _Run, val_data: CocoDataset) -> dict[str, Any]:
    """Evaluate, log, and keep the best checkpoint so far."""
    started = time.perf_counter()
    metrics = validate(run.kept, val_data, run.config, run.ranks)
    seconds = time.perf_counter() - started
    run.write("validation", step=run.state.step, seconds=round(seconds, 2), **metrics)
    ap, ap50 = metrics["AP"], metrics["AP50"]
    shown = "no object to score on" if ap is None else f"AP {ap:.4f}, AP50 {ap50:.4f}"
    run.reporter.say(f"step {run.state.step}: {shown} ({seconds:.0f} s)")
    if (ap or 0.0) > run.state.best_ap:
        run.state.best_ap = ap or 0.0
        run.ranks.on_main(lambda: _write_checkpoint(run, BEST_FILE))
    return metrics


def _save(run: _Run) -> None:
    """A state to resume from, and the checkpoint `last`; rank 0 writes."""
    run.ranks.on_main(lambda: _write_state(run))


def _write_state(run: _Run) -> None:
    stepper = run.stepper
    values = asdict(run.state) | {"scaler": stepper.scaler.state_dict()}
    mean = None
    if stepper.mean is not None:
        values["mean_updates"] = stepper.mean.updates
        mean = stepper.mean.model
    run.states.save(run.state.step, run.model, stepper.optimizer, values, mean)
    _write_checkpoint(run, LAST_FILE)


def _write_checkpoint(run: _Run, name: str) -> None:
    save_checkpoint(
        run.files.out / name,
        run.kept,
        run.config,
        license=run.files.license,
        provenance=f"cn2 train {run.config.preset} on {run.files.train}, step {run.state.step}",
    )


def _open_run(config: Config, files: RunFiles, resume: bool) -> None:
    """Make the run's folder and write its config; refuse to mix two runs."""
    config_file = files.out / CONFIG_FILE
    begun = bool(StateFolder(files.out / STATES, config.train.keep).paths())
    if resume and not begun:
        raise OutputError(f"{files.out}: no states to resume from; start without --resume")
    if not resume and begun:
        raise OutputError(f"{files.out}: holds a run already; add --resume or choose another --out")
    values = config_to_dict(config)
    if resume:
        before = json.loads(config_file.read_text(encoding="utf-8"))
        changed = [key for key in values if key != "train" and before.get(key) != values[key]]
        if changed:
            raise ValueError(
                f"--resume: {', '.join(changed)} differ from {config_file}; only train.* may change"
            )
    try:
        files.out.mkdir(parents=True, exist_ok=True)
        config_file.write_text(json.dumps(values, indent=1), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{files.out}: cannot be written ({error.strerror})") from error


def _resume(run: _Run) -> None:
    """Go on where the newest whole state was saved."""
    stepper = run.stepper
    mean = None if stepper.mean is None else stepper.mean.model
    values = run.states.load(run.model, stepper.optimizer, mean)
    stepper.scaler.load_state_dict(values.pop("scaler"))
    mean_updates = values.pop("mean_updates", 0)
    if stepper.mean is not None:
        stepper.mean.updates = mean_updates
    try:
        run.state = RunState(**values)
    except TypeError as error:
        raise ModelFormatError(
            f"{run.states.folder}: written by another version of cn2 ({error})"
        ) from None
    run.reporter.say(f"continuing at step {run.state.step} of {run.config.train.steps}")


def _start_from(run: _Run, weights: Path) -> None:
    fresh = load_weights(run.model, weights, run.config.class_names)
    if run.stepper.mean is not None:
        run.stepper.mean.model.load_state_dict(run.model.state_dict())
    if fresh:
        run.reporter.say(f"{weights}: has other classes; its classifiers start anew")


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects the first Ctrl-C or SIGTERM; the second one acts at once."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: whoever runs us handles signals
        before.clear()
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
