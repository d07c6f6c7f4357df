"""Products of float32 matrices on the CPU by oneDNN, where torch has it and its operators would leave them to MKL.

oneDNN's linear layer is an operator that torch.compile takes for the same reason; results differ by rounding alone.
Everything else (other dtypes and devices, autocast, tracing, torch.backends.mkldnn.enabled = False) goes torch's way.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
FEW = 1 << 22
"""Multiply-adds below which the call costs more than the kernel saves."""


def linear(
    x: Float[Tensor, "N C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, "D"] | None
) -> Float[Tensor, "N D"]:
    """x Wᵀ + bias, as `F.linear`; differentiable to any order."""
    if not _by_onednn(x, weight) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def product(a: Float[Tensor, "B N K"], b: Float[Tensor, "B M K"]) -> Float[Tensor, "B N M"]:
    """a bᵀ of each item, as `a @ b.mT`; differentiable to any order. Several items are left to torch, which batches."""
    if len(a) == 1:
        return linear(a[0], b[0], None)[None]
    return a @ b.mT


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    return bool(
        ONEDNN is not None
        and a.is_cpu
        and a.dtype == b.dtype == torch.float32
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()  # vmap has no rule for the kernel
        and torch.backends.mkldnn.enabled
        and a.numel() * b.shape[-2] >= FEW
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return ONEDNN(x, weight, bias, "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return (
            linear(dy, weight.t(), None) if ctx.needs_input_grad[0] else None,
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
