"""Faster 3-D convolutions on the CPU: a special path for each kernel shape of residual networks.

On the CPU torch computes every float32 3-D convolution of a channels-last map by one slow general path. The three
kernels of residual blocks need less: 1×1×1 is a matrix product, 1×k×k a 2-D convolution of the frames, and k×1×1 a
2-D convolution of planes with T rows and HW columns. Every other kernel, device, dtype and layout takes torch's path, as
do autocast and exported or traced networks. Results differ from torch's by rounding alone.

Letters: B clips, T frames, H×W pixels, P = HW, C channels in, D channels out, k frames of the kernel.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nlnet.layers.pointwise import is_channels_last, pointwise


class Convolution(nn.Conv3d):
    """A faster `nn.Conv3d` for odd kernels with padding k//2: the same parameters, state-dict keys and results."""

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D t h w"]:
        if not _takes_special_paths(x):
            return super().forward(x)
        time, rows, columns = self.kernel_size
        if (time, rows, columns) == (1, 1, 1):
            return pointwise(_strided(x, self.stride), self.weight, self.bias, channels_last=True)
        if time == 1 and self.stride[0] == 1:
            return framewise(x, self.weight, self.bias, self.stride[1:], self.padding[1:])  # type: ignore[arg-type]
        if (rows, columns) == (1, 1) and self.stride == (1, 1, 1):
            return temporal(x, self.weight, self.bias)
        return super().forward(x)


def _takes_special_paths(x: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype == torch.float32  # in bf16 torch's path is as fast
        # a program for another machine must not depend on the memory layout of the example, nor on our autograd function
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and is_channels_last(x)
    )


def _strided(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The positions that a 1×1×1 kernel with this stride reads."""
    return x if stride == (1, 1, 1) else x[:, :, :: stride[0], :: stride[1], :: stride[2]]


def framewise(
    x: Float[Tensor, "B C T H W"],
    weight: Float[Tensor, "D C 1 r c"],
    bias: Float[Tensor, "D"] | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Float[Tensor, "B D T h w"]:
    """Convolve every frame by a 2-D kernel; x and the result are channels last."""
    batch, channels, frames, height, width = x.shape
    # in a channels-last map frames lie one after the other, so (B, T) joins into one batch axis without a copy
    flat = x.movedim(1, -1).reshape(batch * frames, height, width, channels).movedim(-1, 1)
    y = F.conv2d(flat, weight.squeeze(2), bias, stride, padding)
    # torch does not promise a channels-last result; the next layer takes its special path only for one
    y = y.contiguous(memory_format=torch.channels_last).movedim(1, -1)
    return y.reshape(batch, frames, *y.shape[1:]).movedim(-1, 1)


def temporal(
    x: Float[Tensor, "B C T H W"], weight: Float[Tensor, "D C k 1 1"], bias: Float[Tensor, "D"] | None
) -> Float[Tensor, "B D T H W"]:
    """Convolve along time: y_t = Σ_r W_r x_{t + r − (k−1)/2} + bias, with zeros for frames outside of the clip.

    x and the result are channels last.
    """
    planes, kernel = x.flatten(3), weight[..., 0]
    if torch.compiler.is_compiling():
        # torch.compile differentiates and schedules the plain operator by itself
        y = F.conv2d(planes, kernel, bias, padding=(kernel.shape[2] // 2, 0))
    else:
        y = _Temporal.apply(planes, kernel, bias)
    return y.unflatten(3, x.shape[3:])


class _Temporal(torch.autograd.Function):
    """The convolution of planes (B, C, T, P) with k×1 kernels, and its gradients.

    Everything is torch's 2-D convolution but the weight gradient, where `_weight_gradient` is 1.1 to 3 times as fast
    (docs/log.md).
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
        # Gradients are enabled here only if this backward pass is itself to be differentiated. `_weight_gradient` works
        # in place, which autograd cannot differentiate, so second derivatives use torch's weight gradient.
        by_products = ctx.needs_input_grad[1] and not torch.is_grad_enabled()
        wanted = (
            ctx.needs_input_grad[0],
            ctx.needs_input_grad[1] and not by_products,
            ctx.needs_input_grad[2],
        )
        sizes = ((1, 1), (weight.shape[2] // 2, 0), (1, 1), False, (0, 0), 1)
        dx, dweight, dbias = torch.ops.aten.convolution_backward(
            dy, x, weight, weight.shape[:1], *sizes, wanted
        )
        return dx, _weight_gradient(x, dy, weight) if by_products else dweight, dbias


def _weight_gradient(
    x: Float[Tensor, "B C T P"], dy: Float[Tensor, "B D T P"], weight: Float[Tensor, "D C k 1"]
) -> Float[Tensor, "D C k 1"]:
    """The weight gradient dW_r = Σ_t dy_t x_{t + r − (k−1)/2}ᵀ, as one matrix product for each clip and r.

    x and dy are channels last.
    """
    dweight = weight.new_zeros(weight.shape[2], *weight.shape[:2])
    frames = x.shape[2]
    for out, shift in zip(dweight, range(-(weight.shape[2] // 2), weight.shape[2] // 2 + 1), strict=True):
        # W_r connects output frame t with input frame t + shift: keep the frames for which both are in the clip
        outputs = slice(max(0, -shift), frames - max(0, shift))
        inputs = slice(max(0, shift), frames + min(0, shift))
        # A shift of the whole clip or more connects no two frames. The bounds above would then be negative, and Python
        # would count them from the end of the clip.
        if abs(shift) < frames:
            # frames and positions together are the inner axis of one product; in a channels-last map no copy is needed
            for upstream, seen in zip(dy[:, :, outputs], x[:, :, inputs], strict=True):
                out.addmm_(upstream.flatten(1), seen.flatten(1).t())
    return dweight.movedim(0, 2)[..., None]
