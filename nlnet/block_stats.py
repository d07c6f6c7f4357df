"""Statistics of a non-local block in training: how much it adds and how sharply it attends.

    gamma     mean |γ| of the norm after W_z, or mean |W_z| where no norm has a trainable γ: 0 in a fresh block
    ratio     mean over samples of ‖norm(W_z y)‖ / ‖x‖: what the block adds, relative to its input
    entropy   mean over sampled positions i of H(p_i) / log M, p_ij = |f(x_i, x_j)| / Σ_j |f(x_i, x_j)|

Under the softmax p_i is the attention itself: entropy 0 means one key has all the weight, 1 that all M keys which i sees
have the same. The dot product and concatenation have no distribution over keys; p_i is made from |f| as an analogue.
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
from nlnet.errors import NlnetError
from nlnet.layers.contexts import without_autocast
from nlnet.layers.norms import has_trainable_scale
from nlnet.ops.reference import OPERATORS, PAIRWISE

SOFTMAX = tuple(name for name, function in PAIRWISE.items() if OPERATORS[function.operator].sums_to_one)
"""Names of the pairwise functions whose rows are a softmax."""
QUERIES = 16
"""Positions whose rows are measured, spread over the grid and over the samples of the batch."""
STEPS = (0.8191725134, 0.6710436067, 0.5497004779)
"""Steps of an additive recurrence: their multiples, modulo 1, fill a cube evenly. They are the first three powers of
1/g, where g⁴ = g + 1."""

INACTIVE = 1e-3
"""A block is inactive if its ratio or its mean |γ| is below this."""
SATURATED = 0.02
"""Softmax attention is saturated if its entropy is below this: one key has nearly all the weight, and the softmax passes
almost no gradient."""
UNIFORM = 0.995
"""Attention is uniform if its entropy is above this: nearly the mean over all keys."""


@dataclass
class BlockStats:
    """The statistics that `measure` takes, of each block's first call."""

    blocks: Mapping[str, NonLocalBlock]
    measured: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    """By path: mean and largest |γ| (2,), ratios (B,), entropies (Q,). They stay on the device until `read`."""

    def read(self) -> dict[str, dict[str, float | str | None]]:
        """Return the statistics of every block by its path, as plain numbers; waits for the device.

        The keys are pairwise, switch, gamma, gamma_max, ratio and entropy.

        `switch` names the parameter behind `gamma`: "norm" for γ, or "W_z". A statistic is None where it has no finite
        value: for a map of zeros, a single key, rows that are all zero, or after an overflow.
        """
        return {
            path: {
                "pairwise": self.blocks[path].pairwise,
                "switch": "norm" if has_trainable_scale(self.blocks[path].norm) else "W_z",
                "gamma": _mean(sizes[:1]),
                "gamma_max": _mean(sizes[1:]),
                "ratio": _mean(ratios),
                "entropy": _mean(entropy),
            }
            for path, (sizes, ratios, entropy) in self.measured.items()
        }


