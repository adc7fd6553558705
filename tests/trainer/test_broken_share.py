"""A tenth of the pictures is broken, each in one of three ways: the run goes on and says so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from cn2.runtime.errors import PictureError
from cn2.trainer.data.datasets import DataSource
from cn2.trainer.progress import read_log
from cn2.trainer.train import RunFiles, train
from factories import coco_annotations, short_edges, tiny_config, with_training, write_dataset

PICTURES = 30
BROKEN = {"picture_4.png": "truncated", "picture_13.png": "empty", "picture_22.png": "text"}
STEPS = 11  # of six pictures: two epochs and a step
CONFIG = with_training(
    tiny_config(), batch=6, lr_batch=6, steps=STEPS, resize=short_edges(32), save_every=100
)


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    """Thirty pictures, three of them broken, to train and score on."""
    boxes = [[(1, [10.0, 8.0, 30.0, 20.0]), (7, [50.0, 20.0, 24.0, 40.0])]] * PICTURES
    annotations, pictures = write_dataset(tmp_path, coco_annotations([(64, 96)] * PICTURES, boxes))
    for name, how in BROKEN.items():
        spoil(pictures / name, how)
    source = DataSource(annotations=annotations, images=pictures)
    return RunFiles(train=(source,), val=source, out=tmp_path / "run")


def spoil(path: Path, how: str) -> None:
    whole = path.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"<html>404</html>\n"}
    path.write_bytes(content[how])


def rows(files: RunFiles, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_log(files.out / "log.jsonl") if row["kind"] == kind]


def test_a_tenth_broken_does_not_stop_a_run(
    files: RunFiles,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    config = with_training(CONFIG, broken_limit=0.1)  # just allowed
    metrics = train(config, files)
    assert [row["step"] for row in rows(files, "train")] == list(range(1, STEPS + 1))
    assert (files.out / "last.safetensors").is_file()

    named = {Path(row["picture"]).name: row["reason"] for row in rows(files, "broken")}
    assert sorted(named) == sorted(BROKEN)
    assert len(rows(files, "broken")) == len(BROKEN)  # once each, though each came in every epoch
    assert all("\n" not in reason for reason in named.values())
    told = [line for line in capsys.readouterr().err.splitlines() if "skipped (" in line]
    counts = [line.partition("skipped ")[2] for line in told]
    assert counts == [f"({count} of {PICTURES} so far)" for count in (1, 2, 3)]

    assert metrics["images"] == PICTURES  # those that cannot be read count as nothing found
    not_scored = [line for line in caplog.messages if line.endswith("; not scored")]
    assert sorted(Path(line.partition(":")[0]).name for line in not_scored) == sorted(BROKEN)


def test_one_broken_picture_too_many_stops_the_run_in_one_line(files: RunFiles) -> None:
    with pytest.raises(PictureError, match=r"3 of 30 pictures .*broken_limit 0.099") as caught:
        train(with_training(CONFIG, broken_limit=0.099), files)
    assert "\n" not in str(caught.value)
    stopped_at = rows(files, "broken")[-1]["step"]
    assert len(rows(files, "broken")) == 3
    assert stopped_at <= 5  # the third one comes within the first epoch
    assert [row["step"] for row in rows(files, "train")] == list(range(1, stopped_at + 1))
