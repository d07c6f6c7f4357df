"""The parameter-matched control: a residual block at the position of a non-local block.

The paper reports (§5.1, "How many non-local blocks") that standard residual blocks added instead of non-local
ones bring no gain, so that the gain is not just one of depth or parameters. Every network can be built with controls
(`_rb5` in its name) to repeat that comparison.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn

from nlnet.layers.norms import create_norm, has_trainable_scale
from nlnet.models.resnet import convolution


def control_width(channels: int) -> int:
    """The inner width w of a bottleneck with as many weights as a non-local block of C channels and C/2 inner ones.

    A non-local block has 4·C·(C/2) = 2C² weights, the bottleneck 2Cw + 9w²: w = C(√19 − 1)/9.
    """
    return max(1, round(channels * (math.sqrt(19) - 1) / 9))


class ResidualControl(nn.Module):
    """A bottleneck, x + BN(1×1×1(ReLU(BN(1×3×3(ReLU(BN(1×1×1 x))))))), that is the identity when fresh.

    It has as many weights as the non-local block that it replaces (`control_width`), and like it no ReLU after the
    sum. γ of the last BN starts at 0; where that norm has no trainable γ, the last convolution does.
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
