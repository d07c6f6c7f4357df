"""Where does a position look: affinity rows of every block in a network, without the N×M map (Figure 3 of the paper).

`observe` runs the network once and keeps what each block compares, θ of its positions and φ of its keys; a row of any
position is then one product, O(M). The clip's positions are followed to each block's grid, and the keys back to the
clip, by the network's own geometry (`nlnet.attention.tracing`).
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

from nlnet.attention.cell_centers import Frame, Places, centres_of, nearest_cell, proportional
from nlnet.attention.tracing import following, mark, places_of
from nlnet.block import NonLocalBlock
from nlnet.layers.modes import evaluating

Position = Sequence[int | float]
"""(t, y, x) in the clip's own frames, rows and columns; (y, x) of an image, (t,) of a sequence."""


def attention_row(
    model: nn.Module, clip: Float[Tensor, "*batch_channels_and_grid"], position: Position
) -> dict[str, Tensor]:
    """f(x_i, x_j)/C(x) of the position i for all j, from every non-local block: {path: map over the block's keys}.

    `observe` for a single position: the maps (T', H', W') of `Observation.rows`. Arguments and errors are theirs.
    """
    return {path: rows[0] for path, rows in observe(model, clip).rows([position]).items()}


def observe(model: nn.Module, clip: Float[Tensor, "*batch_channels_and_grid"]) -> "Observation":
    """One forward pass in evaluation mode without gradient, and what every non-local block compared in it.

    Args:
        model: any network with non-local blocks, on any device, in any mode (which is restored).
        clip: one input as the network takes it, normalised: (3, T, H, W) or (1, 3, T, H, W); an image (3, H, W) or a
            sequence (C, T) for networks that take those.

    Memory: O((N + M)·D) a block.

    Raises:
        ValueError: a model without blocks or whose blocks did not each run once on this clip, a clip of more than
            one sample or of other axes than the blocks'.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps: a compiled graph calls no hooks
    blocks = {path: module for path, module in model.named_modules() if isinstance(module, NonLocalBlock)}
    if not blocks:
        raise ValueError("the model has no non-local block: put some in with insert_nonlocal")
    ndim = next(iter(blocks.values())).ndim
    if clip.ndim == ndim + 1:
        clip = clip[None]
    if not 3 <= clip.ndim <= 5 or clip.shape[0] != 1:
        raise ValueError(
            f"got a clip of shape {tuple(clip.shape)}, expected one clip of channels and {ndim} axes, or a batch of one"
        )
    parameter = next(iter(blocks.values())).W_z.weight
    return Observation(
        tuple(clip.shape[2:]), _looks(model, blocks, clip.to(parameter.device, parameter.dtype))
    )


@dataclass(frozen=True)
class Look:
    """What one block compared in one forward pass, and where its positions and keys lie."""

    block: NonLocalBlock
    theta: Tensor
    """(1, D, *grid)"""
    phi: Tensor
    """(1, D, *keys)"""
    response: Tensor
    """‖norm(W_z y_i)‖ over the channels, on the grid: how much the block changed each position."""
    places: Frame
    """Of the grid of queries."""
    centres: tuple[Tensor, ...]
    """Of the grid of keys, an axis each."""
    exact: bool
    """Whether both were followed through the network; else they share the clip out evenly (`proportional`)."""

    def rows(self, cells: Sequence[tuple[int, ...]]) -> Tensor:
        """(Q, *keys) of query cells; those that see the same keys are compared at once."""
        grid, keys = tuple(self.theta.shape[2:]), tuple(self.phi.shape[2:])
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
    """A network's blocks looking at one clip: rows of the definition's affinity, and their geometry.

    Positions are (t, y, x) in the clip's own frames, rows and columns; (y, x) of an image, (t,) of a sequence. A
    block answers for the cell of its grid whose centre is nearest (`nearest_cell`). It holds as long as the weights
    do not change.
    """

    def __init__(self, grid: tuple[int, ...], looks: Mapping[str, Look]) -> None:
        self.grid = grid
        """(T, H, W) of the clip."""
        self._looks = dict(looks)

    @property
    def paths(self) -> tuple[str, ...]:
        """The blocks in the order of the network."""
        return tuple(self._looks)

    @torch.no_grad()
    def rows(self, positions: Sequence[Position]) -> dict[str, Tensor]:
        """f(x_i, x_j)/C(x) of Q positions i for all keys j: {path: (Q, T', H', W')} on each block's grid of keys.

        That has half the rows and columns of the block's input where the block pools its keys. A softmax row is
        non-negative and sums to 1; the others are f/M, signed for the dot product. Keys that i does not see
        (another frame, location or temporal group, by the block's axis and groups) have 0. In float32 or wider.
        """
        return {
            path: look.rows([self.query_cell(path, position) for position in positions])
            for path, look in self._looks.items()
        }

    def centres(self, path: str) -> tuple[Tensor, ...]:
        """Where a block's keys lie: per axis, the centres of the cells in clip coordinates (frames, pixels)."""
        return self._look(path).centres

    def exact(self, path: str) -> bool:
        """Whether a block's places were followed through the network (`nlnet.attention.tracing`), not guessed from the sizes."""
        return self._look(path).exact

    def query_cell(self, path: str, position: Position) -> tuple[int, ...]:
        """The cell of a block's grid that answers for a position: the one with the nearest centre."""
        if len(position) != len(self.grid) or not all(
            0 <= p < n for p, n in zip(position, self.grid, strict=True)
        ):
            raise ValueError(
                f"position: got {tuple(position)}, expected {len(self.grid)} numbers inside the clip's grid {self.grid}"
            )
        look = self._look(path)
        return tuple(
            nearest_cell(p, places, cells)
            for p, places, cells in zip(position, look.places, look.theta.shape[2:], strict=True)
        )

    def query_centre(self, path: str, position: Position) -> tuple[float, ...]:
        """The centre of that cell, in clip coordinates."""
        cell = self.query_cell(path, position)
        return tuple(p.first + p.step * i for p, i in zip(self._look(path).places, cell, strict=True))

    def signed(self, path: str) -> bool:
        """Whether a block's weights can be negative: those of the dot product."""
        return self._look(path).block.operator.signed

    def strongest(self, count: int, path: str | None = None) -> list[tuple[int, ...]]:
        """Up to `count` positions that a block (the last one, if no path is given) changed most, strongest first.

        Judged by ‖norm(W_z y_i)‖, what the block adds to position i, averaged over the 3×3 cells around i in its frame
        (3 cells in time of a sequence; 0 beyond the border): so the middle of an object comes before its rim. A cell
        all of whose indices differ by at most 2 from those of a stronger one is passed over, so that the choice spreads
        over the clip. Equal ones come in the order of the grid: all of them in a fresh block, which adds nothing.
        """
        if count < 1:
            raise ValueError(f"count: got {count}, expected at least 1")
        look = self._look(self.paths[-1] if path is None else path)
        shape = tuple(look.response.shape)
        plane = look.response.reshape(1, 1, *(1,) * (3 - len(shape)), *shape).float()
        # padded by hand: avg_pool3d refuses maps smaller than its kernel before it counts the padding
        around = F.avg_pool3d(F.pad(plane, (1, 1, 1, 1)), (1, 3, 3), stride=1).flatten()
        cells = list(product(*map(range, shape)))
        chosen: list[tuple[int, ...]] = []
        for flat in around.argsort(descending=True, stable=True).tolist():
            cell = cells[flat]
            if all(max(abs(a - b) for a, b in zip(cell, other, strict=True)) > 2 for other in chosen):
                chosen.append(cell)
            if len(chosen) == count:
                break
        return [self._pixel(look, cell) for cell in chosen]

    def _pixel(self, look: Look, cell: tuple[int, ...]) -> tuple[int, ...]:
        """The clip's pixel at a cell's centre; between two, the later one, whose nearest cell is this one."""
        return tuple(
            min(max(int(p.first + p.step * i + 0.5), 0), n - 1)
            for p, i, n in zip(look.places, cell, self.grid, strict=True)
        )

    def _look(self, path: str) -> Look:
        if path not in self._looks:
            raise ValueError(f"path: got {path!r}, expected one of {', '.join(self._looks)}")
        return self._looks[path]


def _look(block: NonLocalBlock, x: Tensor, z: Tensor, size: tuple[int, ...]) -> Look:
    followed = places_of(x)
    places = proportional(size, tuple(x.shape[2:])) if followed is None else followed
    theta, phi = block.embeddings(x)
    # the Gaussian compares x itself, which the network may yet overwrite
    theta, phi = (t.clone() if t is x else t for t in (theta, phi))
    pool = None if block.pool is None else partial(block.pool, groups=block.groups)
    keys = centres_of(places, tuple(x.shape[2:]), pool)
    return Look(block, theta, phi, (z - x)[0].norm(dim=0), places, keys, followed is not None)


def _looks(model: nn.Module, blocks: Mapping[str, NonLocalBlock], clip: Tensor) -> dict[str, Look]:
    """One evaluation forward pass. A look is computed while its block returns: x and z are then the network's own."""
    found: dict[str, list[tuple[tuple[int, ...], Look | None]]] = {path: [] for path in blocks}

    def keep(path: str) -> Callable[[NonLocalBlock, tuple[Tensor, ...], Tensor], None]:
        def hook(block: NonLocalBlock, inputs: tuple[Tensor, ...], z: Tensor) -> None:
            x = inputs[0]
            fits = x.ndim == clip.ndim and x.shape[0] == 1 and not found[path]
            found[path].append((tuple(x.shape), _look(block, x, z, tuple(clip.shape[2:])) if fits else None))

        return hook

    handles = [block.register_forward_hook(keep(path)) for path, block in blocks.items()]
    clip = clip.detach()  # a tensor of our own to mark
    mark(clip, (Places(0.0, 1.0),) * (clip.ndim - 2))
    try:
        with evaluating(model), torch.no_grad(), following(model):
            model(clip)
    finally:
        for handle in handles:
            handle.remove()
    looks = {}
    for path, calls in found.items():
        if len(calls) != 1:
            raise ValueError(f"block {path!r} ran {len(calls)} times on this clip, expected once")
        shape, look = calls[0]
        if look is None:
            raise ValueError(
                f"block {path!r} was given maps of shape {shape} for a clip of shape "
                f"{tuple(clip.shape)}, expected one map with the clip's axes"
            )
        looks[path] = look
    return looks
