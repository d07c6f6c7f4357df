"""1×1×1 convolutions as matrix products on the layout at hand, so that no map is transposed by a copy.

A map (B, C, *grid) lies in memory by channels (torch's contiguous) or by rows of channels, one a position
(torch's channels_last). Letters: B batch, C channels in, D channels out, N positions.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nlnet.layers.matmul import linear, product

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def by_rows(x: Float[Tensor, "B C *grid"]) -> bool:
    """Whether the C numbers of a position lie side by side, position after position (and not also by channels)."""
    return x.movedim(1, -1).is_contiguous() and not x.is_contiguous()


def pointwise(
    x: Float[Tensor, "B C *grid"],
    weight: Float[Tensor, "D C *ones"],
    bias: Float[Tensor, "D"] | None,
    *,
    rows: bool,
) -> Float[Tensor, "B D *grid"]:
    """weight · x_i + bias at every position i, laid out by rows or by channels as `rows` says, whatever x's layout.

    By rows it is one (BN, C) × (C, D) product, of one sample without a copy of x. By channels it is a convolution
    where x lies so too, else a (D, C) × (C, N) product for each sample. Autocast reaches all of them.
    """
    if rows:
        flat = x.movedim(1, -1)
        y = linear(flat.reshape(-1, x.shape[1]), weight.flatten(1), bias)
        return y.view(*flat.shape[:-1], weight.shape[0]).movedim(-1, 1)
    if x.is_contiguous():
        return CONVOLUTIONS[x.ndim - 2](x, weight, bias)
    y = product(weight.flatten(1).expand(x.shape[0], -1, -1), x.flatten(2).mT)
    if bias is not None:
        y = y + bias.to(y.dtype)[:, None]
    return y.view(x.shape[0], weight.shape[0], *x.shape[2:])
