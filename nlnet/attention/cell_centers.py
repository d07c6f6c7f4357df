"""Arithmetic of cell centres: where the cells of a network's maps lie in its input, first + step·i along each axis.

Each convolution, pooling and resizing layer computes the centres of its output's cells from those of its input's, in
clip coordinates. This is exact for unpadded pools and odd sizes too, unlike the ratio of the map's size to the clip's.
`nlnet.attention.tracing` applies it to a forward pass.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class AxisCenters(NamedTuple):
    """The centres of a map's cells along one axis: cell i is at `first` + `step`·i, in clip coordinates."""

    first: float
    step: float


CellCenters = tuple[AxisCenters, ...]
"""The centres of a map's cells, along each of its axes."""


def nearest_cell(position: float, centers: AxisCenters, cells: int) -> int:
    """Index of the cell whose centre is nearest to a position; the earlier one of two at the same distance.

    A position beyond the outermost centres, such as a row that an unpadded pool drops, gets the cell at the border.
    """
    # ceil(x − ½) rounds to the nearest integer, and a half down
    return min(max(math.ceil((position - centers.first) / centers.step - 0.5), 0), cells - 1)


def proportional(size: Sequence[int], grid: Sequence[int]) -> CellCenters:
    """Centres of cells that divide the clip evenly: an estimate, for maps whose centres could not be traced."""
    return tuple(AxisCenters((n / cells - 1) / 2, n / cells) for n, cells in zip(size, grid, strict=True))


def pooled_centers(
    centers: CellCenters, grid: Sequence[int], pool: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, ...]:
    """Centres of the cells after max pooling, along each axis: midway between the first and the last cell of a window.

    Without a pool, the centres of the grid itself.
    """
    result = []
    for axis, along in enumerate(centers):
        line = along.first + along.step * torch.arange(grid[axis], dtype=torch.float64)
        line = line.reshape(1, 1, *(-1 if a == axis else 1 for a in range(len(grid)))).expand(1, 1, *grid)
        if pool is not None:
            # the max pool itself finds the last centre of each window, and of −centre the first, whatever its windows
            line = (pool(line) - pool(-line)) / 2
        result.append(line[(0, 0, *(slice(None) if a == axis else 0 for a in range(len(grid))))].clone())
    return tuple(result)


def window(centers: AxisCenters, kernel: int, stride: int, padding: int | str, dilation: int) -> AxisCenters:
    """Centres of the output cells of a convolution or pool.

    The window of output cell i is centred on input cell `stride`·i + `dilation`·(`kernel` − 1)/2 − `padding`.
    """
    span = dilation * (kernel - 1)
    if isinstance(padding, str):
        padding = span // 2 if padding == "same" else 0
    return AxisCenters(centers.first + centers.step * (span / 2 - padding), centers.step * stride)


def composed(outer: CellCenters, inner: Sequence[AxisCenters | None]) -> CellCenters | None:
    """Combine the centres of cells in a map (`inner`) with the centres of that map in the clip (`outer`).

    None if an axis of `inner` is unknown.
    """
    known = [along for along in inner if along is not None]
    if len(known) < len(inner):
        return None
    return tuple(
        AxisCenters(o.first + o.step * i.first, o.step * i.step) for o, i in zip(outer, known, strict=True)
    )


def adaptive_pool(cells: int, size: int) -> AxisCenters | None:
    """Centres, in input cells, of an adaptive pool's `size` windows over `cells`; None if the windows differ in length."""
    return AxisCenters((cells / size - 1) / 2, cells / size) if cells % size == 0 else None


def resized(cells: int, size: int, mode: str, *, corners: bool, factor: float | None) -> AxisCenters | None:
    """Centres, in input cells, of the `size` outputs of `F.interpolate` over `cells`; None if they are not evenly spaced.

    Linear and cubic modes: (i + ½)·r − ½ with r = cells/size, or 1/factor if a factor was given; with aligned corners
    i·(cells − 1)/(size − 1). Mode "area" is an adaptive pool. Mode "nearest" is evenly spaced where one size divides
    the other: it shrinks to cell r·i ("nearest-exact": r·i + ⌊r/2⌋), and repeats each cell where it enlarges.
    """
    ratio = cells / size if factor is None else 1 / factor
    if mode == "area":
        return adaptive_pool(cells, size)
    if mode.startswith("nearest"):
        if ratio >= 1 and ratio == int(ratio):
            return AxisCenters(float(ratio // 2 if mode == "nearest-exact" else 0), ratio)
        return AxisCenters((ratio - 1) / 2, ratio) if size % cells == 0 and ratio * size == cells else None
    if corners and size > 1:
        # all outputs of a single input cell have the same centre: there is no step between them
        return AxisCenters(0.0, (cells - 1) / (size - 1)) if cells > 1 else None
    if corners:
        return AxisCenters(0.0, float(cells))
    return AxisCenters((ratio - 1) / 2, ratio)
