"""The training loop: data, losses, step, log, save, score. No hooks; read `train` top to bottom."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cn2.runtime.errors import BackendUnavailableError, Cn2Error, OutputError

from .build import build_detector
from .checkpoint import load_training_state, load_weights, save_checkpoint, save_training_state
from .config import Config, TrainConfig, config_to_dict, with_classes
from .data.coco import CocoDataset, load_coco
from .data.loader import Batch, train_loader
from .detector import TwoStageDetector
from .progress import Reporter, RunLog
from .schedule import learning_rate
from .training_losses import DetectorLosses
from .validate import validate

STATE_FILE = "training_state.safetensors"  # everything that --resume needs
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"  # checkpoints


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run reads and where it writes."""

    train: Path  # COCO JSON
    train_images: Path  # folder
    val: Path
    val_images: Path
    out: Path  # folder of the run
    license: str = "unspecified"  # of the weights, into the checkpoint


@dataclass(kw_only=True)
class RunState:
    """The numbers that change while training."""

    step: int = 0  # steps done
    best_ap: float = -1.0
    bad_steps: int = 0  # with a non-finite loss, in a row


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
    """Train a detector; the last metrics on the validation pictures.

    Classes come from the training annotations. Writes `config.json`, `log.jsonl`, the checkpoints
    `last.safetensors` and `best.safetensors`, and the state that `resume` continues from. The
    first Ctrl-C saves after the current step and raises KeyboardInterrupt.

    Args:
        config: detector and training; its classes are replaced by those of the data.
        weights: checkpoint to start from; its classifiers may have other classes.
        resume: continue the run in `files.out`.
        device: "auto", "cpu", "cuda" or "cuda:1".
    Raises:
        AnnotationError, PictureError: bad data.
        TrainingError: `max_bad_steps` steps in a row without a finite loss.
    """
    train_data = load_coco(files.train, files.train_images)
    config = with_classes(config, train_data.class_names, train_data.category_ids)
    val_data = load_coco(files.val, files.val_images, config.category_ids)
    place = pick_device(device)
    log = _open_run(config, files, resume)
    torch.manual_seed(config.train.seed)
    model = build_detector(config).to(place)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, config.train)
    state = RunState()
    reporter = Reporter(config.train.steps)
    if resume:
        state = RunState(**load_training_state(files.out / STATE_FILE, model, optimizer))
        reporter.say(f"continuing {files.out} at step {state.step} of {config.train.steps}")
    elif weights is not None:
        _start_from(model, weights, reporter)
    run = _Run(config, files, model, optimizer, state, log, reporter)
    with reporter.running(state.step), _stop_signals() as stop:
        metrics = _loop(run, train_data, val_data, stop)
    return metrics if metrics is not None else _score(run, val_data)


@dataclass
class _Run:
    """What the steps of one run share."""

    config: Config
    files: RunFiles
    model: TwoStageDetector
    optimizer: torch.optim.Optimizer
    state: RunState
    log: RunLog
    reporter: Reporter


def _loop(
    run: _Run, train_data: CocoDataset, val_data: CocoDataset, stop: list[int]
) -> dict[str, Any] | None:
    """All steps from the state's step on; the last step's metrics, None without a step."""
    train, state = run.config.train, run.state
    losses_of = DetectorLosses(run.config.model)
    window = _Window()
    metrics: dict[str, Any] | None = None
    run.model.train()
    for batch in train_loader(train_data, run.config, state.step):
        assert isinstance(batch, Batch)
        window.data_arrived()
        rate = learning_rate(state.step, train)
        losses, norm = train_step(run.model, run.optimizer, losses_of, batch, rate, train)
        state.step += 1
        _count_bad_step(run, batch, losses, norm)
        window.add(losses, norm, len(batch.targets))
        last = state.step == train.steps
        if last or state.step % train.log_every == 0:
            _report(run, window, rate)
        run.reporter.advance(state.step)
        if last or (train.eval_every and state.step % train.eval_every == 0):
            metrics = _score(run, val_data)
        if last or stop or state.step % train.save_every == 0:
            _save(run)
        if stop:
            run.reporter.say(f"stopped at step {state.step}; continue with --resume")
            raise KeyboardInterrupt
        window.step_done()
    return metrics


def train_step(
    model: TwoStageDetector,
    optimizer: torch.optim.Optimizer,
    losses_of: DetectorLosses,
    batch: Batch,
    rate: float,
    train: TrainConfig,
) -> tuple[dict[str, float], float]:
    """One step of gradient descent; the losses, and the gradient's norm before clipping.

    Without a finite loss and gradient the weights stay as they are.
    """
    place = next(model.parameters()).device
    images, sizes = batch.images.to(place, non_blocking=True), batch.image_sizes.to(place)
    targets = [
        replace(target, boxes=target.boxes.to(place), classes=target.classes.to(place))
        for target in batch.targets
    ]
    with _precision(train, place):
        losses = losses_of(model, images, sizes, targets)
    total = torch.stack([loss.float() for loss in losses.values()]).sum()
    optimizer.zero_grad(set_to_none=True)
    values = _floats(losses)
    if not all(math.isfinite(value) for value in values.values()):
        return values, math.nan
    total.backward()  # type: ignore[no-untyped-call]
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm))
    if math.isfinite(norm):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return values, norm


def _floats(losses: dict[str, Tensor]) -> dict[str, float]:
    """All losses in one transfer from the device."""
    values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))


def _precision(train: TrainConfig, place: torch.device) -> AbstractContextManager[Any]:
    if train.precision == "fp32":
        return nullcontext()
    return torch.autocast(place.type, torch.bfloat16)


