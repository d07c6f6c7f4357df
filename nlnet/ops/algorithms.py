"""The table of algorithms: what each one runs, where it can run and what it costs. `auto` chooses from it.

A new algorithm is one entry here (docs/extending.md): its function, on which devices and dtypes it can run
(`serves`), its price beside the others', and whether torch.compile may take it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nlnet.ops import cost
from nlnet.ops.cost import Problem
from nlnet.ops.exact import concatenation_sorted, dot_product_reassociated, softmax_sdpa
from nlnet.ops.reference import definition, operator_of
from nlnet.ops.tiled import softmax_tiled


def _anywhere(problem: Problem) -> bool:
    """True for every problem."""
    return True


def _nowhere(problem: Problem) -> bool:
    """False for every problem."""
    return False


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One exact way to compute an operator."""

    run: Callable[..., Tensor]
    """(theta, phi, g, weight, scale) → y; inputs are checked and of one dtype, and autocast is off."""
    macs: Callable[[Problem], int]
    """Multiply-adds, forward."""
    bytes: Callable[[Problem], int]
    """The most held beyond inputs and output, forward and backward: an estimate."""
    price: Callable[[Problem], float]
    """What `auto` compares, in multiply-adds."""
    serves: Callable[[Problem], bool] = _anywhere
    """Whether it can run there: device, dtype, widths."""
    where: str = "any device and dtype"
    """The same in words, for the message where it cannot."""
    compiles: Callable[[Problem], bool] = _nowhere
    """Whether `auto` may take it while torch.compile or torch.export traces: sizes may be symbols then, so that
    no price can be asked for, and the first entry that compiles is taken."""


def by_definition(operator: str, **changes: Any) -> Algorithm:
    """The table entry that computes an operator by its definition; `changes` replace its usual costs."""

    def run(theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor | None, scale: float) -> Tensor:
        # its sums over M keys need float32 where the inputs are halves
        wide = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (theta, phi, g))
        return definition(*wide, pairwise=operator, weight=weight, scale=scale).to(g.dtype)

    costs = {"macs": cost.definition_macs, "bytes": cost.definition_bytes, "price": cost.definition_price}
    return Algorithm(run=run, **{**costs, **changes})


# Each algorithm takes what its formula has; the table calls all of them alike.
def _without_weight(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda theta, phi, g, weight, scale: run(theta, phi, g, scale=scale)


def _without_scale(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda theta, phi, g, weight, scale: run(theta, phi, g, weight=weight)


ALGORITHMS: dict[str, dict[str, Algorithm]] = {
    "softmax": {
        "definition": by_definition("softmax", price=cost.softmax_kept_price),
        "tiled": Algorithm(
            run=_without_weight(softmax_tiled),
            macs=cost.definition_macs,
            bytes=cost.tiled_bytes,
            price=cost.softmax_tiled_price,
            compiles=cost.tiles_compiled,
        ),
        "sdpa": Algorithm(
            run=_without_weight(softmax_sdpa),
            macs=cost.definition_macs,
            bytes=cost.fused_bytes,
            price=cost.softmax_fused_price,
            compiles=_anywhere,
        ),
    },
    "dot_product": {
        "definition": by_definition("dot_product"),
        "reassociated": Algorithm(
            run=_without_weight(dot_product_reassociated),
            macs=cost.reassociated_macs,
            bytes=cost.reassociated_bytes,
            price=cost.reassociated_price,
            compiles=_anywhere,
        ),
    },
    "concatenation": {
        "definition": by_definition(
            "concatenation", macs=cost.concatenation_macs, price=cost.concatenation_price
        ),
        "sorted": Algorithm(
            run=_without_scale(concatenation_sorted),
            macs=cost.sorted_macs,
            bytes=cost.sorted_bytes,
            price=cost.sorted_price,
            compiles=_anywhere,
        ),
    },
}
"""By operator, then by the name that `algorithm=` takes."""


@dataclass(frozen=True)
class Choice:
    """The algorithm that `auto` picks, with the reason, and the costs of every algorithm that can run there."""

    algorithm: str
    reason: str
    macs: dict[str, int]
    """Multiply-adds, forward, by algorithm."""
    bytes: dict[str, int]
    """The most held beyond inputs and output, forward and backward, by algorithm: an estimate."""


def choose_algorithm(
    pairwise: str,
    *,
    batch: int,
    queries: int,
    keys: int,
    compared: int,
    carried: int,
    dtype: torch.dtype,
    device: str | torch.device,
    backward: bool = True,
) -> Choice:
    """The algorithm that `nonlocal_operation` takes by itself for these sizes, with the costs of all of them.

    The sizes are those of theta (batch, queries, compared), phi (batch, keys, compared) and g (batch, keys, carried);
    `backward` says whether gradients will be computed. Nothing is run: the answer is arithmetic, and cached.

        choose_algorithm("concatenation", batch=1, queries=12544, keys=3136, compared=256, carried=256,
                         dtype=torch.float32, device="cpu").algorithm            # "sorted"

    Raises:
        NlnetError: an unknown pairwise function.
    """
    return cheapest(
        Problem(
            operator=operator_of(pairwise),
            batch=batch,
            queries=queries,
            keys=keys,
            compared=compared,
            carried=carried,
            dtype=dtype,
            device=torch.device(device).type,
            backward=backward,
        )
    )


@lru_cache(maxsize=4096)
def cheapest(problem: Problem) -> Choice:
    """The algorithm with the lowest price among those that can run the problem; the first of equals."""
    served = {name: entry for name, entry in ALGORITHMS[problem.operator].items() if entry.serves(problem)}
    prices = {name: entry.price(problem) for name, entry in served.items()}
    ranked = sorted(prices, key=lambda name: prices[name])
    shown = " against ".join(f"{prices[name] / 1e6:,.1f} M for {name}" for name in ranked)
    where = f"{problem.operator} on {problem.device}, {problem.affinities:,} affinities"
    return Choice(
        ranked[0],
        f"{where}; price in multiply-adds: {shown}",
        {name: entry.macs(problem) for name, entry in served.items()},
        {name: entry.bytes(problem) for name, entry in served.items()},
    )


def traced(problem: Problem) -> str:
    """The algorithm that `auto` takes while torch.compile or torch.export traces."""
    return next(name for name, entry in ALGORITHMS[problem.operator].items() if entry.compiles(problem))
