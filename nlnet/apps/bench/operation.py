"""The operation: every algorithm beside the definition, forward and backward; then how time and memory grow."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from nlnet.apps.bench.race import Contest
from nlnet.ops import choose_algorithm, nonlocal_operation
from nlnet.ops.cost import ALGORITHMS, default_algorithm

Shape = tuple[int, int, int, int]
"""B, N, M, d."""

SHAPES: tuple[Shape, ...] = (
    (1, 784, 196, 512),  # the paper's blocks: res4 and res3 of 8×8 and 32×2 at 224
    (1, 3136, 784, 256),
    (1, 1024, 256, 512),  # at 256
    (1, 4096, 1024, 256),
    (1, 196, 36, 1024),  # res5
    (1, 24200, 5832, 128),  # res2
    (1, 12544, 3136, 256),  # res3 of long clips, ungrouped
    (1, 12544, 12544, 256),  # and with every key
    (16, 49, 49, 64),  # many small problems
)
GROWTH = (3136, 6272, 12544, 25088, 50176, 100352, 200704, 401408)
"""N of the growth series; M is a quarter of it."""


def operation_contests(
    device: str, dtype: torch.dtype, shapes: tuple[Shape, ...] = SHAPES
) -> Iterator[Contest]:
    """Forward and backward of every algorithm that serves an operator, at every shape."""
    for shape in shapes:
        for operator, algorithms in ALGORITHMS.items():
            yield Contest(
                name=f"{operator}, {_words(shape)}",
                ways={name: training(operator, shape, name, device, dtype) for name in algorithms},
                chosen=_auto(operator, shape, device, dtype),
                memory=True,
                facts={"operator": operator, "shape": shape},
            )


def growth_contests(device: str, dtype: torch.dtype, sizes: tuple[int, ...] = GROWTH) -> Iterator[Contest]:
    """The linear-memory algorithm alone at N and 2N, M = N/4, d = 64: a doubling should double time and memory.

    Softmax, whose time is quadratic, stops where a step takes minutes.
    """
    for operator in ALGORITHMS:
        algorithm = default_algorithm(operator)
        for small, large in zip(sizes, sizes[1:], strict=False):
            if operator == "softmax" and large > 50_000:
                break
            shapes = ((1, size, size // 4, 64) for size in (small, large))
            yield Contest(
                name=f"{operator}, {algorithm}, from N = {small:,} to {large:,}",
                ways={_words(s): training(operator, s, algorithm, device, dtype) for s in shapes},
                memory=True,
                facts={"operator": operator, "sizes": (small, large)},
            )


def training(
    operator: str, shape: Shape, algorithm: str, device: str, dtype: torch.dtype
) -> Callable[[], tuple[Tensor, ...]]:
    """A function that runs forward and backward once. Inputs are made on its first call, the same for everybody."""
    batch, queries, keys, width = shape
    made: list[Tensor] = []

    def run() -> tuple[Tensor, ...]:
        if not made:
            torch.manual_seed(0)
            made.extend(
                torch.randn(batch, length, width, device=device).to(dtype)
                for length in (queries, keys, keys, queries)
            )
            if operator == "concatenation":
                made.append(torch.randn(2 * width, device=device))
        leaves = [t.requires_grad_() for t in (*made[:3], *made[4:])]
        y = nonlocal_operation(
            *leaves[:3],
            pairwise=operator,
            weight=leaves[3] if operator == "concatenation" else None,
            scale=1.0 if operator == "concatenation" else width**-0.5,
            algorithm=algorithm,
        )
        return torch.autograd.grad(y, leaves, made[3])

    return run


def _auto(operator: str, shape: Shape, device: str, dtype: torch.dtype) -> str:
    batch, queries, keys, width = shape
    return choose_algorithm(
        operator,
        batch=batch,
        queries=queries,
        keys=keys,
        compared=width,
        carried=width,
        dtype=dtype,
        device=device,
    ).algorithm


def _words(shape: Shape) -> str:
    batch, queries, keys, width = shape
    return f"{f'{batch} × ' if batch > 1 else ''}{queries} × {keys}, d = {width}"