@contextmanager
def measure(blocks: Mapping[str, NonLocalBlock]) -> Iterator[BlockStats]:
    """Measure every block that runs inside the context, by forward hooks that are removed after it.

    The forward pass is not changed: no gradient is recorded, no random number is drawn, and no module runs again but
    θ and φ of the block, for `QUERIES` rows of O(M). Activation checkpointing runs blocks again in the backward
    pass, outside the context, where nothing is measured.
    """
    stats, residuals = BlockStats(blocks), dict[str, Tensor]()

    def keep_residual(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            residuals[path] = output.detach()

        return hook

    def take(path: str) -> Callable[..., None]:
        def hook(block: NonLocalBlock, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            residual = residuals.pop(path)
            if path not in stats.measured:
                stats.measured[path] = _statistics(block, inputs[0].detach(), residual)

        return hook

    # what the block adds is the output of its norm; a hook on the norm also stops the block from folding it into W_z
    handles = [block.norm.register_forward_hook(keep_residual(path)) for path, block in blocks.items()]
    handles += [block.register_forward_hook(take(path)) for path, block in blocks.items()]
    try:
        yield stats
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _statistics(block: NonLocalBlock, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    size = zero_initialised(block).detach().abs()
    return torch.stack([size.mean(), size.max()]), _norms(residual) / _norms(x), entropies(block, x)


def _norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each sample, (B,) in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), dtype=wide)


def zero_initialised(block: NonLocalBlock) -> Tensor:
    """The parameter that makes a fresh block the identity: γ of the norm, or W_z if the norm has no trainable γ."""
    return block.norm.get_parameter("weight") if has_trainable_scale(block.norm) else block.W_z.weight


def entropies(block: NonLocalBlock, x: Float[Tensor, "B C *grid"]) -> Float[Tensor, " Q"]:
    """H(p_i)/log M of `QUERIES` positions of the batch, in the dtype of the block's weights.

    NaN where only one key is seen or all f are zero.
    """
    if x.shape[0] == 0:  # the modulo below needs a sample
        return x.new_zeros(0)
    weight, grid = block.W_z.weight, tuple(x.shape[2:])
    # Without autocast, so that the entropy does not depend on the precision of training. Query n is taken from sample
    # n mod B, so that QUERIES rows cover the batch.
    with without_autocast(x.device):
        rows = torch.stack(
            [
                block.affinity_rows(x[n % len(x) : n % len(x) + 1].to(weight.dtype), query).flatten()
                for n, query in enumerate(queries(grid))
            ]
        ).abs()
    shares = rows / rows.sum(dim=1, keepdim=True)
    # entr(p) = −p log p is 0 at p = 0; keys outside of the query's problem have p = 0 and do not count in M either
    return torch.special.entr(shares).sum(dim=1) / math.log(block.positions(grid).keys)


def queries(grid: Sequence[int]) -> list[tuple[int, ...]]:
    """`QUERIES` cells that are spread evenly over a grid: the same cells in every measurement."""
    return [
        tuple(int(size * ((0.5 + n * step) % 1)) for size, step in zip(grid, STEPS, strict=False))
        for n in range(QUERIES)
    ]


def _mean(values: Tensor) -> float | None:
    """The mean of the finite values."""
    kept = values[values.isfinite()]
    return kept.mean().item() if len(kept) else None


@dataclass(frozen=True)
class Verdict:
    """Whether a block has learned, by its statistics."""

    state: str
    """"inactive", "saturated", "uniform", "learned", or "unknown"."""
    words: str
    """The state and the statistics behind it, as one line of text."""


def verdict(records: Sequence[Mapping[str, Any]]) -> Verdict:
    """Classify a block by its last statistics, and describe how they changed.

    inactive    ratio < `INACTIVE`, or mean |γ| < `INACTIVE` (not applied to W_z, whose entries are smaller the more
                there are): the block is still nearly the identity that it was at the start
    saturated   softmax attention with entropy < `SATURATED`: nearly all weight on one key
    uniform     entropy > `UNIFORM`: nearly the same mean over all keys for every position
    learned     none of these
    unknown     the last ratio is NaN or infinite

    Args:
        records: statistics of one block in order, as `BlockStats.read` gives them, each with its "iteration".

    Raises:
        NlnetError: no records.
    """
    if not records:
        raise NlnetError("records: got none, expected the statistics of one block at one or more iterations")
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
    """The state, and its meaning in words."""
    # the order matters: a block that adds nothing is not judged by where it would have looked
    if ratio is None:
        return "unknown", "; its output is NaN or infinite, or its input was zero"
    if ratio < INACTIVE or (gamma is not None and gamma < INACTIVE):
        return "inactive", "; still nearly the identity that it was at the start"
    if entropy is not None and softmax and entropy < SATURATED:
        return "saturated", "; nearly all weight of each position is on one key"
    if entropy is not None and entropy > UNIFORM:
        return "uniform", "; each position takes nearly the same mean over all keys"
    return "learned", ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2g} %"
