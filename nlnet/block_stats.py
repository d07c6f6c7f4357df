"""Is a non-local block alive? What it adds and how it attends, measured in a forward pass that runs anyway.

    gamma     mean |γ| of the norm after W_z, or mean |W_z| where no norm has a trainable γ: 0 in a fresh block
    ratio     mean over samples of ‖norm(W_z y)‖ / ‖x‖: what the block adds, relative to its input
    entropy   mean over sampled positions i of H(p_i) / log M, p_ij = |f(x_i, x_j)| / Σ_j |f(x_i, x_j)|

Under the softmax p_i is the attention itself: entropy 0 is one key, 1 is all M keys that i sees alike. The dot product
and concatenation have no distribution; for them it is that of the sizes |f|, an analogue.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nlnet.block import NonLocalBlock
from nlnet.layers.autocast import without_autocast
from nlnet.layers.norms import has_trainable_scale
from nlnet.ops.reference import OPERATORS, PAIRWISE

SOFTMAX = tuple(name for name, function in PAIRWISE.items() if OPERATORS[function.operator].sums_to_one)
QUERIES = 16
"""Positions whose rows are measured, spread over the grid and over the samples of the batch."""
STEPS = (0.8191725134, 0.6710436067, 0.5497004779)
"""Powers of 1/g with g⁴ = g + 1: multiples of these, modulo 1, fill a cube evenly (an additive recurrence)."""

ASLEEP = 1e-3
"""A block that adds less than this part of its input, or whose mean |γ| is below, is asleep."""
SATURATED = 0.02
"""Entropy of softmax attention on practically one key, where the softmax passes no gradient."""
UNIFORM = 0.995
"""Entropy of attention that is practically a mean over all keys."""


@dataclass
class Watch:
    """What blocks did in the forward passes inside `watch`: each block's first call counts."""

    blocks: Mapping[str, NonLocalBlock]
    seen: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    """By path: mean and largest |γ| (2,), ratios (B,), entropies (Q,); on the device until they are read."""

    def read(self) -> dict[str, dict[str, float | str | None]]:
        """{path: {pairwise, switch, gamma, gamma_max, ratio, entropy}}; waits for the device.

        `switch` says what gamma is of: "norm" (γ) or "W_z". A figure is None where there is no finite one: a map of
        zeros, a single key, rows that are all zero, an overflow.
        """
        return {
            path: {
                "pairwise": self.blocks[path].pairwise,
                "switch": "norm" if has_trainable_scale(self.blocks[path].norm) else "W_z",
                "gamma": _mean(sizes[:1]),
                "gamma_max": _mean(sizes[1:]),
                "ratio": _mean(ratios),
                "entropy": _mean(found),
            }
            for path, (sizes, ratios, found) in self.seen.items()
        }


