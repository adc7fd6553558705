"""One process, or several that torchrun started: who we are, and what we tell each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from cn2.runtime.errors import BackendUnavailableError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among all; alone, every exchange is a no-op."""

    rank: int = 0
    world: int = 1  # processes
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Every value summed over the processes."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed

    def share(self, count: float) -> float:
        """What a loss over `count` things is divided by: their mean over the processes.

        The mean gradient is then that of one process with all the pictures.
        """
        return max(self.sum([count])[0], 1.0) / self.world

    def gather(self, values: Sequence[T]) -> list[T]:
        """The lists of all processes, joined in the order of the ranks."""
        if self.world == 1:
            return list(values)
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process rank 0's buffers: BatchNorm's statistics are each process's own."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def fail(self, error: BaseException) -> NoReturn:
        """Raise what went wrong in all processes at once: rank 0 tells it, the others just end.

        Raises:
            Exception: `error`, in rank 0.
            SystemExit: in the other ranks.
        """
        if self.is_main:
            raise error
        raise SystemExit(2)

    def on_main(self, work: Callable[[], T]) -> T:
        """Let rank 0 do it; every process returns what it returned, or ends as it ended."""
        if self.world == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except (Exception, KeyboardInterrupt) as error:  # told to all, and raised below
                outcome[1] = error
        dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            self.fail(outcome[1])
        result: T = outcome[0]
        return result


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started; without it there is this one alone.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:1"; of several processes on a host, each takes the
            GPU of its local rank.
    Raises:
        BackendUnavailableError: CUDA was asked for by name and is not here, or a host has fewer
            GPUs than processes.
        ValueError: not a device name.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    place = pick_device(device)
    if world == 1:
        yield Ranks(device=place)
        return
    if place.type == "cuda":
        place = _own_gpu(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Ranks(rank=dist.get_rank(), world=world, device=place)
    finally:
        dist.destroy_process_group()


def _own_gpu(local_rank: int) -> torch.device:
    if local_rank >= torch.cuda.device_count():
        raise BackendUnavailableError(
            f"torchrun: expected a GPU for each process of this host, got {local_rank + 1} or more "
            f"processes and {torch.cuda.device_count()} GPUs; lower --nproc-per-node"
        )
    place = torch.device("cuda", local_rank)
    torch.cuda.set_device(place)
    return place


def pick_device(device: str) -> torch.device:
    """The device to train on; "auto" takes the GPU where torch sees one.

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
