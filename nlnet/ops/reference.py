"""The non-local operation as the paper writes it (eq. 1): slow, for tests of the fast algorithms and for N×M maps.

    y_i = 1/C(x) · Σ_j f(x_i, x_j) g(x_j)

`f / C` is the affinity, an N×M map for each batch item. Everything here is quadratic, on purpose.

    softmax         f = exp(s·θᵢᵀφⱼ)            C = Σ_j f     §3.2, eq. 2 and 3 (Gaussian, embedded Gaussian)
    dot_product     f = s·θᵢᵀφⱼ                 C = M         §3.2, eq. 4
    concatenation   f = ReLU(w_fᵀ[θᵢ, φⱼ])      C = M         §3.2, eq. 5

Two tables: OPERATORS, the formulas, and PAIRWISE, the names that a block takes and what each one means. A fifth
pairwise function is an entry in both; docs/extending.md shows one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nlnet.errors import NlnetError, did_you_mean


def softmax_affinity(
    theta: Float[Tensor, "B N D"], phi: Float[Tensor, "B M D"], weight: None, scale: float
) -> Float[Tensor, "B N M"]:
    # The scale goes on θ before the product: in fp16 a logit of θᵀφ can overflow where s·θᵀφ does not.
    return torch.softmax((theta * scale) @ phi.mT, dim=-1)


def dot_product_affinity(
    theta: Float[Tensor, "B N D"], phi: Float[Tensor, "B M D"], weight: None, scale: float
) -> Float[Tensor, "B N M"]:
    # 1/M is split over both factors for the same reason: neither they nor their product leave fp16's range.
    share = phi.shape[1] ** -0.5
    return (theta * (scale * share)) @ (phi * share).mT


def concatenation_affinity(
    theta: Float[Tensor, "B N D"], phi: Float[Tensor, "B M D"], weight: Float[Tensor, "W"], scale: float
) -> Float[Tensor, "B N M"]:
    # w_fᵀ[θᵢ, φⱼ] = w₁ᵀθᵢ + w₂ᵀφⱼ: a sum of two numbers, so no vector of 2D is ever put together for a pair.
    compared = theta.shape[2]
    weight = weight.to(theta.dtype)
    of_query, of_key = theta @ weight[:compared], phi @ weight[compared:]
    return torch.relu(of_query[:, :, None] + of_key[:, None, :]) / phi.shape[1]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One formula for f/C."""

    affinity: Callable[..., Tensor]
    """(theta, phi, weight, scale) → f(x_i, x_j)/C(x), (B, N, M)."""
    takes_weight: bool = False
    """Whether it needs w_f, (2D,)."""
    takes_scale: bool = True
    signed: bool = False
    """Whether f/C can be negative: then it is no distribution over keys, and pictures need two colours."""
    sums_to_one: bool = False
    """Whether the row of a query sums to 1 over the keys."""
    compared_per_pair: int = 1
    """Multiply-adds of f for a pair of positions, in units of D, as the paper counts them."""


OPERATORS = {
    "softmax": Operator(affinity=softmax_affinity, sums_to_one=True),
    "dot_product": Operator(affinity=dot_product_affinity, signed=True),
    "concatenation": Operator(
        affinity=concatenation_affinity, takes_weight=True, takes_scale=False, compared_per_pair=2
    ),
}


@dataclass(frozen=True, kw_only=True)
class Pairwise:
    """A pairwise function of §3.2: its operator, and what a block compares and scales."""

    operator: str
    """A name of OPERATORS."""
    formula: str
    """f(x_i, x_j)."""
    embeds: bool = True
    """Whether positions are compared by θ and φ; else by x itself."""
    scaled: bool = False
    """Whether the conventions that scale (the release, mmcv) give it the temperature 1/√d."""


PAIRWISE = {
    "gaussian": Pairwise(operator="softmax", formula="exp(s·x_iᵀx_j)", embeds=False),
    "embedded_gaussian": Pairwise(operator="softmax", formula="exp(s·θ_iᵀφ_j)", scaled=True),
    "dot_product": Pairwise(operator="dot_product", formula="s·θ_iᵀφ_j"),
    "concatenation": Pairwise(operator="concatenation", formula="ReLU(w_fᵀ[θ_i, φ_j])"),
}
"""The paper's four, by the name that `pairwise=` takes."""


def operator_of(pairwise: str) -> str:
    """Return the operator that a name of PAIRWISE or OPERATORS stands for; raise NlnetError for other names."""
    if pairwise in PAIRWISE:
        return PAIRWISE[pairwise].operator
    if pairwise in OPERATORS:
        return pairwise
    names = list(dict.fromkeys([*OPERATORS, *PAIRWISE]))
    raise NlnetError(
        f"unknown pairwise {pairwise!r}; expected one of {', '.join(map(repr, names))}{did_you_mean(pairwise, names)}"
    )


def affinity(
    theta: Float[Tensor, "B N D"],
    phi: Float[Tensor, "B M D"],
    *,
    pairwise: str,
    weight: Float[Tensor, "W"] | None = None,
    scale: float = 1.0,
) -> Float[Tensor, "B N M"]:
    """f(x_i, x_j) / C(x) for every pair; `weight` is w_f, (2D,), for operators that take one."""
    operator = operator_of(pairwise)
    if weight is None and OPERATORS[operator].takes_weight:
        raise ValueError(f"pairwise {operator!r} needs weight = w_f of shape ({2 * phi.shape[2]},); got None")
    return OPERATORS[operator].affinity(theta, phi, weight, scale)


def definition(
    theta: Float[Tensor, "B N D"],
    phi: Float[Tensor, "B M D"],
    g: Float[Tensor, "B M C"],
    *,
    pairwise: str,
    weight: Float[Tensor, "W"] | None = None,
    scale: float = 1.0,
) -> Float[Tensor, "B N C"]:
    """y_i = Σ_j (f / C)_ij g_j, the quadratic way: O(NM(D + C)) time, O(NM) memory."""
    return affinity(theta, phi, pairwise=pairwise, weight=weight, scale=scale) @ g
