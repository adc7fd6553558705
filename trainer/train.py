"""The training loop: data, losses, step, log, score, save. No hooks; read `train` top to bottom."""

from __future__ import annotations

import math
import signal
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cn2.runtime.errors import Cn2Error, PictureError

from .config import Config, with_classes
from .data.coco import CocoDataset
from .data.datasets import load_dataset
from .data.loader import Batch, BrokenPicture, LoaderError, train_batches
from .distributed import joined_ranks
from .progress import StepMeter
from .run import Run, RunFiles, open_folder
from .schedule import learning_rate
from .train_step import StepResult
from .validate import validate

__all__ = ["RunFiles", "TrainingError", "train"]


class TrainingError(Cn2Error):
    """The losses stopped being numbers."""


def train(
    config: Config,
    files: RunFiles,
    *,
    weights: Path | None = None,
    backbone: Path | None = None,
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
        backbone: file of ImageNet weights for the backbone; see `load_backbone`.
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
    with joined_ranks(device) as ranks:
        ranks.on_main(lambda: open_folder(config, files, resume))
        run = Run(config, files, ranks)
        if resume:
            run.resume()
        else:
            run.start_from(weights, backbone)
            run.weigh_classes(train_data)
        run.begin()
        try:
            with (
                run.reporter.running(run.state.step),
                _stop_signals() as stop,
                closing(_batches_for(run, train_data)) as batches,
            ):
                metrics = _loop(run, len(train_data.pictures), batches, val_data, stop)
            if metrics is None:  # nothing was left to do
                metrics, _ = validate(run.kept, val_data, config, ranks)
            return metrics
        except (PictureError, LoaderError):  # what is done so far need not be lost
            if run.state.step and ranks.world == 1:
                run.save()
                run.reporter.say(f"saved at step {run.state.step}; --resume continues there")
            raise
        finally:
            run.end()


def _batches_for(run: Run, data: CocoDataset) -> Generator[Batch, None, None]:
    """This process's batches from the state's step on; to be closed, or its workers stay."""
    ranks = run.ranks
    return train_batches(data, run.config, run.state.step, rank=ranks.rank, world=ranks.world)


def _loop(
    run: Run,
    pictures: int,
    batches: Iterator[Batch],
    val_data: CocoDataset,
    stop: list[int],
) -> dict[str, Any] | None:
    """All steps from the state's step on; the last scoring's metrics, None without a step."""
    settings, state, ranks = run.config.train, run.state, run.ranks
    meter = StepMeter()
    metrics: dict[str, Any] | None = None
    run.model.train()
    for parts in _grouped(batches, settings.accumulate):
        meter.data_arrived()
        result = run.stepper.step(parts, learning_rate(state.step, settings))
        state.step += 1
        meter.step_done(result.losses, result.norm, settings.batch)
        run.left.step_done()
        _watch_for_bad_steps(run, parts, result)
        broken = [picture for part in parts for picture in part.broken]
        stops, breaks = ranks.sum([len(stop), len(broken)])
        last, at_an_end = state.step == settings.steps, False
        if last or state.step % settings.log_every == 0:
            run.report(meter)
        run.reporter.advance(state.step)
        if breaks:
            _watch_for_broken_pictures(run, broken, pictures)
        if last or (settings.eval_every and state.step % settings.eval_every == 0):
            metrics, at_an_end = run.score(val_data)
            run.left.evaluated()
        if last or stops or at_an_end or state.step % settings.save_every == 0:
            run.save()
            run.left.saved()
        if stops:
            run.reporter.say(
                f"stopped and saved at step {state.step}; the same command with --resume "
                "continues there"
            )
            raise KeyboardInterrupt
        if at_an_end and not last:
            run.reporter.say(
                f"stopped at step {state.step}: no better AP in {settings.patience} scorings"
            )
            break
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


def _watch_for_bad_steps(run: Run, parts: list[Batch], result: StepResult) -> None:
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
        error = TrainingError(
            f"no finite loss in {run.state.bad_steps} steps in a row (last: {', '.join(bad)}); "
            f"lower train.base_lr, or look at the pictures named in {run.log.path}"
        )
        run.ranks.fail(error)


def _watch_for_broken_pictures(run: Run, broken: list[BrokenPicture], pictures: int) -> None:
    """Name each unreadable picture once; give up when they are too large a share.

    Raises:
        PictureError: more than `broken_limit` of the pictures.
    """
    known = run.state.broken
    for path, reason in dict(run.ranks.gather(broken)).items():
        if str(path) not in known:
            known.append(str(path))
            run.write("broken", step=run.state.step, picture=str(path), reason=reason)
            run.reporter.say(f"{path}: {reason}; skipped ({len(known)} of {pictures} so far)")
    limit = run.config.train.broken_limit
    if len(known) > limit * pictures:
        error = PictureError(
            f"{len(known)} of {pictures} pictures cannot be read, more than train.broken_limit "
            f"{limit:g} allows (last: {known[-1]}); mend them and --resume, or raise the limit"
        )
        run.ranks.fail(error)


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
