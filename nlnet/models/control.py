"""The parameter-matched control: a residual block in a non-local block's place.

The paper reports (§5.1, "How many non-local blocks") that standard residual blocks added instead of non-local
ones bring no gain: the gain is not just depth or parameters. Users ask for exactly this comparison, so every
network of the zoo can be built with controls.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn

from nlnet.layers.norms import create_norm, has_trainable_scale
from nlnet.models.resnet import convolution


def control_width(channels: int) -> int:
    """Inner width w of a bottleneck with as many weights as a non-local block of `channels` C and C/2.

    A non-local block has 4·C·(C/2) = 2C² weights, the bottleneck 2Cw + 9w²: w = C(√19 − 1)/9.
    """
    return max(1, round(channels * (math.sqrt(19) - 1) / 9))


class ResidualControl(nn.Module):
    """x + BN(1×1×1(ReLU(BN(1×3×3(ReLU(BN(1×1×1 x))))))): the identity when fresh.

    γ = 0 in the last BN, or a zero last convolution where that norm has no γ that trains. As local as any other
    block of C2D, as many weights as the non-local block it stands for (`control_width`), and, like it, without a
    ReLU after the sum.
    """

    def __init__(self, channels: int, *, norm: str = "batch") -> None:
        super().__init__()
        width = control_width(channels)
        self.conv1 = convolution(channels, width, (1, 1, 1))
        self.bn1 = create_norm(norm, width, ndim=3)
        self.conv2 = convolution(width, width, (1, 3, 3))
        self.bn2 = create_norm(norm, width, ndim=3)
        self.conv3 = convolution(width, channels, (1, 1, 1))
        self.bn3 = create_norm(norm, channels, ndim=3, zero_init=True)
        if not has_trainable_scale(self.bn3):
            nn.init.zeros_(self.conv3.weight)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return x + self.bn3(self.conv3(y))
