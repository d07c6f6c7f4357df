"""The limits of the machine (roofline): the highest measured rates of matrix products and of copies."""

from dataclasses import dataclass
from functools import cache

import torch

from nlnet.apps.bench.side_by_side import Work, timed
from nlnet.layers.matmul import linear

SIDES = {"cpu": 2048, "cuda": 8192}
"""Sides of the square matrices that are multiplied: large enough for the full rate."""
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Bytes that are copied: more than fit into any cache."""
RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The highest measured rates of a machine for one dtype, per second."""

    flops: float
    """Floating-point operations in a product of two large square matrices."""
    bytes: float
    """Bytes read and written by a copy of a large tensor."""

    def seconds(self, work: Work) -> float:
        """The least time for some work: the longer of computing and of moving data, each at its highest rate."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


@cache
def measure_limits(device: str, dtype: torch.dtype) -> Limits:
    """Measure the limits of a device, once per process."""
    side = SIDES[device]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(COPIED[device] // dtype.itemsize, device=device, dtype=dtype)
    target = torch.zeros_like(source)
    # the fastest run, not the median: a limit is what the machine can do when nothing disturbs it
    product = min(timed(lambda: linear(a, b, None)) for _ in range(RUNS))
    copy = min(timed(lambda: target.copy_(source)) for _ in range(RUNS))
    # 2 operations for each of side³ multiply-adds; a copy reads and writes each byte
    return Limits(flops=2 * side**3 / product, bytes=2 * COPIED[device] / copy)
