"""What the machine can do at most, measured: the products and copies that everything else is held against."""

from dataclasses import dataclass
from functools import cache

import torch

from nlnet.apps.bench.side_by_side import Work, timed
from nlnet.layers.matmul import linear

SIDES = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices multiplied."""
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Bytes copied: more than any cache holds."""
RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The best that was seen of one dtype, a second."""

    flops: float
    """Of a product of two large square matrices."""
    bytes: float
    """Read and written by a copy of a large tensor."""

    def seconds(self, work: Work) -> float:
        """The roofline: the longer of computing and moving, each at its limit."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


@cache
def limits(device: str, dtype: torch.dtype) -> Limits:
    """Measured once a process."""
    side = SIDES[device]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(COPIED[device] // dtype.itemsize, device=device, dtype=dtype)
    target = torch.zeros_like(source)
    product = min(timed(lambda: linear(a, b, None)) for _ in range(RUNS))
    copy = min(timed(lambda: target.copy_(source)) for _ in range(RUNS))
    return Limits(flops=2 * side**3 / product, bytes=2 * COPIED[device] / copy)
