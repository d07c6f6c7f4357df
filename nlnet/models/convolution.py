"""The networks' convolutions, each by the product that its kernel needs where torch's own path for it is slow.

On the CPU in float32 torch computes every 3-D convolution of a channels-last map by one general path. The three
kernels of residual blocks are simpler things: 1×1×1 is a matrix product, 1×k×k a 2-D convolution of the frames, and
k×1×1 one matrix product for each shift in time, added up in place. Elsewhere (other devices, dtypes and layouts,
autocast, tracing) torch's path is taken. Results differ by rounding alone.

Letters: B clips, T frames, H×W pixels, C channels in, D channels out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from nlnet.pointwise import by_rows, pointwise


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
        and not torch.compiler.is_compiling()
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
    y: Tensor = _ShiftedSum.apply(x, weight[..., 0, 0].movedim(2, 0))
    if bias is None:
        return y
    shift = bias.view(-1, 1, 1, 1)
    return y + shift if torch.is_grad_enabled() else y.add_(shift)


class _ShiftedSum(torch.autograd.Function):
    """y_t = Σ_r W_r x_{t + r − m} for W (k, D, C), m = (k − 1)/2, accumulated where it lies.

    dx_t = Σ_r W_rᵀ dy_{t − r + m}, the same sum with the shifts turned round, and dW_r = Σ_t dy_t x_{t + r − m}ᵀ.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return _accumulate(x, [w.t() for w in weight])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(dy, x, weight)
        dy = dy.contiguous(memory_format=torch.channels_last_3d)
        dx = _accumulate(dy, list(weight.flip(0))) if ctx.needs_input_grad[0] else None
        dweight = None
        if ctx.needs_input_grad[1]:
            dweight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
            upstream, inputs = _rows(dy), _rows(x)
            for shift, out in enumerate(dweight):
                for here, there in _overlaps(inputs, shift - len(weight) // 2):
                    out.addmm_(_flat(upstream[here]).t(), _flat(inputs[there]))
        return dx, dweight


def _accumulate(x: Tensor, factors: list[Tensor]) -> Tensor:
    """Σ_r x shifted by r − m, times factor r, into one new map by rows. (No view of one: ReLU may work in place.)"""
    middle = len(factors) // 2
    shape = (x.shape[0], factors[0].shape[1], *x.shape[2:])
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    inputs, outputs = _rows(x), _rows(y)
    torch.mm(_flat(inputs), factors[middle], out=_flat(outputs))
    for shift, factor in enumerate(factors):
        if shift != middle:
            for here, there in _overlaps(inputs, shift - middle):
                _flat(outputs[here]).addmm_(_flat(inputs[there]), factor)
    return y


def _rows(x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B T P C"]:
    """A view of a map that lies by rows."""
    return x.movedim(1, -1).flatten(2, 3)


def _overlaps(x: Tensor, shift: int) -> list[tuple[Any, Any]]:
    """For each clip of x (B, T, P, C) the frames t and t + shift that both exist: places in the result and in x."""
    frames = x.shape[1]
    if abs(shift) >= frames:
        return []
    here = slice(max(0, -shift), frames - max(0, shift))
    there = slice(max(0, shift), frames + min(0, shift))
    return [((clip, here), (clip, there)) for clip in range(x.shape[0])]


def _flat(x: Tensor) -> Tensor:
    return x.view(-1, x.shape[-1])


def _differentiable(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both gradients in steps that autograd follows, for second derivatives: by torch's own convolution."""
    kernel = weight.movedim(0, 2)[..., None]
    planes, upstream = x.flatten(3), dy.flatten(3)
    padding = (len(weight) // 2, 0)
    dx = conv2d_input(planes.shape, kernel, upstream, padding=padding)
    dweight = conv2d_weight(planes, kernel.shape, upstream, padding=padding)
    return dx.view(x.shape), dweight[..., 0].movedim(2, 0)