def build_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.SGD:
    """SGD with momentum; no weight decay on norms, biases and single scales."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=train.base_lr, momentum=train.momentum, fused=True)


def pick_device(device: str) -> torch.device:
    """ "auto" takes the GPU where torch sees one.

    Raises:
        BackendUnavailableError: CUDA was asked for by name and is not here.
        ValueError: not a device name.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: expected auto, cpu or cuda, got {device!r}") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError(f"device {device}: torch sees no GPU; use --device cpu")
    return place


def _open_run(config: Config, files: RunFiles, resume: bool) -> RunLog:
    """Make the run's folder and write its config; refuse to mix two runs."""
    state_file, config_file = files.out / STATE_FILE, files.out / "config.json"
    if resume and not state_file.is_file():
        raise OutputError(f"{files.out}: no {STATE_FILE} to resume from; start without --resume")
    if not resume and state_file.is_file():
        raise OutputError(f"{files.out}: holds a run already; add --resume or choose another --out")
    values = config_to_dict(config)
    if resume:
        before = json.loads(config_file.read_text(encoding="utf-8"))
        changed = [k for k in values if k != "train" and before.get(k) != values[k]]
        if changed:
            raise ValueError(
                f"--resume: {', '.join(changed)} differ from {config_file}; only train.* may change"
            )
    try:
        files.out.mkdir(parents=True, exist_ok=True)
        config_file.write_text(json.dumps(values, indent=1), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{files.out}: cannot be written ({error.strerror})") from None
    return RunLog(files.out / "log.jsonl")


def _start_from(model: TwoStageDetector, weights: Path, reporter: Reporter) -> None:
    fresh = load_weights(model, weights)
    if fresh:
        reporter.say(f"{weights}: other classes; {', '.join(fresh)} start anew")


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects the first Ctrl-C or SIGTERM; the second one acts at once."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: whoever runs us handles signals
        before.clear()
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Window:
    """Sums over the steps since the last report: losses, pictures, time, time spent waiting."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, float] = {}
        self.norms = 0.0
        self.good = self.pictures = 0
        self.seconds = self.waited = 0.0

    def data_arrived(self) -> None:
        now = time.perf_counter()
        self.waited += now - self.last
        self.seconds += now - self.last
        self.last = now

    def add(self, losses: dict[str, float], norm: float, pictures: int) -> None:
        now = time.perf_counter()
        self.seconds += now - self.last
        self.pictures += pictures
        if math.isfinite(norm):
            self.good += 1
            self.norms += norm
            self.sums = {k: self.sums.get(k, 0.0) + v for k, v in losses.items()}
        self.last = now

    def step_done(self) -> None:
        """What lay between (saving, scoring) is not the step's time."""
        self.last = time.perf_counter()


def _report(run: _Run, window: _Window, rate: float) -> None:
    steps = max(window.good, 1)
    losses = {name: value / steps for name, value in window.sums.items()}
    images_per_s = window.pictures / max(window.seconds, 1e-9)
    train = run.config.train
    left_s = (train.steps - run.state.step) * train.batch / max(images_per_s, 1e-9)
    run.reporter.show(run.state.step, losses, images_per_s, left_s)
    run.log.write(
        "train",
        step=run.state.step,
        loss=round(sum(losses.values()), 6),
        losses={name: round(value, 6) for name, value in losses.items()},
        learning_rate=rate,
        gradient_norm=round(window.norms / steps, 6),
        images_per_s=round(images_per_s, 3),
        waited_for_data=round(window.waited / max(window.seconds, 1e-9), 4),
    )
    window.clear()


def _count_bad_step(run: _Run, batch: Batch, losses: dict[str, float], norm: float) -> None:
    """Name the pictures of a step without a finite loss; give up after several in a row."""
    if math.isfinite(norm):
        run.state.bad_steps = 0
        return
    run.state.bad_steps += 1
    names = [str(picture.path) for picture in batch.pictures]
    bad = [name for name, value in losses.items() if not math.isfinite(value)] or ["gradient"]
    step = run.state.step
    run.log.write("skipped", step=step, not_finite=bad, pictures=names)
    run.reporter.say(f"step {step} skipped: {', '.join(bad)} not finite; {', '.join(names)}")
    if run.state.bad_steps >= run.config.train.max_bad_steps:
        raise TrainingError(
            f"no finite loss in {run.state.bad_steps} steps in a row (last: {', '.join(bad)}); "
            "lower train.base_lr, or look at the pictures named in log.jsonl"
        )


def _score(run: _Run, val_data: CocoDataset) -> dict[str, Any]:
    """Evaluate, log, and keep the best checkpoint so far."""
    started = time.perf_counter()
    metrics = validate(run.model, val_data, run.config)
    seconds = time.perf_counter() - started
    run.log.write("validation", step=run.state.step, seconds=round(seconds, 2), **metrics)
    ap, ap50 = metrics["AP"], metrics["AP50"]
    shown = "no objects to score on" if ap is None else f"AP {ap:.4f}, AP50 {ap50:.4f}"
    run.reporter.say(f"step {run.state.step}: {shown} ({seconds:.0f} s)")
    if (ap or 0.0) > run.state.best_ap:
        run.state.best_ap = ap or 0.0
        _write_checkpoint(run, BEST_FILE)
    return metrics


def _save(run: _Run) -> None:
    _write_checkpoint(run, LAST_FILE)
    save_training_state(run.files.out / STATE_FILE, run.model, run.optimizer, asdict(run.state))


def _write_checkpoint(run: _Run, name: str) -> None:
    provenance = f"cn2 train {run.config.preset}, {run.files.train}, step {run.state.step}"
    save_checkpoint(
        run.files.out / name,
        run.model,
        run.config,
        license=run.files.license,
        provenance=provenance,
    )
