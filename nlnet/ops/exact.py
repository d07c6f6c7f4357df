"""Exact fast algorithms for the non-local operation: the definition's values and gradients without its N×M map.

    sdpa            softmax         O(NM(D + C)) time            O((N + M)(D + C)) memory
    reassociated    dot product     O((N + M)DC) time            O(DC) memory
    sorted          concatenation   O((N + M)(C + log M)) time   O((N + M)C) memory

Derivations, forward and backward, and error bounds: docs/math.md. Half-precision inputs are summed in float32.
Callers check the inputs (nlnet.ops.operation) and keep autocast out.
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
    """Softmax by `scaled_dot_product_attention` with one head. Differentiable once.

    Its fused kernels want contiguous inputs of one width and take a quadratic path otherwise. Zeros appended to the
    narrower side change no product, and the scale is passed, so the width does not enter it.
    """
    compared, carried = theta.shape[-1], g.shape[-1]
    width = max(compared, carried)
    query, key, value = (F.pad(x, (0, width - x.shape[-1])).contiguous()[:, None] for x in (theta, phi, g))
    return F.scaled_dot_product_attention(query, key, value, scale=scale)[:, 0, :, :carried]


def dot_product_reassociated(
    theta: Float[Tensor, "B N D"], phi: Float[Tensor, "B M D"], g: Float[Tensor, "B M C"], *, scale: float
) -> Float[Tensor, "B N C"]:
    """s/M · (θφᵀ)g = θ(φᵀg · s/M), by associativity; the inner product is D×C.

    For half precision √(1/M) goes on φ and on g beforehand, since a sum over M keys may not fit into fp16.
    """
    keys = phi.shape[1]
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

    Query i meets a run of the sorted keys, those with b_j > −a_i. Ties a_i = −b_j count as ReLU'(0) = 0.
    """
    sums = torch.promote_types(g.dtype, torch.float32)
    compared = theta.shape[-1]
    weight = weight.to(sums)
    a, b = theta.to(sums) @ weight[:compared], phi.to(sums) @ weight[compared:]
    if torch.compiler.is_compiling() or a.numel() == 0:
        return (relu_sum(a, b, g.to(sums)) / g.shape[1]).to(g.dtype)
    return _SortedReLUMean.apply(a, b, g.to(sums))[0].to(g.dtype)


