"""The training loop: data, losses, step, log, score, save. No hooks; read `train` top to bottom."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cn2.runtime.errors import Cn2Error, ModelFormatError, OutputError, PictureError

from .build import build_detector
from .checkpoint import load_training_state, load_weights, save_checkpoint, save_training_state
from .config import Config, config_to_dict, with_classes
from .data.coco import CocoDataset
from .data.datasets import DataSource, load_dataset
from .data.loader import Batch, train_batches
from .detector import TwoStageDetector
from .progress import Reporter, RunLog, StepMeter
from .schedule import learning_rate
from .train_step import build_optimizer, pick_device, set_rate, train_step
from .training_losses import DetectorLosses
from .validate import validate

STATE_FILE = "training_state.safetensors"  # everything that --resume needs
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"  # checkpoints
CONFIG_FILE, LOG_FILE = "config.json", "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run reads and where it writes."""

    train: tuple[DataSource, ...]  # joined
    val: DataSource
    out: Path  # folder of the run
    license: str = "unspecified"  # of the weights, into the checkpoints


@dataclass(kw_only=True)
class RunState:
    """The numbers that change while training."""

    step: int = 0  # steps done
    best_ap: float = -1.0
    bad_steps: int = 0  # without a finite loss, in a row


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
    lines, the checkpoints `last` and `best`, and the state that `resume` continues from. The first
    Ctrl-C or SIGTERM saves after the current step and raises KeyboardInterrupt.

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
    train_data = load_dataset(files.train)
    config = with_classes(config, train_data.class_names, train_data.category_ids)
    val_data = load_dataset([files.val], train_data.classes)
    place = pick_device(device)
    _open_run(config, files, resume)
    torch.manual_seed(config.train.seed)
    model = build_detector(config).to(place)
    model.to(memory_format=torch.channels_last)  # several times faster with bf16 on CPUs
    optimizer = build_optimizer(model, config.train)
    run = _Run(config, files, model, optimizer)
    if resume:
        run.state = _resumed_state(run)
    elif weights is not None:
        _start_from(run, weights)
    with run.reporter.running(run.state.step), _stop_signals() as stop:
        try:
            metrics = _loop(run, train_data, val_data, stop)
        except PictureError:  # a step was not begun: what is done so far need not be lost
            if run.state.step:
                _save(run)
                run.reporter.say(f"saved at step {run.state.step}; --resume continues there")
            raise
    return _score(run, val_data) if metrics is None else metrics


