"""The non-local operation as a function: it checks its inputs, chooses an algorithm and runs it."""

import torch
from jaxtyping import Float
from torch import Tensor

from nlnet.errors import NlnetError, did_you_mean
from nlnet.layers.contexts import without_autocast
from nlnet.ops.algorithms import ALGORITHMS, cheapest, traced
from nlnet.ops.cost import Problem
from nlnet.ops.reference import OPERATORS, operator_of


def nonlocal_operation(
    theta: Float[Tensor, "B N D"],
    phi: Float[Tensor, "B M D"],
    g: Float[Tensor, "B M C"],
    *,
    pairwise: str,
    weight: Float[Tensor, "W"] | None = None,
    scale: float = 1.0,
    algorithm: str = "auto",
) -> Float[Tensor, "B N C"]:
    """y_i = 1/C(x) · Σ_j f(x_i, x_j) g(x_j), eq. 1 of the paper, exactly, without the N×M map where that pays.

        theta, phi, g = torch.randn(2, 196, 32), torch.randn(2, 49, 32), torch.randn(2, 49, 64)
        y = nlnet.nonlocal_operation(theta, phi, g, pairwise="softmax")    # (2, 196, 64)

    theta     (B, N, D)  what each of the N query positions is compared by
    phi       (B, M, D)  what each of the M key positions is compared by
    g         (B, M, C)  what each key position carries
    pairwise  "softmax" (also "gaussian", "embedded_gaussian": they differ in the embedding, not here),
              "dot_product" or "concatenation"; nlnet.ops.reference has the three formulas
    weight    (2D,) = w_f, for concatenation only; its first half meets theta. Any float dtype
    scale     s in the softmax and the dot product, a plain number; concatenation has none (scale w_f)
    algorithm "auto" asks `choose_algorithm`; or "definition"; or "tiled" and "sdpa" (softmax), "reassociated"
              (dot_product), "sorted" (concatenation)

    Returns (B, N, C) in g's dtype. Autocast does not reach inside: sums of half-precision inputs are kept in float32;
    under autocast theta and phi may differ from g in dtype and are brought to it. B = 0 and N = 0 are fine; M = 0 is
    not, for there is nothing to average.

    While torch.compile or torch.export traces, sizes may be symbols, and "auto" takes the first entry of the table
    (`nlnet.ops.algorithms`) that compiles: the one with linear memory.
    Every algorithm but "sdpa" can be differentiated twice.

    Raises ValueError, with what was got and expected, for shapes, dtypes or devices that do not fit and for a missing
    or superfluous weight; NlnetError, which is one, for an unknown pairwise or algorithm, and for an algorithm that
    cannot compute the pairwise or cannot run on the device or in the dtype.
    """
    operator = operator_of(pairwise)
    _check_tensors(theta, phi, g)
    _check_weight(operator, weight, scale, theta)
    table = ALGORITHMS[operator]
    if algorithm != "auto" and algorithm not in table:
        raise NlnetError(
            f"algorithm {algorithm!r} cannot compute pairwise {pairwise!r}; "
            f"expected 'auto' or one of {', '.join(map(repr, table))}{did_you_mean(algorithm, table)}"
        )
    problem = Problem(
        operator=operator,
        batch=g.shape[0],
        queries=theta.shape[1],
        keys=g.shape[1],
        compared=theta.shape[2],
        carried=g.shape[2],
        dtype=g.dtype,
        device=g.device.type,
        backward=torch.is_grad_enabled() and any(x.requires_grad for x in (theta, phi, g)),
    )
    if algorithm == "auto":
        algorithm = traced(problem) if torch.compiler.is_compiling() else cheapest(problem).algorithm
    elif not table[algorithm].serves(problem):
        raise NlnetError(
            f"algorithm {algorithm!r} runs on {table[algorithm].where} only; "
            f"got {g.dtype} on {g.device}: take 'auto'"
        )
    # Autocast would round sums that have to stay in float32 and raise others; the algorithms keep their own precision.
    with without_autocast(g.device):
        return table[algorithm].run(theta.to(g.dtype), phi.to(g.dtype), g, weight, scale)


def _check_tensors(theta: Tensor, phi: Tensor, g: Tensor) -> None:
    if not theta.ndim == phi.ndim == g.ndim == 3:
        raise ValueError(
            f"got {_shapes(theta, phi, g)}; expected theta (B, N, D), phi (B, M, D), g (B, M, C)"
        )
    if not theta.shape[0] == phi.shape[0] == g.shape[0]:
        raise ValueError(
            f"got {_shapes(theta, phi, g)}; expected one batch size B in theta (B, N, D), phi (B, M, D), g (B, M, C)"
        )
    if theta.shape[2] != phi.shape[2]:
        raise ValueError(
            f"got {_shapes(theta, phi, g)}; expected theta (B, N, D) and phi (B, M, D) with the same D"
        )
    if phi.shape[1] != g.shape[1]:
        raise ValueError(
            f"got {_shapes(theta, phi, g)}; expected phi (B, M, D) and g (B, M, C) with the same M"
        )
    if phi.shape[1] == 0:
        raise ValueError(
            f"got {_shapes(theta, phi, g)}; expected at least one key position (M ≥ 1) to average over"
        )
    if not theta.device == phi.device == g.device:
        raise ValueError(
            f"got theta on {theta.device}, phi on {phi.device}, g on {g.device}; expected one device"
        )
    if not (theta.is_floating_point() and phi.is_floating_point() and g.is_floating_point()):
        raise ValueError(f"got {_dtypes(theta, phi, g)}; expected floating point")
    if not theta.dtype == phi.dtype == g.dtype and not torch.is_autocast_enabled(g.device.type):
        raise ValueError(
            f"got {_dtypes(theta, phi, g)}; expected one dtype (only under autocast may they differ)"
        )


def _shapes(theta: Tensor, phi: Tensor, g: Tensor) -> str:
    return f"theta {tuple(theta.shape)}, phi {tuple(phi.shape)}, g {tuple(g.shape)}"


def _dtypes(theta: Tensor, phi: Tensor, g: Tensor) -> str:
    return f"theta {theta.dtype}, phi {phi.dtype}, g {g.dtype}"


def _check_weight(operator: str, weight: Tensor | None, scale: float, theta: Tensor) -> None:
    formula, compared = OPERATORS[operator], theta.shape[2]
    if not formula.takes_scale and scale != 1.0:
        raise ValueError(
            f"got scale={scale} with pairwise {operator!r}, which has no scale: scale the weight instead"
        )
    if not formula.takes_weight:
        if weight is not None:
            takers = ", ".join(repr(name) for name, other in OPERATORS.items() if other.takes_weight)
            raise ValueError(f"got a weight with pairwise {operator!r}; only {takers} has one: leave it out")
        return
    if weight is None:
        raise ValueError(f"pairwise {operator!r} needs weight = w_f of shape ({2 * compared},); got None")
    if tuple(weight.shape) != (2 * compared,):
        raise ValueError(f"got weight {tuple(weight.shape)}; expected (2D,) = ({2 * compared},)")
    if weight.device != theta.device or not weight.is_floating_point():
        raise ValueError(
            f"got weight {weight.dtype} on {weight.device}; expected floating point on {theta.device}, as theta"
        )
