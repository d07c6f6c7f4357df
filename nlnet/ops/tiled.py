"""Softmax by tiles of query rows: the definition's values and gradients in linear memory, any width, layout and device.

Derivation and error bounds: docs/math.md. Callers check the inputs (nlnet.ops.operation) and keep autocast out.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from nlnet.products import product

TILE = 1 << 20
"""Most affinities that the tiled softmax holds at once, unless 64 rows of M keys are more."""


def softmax_tiled(
    theta: Float[Tensor, "B N D"],
    phi: Float[Tensor, "B M D"],
    g: Float[Tensor, "B M C"],
    *,
    scale: float,
    tile: int | None = None,
) -> Float[Tensor, "B N C"]:
    """Softmax, a tile of query rows at a time; any width, layout and device.

    `tile` is the most affinities held at once (at least one row of M). The backward pass makes the tiles again from
    the inputs and y. With create_graph=True it is recorded to be differentiated again, all tiles of it: N×M memory.
    """
    return _TiledSoftmax.apply(theta, phi, g, scale, tile or max(TILE, 64 * phi.shape[1]))


class _TiledSoftmax(torch.autograd.Function):
    """Logits, softmax and all sums over tiles are float32 or wider. bf16 inputs meet as bf16 in the products whose
    results are rounded to it anyway: p g, pᵀu, u gᵀ, dL φ, dLᵀθ."""

    @staticmethod
    def forward(theta: Tensor, phi: Tensor, g: Tensor, scale: float, tile: int) -> Tensor:
        sums = torch.promote_types(g.dtype, torch.float32)
        phi32, narrow = phi.to(sums), _product_dtype(g)
        carried = g.to(narrow).mT
        y = g.new_empty(*theta.shape[:2], g.shape[2])
        for items, rows in _tiles(theta.shape[0], theta.shape[1], phi.shape[1], tile):
            p = product(theta[items, rows].to(sums) * scale, phi32[items]).softmax(-1)
            y[items, rows] = product(p.to(narrow), carried[items])
        return y

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:  # type: ignore[no-untyped-def]
        theta, phi, g, ctx.scale, ctx.tile = inputs
        ctx.save_for_backward(theta, phi, g, output)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[no-untyped-def]
        theta, phi, g, y = ctx.saved_tensors
        sums = torch.promote_types(g.dtype, torch.float32)
        phi32, narrow = phi.to(sums), _product_dtype(g)
        compared, carried = phi.to(narrow).mT, g.to(narrow)
        dtheta, dphi, dg = torch.empty_like(theta), *(x.new_zeros(x.mT.shape, dtype=sums) for x in (phi, g))
        for items, rows in _tiles(theta.shape[0], theta.shape[1], phi.shape[1], ctx.tile):
            query, upstream = theta[items, rows].to(sums) * ctx.scale, dy[items, rows]
            p = product(query, phi32[items]).softmax(-1)
            u = upstream.to(narrow)
            dg[items] += product(u.mT, p.to(narrow).mT)
            mean = (upstream.to(sums) * y[items, rows]).sum(-1, keepdim=True)
            dlogits = product(u, carried[items]).to(sums).sub_(mean).mul_(p).to(narrow)
            dtheta[items, rows] = product(dlogits, compared[items]).mul_(ctx.scale)
            dphi[items] += product(query.to(narrow).mT, dlogits.mT)
        return dtheta, dphi.mT.to(phi.dtype), dg.mT.to(g.dtype), None, None


def _product_dtype(g: Tensor) -> torch.dtype:
    """bf16 has float32's range, so its products may stay in it; fp16 sums may overflow where the result does not."""
    return g.dtype if g.dtype in (torch.bfloat16, torch.float64) else torch.float32


def _tiles(batch: int, queries: int, keys: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Slices of batch items and of query rows, at most `tile` affinities each, at least one row."""
    rows = max(1, min(queries, tile // keys))
    items = max(1, tile // max(1, queries * keys))
    for first in range(0, batch, items):
        for row in range(0, queries, rows):
            yield slice(first, first + items), slice(row, row + rows)
