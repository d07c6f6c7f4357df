"""The networks' convolutions, each by the product that its kernel needs where torch's own path for it is slow.

On the CPU in float32 torch computes every 3-D convolution of a channels-last map by one general path. The three
kernels of residual blocks are simpler things: 1×1×1 is a matrix product, 1×k×k a 2-D convolution of the frames, and
k×1×1 one of planes of T × HW positions. Elsewhere (other devices, dtypes and layouts, autocast, export) torch's path
is taken. Results differ by rounding alone.

Letters: B clips, T frames, H×W pixels, C channels in, D channels out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nlnet.layers.pointwise import by_rows, pointwise


class Convolution(nn.Conv3d):
    """`nn.Conv3d` with odd kernels padded to keep the size at stride 1: the same parameters, keys and results."""

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D t h w"]:
        if not _by_kernel(x):
            return super().forward(x)
        time, rows, columns = self.kernel_size
        if (time, rows, columns) == (1, 1, 1):
            return pointwise(_strided(x, self.stride), self.weight, self.bias, rows=True)
        if time == 1 and self.stride[0] == 1:
            return framewise(x, self.weight, self.bias, self.stride[1:], self.padding[1:])  # type: ignore[arg-type]
        if (rows, columns) == (1, 1) and self.stride == (1, 1, 1):
            return temporal(x, self.weight, self.bias)
        return super().forward(x)


def _by_kernel(x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype == torch.float32
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and by_rows(x)
    )


def _strided(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    return x if stride == (1, 1, 1) else x[:, :, :: stride[0], :: stride[1], :: stride[2]]


def framewise(
    x: Float[Tensor, "B C T H W"],
    weight: Float[Tensor, "D C 1 r c"],
    bias: Float[Tensor, "D"] | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Float[Tensor, "B D T h w"]:
    """The 2-D convolution of every frame; x by rows, and so is the result."""
    batch, channels, frames, height, width = x.shape
    flat = x.movedim(1, -1).reshape(batch * frames, height, width, channels).movedim(-1, 1)
    y = F.conv2d(flat, weight.squeeze(2), bias, stride, padding)
    y = y.contiguous(memory_format=torch.channels_last).movedim(1, -1)
    return y.reshape(batch, frames, *y.shape[1:]).movedim(-1, 1)


def temporal(
    x: Float[Tensor, "B C T H W"], weight: Float[Tensor, "D C k 1 1"], bias: Float[Tensor, "D"] | None
) -> Float[Tensor, "B D T H W"]:
    """y_t = Σ_r W_r x_{t + r − (k−1)/2} + bias, frames outside of the clip being 0; x by rows, and so is the result."""
    planes, kernel = x.flatten(3), weight[..., 0]
    if torch.compiler.is_compiling():
        y = F.conv2d(planes, kernel, bias, padding=(kernel.shape[2] // 2, 0))
    else:
        y = _Temporal.apply(planes, kernel, bias)
    return y.unflatten(3, x.shape[3:])


class _Temporal(torch.autograd.Function):
    """The convolution of planes (B, C, T, P) with k×1 kernels.

    All by torch's 2-D convolution but dW_r = Σ_t dy_t x_{t + r − (k−1)/2}ᵀ, which is one product for each r and
    faster (docs/log.md). For second derivatives that is torch's too.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, 0))
        return y.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        by_shifts = ctx.needs_input_grad[1] and not torch.is_grad_enabled()
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1] and not by_shifts, ctx.needs_input_grad[2])
        sizes = ((1, 1), (weight.shape[2] // 2, 0), (1, 1), False, (0, 0), 1)
        dx, dweight, dbias = torch.ops.aten.convolution_backward(
            dy, x, weight, weight.shape[:1], *sizes, wanted
        )
        return dx, _by_shifts(x, dy, weight) if by_shifts else dweight, dbias


def _by_shifts(
    x: Float[Tensor, "B C T P"], dy: Float[Tensor, "B D T P"], weight: Float[Tensor, "D C k 1"]
) -> Float[Tensor, "D C k 1"]:
    """dW of `_Temporal`; x and dy by rows."""
    dweight = weight.new_zeros(weight.shape[2], *weight.shape[:2])
    frames = x.shape[2]
    for out, shift in zip(dweight, range(-(weight.shape[2] // 2), weight.shape[2] // 2 + 1), strict=True):
        here = slice(max(0, -shift), frames - max(0, shift))
        there = slice(max(0, shift), frames + min(0, shift))
        if abs(shift) < frames:
            for upstream, inputs in zip(dy[:, :, here], x[:, :, there], strict=True):
                out.addmm_(upstream.flatten(1), inputs.flatten(1).t())
    return dweight.movedim(0, 2)[..., None]
