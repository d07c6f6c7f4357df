"""The non-local operation as the paper writes it (eq. 1): the oracle of every fast algorithm, and the maps to look at.

    y_i = 1/C(x) · Σ_j f(x_i, x_j) g(x_j)

`f / C` is the affinity, an N×M map for each batch item. Everything here is quadratic, on purpose.

    softmax         f = exp(s·θᵢᵀφⱼ)            C = Σ_j f     §3.2, eq. 2 and 3 (Gaussian, embedded Gaussian)
    dot_product     f = s·θᵢᵀφⱼ                 C = M         §3.2, eq. 4
    concatenation   f = ReLU(w_fᵀ[θᵢ, φⱼ])      C = M         §3.2, eq. 5
"""

from difflib import get_close_matches

import torch
from jaxtyping import Float
from torch import Tensor

PAIRWISE = {
    "softmax": "softmax",
    "gaussian": "softmax",
    "embedded_gaussian": "softmax",
    "dot_product": "dot_product",
    "concatenation": "concatenation",
}
"""The names that `pairwise` takes, the paper's among them, and the operator that each one means."""


def operator_of(pairwise: str) -> str:
    """The operator behind a name; ValueError with the nearest name for an unknown one."""
    if pairwise in PAIRWISE:
        return PAIRWISE[pairwise]
    near = get_close_matches(str(pairwise), PAIRWISE, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown pairwise {pairwise!r}; expected one of {', '.join(map(repr, PAIRWISE))}{hint}")


def affinity(
    theta: Float[Tensor, "B N D"],
    phi: Float[Tensor, "B M D"],
    *,
    pairwise: str,
    weight: Float[Tensor, "W"] | None = None,
    scale: float = 1.0,
) -> Float[Tensor, "B N M"]:
    """f(x_i, x_j) / C(x) for every pair; `weight` is w_f, (2D,), for concatenation only.

    The scale goes on θ before the product and 1/M is split over both factors, so that half precision does not
    overflow on the way to a result that it can hold.
    """
    operator = operator_of(pairwise)
    keys, compared = phi.shape[1:]
    if operator == "softmax":
        return torch.softmax((theta * scale) @ phi.mT, dim=-1)
    if operator == "dot_product":
        share = keys**-0.5
        return (theta * (scale * share)) @ (phi * share).mT
    if weight is None:
        raise ValueError(f"pairwise 'concatenation' needs weight = w_f of shape ({2 * compared},); got None")
    weight = weight.to(theta.dtype)
    of_query, of_key = theta @ weight[:compared], phi @ weight[compared:]
    return torch.relu(of_query[:, :, None] + of_key[:, None, :]) / keys


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
