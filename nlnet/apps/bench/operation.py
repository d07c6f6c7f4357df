"""The operation: every algorithm beside the definition, forward and backward; then how time and memory grow."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from nlnet.apps.bench.side_by_side import Contest, Work
from nlnet.ops import choose_algorithm, nonlocal_operation
from nlnet.ops.algorithms import ALGORITHMS, Choice
from nlnet.ops.reference import OPERATORS

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
PASSES = {"definition": 3.0, "tiled": 3.5, "sdpa": 3.5, "reassociated": 3.0, "sorted": 3.0}
"""Forward and backward, in forward passes: those of softmax that keep no map make it twice (tiles that are kept count too)."""
GROWTH = (3136, 6272, 12544, 25088, 50176, 100352, 200704, 401408)
"""N of the growth series; M is a quarter of it."""


def operation_contests(
    device: str, dtype: torch.dtype, shapes: tuple[Shape, ...] = SHAPES
) -> Iterator[Contest]:
    """Forward and backward of every algorithm that serves an operator, at every shape."""
    for shape in shapes:
        for operator, algorithms in ALGORITHMS.items():
            choice = _auto(operator, shape, device, dtype)
            facts: dict[str, object] = {"operator": operator, "shape": shape}
            if operator == "softmax":
                facts["sdpa"] = sdpa_back_end(shape, device, dtype)
            yield Contest(
                name=f"{operator}, {_words(shape)}",
                ways={name: training(operator, shape, name, device, dtype) for name in algorithms},
                chosen=choice.algorithm,
                work={name: _work(name, choice, shape, dtype) for name in algorithms},
                memory=True,
                facts=facts,
            )


def growth_contests(device: str, dtype: torch.dtype, sizes: tuple[int, ...] = GROWTH) -> Iterator[Contest]:
    """The linear-memory algorithm alone at N and 2N, M = N/4, d = 64: a doubling should double time and memory.

    Softmax, whose time is quadratic, stops where a step takes minutes.
    """
    for operator in ALGORITHMS:
        held = _auto(operator, (1, sizes[-1], sizes[-1] // 4, 64), device, dtype).bytes
        algorithm = min(held, key=lambda name: held[name])
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
    formula = OPERATORS[operator]
    made: list[Tensor] = []

    def run() -> tuple[Tensor, ...]:
        if not made:
            torch.manual_seed(0)
            made.extend(
                torch.randn(batch, length, width, device=device).to(dtype)
                for length in (queries, keys, keys, queries)
            )
            if formula.takes_weight:
                made.append(torch.randn(2 * width, device=device))
        leaves = [t.requires_grad_() for t in (*made[:3], *made[4:])]
        y = nonlocal_operation(
            *leaves[:3],
            pairwise=operator,
            weight=leaves[3] if formula.takes_weight else None,
            scale=width**-0.5 if formula.takes_scale else 1.0,
            algorithm=algorithm,
        )
        return torch.autograd.grad(y, leaves, made[3])

    return run


def sdpa_back_end(shape: Shape, device: str, dtype: torch.dtype) -> str:
    """Which kernel `scaled_dot_product_attention` takes for that shape: "math" is the one that makes the whole map."""
    batch, queries, keys, width = shape
    query, key = (
        torch.empty(batch, 1, length, width, device=device, dtype=dtype, requires_grad=True)
        for length in (queries, keys)
    )
    return SDPBackend(torch._fused_sdp_choice(query, key, key)).name.lower()


def _work(algorithm: str, choice: Choice, shape: Shape, dtype: torch.dtype) -> Work:
    """Its products, and the inputs, y and their gradients passing by once. The definition computes in float32."""
    batch, queries, keys, width = shape
    own = torch.float32 if algorithm == "definition" else dtype
    return Work(
        flops=2 * PASSES[algorithm] * choice.macs[algorithm],
        bytes=4 * batch * (queries + keys) * width * dtype.itemsize,
        dtype=own,
    )


def _auto(operator: str, shape: Shape, device: str, dtype: torch.dtype) -> Choice:
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
    )


def _words(shape: Shape) -> str:
    batch, queries, keys, width = shape
    return f"{f'{batch} × ' if batch > 1 else ''}{queries} × {keys}, d = {width}"
