"""Exact fast algorithms: the values and gradients of the definition, without its N×M map.

    sdpa            softmax         O(NM(D + C)) time            O((N + M)(D + C)) memory
    reassociated    dot product     O((N + M)DC) time            O(DC) memory
    sorted          concatenation   O((N + M)(C + log M)) time   O((N + M)C) memory

Half-precision inputs are summed in float32. `nlnet.ops.operation` checks the inputs and switches autocast off before it
calls these. docs/math.md has the derivations, forward and backward, and the error bounds.
"""

from itertools import pairwise
from math import isqrt

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nlnet.layers.matmul import product


def softmax_sdpa(
    theta: Float[Tensor, "B N D"], phi: Float[Tensor, "B M D"], g: Float[Tensor, "B M C"], *, scale: float
) -> Float[Tensor, "B N C"]:
    """Softmax by torch's `scaled_dot_product_attention` with one head. Differentiable once.

    One head, because heads would split the D channels into separate comparisons: another function.
    """
    compared, carried = theta.shape[-1], g.shape[-1]
    width = max(compared, carried)
    # The fused kernels want contiguous inputs of one width and take a quadratic path otherwise. Zeros appended to the
    # narrower side change no product; the scale is passed explicitly, or the padded width would set it.
    query, key, value = (F.pad(x, (0, width - x.shape[-1])).contiguous()[:, None] for x in (theta, phi, g))
    return F.scaled_dot_product_attention(query, key, value, scale=scale)[:, 0, :, :carried]


def dot_product_reassociated(
    theta: Float[Tensor, "B N D"], phi: Float[Tensor, "B M D"], g: Float[Tensor, "B M C"], *, scale: float
) -> Float[Tensor, "B N C"]:
    """s/M · (θφᵀ)g = θ(φᵀg · s/M), by associativity: the D×C matrix φᵀg replaces the N×M map."""
    keys = phi.shape[1]
    # A sum over M keys may not fit into fp16, so √(1/M) goes on φ and on g before their product.
    if g.dtype in (torch.float16, torch.bfloat16):
        share = keys**-0.5
        return product(theta, (((phi * share).mT @ (g * share)) * scale).mT)
    return product(theta, ((phi.mT @ g) * (scale / keys)).mT)


def concatenation_sorted(
    theta: Float[Tensor, "B N D"],
    phi: Float[Tensor, "B M D"],
    g: Float[Tensor, "B M C"],
    *,
    weight: Float[Tensor, "2*D"],
) -> Float[Tensor, "B N C"]:
    """1/M · Σ_j ReLU(a_i + b_j) g_j with a = θw₁ and b = φw₂, by sorting b and summing g and b·g from the top.

    The keys with a non-zero ReLU for query i are those with b_j > −a_i: a contiguous run at the end of the sorted keys,
    so that two sums over that run are all it needs: y_i = (a_i Σ g_j + Σ b_j g_j)/M. A tie a_i = −b_j is outside of
    the run, which matches ReLU'(0) = 0.
    """
    # Sums over up to M keys lose too many digits in half precision.
    sums = torch.promote_types(g.dtype, torch.float32)
    compared = theta.shape[-1]
    weight = weight.to(sums)
    a, b = theta.to(sums) @ weight[:compared], phi.to(sums) @ weight[compared:]
    # The hand-written autograd function below is opaque to the compiler, and its embedding bag refuses empty input.
    if torch.compiler.is_compiling() or a.numel() == 0:
        return (relu_sum(a, b, g.to(sums)) / g.shape[1]).to(g.dtype)
    return _SortedReLUMean.apply(a, b, g.to(sums))[0].to(g.dtype)


