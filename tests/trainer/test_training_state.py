"""Training states: what is saved comes back, torn ones are passed over, a full disk is survived."""

import errno
import logging
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from cn2.runtime.errors import ModelFormatError, OutputError
from cn2.trainer.build import build_detector
from cn2.trainer.checkpoint import load_checkpoint, save_checkpoint
from cn2.trainer.mean_weights import MeanWeights
from cn2.trainer.training_state import StateFolder
from factories import tiny_config


def trained(seed: int = 0) -> tuple[nn.Module, torch.optim.SGD]:
    """A detector after one step of random gradients, and its optimizer."""
    torch.manual_seed(seed)
    model = build_detector(tiny_config())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


def test_weights_momentum_mean_and_random_state_come_back(tmp_path: Path) -> None:
    model, optimizer = trained()
    mean = MeanWeights(trained(1)[0], 0.9).model
    states = StateFolder(tmp_path, keep=1)
    states.save(7, model, optimizer, {"step": 7}, mean)
    drawn = torch.rand(3)

    other, again = trained(2)
    other.to(memory_format=torch.channels_last)
    other_mean = MeanWeights(other, 0.9).model
    assert states.load(other, again, other_mean) == {"step": 7}
    assert torch.equal(torch.rand(3), drawn)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        momentum = optimizer.state[one]["momentum_buffer"]
        assert torch.equal(momentum, again.state[two]["momentum_buffer"])
    for one, two in zip(mean.state_dict().values(), other_mean.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ModelFormatError, match="cn2 checkpoint"):
        load_checkpoint(states.paths()[0])


def test_a_mean_switched_on_later_starts_from_the_weights(tmp_path: Path) -> None:
    model, optimizer = trained()
    states = StateFolder(tmp_path, keep=1)
    states.save(1, model, optimizer, {})
    mean = MeanWeights(trained(1)[0], 0.9).model
    states.load(*trained(2), mean)
    for one, two in zip(model.parameters(), mean.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    states = StateFolder(tmp_path / "states", keep=2)
    for step in (5, 10, 100):
        states.save(step, *trained(), {})
    assert [path.stem for path in states.paths()] == ["00000100", "00000010"]


def test_a_torn_state_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = StateFolder(tmp_path, keep=3)
    for step in (1, 2, 3):
        states.save(step, *trained(), {"step": step})
    newest, before, _ = states.paths()
    newest.write_bytes(newest.read_bytes()[:-100])
    before.write_bytes(b"")
    (tmp_path / "00000004.safetensors.tmp").write_bytes(b"killed while it was written")
    with caplog.at_level(logging.WARNING):
        assert states.load(*trained()) == {"step": 1}
    assert [newest.name in caplog.messages[0], before.name in caplog.messages[1]] == [True, True]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_torn_state_never_outlives_whole_ones(tmp_path: Path) -> None:
    states = StateFolder(tmp_path, keep=1)
    states.save(2, *trained(), {"step": 2})
    (tmp_path / "00000009.safetensors").write_bytes(b"torn")
    states.load(*trained())
    states.save(3, *trained(), {"step": 3})
    assert [path.stem for path in states.paths()] == ["00000003"]
    assert states.load(*trained()) == {"step": 3}


def test_no_whole_state(tmp_path: Path) -> None:
    (tmp_path / "00000001.safetensors").write_bytes(b"")
    with pytest.raises(OutputError, match="no whole state"):
        StateFolder(tmp_path, keep=1).load(*trained())


def test_a_checkpoint_is_no_training_state(tmp_path: Path) -> None:
    model, optimizer = trained()
    config = tiny_config()
    path = tmp_path / "00000001.safetensors"
    save_checkpoint(path, model, config, license="CC0-1.0", provenance="a test")
    with pytest.raises(ModelFormatError, match="training state"):
        StateFolder(tmp_path, keep=1).load(model, optimizer)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file grows beyond 64 KiB, as on a disk that fills up while it is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_keeps_what_is_there(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    states = StateFolder(tmp_path, keep=1)
    states.save(1, *trained(), {"step": 1})
    assert states.paths()[0].stat().st_size > 1 << 16
    request.getfixturevalue("small_files")
    with pytest.raises(OutputError, match=rf"00000002.*({errno.errorcode[errno.EFBIG]}|too large)"):
        states.save(2, *trained(1), {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["00000001.safetensors"]
    assert states.load(*trained(2)) == {"step": 1}
