"""Softmax computed a tile of query rows at a time: exact, in linear memory, for any width, layout and device.

Two versions. `_TiledSoftmax` is ordinary torch and works everywhere. `softmax_by_tiles` is for the CPU, where oneDNN's
matrix products can apply exp, or the gradient of softmax, to each result before it is stored.
`nlnet.ops.operation` checks the inputs and switches autocast off before it calls these. docs/math.md has the
derivation and the error bounds.
"""

from collections.abc import Callable, Iterator
from math import frexp, log
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.utils.flop_counter import register_flop_formula

from nlnet.layers.matmul import EXP_SCALE_BITS, can_fuse, exp_product, linear, product, scaled_product

TILE, ROWS = 1 << 21, 512
"""A tile has at most TILE affinities (8 MiB of float32), or ROWS rows of all keys where that is more."""
KEPT = 2.5
"""Tiles of P are kept for the backward pass up to this many times the memory of theta, phi, g and y."""
VANISHED = 1e-25
"""A sum of exponentials below this is not trusted: small terms may have underflowed in float32 and bf16."""


def softmax_tiled(
    theta: Float[Tensor, "B N D"],
    phi: Float[Tensor, "B M D"],
    g: Float[Tensor, "B M C"],
    *,
    scale: float,
    tile: int | None = None,
    kept: float = KEPT,
) -> Float[Tensor, "B N C"]:
    """Softmax, a tile of query rows at a time; any width, layout and device.

    `tile` is the most affinities held at once (at least one row of M). The backward pass computes the tiles again from
    the inputs and y, except for those that were kept (`kept` times the memory of inputs and y; oneDNN only). With
    create_graph=True autograd records all tiles for the second derivative: N×M memory.
    """
    tile = tile or largest_tile(phi.shape[1])
    if theta.dtype == g.dtype and can_fuse(theta[:1], phi[:1]):
        learns = torch.is_grad_enabled() and any(x.requires_grad for x in (theta, phi, g))
        return softmax_by_tiles(theta, phi, g, scale, tile, kept if learns else 0.0)[0]
    return _TiledSoftmax.apply(theta, phi, g, scale, tile)


def largest_tile(keys: int) -> int:
    """The most affinities that a tile may hold."""
    return max(TILE, ROWS * keys)


def kept_rows(queries: int, keys: int, width: int, times: float = KEPT) -> int:
    """How many query rows of each item keep their tiles; `width` is D + C.

    None where that would be less than a quarter of them: the saving would not pay for the memory.
    """
    rows = min(queries, int(times * width * (queries + keys) / keys))
    return rows if 4 * rows >= queries else 0


class _TiledSoftmax(torch.autograd.Function):
    """Tiled softmax for any device and dtype, in torch operators.

    Logits, softmax and all sums over tiles are float32 or wider. bf16 inputs stay bf16 in the products whose results
    are rounded to bf16 anyway: p g, pᵀu, u gᵀ, dL φ, dLᵀθ.
    """

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
            p = product(query, phi32[items]).softmax(-1)  # made again: cheaper than N×M memory
            u = upstream.to(narrow)
            dg[items] += product(u.mT, p.to(narrow).mT)
            # δ_i = Σ_j P_ij dP_ij = u_i·y_i: the row sum that the gradient of softmax subtracts, without the row
            mean = (upstream.to(sums) * y[items, rows]).sum(-1, keepdim=True)
            dlogits = product(u, carried[items]).to(sums).sub_(mean).mul_(p).to(narrow)
            dtheta[items, rows] = product(dlogits, compared[items]).mul_(ctx.scale)
            dphi[items] += product(query.to(narrow).mT, dlogits.mT)
        return dtheta, dphi.mT.to(phi.dtype), dg.mT.to(g.dtype), None, None


def _product_dtype(g: Tensor) -> torch.dtype:
    """The dtype of products: bf16 stays as it is; fp16 becomes float32, since sums in fp16 can overflow."""
    return g.dtype if g.dtype in (torch.bfloat16, torch.float64) else torch.float32