class _Run:
    """What the steps of one run share."""

    def __init__(
        self,
        config: Config,
        files: RunFiles,
        model: TwoStageDetector,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.config, self.files = config, files
        self.model, self.optimizer = model, optimizer
        self.state = RunState()
        self.log = RunLog(files.out / LOG_FILE)
        self.reporter = Reporter(config.train.steps)


def _loop(
    run: _Run, train_data: CocoDataset, val_data: CocoDataset, stop: list[int]
) -> dict[str, Any] | None:
    """All steps from the state's step on; the last step's metrics, None without a step."""
    settings, state = run.config.train, run.state
    losses_of = DetectorLosses(run.config.model)
    meter = StepMeter()
    metrics: dict[str, Any] | None = None
    run.model.train()
    for batch in train_batches(train_data, run.config, state.step):
        meter.data_arrived()
        set_rate(run.optimizer, learning_rate(state.step, settings))
        losses, norm = train_step(run.model, run.optimizer, losses_of, batch, settings)
        state.step += 1
        meter.step_done(losses, norm, len(batch.pictures))
        _watch_for_bad_steps(run, batch, losses, norm)
        last = state.step == settings.steps
        if last or state.step % settings.log_every == 0:
            _report(run, meter)
        run.reporter.advance(state.step)
        if last or (settings.eval_every and state.step % settings.eval_every == 0):
            metrics = _score(run, val_data)
        if last or stop or state.step % settings.save_every == 0:
            _save(run)
        if stop:
            run.reporter.say(f"stopped and saved at step {state.step}; --resume continues there")
            raise KeyboardInterrupt
        meter.resume_clock()
    return metrics


def _watch_for_bad_steps(run: _Run, batch: Batch, losses: dict[str, float], norm: float) -> None:
    """Name the pictures of a step without a finite loss; give up after several in a row."""
    if math.isfinite(norm):
        run.state.bad_steps = 0
        return
    run.state.bad_steps += 1
    names = [str(picture.path) for picture in batch.pictures]
    bad = [name for name, value in losses.items() if not math.isfinite(value)] or ["gradient"]
    run.log.write("skipped", step=run.state.step, not_finite=bad, pictures=names)
    run.reporter.say(
        f"step {run.state.step} skipped: {', '.join(bad)} not finite; pictures {', '.join(names)}"
    )
    if run.state.bad_steps >= run.config.train.max_bad_steps:
        raise TrainingError(
            f"no finite loss in {run.state.bad_steps} steps in a row (last: {', '.join(bad)}); "
            f"lower train.base_lr, or look at the pictures named in {run.log.path}"
        )


def _report(run: _Run, meter: StepMeter) -> None:
    """Tell and log the steps since the last report."""
    settings, step = run.config.train, run.state.step
    row = meter.summary()
    left_s = (settings.steps - step) * settings.batch / max(row["images_per_s"], 1e-9)
    run.reporter.show(step, row["losses"], row["images_per_s"], left_s)
    run.log.write("train", step=step, learning_rate=learning_rate(step - 1, settings), **row)
    meter.clear()


def _score(run: _Run, val_data: CocoDataset) -> dict[str, Any]:
    """Evaluate, log, and keep the best checkpoint so far."""
    started = time.perf_counter()
    metrics = validate(run.model, val_data, run.config)
    seconds = time.perf_counter() - started
    run.log.write("validation", step=run.state.step, seconds=round(seconds, 2), **metrics)
    ap, ap50 = metrics["AP"], metrics["AP50"]
    shown = "no object to score on" if ap is None else f"AP {ap:.4f}, AP50 {ap50:.4f}"
    run.reporter.say(f"step {run.state.step}: {shown} ({seconds:.0f} s)")
    if (ap or 0.0) > run.state.best_ap:
        run.state.best_ap = ap or 0.0
        _write_checkpoint(run, BEST_FILE)
    return metrics


def _save(run: _Run) -> None:
    _write_checkpoint(run, LAST_FILE)
    path = run.files.out / STATE_FILE
    save_training_state(path, run.model, run.optimizer, asdict(run.state))


def _write_checkpoint(run: _Run, name: str) -> None:
    save_checkpoint(
        run.files.out / name,
        run.model,
        run.config,
        license=run.files.license,
        provenance=f"cn2 train {run.config.preset} on {', '.join(map(str, run.files.train))}, "
        f"step {run.state.step}",
    )


def _open_run(config: Config, files: RunFiles, resume: bool) -> None:
    """Make the run's folder and write its config; refuse to mix two runs."""
    state_file, config_file = files.out / STATE_FILE, files.out / CONFIG_FILE
    if resume and not state_file.is_file():
        raise OutputError(f"{files.out}: no {STATE_FILE} to resume from; start without --resume")
    if not resume and state_file.is_file():
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


def _resumed_state(run: _Run) -> RunState:
    path = run.files.out / STATE_FILE
    try:
        state = RunState(**load_training_state(path, run.model, run.optimizer))
    except TypeError as error:
        raise ModelFormatError(f"{path}: written by another version of cn2 ({error})") from None
    run.reporter.say(f"continuing at step {state.step} of {run.config.train.steps}")
    return state


def _start_from(run: _Run, weights: Path) -> None:
    fresh = load_weights(run.model, weights, run.config.class_names)
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
