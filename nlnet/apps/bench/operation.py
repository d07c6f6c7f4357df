"""Benchmarks of the non-local operation: every algorithm beside the definition, and how time and memory grow with N."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from nlnet.apps.bench.side_by_side import Comparison, Work
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
"""Work of forward and backward in units of a forward pass; 3.5 where backward computes the affinity map again.

That of `tiled` is counted as if it kept no tile, though it may.
"""
GROWTH = (3136, 6272, 12544, 25088, 50176, 100352, 200704, 401408)
"""N of the growth series; M is a quarter of it."""


def operation_comparisons(
    device: str, dtype: torch.dtype, shapes: tuple[Shape, ...] = SHAPES
) -> Iterator[Comparison]:
    """Compare all algorithms of each operator at each shape, forward and backward."""
    for shape in shapes:
        for operator, algorithms in ALGORITHMS.items():
            choice = _choice(operator, shape, device, dtype)
            facts: dict[str, object] = {"operator": operator, "shape": shape}
            if operator == "softmax":
                facts["sdpa"] = sdpa_kernel(shape, device, dtype)
            yield Comparison(
                name=f"{operator}, {_shape_text(shape)}",
                ways={name: training_step(operator, shape, name, device, dtype) for name in algorithms},
                chosen=choice.algorithm,
                work={name: _work(name, choice, shape, dtype) for name in algorithms},
                memory=True,
                facts=facts,
            )


def growth_comparisons(
    device: str, dtype: torch.dtype, sizes: tuple[int, ...] = GROWTH
) -> Iterator[Comparison]:
    """Compare the algorithm of least memory at N with itself at 2N; M = N/4, d = 64.

    Linear algorithms need twice the time and memory. Softmax, whose time is quadratic, stops before a step takes
    minutes.
    """
    for operator in ALGORITHMS:
        # at the largest N, where the terms that grow fastest decide
        held = _choice(operator, (1, sizes[-1], sizes[-1] // 4, 64), device, dtype).bytes
        algorithm = min(held, key=lambda name: held[name])
        for small, large in zip(sizes, sizes[1:], strict=False):
            if operator == "softmax" and large > 50_000:  # quadratic in N
                break
            shapes = ((1, size, size // 4, 64) for size in (small, large))
            yield Comparison(
                name=f"{operator}, {algorithm}, from N = {small:,} to {large:,}",
                ways={_shape_text(s): training_step(operator, s, algorithm, device, dtype) for s in shapes},
                memory=True,
                facts={"operator": operator, "sizes": (small, large)},
            )


def training_step(
    operator: str, shape: Shape, algorithm: str, device: str, dtype: torch.dtype
) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that runs forward and backward once.

    Inputs are made at its first call, so that comparisons that have not run hold no memory; the seed makes them equal
    for all algorithms.
    """
    batch, queries, keys, width = shape
    formula = OPERATORS[operator]
    made: list[Tensor] = []

    def run() -> tuple[Tensor, ...]:
        if not made:
            torch.manual_seed(0)
            # q, k, v and the gradient of the output
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


def sdpa_kernel(shape: Shape, device: str, dtype: torch.dtype) -> str:
    """The kernel that `scaled_dot_product_attention` uses for a shape; "math" is the one that computes the whole map."""
    batch, queries, keys, width = shape
    query, key = (
        torch.empty(batch, 1, length, width, device=device, dtype=dtype, requires_grad=True)
        for length in (queries, keys)
    )
    # torch has no public function for it; the answer is written into the result file beside the timing
    return SDPBackend(torch._fused_sdp_choice(query, key, key)).name.lower()


def _work(algorithm: str, choice: Choice, shape: Shape, dtype: torch.dtype) -> Work:
    """The work of an algorithm: its multiply-adds, and one pass over inputs, output and their gradients.

    The definition computes in float32 whatever the dtype of its inputs.
    """
    batch, queries, keys, width = shape
    # the roofline has to be that of the dtype in which the products are computed
    own = torch.float32 if algorithm == "definition" else dtype
    return Work(
        flops=2 * PASSES[algorithm] * choice.macs[algorithm],
        bytes=4 * batch * (queries + keys) * width * dtype.itemsize,
        dtype=own,
    )


def _choice(operator: str, shape: Shape, device: str, dtype: torch.dtype) -> Choice:
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


def _shape_text(shape: Shape) -> str:
    batch, queries, keys, width = shape
    return f"{f'{batch} × ' if batch > 1 else ''}{queries} × {keys}, d = {width}"
