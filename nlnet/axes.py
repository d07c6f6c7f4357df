"""How a map is split into independent attention problems, and how keys are pooled.

A map (B, C, *grid) is split into P problems per sample, each with N query and M key positions; positions see only those
of their own problem:

    axis "spacetime"   P = groups            a run of T/groups frames, all positions
    axis "space"       P = T                 one frame
    axis "time"        P = groups · H · W    one location over a run of T/groups frames, keys never pooled

In 2-D, (H, W), "space" and "spacetime" are the same, and in 1-D, (T,), "time" and "spacetime" are.
Letters: B batch, C channels, D channels of an embedding.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nlnet.errors import NlnetError, did_you_mean
from nlnet.layers.contexts import without_autocast

AXES = {1: ("time", "spacetime"), 2: ("space", "spacetime"), 3: ("space", "time", "spacetime")}
GRIDS = {1: "T", 2: "H, W", 3: "T, H, W"}

Grid = tuple[int, ...]


class Positions(NamedTuple):
    """Sizes of the problems that one sample of a map is split into."""

    queries: int
    """N of one problem."""
    keys: int
    """M of one problem."""
    problems: int
    """P, the number of problems."""


class KeyPool(nn.Module):
    """Max pooling of keys by 2 in space: 1×2×2 over (T, H, W), 2×2 over (H, W), and 2 over (T,) in 1-D.

    A side of length 1 is left as it is, so that no map is too small; an odd side drops its last position. In 1-D the
    windows stay inside their temporal group.
    """

    def __init__(self, ndim: int) -> None:
        super().__init__()
        self.ndim = ndim

    def forward(self, x: Float[Tensor, "B C *grid"], groups: int = 1) -> Float[Tensor, "B C *keys"]:
        if self.ndim == 1:
            # a group becomes a row of (B, C, groups, T/groups), so no window reaches into the next group
            return F.max_pool2d(x.unflatten(2, (groups, -1)), (1, _window(x.shape[2] // groups))).flatten(2)
        if self.ndim == 2:
            return F.max_pool2d(x, (_window(x.shape[2]), _window(x.shape[3])))
        return max_pool3d(x, (1, _window(x.shape[3]), _window(x.shape[4])))

    def pooled(self, grid: Grid, groups: int = 1) -> Grid:
        """The size of a grid after pooling."""
        if self.ndim == 1:
            length = grid[0] // groups
            return (groups * (length // _window(length)),)
        return (*grid[:-2], grid[-2] // _window(grid[-2]), grid[-1] // _window(grid[-1]))

    def extra_repr(self) -> str:
        return {1: "2", 2: "2×2", 3: "1×2×2"}[self.ndim]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """How maps with `ndim` axes are split: by `axis`, with time cut into `groups` runs of frames."""

    ndim: int
    axis: str
    groups: int

    def __post_init__(self) -> None:
        if self.axis not in AXES[self.ndim]:
            raise NlnetError(
                f"axis: got {self.axis!r} for a {self.ndim}-D map ({GRIDS[self.ndim]}), expected one of "
                f"{', '.join(AXES[self.ndim])}{did_you_mean(self.axis, AXES[self.ndim], most=1)}"
            )
        if self.groups != 1 and (self.ndim == 2 or self._by_frame):
            raise NlnetError(
                f"groups: got {self.groups} with axis {self.axis!r} on a {self.ndim}-D map, expected 1: "
                "here every position sees its own frame only, so there is no time to group; leave groups out"
            )

    @property
    def _by_frame(self) -> bool:
        """Whether every frame is a problem of its own."""
        return self.ndim == 3 and self.axis == "space"

    @property
    def by_location(self) -> bool:
        """Whether every location is a problem of its own, so that keys cannot be pooled in space."""
        return self.ndim == 3 and self.axis == "time"

    def problems(self, grid: Grid) -> int:
        """P, the number of problems in one sample."""
        runs = grid[0] if self._by_frame else self.groups
        return runs * grid[1] * grid[2] if self.by_location else runs

    def to_problems(self, x: Float[Tensor, "B D *grid"], problems: int) -> Float[Tensor, "BP n D"]:
        """Split a map into problems, one row per position.

        A view if x is channels last, except by location for a batch of several samples, which is copied.
        """
        x = x.movedim(1, -1)
        if self.by_location:
            x = x.permute(0, 2, 3, 1, 4)  # the frames of a location next to each other
        return x.reshape(-1, math.prod(x.shape[1:-1]) // problems, x.shape[-1])

    def to_map(self, y: Float[Tensor, "BP n D"], grid: Grid) -> Float[Tensor, "B D *grid"]:
        """Join problems into a map: the inverse of `to_problems`, as a channels-last view."""
        if self.by_location:
            frames, height, width = grid
            return y.reshape(-1, height, width, frames, y.shape[-1]).permute(0, 4, 3, 1, 2)
        return y.reshape(-1, *grid, y.shape[-1]).movedim(-1, 1)

    def seen(self, query: Grid, grid: Grid) -> tuple[slice, ...]:
        """The part of `grid` that position `query` sees: the positions of its own problem, as slices."""
        everything = tuple(slice(0, size) for size in grid)
        if self.ndim == 2:
            return everything
        length = 1 if self._by_frame else grid[0] // self.groups
        start = query[0] // length * length  # the first frame of the run that has the query
        rest = tuple(slice(q, q + 1) for q in query[1:]) if self.by_location else everything[1:]
        return (slice(start, start + length), *rest)

    def seen_keys(self, query: Grid, grid: Grid, keys: Grid) -> tuple[slice, ...]:
        """The part of the grid of keys, which is `grid` after pooling, that position `query` sees."""
        part = self.seen(query, grid)
        if self.ndim == 1:
            length = keys[0] // self.groups
            start = query[0] // (grid[0] // self.groups) * length
            return (slice(start, start + length),)
        return part if self.by_location else (*part[:-2], *(slice(0, size) for size in keys[-2:]))


def max_pool3d(
    x: Float[Tensor, "B C T H W"], kernel: Grid, stride: Grid | None = None, padding: Grid = (0, 0, 0)
) -> Float[Tensor, "B C t h w"]:
    """`F.max_pool3d` in the dtype of the map, also under autocast."""
    # On the CPU autocast would pool in float32 and return float32. The maximum of bf16 values is one of them, so that
    # would gain no precision and double the memory.
    with without_autocast(x.device):
        return F.max_pool3d(x, kernel, stride, padding)


def _window(size: int) -> int:
    """The pooling window along an axis of `size` positions: 1 where there is only one position, else 2."""
    return 2 if size >= 2 else 1
