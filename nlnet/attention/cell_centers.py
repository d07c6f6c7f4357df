"""Where the cells of a network's maps lie in its input, place(i) = first + step·i along each axis: the arithmetic.

Every convolution, pool and resizing turns the places of its input's cells into those of its output's, in clip
coordinates. So an unpadded pool or an uneven stride is mapped exactly, which the ratio of the sizes does not do.
`nlnet.attention.tracing` follows them through a forward pass.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Places(NamedTuple):
    """Where the cells of a map lie along one axis of the clip: cell i is centred on `first` + `step`·i."""

    first: float
    step: float


Frame = tuple[Places, ...]


def nearest_cell(position: float, places: Places, cells: int) -> int:
    """Index of the cell whose centre is nearest to `position`; the earlier of two, and inside the grid.

    Border cells thus answer for what lies beyond their centres, such as the rows that an unpadded pool drops.
    """
    return min(max(math.ceil((position - places.first) / places.step - 0.5), 0), cells - 1)


def proportional(size: Sequence[int], grid: Sequence[int]) -> Frame:
    """Places of a grid whose cells share the clip out evenly: what is assumed where the geometry is lost.

    That is after an operation that moves cells and is none of those that `nlnet.attention.tracing` knows.
    """
    return tuple(Places((n / cells - 1) / 2, n / cells) for n, cells in zip(size, grid, strict=True))


def centres_of(
    frame: Frame, grid: Sequence[int], pool: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, ...]:
    """Along each axis where the cells of a grid lie after a max pool: midway between the first and last pooled ones."""
    centres = []
    for axis, place in enumerate(frame):
        line = place.first + place.step * torch.arange(grid[axis], dtype=torch.float64)
        line = line.reshape(1, 1, *(-1 if a == axis else 1 for a in range(len(grid)))).expand(1, 1, *grid)
        if pool is not None:
            line = (pool(line) - pool(-line)) / 2
        centres.append(line[(0, 0, *(slice(None) if a == axis else 0 for a in range(len(grid))))].clone())
    return tuple(centres)


def window(places: Places, kernel: int, stride: int, padding: int | str, dilation: int) -> Places:
    """Of the cells that see windows: `dilation`·(`kernel` − 1)/2 − `padding` beyond stride·i is the middle of one."""
    span = dilation * (kernel - 1)
    if isinstance(padding, str):
        padding = span // 2 if padding == "same" else 0
    return Places(places.first + places.step * (span / 2 - padding), places.step * stride)


def along(frame: Frame, steps: Sequence[Places | None]) -> Frame | None:
    """The places of cells that lie at first + step·i among the cells of `frame`; None if one axis does not say."""
    known = [steps_of for steps_of in steps if steps_of is not None]
    if len(known) < len(steps):
        return None
    return tuple(
        Places(p.first + p.step * s.first, p.step * s.step) for p, s in zip(frame, known, strict=True)
    )


def shared(cells: int, size: int) -> Places | None:
    """An adaptive pool's `size` windows over `cells`, which are alike where these divide."""
    return Places((cells / size - 1) / 2, cells / size) if cells % size == 0 else None


def resized(cells: int, size: int, mode: str, *, corners: bool, factor: float | None) -> Places | None:
    """Where `interpolate` takes its `size` output cells from, among `cells`.

    By lines and curves: (i + ½)·r − ½ with r = cells/size, or 1/factor where a factor was given; with aligned
    corners i·(cells − 1)/(size − 1). By area: an adaptive pool. By the nearest cell: evenly where one size divides
    the other, cell r·i (for nearest-exact r·i + ⌊r/2⌋) where it shrinks; else unevenly, which is no `Places`.
    """
    ratio = cells / size if factor is None else 1 / factor
    if mode == "area":
        return shared(cells, size)
    if mode.startswith("nearest"):
        if ratio >= 1 and ratio == int(ratio):
            return Places(float(ratio // 2 if mode == "nearest-exact" else 0), ratio)
        return Places((ratio - 1) / 2, ratio) if size % cells == 0 and ratio * size == cells else None
    if corners and size > 1:
        return Places(0.0, (cells - 1) / (size - 1)) if cells > 1 else None
    if corners:
        return Places(0.0, float(cells))
    return Places((ratio - 1) / 2, ratio)