def relu_sum(
    a: Float[Tensor, "B N"], b: Float[Tensor, "B M"], v: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Σ_j ReLU(a_i + b_j) v_j by ordinary torch operators: autograd differentiates it to any order, and it compiles."""
    b_up, order, start = _sort_keys(a, b)
    v = _rows_at(v, order)
    return a[:, :, None] * _tail_sum(v, start) + _tail_sum(v * b_up[:, :, None], start)


def step_sum(
    a: Float[Tensor, "B N"], b: Float[Tensor, "B M"], v: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Σ_j 1[a_i + b_j > 0] v_j: the derivative of `relu_sum` with respect to a_i."""
    _, order, start = _sort_keys(a, b)
    return _tail_sum(_rows_at(v, order), start)


def _sort_keys(
    a: Float[Tensor, "B N"], b: Float[Tensor, "B M"]
) -> tuple[Float[Tensor, "B M"], Int[Tensor, "B M"], Int[Tensor, "B N"]]:
    """b in ascending order, the index each value had, and for each query the first sorted key with b_j > −a_i."""
    b_up, order = b.sort(dim=1)
    return b_up, order, torch.searchsorted(b_up.detach(), -a.detach(), right=True)


def _rows_at(v: Float[Tensor, "B M C"], index: Int[Tensor, "B N"]) -> Float[Tensor, "B N C"]:
    """The rows of each batch item at those indices."""
    return v.gather(1, index[:, :, None].expand(-1, -1, v.shape[2]))


def _tail_sum(v: Float[Tensor, "B M C"], start: Int[Tensor, "B N"]) -> Float[Tensor, "B N C"]:
    """Σ_{r ≥ start_i} v_r for every query i."""
    # flip, cumsum, flip is a running sum from the end; the appended row of zeros serves start_i = M, an empty run
    return _rows_at(F.pad(v.flip(1).cumsum(1).flip(1), (0, 0, 0, 1)), start)


class _SortedReLUMean(torch.autograd.Function):
    """`relu_sum` / M in few passes over memory, with its own backward pass.

    Forward: both tables of tail sums are built in place, and one embedding bag (a gather and a weighted sum in one
    pass) reads two rows of them for each query. Backward: key j receives from every query whose run starts at or
    before it, so the upstream rows are summed by the start of their run and the running sums go the other way; a and
    b need not be sorted again.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, keys, channels = v.shape
        b_up, order, start = _sort_keys(a, b)
        # tails[0] will hold Σ g and tails[1] Σ b·g over the sorted keys from each row on; rows beyond M stay zero
        tails = v.new_zeros(2, batch, _padded(keys + 1), channels)
        torch.gather(v, 1, order[:, :, None].expand_as(v), out=tails[0, :, :keys])
        torch.mul(tails[0, :, :keys], b_up[:, :, None], out=tails[1, :, :keys])
        _run_sums_(tails.flatten(0, 1), backwards=True)
        # y_i = (a_i/M) tails[0][start_i] + (1/M) tails[1][start_i], as a bag of two rows with these weights
        rows = tails.shape[2]
        at = (start + _offsets(start, rows)).flatten()
        weights = torch.stack([a.flatten() / keys, torch.full_like(a, 1 / keys).flatten()], dim=1)
        y = F.embedding_bag(
            torch.stack([at, at + batch * rows], dim=1),
            tails.flatten(0, 2),
            mode="sum",
            per_sample_weights=weights,
        )
        return y.view(*a.shape, channels), order, start, tails

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: tuple) -> None:  # type: ignore[no-untyped-def]
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # else autograd makes zero gradients as large as the tables
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        if dy is None:
            return None, None, None
        a, b, v, order, start, tails = ctx.saved_tensors
        dy = dy / b.shape[1] if torch.is_grad_enabled() else dy.contiguous()
        if torch.is_grad_enabled():  # this backward pass is itself to be differentiated: ordinary operators
            da, db = (dy * step_sum(a, b, v)).sum(-1), (v * step_sum(b, a, dy)).sum(-1)
            return da, db, relu_sum(b, a, dy)
        heads = _head_sums(a, start, dy, keys=b.shape[1])
        rank = order.argsort(dim=1)  # where each key stands among the sorted ones
        step = _rows_at(heads[0], rank)
        db = torch.linalg.vecdot(step, v)
        dv = step.mul_(b[:, :, None]).add_(_rows_at(heads[1], rank))
        return _dot_tails(dy, tails[0], start).div_(b.shape[1]), db, dv


def _head_sums(
    a: Float[Tensor, "B N"], start: Int[Tensor, "B N"], dy: Float[Tensor, "B N C"], *, keys: int
) -> Float[Tensor, "2 B R C"]:
    """For each sorted key r, Σ dy_i / M and Σ a_i dy_i / M over the queries whose run starts at or before it."""
    batch, queries, channels = dy.shape
    rows = _padded(keys + 1)
    # Queries sorted by the start of their run: those that start at key r are one bag of neighbouring rows.
    by_start, query = start.sort(dim=1)
    weights = a.gather(1, query).flatten() / keys
    query = (query + _offsets(start, queries)).flatten()
    bins = torch.arange(rows, device=a.device).expand(batch, rows).contiguous()
    first = (torch.searchsorted(by_start, bins) + _offsets(start, queries)).flatten()
    heads = F.embedding_bag(
        torch.cat([query, query]),
        dy.flatten(0, 1),
        torch.cat([first, first + batch * queries]),
        mode="sum",
        per_sample_weights=torch.cat([torch.full_like(weights, 1 / keys), weights]),
    ).view(2, batch, rows, channels)
    _run_sums_(heads.flatten(0, 1), backwards=False)
    return heads


def _dot_tails(
    dy: Float[Tensor, "B N C"], tails: Float[Tensor, "B R C"], start: Int[Tensor, "B N"]
) -> Float[Tensor, "B N"]:
    """The dot product of dy_i with row start_i of the tail sums."""
    upstream, table = dy.flatten(0, 1), tails.flatten(0, 1)
    at = (start + _offsets(start, tails.shape[1])).flatten()
    # in pieces that stay in the cache: index_select of all rows would write and read an N×C copy
    step = max(1, (1 << 17) // dy.shape[2])
    parts = [
        torch.linalg.vecdot(upstream[i : i + step], table.index_select(0, at[i : i + step]))
        for i in range(0, len(at), step)
    ]
    return torch.cat(parts).view_as(start)


def _offsets(like: Int[Tensor, "B N"], rows: int) -> Int[Tensor, "B 1"]:
    """The index of each batch item's first row in the flattened batch."""
    return torch.arange(like.shape[0], device=like.device)[:, None] * rows


def _padded(rows: int) -> int:
    """The next square number: `_run_sums_` splits the rows into as many blocks as a block has rows."""
    return (isqrt(rows - 1) + 1) ** 2


def _run_sums_(x: Float[Tensor, "P R C"], *, backwards: bool) -> None:
    """Running sums over the rows in place, from the last row to the first if `backwards`; R is a square number."""
    if not x.is_cpu:
        x.copy_(x.flip(1).cumsum(1).flip(1) if backwards else x.cumsum(1))
        return
    # torch's cumsum along a dimension that is not the last strides through memory. Here √R blocks of √R rows are summed
    # all at once, row by row, then each block receives the total of the one before: only additions of contiguous rows.
    side = isqrt(x.shape[1])
    blocks = x.view(x.shape[0], side, side, x.shape[2])
    path = range(side)[:: -1 if backwards else 1]
    for before, here in pairwise(path):
        blocks[:, :, here] += blocks[:, :, before]
    for before, here in pairwise(path):
        blocks[:, here] += blocks[:, before, path[-1], None]
