"""The block in training, beside a plain one: convolutions, the whole N×M map, batch norm, as the equations are read."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from nlnet.apps.bench.side_by_side import Contest
from nlnet.block import CONVOLUTIONS, NonLocalBlock
from nlnet.layers.norms import BATCH_NORMS
from nlnet.ops.reference import definition

Shape = tuple[int, ...]
"""B, C and the grid."""

SHAPES: tuple[Shape, ...] = (
    (2, 1024, 4, 14, 14),
    (2, 512, 4, 28, 28),
    (1, 512, 16, 28, 28),
    (1, 512, 128, 128),
)
PAIRWISE = ("embedded_gaussian", "dot_product", "concatenation")
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


class PlainBlock(nn.Module):
    """z = BN(W_z y) + x with keys pooled after φ and g: eq. 6 and 1 term by term, the map in memory.

    The concatenation's map is ReLU(a_i + b_j); the ports' own, 2d numbers a pair, does not fit into memory here.
    """

    def __init__(self, channels: int, *, ndim: int, pairwise: str) -> None:
        super().__init__()
        convolution, inner = CONVOLUTIONS[ndim], channels // 2
        self.theta, self.phi, self.g = (convolution(channels, inner, 1) for _ in range(3))
        self.W_z, self.norm = convolution(inner, channels, 1), BATCH_NORMS[ndim](channels)
        pools = {2: nn.MaxPool2d(2), 3: nn.MaxPool3d((1, 2, 2))}
        self.pool, self.operator = pools[ndim], pairwise.replace("embedded_gaussian", "softmax")
        self.w_f = nn.Parameter(torch.randn(2 * inner) * 0.1) if pairwise == "concatenation" else None
        self.scale = inner**-0.5 if self.operator == "softmax" else 1.0

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta(x).flatten(2).mT
        phi, g = (self.pool(layer(x)).flatten(2).mT for layer in (self.phi, self.g))
        y = definition(theta, phi, g, pairwise=self.operator, weight=self.w_f, scale=self.scale)
        return self.norm(self.W_z(y.mT.reshape(x.shape[0], -1, *x.shape[2:]))) + x


def block_contests(
    device: str,
    dtype: torch.dtype,
    shapes: tuple[Shape, ...] = SHAPES,
    plain: Callable[[Shape, str], nn.Module | None] | None = None,
) -> Iterator[Contest]:
    """A training step of the block alone, in autocast where `dtype` is a half.

    Args:
        plain: makes the block to compare with, None where it has none; `PlainBlock` if not given.
    """
    for shape in shapes:
        for pairwise in PAIRWISE:
            ndim = len(shape) - 2
            torch.manual_seed(0)
            rival = (
                PlainBlock(shape[1], ndim=ndim, pairwise=pairwise)
                if plain is None
                else plain(shape, pairwise)
            )
            ours = NonLocalBlock(shape[1], ndim=ndim, pairwise=pairwise, convention="mmcv")
            x = torch.randn(shape, device=device)
            rows = x.contiguous(memory_format=LAYOUTS[len(shape)])
            ways = {} if rival is None else {"plain": step(rival.to(device), x, dtype)}
            ways |= {
                "ours": step(ours.to(device), x, dtype),
                "ours, channels-last": step(ours, rows, dtype),
            }
            yield Contest(
                name=f"{pairwise}, {' × '.join(map(str, shape))}",
                ways=ways,
                memory=True,
                facts={"pairwise": pairwise, "shape": shape},
            )


def step(block: nn.Module, x: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Forward and backward of a training step, gradients dropped."""

    def run() -> None:
        inner = x.detach().requires_grad_()
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            y = block.train()(inner)
        y.float().backward(x)
        block.zero_grad(set_to_none=True)

    return run