def _tiles(batch: int, queries: int, keys: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Slices of batch items and of query rows, at most `tile` affinities each, at least one row."""
    rows = max(1, min(queries, tile // keys))
    items = max(1, tile // max(1, queries * keys))
    for first in range(0, batch, items):
        for row in range(0, queries, rows):
            yield slice(first, first + items), slice(row, row + rows)


# From here on: the version for oneDNN. Two things are one product each: exp(L − shift), and P ∘ (dP − δ). oneDNN adds a
# bias per output column, so tiles are transposed (keys by queries): then the shift and δ, one number a query, are
# biases. Both are float32, and so are the sums over tiles; P and dL are rounded once, to the inputs' dtype.
# They are registered as two operators, which torch.compile calls as they are.


def _operator(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Register `kernel` as torch.ops.nlnet.<its name>."""
    # not by torch.library.custom_op: its first call imports the compiler, which takes seconds
    name = f"nlnet::{kernel.__name__}"
    torch.library.define(name, torch.library.infer_schema(kernel, mutates_args=()))
    torch.library.impl(name, "CPU", kernel)
    return getattr(torch.ops.nlnet, kernel.__name__).default


@_operator
def softmax_by_tiles(
    theta: Tensor, phi: Tensor, g: Tensor, scale: float, tile: int, kept: float
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Return y, shift and total (B, N) of P_ij = exp(s θᵢᵀφⱼ − shift_i)/total_i, and the kept exponentials."""
    phi, g = phi.contiguous(), g.contiguous()  # oneDNN has no fast bf16 kernel for other layouts
    y, shift, total, _ = _fused_like(theta, phi, g, scale, tile, 0.0)
    # |s θᵢᵀφⱼ| ≤ |s| |θᵢ| max_j |φⱼ|: a shift that no logit exceeds, known before any logit is computed
    longest = _lengths(phi).amax(-1) * abs(scale)
    last = kept_rows(theta.shape[1], phi.shape[1], theta.shape[2] + g.shape[2], kept)
    tiles, far = [], False
    for item in range(len(theta)):
        keys, carried = _compared(phi[item], scale), g[item].t().contiguous()
        for _, rows in _tiles(1, theta.shape[1], phi.shape[1], tile):
            here = item, rows
            own = theta[here].contiguous()
            query = _scaled(own, scale)
            if not far:
                shift[here] = _lengths(own) * longest[item]
                p = exp_product(keys, query, shift[here])
                total[here] = p.sum(0, dtype=torch.float32)
                far = bool(total[here].min() < VANISHED)
            # Where a query's logits are all far below that bound, its exponentials underflow. From then on the shift
            # is the largest logit itself, at the cost of one more product.
            if far:
                p, shift[here] = _by_largest(keys, query)
                total[here] = p.sum(0, dtype=torch.float32)
            torch.div(
                linear(carried, p.t(), None), total[here], out=y[here].t()
            )  # one division a query, not a pair
            if rows.stop <= last:
                tiles.append(p)
    return y, shift, total, tiles


@torch.library.register_fake("nlnet::softmax_by_tiles")
def _fused_like(
    theta: Tensor, phi: Tensor, g: Tensor, scale: float, tile: int, kept: float
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    queries, keys = theta.shape[1], phi.shape[1]
    last = kept_rows(queries, keys, theta.shape[2] + g.shape[2], kept)
    tiles = [
        theta.new_empty(keys, rows.stop - rows.start)
        for _ in range(theta.shape[0])
        for _, rows in _tiles(1, queries, keys, tile)
        if rows.stop <= last
    ]
    shift, total = (theta.new_empty(theta.shape[:2], dtype=torch.float32) for _ in range(2))
    return g.new_empty(theta.shape[0], queries, g.shape[2]), shift, total, tiles


@_operator
def softmax_by_tiles_backward(
    dy: Tensor,
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    y: Tensor,
    shift: Tensor,
    total: Tensor,
    tiles: list[Tensor],
    scale: float,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of theta, phi and g from the upstream gradient and what the forward pass saved."""
    phi, g = phi.contiguous(), g.contiguous()
    dtheta = theta.new_empty(theta.shape)
    dphi, dg = (x.new_zeros(x.shape, dtype=torch.float32) for x in (phi, g))
    each = len(tiles) // max(1, len(theta))
    for item in range(len(theta)):
        keys, carried, compared = _compared(phi[item], scale), g[item], phi[item].t().contiguous()
        for index, (_, rows) in enumerate(_tiles(1, theta.shape[1], phi.shape[1], tile)):
            here = item, rows
            own = theta[here].contiguous()
            if index < each:
                p = tiles[item * each + index]
            else:
                p = exp_product(keys, _scaled(own, scale), shift[here])
            # p holds exponentials without their division by the total, so the total divides the upstream gradient
            u = (dy[here].contiguous() / total[here][:, None]).to(dy.dtype)
            dg[item] += linear(p, u.t(), None)
            mean = (u.float() * y[here]).sum(-1)
            dlogits = scaled_product(carried, u, -mean, p)
            torch.mul(linear(compared, dlogits.t(), None), scale, out=dtheta[here].t())
            dphi[item] += linear(dlogits, own.t(), None)
    return dtheta, dphi.mul_(scale).to(phi.dtype), dg.to(g.dtype)


@torch.library.register_fake("nlnet::softmax_by_tiles_backward")
def _(dy: Tensor, theta: Tensor, phi: Tensor, g: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return theta.new_empty(theta.shape), phi.new_empty(phi.shape), g.new_empty(g.shape)


def _remember(ctx, inputs: tuple, output: tuple) -> None:  # type: ignore[no-untyped-def]
    theta, phi, g, ctx.scale, ctx.tile, _ = inputs
    y, shift, total, tiles = output
    ctx.mark_non_differentiable(shift, total, *tiles)
    ctx.save_for_backward(theta, phi, g, y, shift, total, *tiles)


def _differentiate(ctx, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    theta, phi, g, y, shift, total, *tiles = ctx.saved_tensors
    if not torch.is_grad_enabled():
        found = softmax_by_tiles_backward(dy, theta, phi, g, y, shift, total, tiles, ctx.scale, ctx.tile)
        return *found, None, None, None
    needed = [x for x, wanted in zip((theta, phi, g), ctx.needs_input_grad, strict=False) if wanted]
    # A second derivative is asked for, which these two operators do not have: compute it by the other version.
    again = _TiledSoftmax.apply(theta, phi, g, ctx.scale, ctx.tile)
    gradients = iter(torch.autograd.grad(again, needed, dy, create_graph=True))
    return *(next(gradients) if wanted else None for wanted in ctx.needs_input_grad[:3]), None, None, None


@register_flop_formula(torch.ops.nlnet.softmax_by_tiles)
def _flops(theta: Size, phi: Size, g: Size, *_: Any, **__: Any) -> int:
    return 2 * theta[0] * theta[1] * phi[1] * (theta[2] + g[2])


@register_flop_formula(torch.ops.nlnet.softmax_by_tiles_backward)
def _flops_backward(
    dy: Size,
    theta: Size,
    phi: Size,
    g: Size,
    y: Size,
    shift: Size,
    total: Size,
    tiles: list[Size],
    *_: Any,
    **__: Any,
) -> int:
    pairs = theta[0] * theta[1] * phi[1]
    made = pairs - sum(keys * queries for keys, queries in tiles)
    return 2 * pairs * 2 * (theta[2] + g[2]) + 2 * made * theta[2]


torch.library.register_autograd("nlnet::softmax_by_tiles", _differentiate, setup_context=_remember)


def _by_largest(
    keys: Float[Tensor, "M D"], query: Float[Tensor, "N D"]
) -> tuple[Float[Tensor, "M N"], Float[Tensor, "N"]]:
    """Return 2⁻ᵏ exp(logit − shift), as `exp_product` does, and the shift: the largest logit of each query."""
    logits = linear(keys, query, None)
    shift = logits.amax(0).float()
    if logits.dtype == torch.float32:
        return logits.sub_(shift + EXP_SCALE_BITS[torch.float32] * log(2)).exp_(), shift
    # The logits of bf16 are rounded, so their maximum may be too small by one rounding: make the shift no smaller.
    shift += shift.abs() * torch.finfo(query.dtype).eps
    return exp_product(keys, query, shift), shift


def _lengths(x: Float[Tensor, "*B N D"]) -> Float[Tensor, "*B N"]:
    """The Euclidean norm of each row, in float32."""
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32)


def _scaled(theta: Float[Tensor, "N D"], scale: float) -> Float[Tensor, "N _"]:
    """s θ, to be multiplied with `_compared(φ)`; in bf16 with the rounding error of s θ appended as D more channels.

    Without them the logits would lose digits unless s is a power of two.
    """
    scaled = theta * scale
    if _exact(scale, theta.dtype):
        return scaled
    return torch.cat([scaled, (theta.float() * scale - scaled).to(theta.dtype)], dim=1)


def _compared(phi: Float[Tensor, "M D"], scale: float) -> Float[Tensor, "M _"]:
    """φ; where `_scaled` appended the rounding error, φ twice, to match the doubled channels."""
    return phi if _exact(scale, phi.dtype) else torch.cat([phi, phi], dim=1)


def _exact(scale: float, dtype: torch.dtype) -> bool:
    """Whether scaling needs no correction: the dtype is not bf16, or the scale is a power of two."""
    return dtype != torch.bfloat16 or abs(frexp(scale)[0]) == 0.5
