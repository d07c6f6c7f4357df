"""Products of matrices on the CPU by oneDNN, where torch has it and its operators would leave them to MKL, or to passes.

oneDNN's linear layer is an operator that torch.compile takes for the same reason; results differ by rounding alone.
`linear` and `product` take it for float32 and are torch's own for everything else (other dtypes and devices, autocast,
tracing, torch.backends.mkldnn.enabled = False). `exp_product` and `scaled_product` have no other way: ask `fuses`.
"""

from math import log
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
BF16 = ONEDNN is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported()
FEW = 1 << 22
"""Multiply-adds below which the call costs more than the kernel saves."""
FAINT = {torch.float32: 25, torch.bfloat16: 15}
"""The k of `exp_product`: 2⁻ᵏ is below the dtype's precision by a factor of two at least."""


def linear(
    x: Float[Tensor, "N C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, "D"] | None
) -> Float[Tensor, "N D"]:
    """x Wᵀ + bias, as `F.linear`; differentiable to any order."""
    if (
        not _takes(x, weight, (torch.float32,))
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or not _pays(x, weight)
    ):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def product(a: Float[Tensor, "B N K"], b: Float[Tensor, "B M K"]) -> Float[Tensor, "B N M"]:
    """a bᵀ of each item, as `a @ b.mT`; differentiable to any order. Several items are left to torch, which batches."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # then their number may be a symbol
    if not traced and len(a) == 1:
        return linear(a.squeeze(0), b.squeeze(0), None).unsqueeze(0)  # a[0] would copy its gradient
    return a @ b.mT


def fuses(x: Float[Tensor, "*B N C"], weight: Float[Tensor, "*B D C"]) -> bool:
    """Whether `exp_product` and `scaled_product` can be had for these, and pay. They carry no gradients."""
    if x.dtype == torch.bfloat16 and not BF16:
        return False
    if torch.compiler.is_compiling():
        return _takes(x, weight, tuple(FAINT)) and not torch.compiler.is_exporting()
    return _takes(x, weight, tuple(FAINT)) and _pays(x, weight)


def exp_product(
    x: Float[Tensor, "N C"], weight: Float[Tensor, "D C"], shift: Float[Tensor, "D"]
) -> Float[Tensor, "N D"]:
    """2⁻ᵏ exp(x Wᵀ − shift), k = `FAINT` of the dtype, while the sums are at hand: no logit is stored or rounded.

    `shift` is float32, and x Wᵀ − shift at most 0 or hardly more. oneDNN's linear layer ends in no exponential but in a
    sigmoid, which is σ(z) = eᶻ(1 − eᶻ + …): k ln 2 lower both are the same number in the dtype's precision.
    """
    return ONEDNN(x, weight, -shift - FAINT[x.dtype] * log(2), "sigmoid", [], "")


def scaled_product(
    x: Float[Tensor, "N C"],
    weight: Float[Tensor, "D C"],
    bias: Float[Tensor, "D"],
    factor: Float[Tensor, "N D"],
) -> Float[Tensor, "N D"]:
    """(x Wᵀ + bias) ∘ factor; `bias` is float32, which of bf16 only the kernel without the factor takes."""
    if x.dtype == torch.bfloat16:
        return ONEDNN(x, weight, bias, "none", [], "").mul_(factor)
    return ONEDNN.binary(x, factor, weight, bias, "mul")


def _takes(a: Tensor, b: Tensor, dtypes: tuple[torch.dtype, ...]) -> bool:
    return ONEDNN is not None and a.is_cpu and a.dtype == b.dtype and a.dtype in dtypes


def _pays(a: Tensor, b: Tensor) -> bool:
    return bool(
        not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()  # vmap has no rule for the kernel
        and torch.backends.mkldnn.enabled
        and a.numel() * b.shape[-2] >= FEW
    )


def _by_channels(x: Tensor) -> bool:
    """Whether x lies in memory column by column: there MKL is the faster one."""
    return x.stride(0) == 1 != x.stride(1)


def _flops(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[1] * weight[0]


if ONEDNN is not None:  # torch's FlopCounterMode knows its own products alone
    register_flop_formula(ONEDNN)(_flops)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _by_channels(x):
            return F.linear(x, weight, bias)
        return ONEDNN(x, weight, bias, "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = None
        if ctx.needs_input_grad[0] and _by_channels(x):
            dx = linear(weight.t().contiguous(), dy, None).t()  # laid out as x is
        elif ctx.needs_input_grad[0]:
            dx = linear(dy, weight.t(), None)
        return (
            dx,
            dy.t() @ x if ctx.needs_input_grad[1] else None,
            dy.sum(0) if ctx.needs_input_grad[2] else None,
        )

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dweight: Tensor | None, dbias: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        moved = [F.linear(dx, weight)] if dx is not None else []
        moved += [F.linear(x, dweight)] if dweight is not None else []
        moved += [dbias.expand(len(x), -1)] if dbias is not None else []
        return torch.stack(moved).sum(0)