@contextmanager
def watch(blocks: Mapping[str, NonLocalBlock]) -> Iterator[Watch]:
    """Measure every block that runs inside the `with`, by hooks that are gone after it.

    Nothing of the forward pass changes: no gradient is recorded, no random number is drawn, no module but the block's
    own θ and φ runs again, for `QUERIES` rows of O(M). Recomputation by activation checkpointing comes in
    the backward pass, outside the `with`, and does not count.
    """
    found, residuals = Watch(blocks), dict[str, Tensor]()

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            residuals[path] = output.detach()

        return hook

    def measure(path: str) -> Callable[..., None]:
        def hook(block: NonLocalBlock, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            residual = residuals.pop(path)
            if path not in found.seen:
                found.seen[path] = _measure(block, inputs[0].detach(), residual)

        return hook

    handles = [block.norm.register_forward_hook(keep(path)) for path, block in blocks.items()]
    handles += [block.register_forward_hook(measure(path)) for path, block in blocks.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _measure(block: NonLocalBlock, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size = switch(block).detach().abs()
    return torch.stack([size.mean(), size.max()]), _norms(residual) / _norms(x), entropies(block, x)


def _norms(x: Tensor) -> Tensor:
    """(B,) in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), dtype=wide)


def switch(block: NonLocalBlock) -> Tensor:
    """The parameter that is zero in a fresh block: the norm's γ, or W_z where the norm has none to train."""
    return block.norm.get_parameter("weight") if has_trainable_scale(block.norm) else block.W_z.weight


def entropies(block: NonLocalBlock, x: Float[Tensor, "B C *grid"]) -> Float[Tensor, " Q"]:
    """H(p_i)/log M of `QUERIES` positions of the batch, in the precision of the block's weights.

    Not a number where a single key is seen or all f are zero.
    """
    if x.shape[0] == 0:
        return x.new_zeros(0)
    weight, grid = block.W_z.weight, tuple(x.shape[2:])
    with without_autocast(x.device):
        rows = torch.stack(
            [
                block.affinity_rows(x[n % len(x) : n % len(x) + 1].to(weight.dtype), query).flatten()
                for n, query in enumerate(queries(grid))
            ]
        ).abs()
    shares = rows / rows.sum(dim=1, keepdim=True)
    return torch.special.entr(shares).sum(dim=1) / math.log(block.positions(grid).keys)


def queries(grid: Sequence[int]) -> list[tuple[int, ...]]:
    """`QUERIES` cells spread evenly over a grid, always the same ones."""
    return [
        tuple(int(size * ((0.5 + n * step) % 1)) for size, step in zip(grid, STEPS, strict=False))
        for n in range(QUERIES)
    ]


def _mean(values: Tensor) -> float | None:
    kept = values[values.isfinite()]
    return kept.mean().item() if len(kept) else None


@dataclass(frozen=True)
class Verdict:
    """What the figures of a block say."""

    state: str
    """"asleep", "saturated", "uniform", "learned", or "unknown"."""
    words: str


def verdict(records: Sequence[Mapping[str, Any]]) -> Verdict:
    """The state of one block by its last measurement, and the figures in words.

    asleep      ratio < `ASLEEP`, or mean |γ| < `ASLEEP` (not judged of W_z's entries, whose size depends on their
                number): it still is nearly the identity that it was at the start
    saturated   softmax attention with entropy < `SATURATED`: practically one key a position
    uniform     entropy > `UNIFORM`: practically the same mean over all keys for every position
    learned     none of these
    unknown     the last ratio is no number

    Args:
        records: measurements of one block in order, as `Watch.read` gives them, each with its "iteration".

    Raises:
        ValueError: no records.
    """
    if not records:
        raise ValueError("records: got none, expected the vital signs of one block")
    first, last = records[0], records[-1]
    gamma, ratio, entropy = last["gamma"], last["ratio"], last["entropy"]
    name = "γ" if last["switch"] == "norm" else "W_z"
    figures = (
        f"adds {_percent(ratio)} of its input, mean |{name}| {_number(first['gamma'])} → {_number(gamma)}"
    )
    if last["pairwise"] in SOFTMAX:
        figures += f", attention entropy {_number(entropy)} of log M"
    else:
        figures += f", entropy of |f| {_number(entropy)} of log M"
    since = f" (iterations {first['iteration']} to {last['iteration']})"
    state, meaning = _state(gamma if name == "γ" else None, ratio, entropy, last["pairwise"] in SOFTMAX)
    return Verdict(state, f"{state}: {figures}{since}{meaning}")


def _state(gamma: float | None, ratio: float | None, entropy: float | None, softmax: bool) -> tuple[str, str]:
    if ratio is None:
        return "unknown", "; its output is no finite number"
    if ratio < ASLEEP or (gamma is not None and gamma < ASLEEP):
        return "asleep", "; still nearly the identity it began as"
    if entropy is not None and softmax and entropy < SATURATED:
        return "saturated", "; each position looks at practically one key"
    if entropy is not None and entropy > UNIFORM:
        return "uniform", "; each position takes practically the same mean over all keys"
    return "learned", ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2g} %"
