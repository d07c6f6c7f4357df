"""Attention of single positions: affinity rows of every block in a network, without the N×M map (Figure 3 of the paper).

`observe` runs the network once and keeps θ of the positions and φ of the keys of each block; the row of any position is
then one product, O(M). Positions of the clip are mapped to cells of each block's grid, and keys back to the clip, by
the centres of the cells (`nlnet.attention.tracing`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nlnet.attention.cell_centers import AxisCenters, CellCenters, nearest_cell, pooled_centers, proportional
from nlnet.attention.tracing import centers_of, set_centers, tracing
from nlnet.block import NonLocalBlock
from nlnet.errors import NlnetError, did_you_mean
from nlnet.layers.contexts import evaluating

Position = Sequence[int | float]
"""(t, y, x) in frames, rows and columns of the clip; (y, x) for an image, (t,) for a sequence."""


def attention_row(
    model: nn.Module, clip: Float[Tensor, "*batch_channels_and_grid"], position: Position
) -> dict[str, Tensor]:
    """The attention weights f(x_i, x_j)/C(x) of one position i to all keys j, from every non-local block of a network.

        model = nlnet.create_model("c2d_mini_nl1", variant="8x8")
        rows = nlnet.attention_row(model, torch.randn(3, 8, 32, 32), (0, 16, 16))

    The same as `observe(model, clip).rows([position])`; see `observe` and `Observation.rows` for arguments and errors.
    """
    return {path: rows[0] for path, rows in observe(model, clip).rows([position]).items()}


def observe(model: nn.Module, clip: Float[Tensor, "*batch_channels_and_grid"]) -> "Observation":
    """Run a network once and keep the embeddings of every non-local block, to compute attention rows from.

        model = nlnet.create_model("c2d_mini_nl1", variant="8x8")
        seen = nlnet.observe(model, torch.randn(3, 8, 32, 32))
        rows = seen.rows(seen.strongest(2))             # {"layer2.1.nonlocal_block": (2, T', H', W')}

    The forward pass is in evaluation mode and without gradient.

    Args:
        model: any network with non-local blocks, on any device, in any mode (which is restored).
        clip: one normalised input of the network: (3, T, H, W) or (1, 3, T, H, W); an image (3, H, W) or a sequence
            (C, T) for networks that take those.

    Memory: O((N + M)·D) per block.

    Raises:
        NlnetError: a model without blocks, or a block that did not run exactly once on this clip.
        ValueError: a clip of several samples, or of other axes than the blocks' maps.
    """
    model = getattr(
        model, "_orig_mod", model
    )  # the module inside torch.compile: a compiled graph calls no hooks
    blocks = {path: module for path, module in model.named_modules() if isinstance(module, NonLocalBlock)}
    if not blocks:
        raise NlnetError("the model has no non-local block; insert some with nlnet.insert_nonlocal")
    ndim = next(iter(blocks.values())).ndim
    if clip.ndim == ndim + 1:
        clip = clip[None]
    if not 3 <= clip.ndim <= 5 or clip.shape[0] != 1:
        raise ValueError(
            f"got a clip of shape {tuple(clip.shape)}, expected one clip of channels and {ndim} axes, or a batch of one"
        )
    parameter = next(iter(blocks.values())).W_z.weight
    return Observation(
        tuple(clip.shape[2:]), _observe_blocks(model, blocks, clip.to(parameter.device, parameter.dtype))
    )


@dataclass(frozen=True)
class BlockObservation:
    """The embeddings of one block in one forward pass, and where its positions and keys lie in the clip."""

    block: NonLocalBlock
    theta: Tensor
    """(1, D, *grid)"""
    phi: Tensor
    """(1, D, *keys)"""
    response: Tensor
    """‖norm(W_z y_i)‖ over the channels, on the grid: how much the block changed each position."""
    query_centers: CellCenters
    """Where the cells of the grid are centred in the clip."""
    key_centers: tuple[Tensor, ...]
    """Where the keys are centred in the clip, along each axis."""
    exact: bool
    """Whether the centres were traced through the network; else they are estimated from the sizes (`proportional`)."""

    def rows(self, cells: Sequence[tuple[int, ...]]) -> Tensor:
        """The rows of Q query cells, (Q, *keys)."""
        grid, keys = tuple(self.theta.shape[2:]), tuple(self.phi.shape[2:])
        # cells that see the same keys (by axis and groups) are compared in one product
        together: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for number, cell in enumerate(cells):
            seen = self.block.axes.seen_keys(cell, grid, keys)
            together.setdefault(tuple((part.start, part.stop) for part in seen), []).append(number)
        rows = self.theta.new_zeros(
            len(cells), *keys, dtype=torch.promote_types(self.theta.dtype, torch.float32)
        )
        for bounds, numbers in together.items():
            part: tuple[Any, ...] = tuple(slice(*bound) for bound in bounds)
            queries: list[tuple[Any, ...]] = [(0, slice(None), *cells[number]) for number in numbers]
            theta = torch.stack([self.theta[query] for query in queries])
            phi = self.phi[(0, slice(None), *part)]
            compared = self.block.affinity(theta[None], phi.flatten(1).mT[None])[0]
            rows[(torch.tensor(numbers, device=rows.device), *part)] = compared.reshape(-1, *phi.shape[1:])
        return rows


class Observation:
    """The attention of a network's blocks on one clip: rows of the definition's affinity, and where cells lie.

    Positions are (t, y, x) in frames, rows and columns of the clip; (y, x) for an image, (t,) for a sequence. For a
    position, a block takes the cell of its grid whose centre is nearest (`nearest_cell`). Valid as long as the
    weights do not change.
    """

    def __init__(self, grid: tuple[int, ...], blocks: Mapping[str, BlockObservation]) -> None:
        self.grid = grid
        """(T, H, W) of the clip."""
        self._blocks = dict(blocks)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the blocks, in the order of the network."""
        return tuple(self._blocks)

    @torch.no_grad()
    def rows(self, positions: Sequence[Position]) -> dict[str, Tensor]:
        """f(x_i, x_j)/C(x) of Q positions i for all keys j: {path: (Q, T', H', W')} on each block's grid of keys.

        A block that pools its keys has half the rows and columns of its input there. A softmax row is non-negative
        and sums to 1; the others are f/M, signed for the dot product. Keys that i does not see (another frame,
        location or temporal group, by the block's axis and groups) have 0. In float32 or wider.
        """
        return {
            path: block.rows([self.query_cell(path, position) for position in positions])
            for path, block in self._blocks.items()
        }

    def centres(self, path: str) -> tuple[Tensor, ...]:
        """The centres of a block's keys along each axis, in clip coordinates (frames, pixels)."""
        return self._block(path).key_centers

    def exact(self, path: str) -> bool:
        """Whether the centres of a block's cells were traced through the network, not estimated from the sizes of its maps."""
        return self._block(path).exact

    def query_cell(self, path: str, position: Position) -> tuple[int, ...]:
        """The cell of a block's grid for a position of the clip: the one with the nearest centre."""
        if len(position) != len(self.grid) or not all(
            0 <= p < n for p, n in zip(position, self.grid, strict=True)
        ):
            raise NlnetError(
                f"position: got {tuple(position)}, expected {len(self.grid)} numbers inside the clip's grid {self.grid}"
            )
        block = self._block(path)
        return tuple(
            nearest_cell(p, centers, cells)
            for p, centers, cells in zip(position, block.query_centers, block.theta.shape[2:], strict=True)
        )

    def query_centre(self, path: str, position: Position) -> tuple[float, ...]:
        """The centre of the cell that `query_cell` returns, in clip coordinates."""
        cell = self.query_cell(path, position)
        return tuple(c.first + c.step * i for c, i in zip(self._block(path).query_centers, cell, strict=True))

    def signed(self, path: str) -> bool:
        """Whether the affinities of a block can be negative: only those of the dot product can."""
        return self._block(path).block.operator.signed

    def strongest(self, count: int, path: str | None = None) -> list[tuple[int, ...]]:
        """Up to `count` positions of the clip that a block changed most, strongest first; by default of the last block.

        The measure is ‖norm(W_z y_i)‖, what the block adds to cell i, averaged over the 3×3 cells around i in its frame
        (3 cells of a sequence; 0 beyond the border), so that the middle of an object comes before its rim. A cell
        all of whose indices differ by at most 2 from those of a stronger one is skipped, so that the positions spread
        over the clip. Ties are in the order of the grid; in a fresh block, which adds nothing, all cells are a tie.

        Raises:
            NlnetError: a count below 1, or an unknown path.
        """
        if count < 1:
            raise NlnetError(f"count: got {count}, expected at least 1")
        block = self._block(self.paths[-1] if path is None else path)
        shape = tuple(block.response.shape)
        plane = block.response.reshape(1, 1, *(1,) * (3 - len(shape)), *shape).float()
        # padded beforehand: avg_pool3d checks that the map is as large as its kernel before it adds its own padding
        around = F.avg_pool3d(F.pad(plane, (1, 1, 1, 1)), (1, 3, 3), stride=1).flatten()
        cells = list(product(*map(range, shape)))
        chosen: list[tuple[int, ...]] = []
        for flat in around.argsort(descending=True, stable=True).tolist():
            cell = cells[flat]
            if all(max(abs(a - b) for a, b in zip(cell, other, strict=True)) > 2 for other in chosen):
                chosen.append(cell)
            if len(chosen) == count:
                break
        return [self._pixel(block, cell) for cell in chosen]

    def _pixel(self, block: BlockObservation, cell: tuple[int, ...]) -> tuple[int, ...]:
        """The pixel of the clip at the centre of a cell."""
        # A centre between two pixels is rounded up: `nearest_cell` rounds down, and so returns this cell for this pixel.
        return tuple(
            min(max(int(c.first + c.step * i + 0.5), 0), n - 1)
            for c, i, n in zip(block.query_centers, cell, self.grid, strict=True)
        )

    def _block(self, path: str) -> BlockObservation:
        if path not in self._blocks:
            near = did_you_mean(path, self._blocks, most=1)
            raise NlnetError(f"path: got {path!r}, expected one of {', '.join(self._blocks)}{near}")
        return self._blocks[path]


