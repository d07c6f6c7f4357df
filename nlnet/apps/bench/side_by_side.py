"""Time several ways to do one thing by turns, so that other load on the machine slows all of them alike.

A speedup is the median of the ratios of neighbouring runs, not the ratio of two medians: the load of a machine
drifts during a measurement, and the two runs of one round share it. Memory is the peak during a run above what the
process held before it.
"""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nlnet.errors import NlnetError

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Work:
    """The least work of one run: floating-point operations, and bytes read and written once."""

    flops: float
    bytes: float = 0.0
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several ways to do one thing, to be timed side by side."""

    name: str
    ways: Mapping[str, Callable[[], object]]
    """Functions that do the whole thing once, by name. The first one is the baseline of the speedups."""
    amounts: Mapping[str, float] = field(default_factory=dict)
    """How many things (clips, videos) one run of a way processes, if not 1. Times and speedups are for one thing."""
    chosen: str | None = None
    """The way that is used by default: the one that `algorithm="auto"` chooses, or a user gets without options."""
    work: Mapping[str, Work] = field(default_factory=dict)
    """The least work of a way, if known: its time is then compared with the limits of the machine."""
    memory: bool = False
    """Whether to measure the memory of each way too."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Facts for the JSON file, such as shapes."""

    @property
    def baseline(self) -> str:
        """The name of the first way."""
        return next(iter(self.ways))

    def amount(self, way: str) -> float:
        """How many things (clips, videos) one run of a way processes."""
        return self.amounts.get(way, 1.0)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The timing of one way: seconds for an amount of 1, and the speedup over the baseline."""

    median: float
    low: float
    high: float
    """Quartiles."""
    rounds: int
    speedup: float
    """Above 1 is faster than the baseline."""
    bytes: int | None
    """Peak memory above what was held before; None if not measured."""


def time_by_turns(
    comparison: Comparison, *, seconds: float, least: int = 5, most: int = 25
) -> dict[str, Timing]:
    """Time every way once per round: for about `seconds`, in at least `least` and at most `most` rounds."""
    for run in comparison.ways.values():
        run()  # a run that does not count: inputs are made, kernels compiled and caches filled
    held = {way: peak_bytes(run) for way, run in comparison.ways.items()} if comparison.memory else {}
    times: dict[str, list[float]] = {way: [] for way in comparison.ways}
    end = time.perf_counter() + seconds
    # the clock is read between rounds only, so that every way has as many runs
    while len(times[comparison.baseline]) < least or (
        time.perf_counter() < end and len(times[comparison.baseline]) < most
    ):
        for way, run in comparison.ways.items():
            times[way].append(timed(run) / comparison.amount(way))
    return {way: _timing(times[way], times[comparison.baseline], held.get(way)) for way in comparison.ways}


def timed(run: Callable[[], object]) -> float:
    """Seconds of one run, including the work that it leaves to the GPU."""
    synchronize()  # work of an earlier run must not count here
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def _timing(own: list[float], base: list[float], held: int | None) -> Timing:
    low, median, high = statistics.quantiles(own, n=4) if len(own) > 1 else own * 3
    return Timing(
        median=median,
        low=low,
        high=high,
        rounds=len(own),
        speedup=statistics.median(b / o for b, o in zip(base, own, strict=True)),
        bytes=held,
    )


def peak_bytes(run: Callable[[], object]) -> int:
    """The memory that a run adds at its peak: GPU memory if there is a GPU, else memory of the process.

    Raises:
        NlnetError: without a GPU and without Linux, whose /proc the peak of the process is read from.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/clear_refs").exists():
        raise NlnetError(
            "the memory of this process cannot be measured: there is no /proc/self/clear_refs; run the benchmark on "
            "Linux or on a GPU"
        )
    # memory that malloc has freed but kept would be used again and not show in the peak
    ctypes.CDLL(None).malloc_trim(0)
    before = _memory_of_process("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM, to the present memory
    run()
    return max(0, _memory_of_process("VmHWM") - before)


def _memory_of_process(entry: str) -> int:
    """Read an entry of /proc/self/status, which is in KiB, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return 1024 * int(line.split()[1])
    raise NlnetError(
        f"the memory of this process cannot be measured: /proc/self/status has no {entry}; run the benchmark on Linux "
        "or on a GPU"
    )


def synchronize() -> None:
    """Wait until the GPU has finished its work, if it is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
