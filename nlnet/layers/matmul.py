"""Matrix products on the CPU by oneDNN, where they are faster than torch's own, and products with a function fused in.

torch's operators compute float32 products by MKL. oneDNN's linear layer, an operator of torch that torch.compile uses
too, is faster for large ones, and can apply a function to each sum before it is stored. Results differ by rounding alone.

`linear` and `product` choose oneDNN for float32 and torch's own operators for everything else: other dtypes and devices,
autocast, tracing, `torch.backends.mkldnn.enabled = False`. `exp_product` and `scaled_product` exist in oneDNN only: call
them where `can_fuse` is true.

Letters: N rows of x, C channels in, D channels out.
"""

from math import log
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""torch's operator for oneDNN's linear layer, or None in a torch without it. Its arguments are x, weight, bias, the name
of a function that is applied to the result, and the arguments and the variant of that function."""
BF16 = ONEDNN is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether this CPU has instructions for products in bf16."""
MIN_MACS = 1 << 22
"""Multiply-adds below which the call of oneDNN costs more than its kernel saves (measured, docs/log.md)."""
EXP_SCALE_BITS = {torch.float32: 25, torch.bfloat16: 15}
"""The k in `exp_product`, by dtype: its results are 2⁻ᵏ times the exponential. 2⁻ᵏ is at most half of the dtype's
rounding error, and far from underflow."""


def linear(
    x: Float[Tensor, "N C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, "D"] | None
) -> Float[Tensor, "N D"]:
    """x Wᵀ + bias, as `F.linear`; differentiable to any order."""
    if (
        not _supported(x, weight, (torch.float32,))
        or torch.compiler.is_compiling()  # torch.compile chooses between MKL and oneDNN by itself
        or torch.is_autocast_enabled("cpu")
        or not _faster(x, weight)
    ):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def product(a: Float[Tensor, "B N K"], b: Float[Tensor, "B M K"]) -> Float[Tensor, "B N M"]:
    """The product `a @ b.mT` of each batch item; differentiable to any order.

    oneDNN's layer takes no batch: one item is given to it, several are one batched product of torch.
    """
    # The number of items of a traced batch is a symbol; comparing it with 1 would fix the batch size of the program.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not traced and len(a) == 1:
        # squeeze, not a[0]: the gradient of an index is a new tensor of zeros that it is copied into
        return linear(a.squeeze(0), b.squeeze(0), None).unsqueeze(0)
    return a @ b.mT


def can_fuse(x: Float[Tensor, "*B N C"], weight: Float[Tensor, "*B D C"]) -> bool:
    """Whether `exp_product` and `scaled_product` work for these tensors and are faster; they carry no gradients."""
    if x.dtype == torch.bfloat16 and not BF16:
        return False
    if torch.compiler.is_compiling():
        # sizes may be symbols, so `_faster` cannot be asked; an exported program must run without oneDNN
        return _supported(x, weight, tuple(EXP_SCALE_BITS)) and not torch.compiler.is_exporting()
    return _supported(x, weight, tuple(EXP_SCALE_BITS)) and _faster(x, weight)


def exp_product(
    x: Float[Tensor, "N C"], weight: Float[Tensor, "D C"], shift: Float[Tensor, "D"]
) -> Float[Tensor, "N D"]:
    """2⁻ᵏ exp(x Wᵀ − shift) in one pass, with k = `EXP_SCALE_BITS` of the dtype.

    `shift` is float32, and x Wᵀ − shift is at most 0, or barely above. The logits x Wᵀ are never stored, nor rounded to
    the dtype.
    """
    # oneDNN's layer can end in a sigmoid but not in an exponential. Far below zero the two agree:
    # σ(z) = eᶻ/(1 + eᶻ) = eᶻ(1 − eᶻ + …). With z lowered by k ln 2, eᶻ ≤ 2⁻ᵏ is less than the rounding error.
    return ONEDNN(x, weight, -shift - EXP_SCALE_BITS[x.dtype] * log(2), "sigmoid", [], "")


def scaled_product(
    x: Float[Tensor, "N C"],
    weight: Float[Tensor, "D C"],
    bias: Float[Tensor, "D"],
    factor: Float[Tensor, "N D"],
) -> Float[Tensor, "N D"]:
    """(x Wᵀ + bias) ∘ factor, with a float32 bias."""
    if x.dtype == torch.bfloat16:
        # the kernel with a factor takes a bf16 bias only, so the multiplication is a pass of its own
        return ONEDNN(x, weight, bias, "none", [], "").mul_(factor)
    return ONEDNN.binary(x, factor, weight, bias, "mul")


def _supported(a: Tensor, b: Tensor, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether oneDNN's layer can compute the product a bᵀ: on the CPU, in one of `dtypes`."""
    return ONEDNN is not None and a.is_cpu and a.dtype == b.dtype and a.dtype in dtypes


def _faster(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN should compute the product a bᵀ: it is large, eager, and oneDNN is not switched off."""
    return bool(
        not torch.jit.is_tracing()  # a traced program must run on machines without this operator
        and not torch._C._are_functorch_transforms_active()  # vmap has no batching rule for it
        and torch.backends.mkldnn.enabled
        and a.numel() * b.shape[-2] >= MIN_MACS
    )


def _is_column_major(x: Tensor) -> bool:
    """Whether the columns of a matrix are contiguous in memory, the layout in which MKL is faster."""
    return x.stride(0) == 1 != x.stride(1)


def _flops(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * x[0] * x[1] * weight[0]


if ONEDNN is not None:  # torch's FlopCounterMode has no formula for this operator and would count 0
    register_flop_formula(ONEDNN)(_flops)


class _Linear(torch.autograd.Function):
    """oneDNN's linear layer, with the derivatives that torch does not define for it."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _is_column_major(x):
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
        if ctx.needs_input_grad[0] and _is_column_major(x):
            # (Wᵀ dyᵀ)ᵀ is the same gradient in the layout of x, so that no later step has to transpose it
            dx = linear(weight.t().contiguous(), dy, None).t()
        elif ctx.needs_input_grad[0]:
            dx = linear(dy, weight.t(), None)
        return (
            dx,
            dy.t() @ x if ctx.needs_input_grad[1] else None,  # dyᵀ is column-major: torch's own product
            dy.sum(0) if ctx.needs_input_grad[2] else None,
        )

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dweight: Tensor | None, dbias: Tensor | None) -> Tensor:
        """Forward-mode derivative: dx Wᵀ + x dWᵀ + dbias, over the inputs that have a tangent."""
        x, weight = ctx.saved_tensors
        moved = [F.linear(dx, weight)] if dx is not None else []
        moved += [F.linear(x, dweight)] if dweight is not None else []
        moved += [dbias.expand(len(x), -1)] if dbias is not None else []
        return torch.stack(moved).sum(0)