def relu_sum(
    a: Float[Tensor, "B N"], b: Float[Tensor, "B M"], v: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Σ_j ReLU(a_i + b_j) v_j in steps that autograd, torch.compile and torch.export follow, to any order."""
    b_up, order, start = _sort_keys(a, b)
    v = _rows_at(v, order)
    return a[:, :, None] * _tail_sum(v, start) + _tail_sum(v * b_up[:, :, None], start)


def step_sum(
    a: Float[Tensor, "B N"], b: Float[Tensor, "B M"], v: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Σ_j 1[a_i + b_j > 0] v_j, the derivative of `relu_sum` by a_i before the sum over channels."""
    _, order, start = _sort_keys(a, b)
    return _tail_sum(_rows_at(v, order), start)


def _sort_keys(
    a: Float[Tensor, "B N"], b: Float[Tensor, "B M"]
) -> tuple[Float[Tensor, "B M"], Int[Tensor, "B M"], Int[Tensor, "B N"]]:
    """b upwards, where each came from, and for each query the first sorted key with b_j > −a_i."""
    b_up, order = b.sort(dim=1)
    return b_up, order, torch.searchsorted(b_up.detach(), -a.detach(), right=True)


def _rows_at(v: Float[Tensor, "B M C"], index: Int[Tensor, "B N"]) -> Float[Tensor, "B N C"]:
    return v.gather(1, index[:, :, None].expand(-1, -1, v.shape[2]))


def _tail_sum(v: Float[Tensor, "B M C"], start: Int[Tensor, "B N"]) -> Float[Tensor, "B N C"]:
    """Σ_{r ≥ start_i} v_r; the row of zeros is for start_i = M."""
    return _rows_at(F.pad(v.flip(1).cumsum(1).flip(1), (0, 0, 0, 1)), start)


class _SortedReLUMean(torch.autograd.Function):
    """`relu_sum` / M in few passes over N×C: one embedding bag reads both tail sums for every query.

    The backward pass needs no second sort of values: it bags the upstream rows by the key where their run starts,
    and runs the sums the other way.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, keys, channels = v.shape
        b_up, order, start = _sort_keys(a, b)
        tails = v.new_zeros(2, batch, _padded(keys + 1), channels)
        torch.gather(v, 1, order[:, :, None].expand_as(v), out=tails[0, :, :keys])
        torch.mul(tails[0, :, :keys], b_up[:, :, None], out=tails[1, :, :keys])
        _run_sums_(tails.flatten(0, 1), backwards=True)
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
        ctx.set_materialize_grads(False)  # no zeros the size of the tables
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        if dy is None:
            return None, None, None
        a, b, v, order, start, tails = ctx.saved_tensors
        dy = dy / b.shape[1] if torch.is_grad_enabled() else dy.contiguous()
        if torch.is_grad_enabled():
            da, db = (dy * step_sum(a, b, v)).sum(-1), (v * step_sum(b, a, dy)).sum(-1)
            return da, db, relu_sum(b, a, dy)
        heads = _head_sums(a, start, dy, keys=b.shape[1])
        rank = order.argsort(dim=1)
        step = _rows_at(heads[0], rank)
        db = torch.linalg.vecdot(step, v)
        dv = step.mul_(b[:, :, None]).add_(_rows_at(heads[1], rank))
        return _dot_tails(dy, tails[0], start).div_(b.shape[1]), db, dv


def _head_sums(
    a: Float[Tensor, "B N"], start: Int[Tensor, "B N"], dy: Float[Tensor, "B N C"], *, keys: int
) -> Float[Tensor, "2 B R C"]:
    """Σ dy_i / M and Σ a_i dy_i / M over the queries whose run starts at or before the sorted key r."""
    batch, queries, channels = dy.shape
    rows = _padded(keys + 1)
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
    """dy_i · tails_{start_i}, a cache full of rows at a time."""
    upstream, table = dy.flatten(0, 1), tails.flatten(0, 1)
    at = (start + _offsets(start, tails.shape[1])).flatten()
    step = max(1, (1 << 17) // dy.shape[2])
    parts = [
        torch.linalg.vecdot(upstream[i : i + step], table.index_select(0, at[i : i + step]))
        for i in range(0, len(at), step)
    ]
    return torch.cat(parts).view_as(start)


def _offsets(like: Int[Tensor, "B N"], rows: int) -> Int[Tensor, "B 1"]:
    """Where each batch item's rows begin once the batch is flattened."""
    return torch.arange(like.shape[0], device=like.device)[:, None] * rows


def _padded(rows: int) -> int:
    """The next square, for `_run_sums_`."""
    return (isqrt(rows - 1) + 1) ** 2


def _run_sums_(x: Float[Tensor, "P R C"], *, backwards: bool) -> None:
    """Running sums over the rows in place, from the last row to the first if `backwards`; R is a square.

    On the CPU: √R blocks side by side, then the blocks' totals, all of it additions of contiguous rows, which is
    several times faster than cumsum across rows.
    """
    if not x.is_cpu:
        x.copy_(x.flip(1).cumsum(1).flip(1) if backwards else x.cumsum(1))
        return
    side = isqrt(x.shape[1])
    blocks = x.view(x.shape[0], side, side, x.shape[2])
    path = range(side)[:: -1 if backwards else 1]
    for before, here in pairwise(path):
        blocks[:, :, here] += blocks[:, :, before]
    for before, here in pairwise(path):
        blocks[:, here] += blocks[:, before, path[-1], None]
