"""Ways to do one thing, timed side by side: they take turns, so that a busy machine slows all of them alike.

A ratio is the median of the ratios of neighbouring runs, not of two medians. Memory is the most that a run holds
beyond what the process held before it.
"""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Work:
    """What cannot be left out: multiplications and additions, and bytes read and written once."""

    flops: float
    bytes: float = 0.0
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One thing done in several ways."""

    name: str
    ways: Mapping[str, Callable[[], object]]
    """Each does the whole thing once. The first is what the others are compared with."""
    amounts: Mapping[str, float] = field(default_factory=dict)
    """How much of the thing a way does, if not 1: clips, say. Ratios and times are for 1."""
    chosen: str | None = None
    """The way that `algorithm="auto"` takes, or that a user gets without asking."""
    work: Mapping[str, Work] = field(default_factory=dict)
    """What a way has to do at least, where that is known: its time is held against the machine's limits then."""
    memory: bool = False
    """Whether the memory of each way is measured, too."""
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        return next(iter(self.ways))

    def amount(self, way: str) -> float:
        return self.amounts.get(way, 1.0)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Of one way: seconds for an amount of 1, and against the baseline."""

    median: float
    low: float
    high: float
    """Quartiles."""
    rounds: int
    speedup: float
    """Above 1 is faster than the baseline."""
    bytes: int | None


def race(contest: Contest, *, seconds: float, least: int = 5, most: int = 25) -> dict[str, Timing]:
    """Time every way by turns for about `seconds`, `least` to `most` rounds after one that does not count."""
    for run in contest.ways.values():
        run()
    held = {way: peak_bytes(run) for way, run in contest.ways.items()} if contest.memory else {}
    times: dict[str, list[float]] = {way: [] for way in contest.ways}
    end = time.perf_counter() + seconds
    while len(times[contest.baseline]) < least or (
        time.perf_counter() < end and len(times[contest.baseline]) < most
    ):
        for way, run in contest.ways.items():
            times[way].append(timed(run) / contest.amount(way))
    return {way: _timing(times[way], times[contest.baseline], held.get(way)) for way in contest.ways}


def timed(run: Callable[[], object]) -> float:
    """Seconds of one run, the device's work included."""
    synchronize()
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
    """The most memory that a run holds beyond what was held before: of the GPU in use, else resident memory.

    Resident memory is Linux's VmHWM, reset before; elsewhere it cannot be had.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    run()
    return max(0, _resident("VmHWM") - before)


def _resident(line: str) -> int:
    for entry in Path("/proc/self/status").read_text().splitlines():
        if entry.startswith(line):
            return 1024 * int(entry.split()[1])
    raise OSError(f"/proc/self/status has no {line}: memory can be measured on Linux and on CUDA")


def synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