def _observe_block(block: NonLocalBlock, x: Tensor, z: Tensor, size: tuple[int, ...]) -> BlockObservation:
    traced = centers_of(x)
    centers = proportional(size, tuple(x.shape[2:])) if traced is None else traced
    theta, phi = block.embeddings(x)
    # the Gaussian compares x itself, which a later layer may overwrite in place
    theta, phi = (t.clone() if t is x else t for t in (theta, phi))
    pool = None if block.pool is None else partial(block.pool, groups=block.groups)
    keys = pooled_centers(centers, tuple(x.shape[2:]), pool)
    return BlockObservation(
        block, theta, phi, (z - x)[0].norm(dim=0), centers, keys, exact=traced is not None
    )


def _observe_blocks(
    model: nn.Module, blocks: Mapping[str, NonLocalBlock], clip: Tensor
) -> dict[str, BlockObservation]:
    """Run one forward pass and observe each block when it returns."""
    calls: dict[str, list[tuple[tuple[int, ...], BlockObservation | None]]] = {path: [] for path in blocks}

    def keep(path: str) -> Callable[[NonLocalBlock, tuple[Tensor, ...], Tensor], None]:
        # computed in the hook, not after the pass: later layers may overwrite x and z, and keeping them costs memory
        def hook(block: NonLocalBlock, inputs: tuple[Tensor, ...], z: Tensor) -> None:
            x = inputs[0]
            fits = x.ndim == clip.ndim and x.shape[0] == 1 and not calls[path]
            observed = _observe_block(block, x, z, tuple(clip.shape[2:])) if fits else None
            calls[path].append((tuple(x.shape), observed))

        return hook

    handles = [block.register_forward_hook(keep(path)) for path, block in blocks.items()]
    clip = clip.detach()  # another tensor object, so that the caller's own is not marked
    set_centers(clip, (AxisCenters(0.0, 1.0),) * (clip.ndim - 2))
    try:
        with evaluating(model), torch.no_grad(), tracing(model):
            model(clip)
    finally:
        for handle in handles:
            handle.remove()
    result = {}
    for path, found in calls.items():
        if len(found) != 1:
            raise NlnetError(
                f"block {path!r} ran {len(found)} times on this clip, expected once; insert it after a module that "
                "runs once per clip"
            )
        shape, observed = found[0]
        if observed is None:
            raise NlnetError(
                f"block {path!r} was given maps of shape {shape} for a clip of shape {tuple(clip.shape)}, expected "
                "one map with the clip's axes; insert it after a module that sees the whole clip at once"
            )
        result[path] = observed
    return result
