"""Benchmarks of a training step of the block beside a plain block that follows the equations of the paper literally."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from nlnet.apps.bench.side_by_side import Comparison
from nlnet.block import CONVOLUTIONS, NonLocalBlock
from nlnet.layers.norms import BATCH_NORMS
from nlnet.ops.reference import definition

Shape = tuple[int, ...]
"""B, C and the sizes of the axes."""

SHAPES: tuple[Shape, ...] = (
    (2, 1024, 4, 14, 14),
    (2, 512, 4, 28, 28),
    (1, 512, 16, 28, 28),
    (1, 512, 128, 128),
)
PAIRWISE = ("embedded_gaussian", "dot_product", "concatenation")
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


class PlainBlock(nn.Module):
    """A non-local block written as in the paper, with the whole N×M map in memory: z = BN(W_z y) + x (equations 1 and 6).

    Keys are pooled after φ and g. The map of the concatenation is computed as ReLU(a_i + b_j). Other projects hold 2d numbers for each pair of
    positions instead, which does not fit into memory at these shapes.
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


def block_comparisons(
    device: str,
    dtype: torch.dtype,
    shapes: tuple[Shape, ...] = SHAPES,
    plain: Callable[[Shape, str], nn.Module | None] | None = None,
) -> Iterator[Comparison]:
    """Compare a training step of `NonLocalBlock` with one of a plain block, under autocast if `dtype` is bfloat16.

    Args:
        plain: makes the block to compare with from a shape and a pairwise function; it returns None where it has
            none. `PlainBlock` if not given.
    """
    for shape in shapes:
        for pairwise in PAIRWISE:
            ndim = len(shape) - 2
            torch.manual_seed(0)
            other = (
                PlainBlock(shape[1], ndim=ndim, pairwise=pairwise)
                if plain is None
                else plain(shape, pairwise)
            )
            # mmcv's convention is the one that PlainBlock and mmcv's block compute
            ours = NonLocalBlock(shape[1], ndim=ndim, pairwise=pairwise, convention="mmcv")
            x = torch.randn(shape, device=device)
            channels_last = x.contiguous(memory_format=LAYOUTS[len(shape)])
            ways = {} if other is None else {"plain": step(other.to(device), x, dtype)}
            ways |= {
                "ours": step(ours.to(device), x, dtype),
                "ours, channels-last": step(ours, channels_last, dtype),
            }
            yield Comparison(
                name=f"{pairwise}, {' × '.join(map(str, shape))}",
                ways=ways,
                memory=True,
                facts={"pairwise": pairwise, "shape": shape},
            )


def step(block: nn.Module, x: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that runs forward and backward of a training step and drops the gradients."""

    def run() -> None:
        inner = x.detach().requires_grad_()  # as inside a network, where the gradient of x is needed too
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            y = block.train()(inner)
        y.float().backward(x)  # any gradient of the right shape will do
        block.zero_grad(set_to_none=True)

    return run
