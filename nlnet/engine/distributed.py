"""The processes of one run: nothing to set on one process, torch.distributed under torchrun.

`nlnet train …` and `torchrun --nproc-per-node 8 -m nlnet train …` are the same command.

Tensors of the network go through the device's own group; words and counts go through a group of CPUs, which makes
no process wait for its device, and which waits a day: a process that tests longer videos comes hours later.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nlnet.errors import ProcessError

T = TypeVar("T")

STEP_TIMEOUT = timedelta(minutes=30)
"""How long the processes wait for each other's gradients."""
MEETING_TIMEOUT = timedelta(days=1)
"""How long they wait for each other's words."""


@dataclass(frozen=True)
class World:
    """This process among `size`, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device
    meeting: dist.ProcessGroup | None = None
    """The group of CPUs; None is the default group, which then is one."""

    @property
    def first(self) -> bool:
        """Whether this process speaks for all: prints and writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, on every process."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def count(self, *numbers: int) -> tuple[int, ...]:
        """The sum of each number over all processes, on every process. The device does not take part."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(values, group=self.meeting)
        return tuple(values.tolist())

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return self.count(int(flag)) > (0,)

    def gather(self, value: T) -> list[T]:
        """Every process's `value`, in order of rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.meeting)
        return values  # type: ignore[return-value]

    @contextmanager
    def together(self) -> Iterator[None]:
        """All processes leave this block, or none does: an error on one of them is raised on all.

        Every process has to enter it, and inside none may exchange anything with others, who may have failed.

        Raises:
            ProcessError: on the processes that did not fail themselves, with the words of the first that did.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        said = self.gather(None if failure is None else (str(failure) or type(failure).__name__))
        if failure is not None:
            raise failure
        for rank, words in enumerate(said):
            if words is not None:
                raise ProcessError(f"process {rank} failed: {words}")


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Join the run's processes (torchrun's environment variables), and leave them at the end.

    `device` is "auto" (CUDA where there is one), "cpu", or "cuda".
    """
    chosen = choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(rank=0, size=1, device=chosen)
        return
    meeting = None
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
        dist.init_process_group("nccl", timeout=STEP_TIMEOUT)
        meeting = dist.new_group(backend="gloo", timeout=MEETING_TIMEOUT)
    else:
        dist.init_process_group("gloo", timeout=MEETING_TIMEOUT)
    try:
        yield World(rank=dist.get_rank(), size=size, device=chosen, meeting=meeting)
    finally:
        gc.collect()  # what still holds the group, DDP in a cycle, goes before it
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda was asked for, but torch sees no CUDA device; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device: got {name!r}, expected auto, cpu or cuda")
    return torch.device(name)
