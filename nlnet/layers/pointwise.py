"""1×1×1 convolutions computed as matrix products in either memory layout, so that no map has to be transposed.

A map (B, C, *grid) is channels first (torch's contiguous: one plane after the other) or channels last (the C values of
a position side by side). Letters: B batch, C channels in, D channels out, N positions.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nlnet.layers.matmul import linear, product

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def is_channels_last(x: Float[Tensor, "B C *grid"]) -> bool:
    """Whether a map is channels last; False for a map that is in both layouts, such as one with a single channel.

    Works for any number of axes; torch's own check knows only 2-D and 3-D maps.
    """
    return x.movedim(1, -1).is_contiguous() and not x.is_contiguous()


def pointwise(
    x: Float[Tensor, "B C *grid"],
    weight: Float[Tensor, "D C *ones"],
    bias: Float[Tensor, "D"] | None,
    *,
    channels_last: bool,
) -> Float[Tensor, "B D *grid"]:
    """Compute weight · x_i + bias at every position i; the result is channels last or first as asked for.

    Channels last it is one (BN, C) × (C, D) product. Channels first it is torch's convolution if x is channels first,
    else a (D, C) × (C, N) product for each sample. Autocast applies to all three.
    """
    if channels_last:
        flat = x.movedim(1, -1)
        # reshape copies only if x is channels first and the batch has several samples
        y = linear(flat.reshape(-1, x.shape[1]), weight.flatten(1), bias)
        return y.view(*flat.shape[:-1], weight.shape[0]).movedim(-1, 1)
    if x.is_contiguous():
        return CONVOLUTIONS[x.ndim - 2](x, weight, bias)
    # x is channels last: a product of each sample can read it transposed and write (D, N), a convolution would copy it
    y = product(weight.flatten(1).expand(x.shape[0], -1, -1), x.flatten(2).mT)
    if bias is not None:
        y = y + bias.to(y.dtype)[:, None]
    return y.view(x.shape[0], weight.shape[0], *x.shape[2:])
