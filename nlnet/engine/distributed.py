"""The processes of a run: one process without any setup, or several under torchrun.

`nlnet train …` and `torchrun --nproc-per-node 8 -m nlnet train …` are the same command.

Gradients and statistics go through the device's own process group. Counts, flags and messages go through a group on
the CPU: no process waits for its device to exchange them. The CPU group waits for a day, because a process whose test
videos are longer arrives hours after the others.
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

from nlnet.errors import ConfigError, ProcessError

T = TypeVar("T")

DEVICE_TIMEOUT = timedelta(minutes=30)
"""How long the processes wait for each other's gradients."""
CPU_TIMEOUT = timedelta(days=1)
"""How long the processes wait for each other's counts, flags and messages."""


@dataclass(frozen=True)
class World:
    """One process of a run: its rank, the number of processes, and its device."""

    rank: int
    size: int
    device: torch.device
    cpu_group: dist.ProcessGroup | None = None
    """The process group on the CPU; None if the default group is one."""

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which prints and writes files for all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return, on every process, the sum of a tensor over all processes."""
        if self.size > 1:
            values = values.clone()  # all_reduce overwrites its argument
            dist.all_reduce(values)
        return values

    def count(self, *numbers: int) -> tuple[int, ...]:
        """Return, on every process, the sum of each integer over all processes; goes through the CPU group."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(values, group=self.cpu_group)
        return tuple(values.tolist())

    def any(self, flag: bool) -> bool:
        """Return, on every process, whether the flag is true on any of them."""
        return self.count(int(flag)) > (0,)

    def gather(self, value: T) -> list[T]:
        """Return, on every process, the list of the values of all processes by rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.cpu_group)
        return values  # type: ignore[return-value]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Fail on every process if any process fails inside the `with`.

        Otherwise the other processes would wait for the failed one until the timeout. Every process has to enter the
        `with`. Nothing inside it may communicate, because another process may have failed already.

        Raises:
            ProcessError: on the processes that did not fail themselves, with the message of the first that did.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        # the failed processes take part in the exchange before they raise: the others wait for them here
        messages = self.gather(None if failure is None else (str(failure) or type(failure).__name__))
        if failure is not None:
            raise failure
        for rank, message in enumerate(messages):
            if message is not None:
                raise ProcessError(f"process {rank} failed: {message}")


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started (by its environment variables), and leave them at the end.

    Args:
        device: "auto" (CUDA if available), "cpu", or "cuda".

    Raises:
        ConfigError: an unknown device, or CUDA that is not available.
    """
    chosen = choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(rank=0, size=1, device=chosen)
        return
    cpu_group = None
    if chosen.type == "cuda":
        # one GPU for each process of this machine; nccl exchanges neither CPU tensors nor Python objects, gloo does
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
        dist.init_process_group("nccl", timeout=DEVICE_TIMEOUT)
        cpu_group = dist.new_group(backend="gloo", timeout=CPU_TIMEOUT)
    else:
        dist.init_process_group("gloo", timeout=CPU_TIMEOUT)
    try:
        yield World(rank=dist.get_rank(), size=size, device=chosen, cpu_group=cpu_group)
    finally:
        # DistributedDataParallel lies in a reference cycle and holds the group: collect it before the group goes
        gc.collect()
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """Return the torch device of "auto" (CUDA if available), "cpu" or "cuda"."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda was asked for, but torch sees no CUDA device; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"device: got {name!r}, expected auto, cpu or cuda")
    return torch.device(name)
