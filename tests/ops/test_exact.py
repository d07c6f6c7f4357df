"""Fast algorithms against the definition: outputs, every gradient, second derivatives, and what they allocate."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nlnet.ops import exact, nonlocal_operation
from nlnet.ops.reference import definition
from nlnet.ops.tiled import softmax_tiled

FAST = {
    "tiled": "softmax",
    "sdpa": "softmax",
    "reassociated": "dot_product",
    "sorted": "concatenation",
}
TWICE = ["tiled", "reassociated", "sorted"]
algorithms = pytest.mark.parametrize("algorithm", FAST)


def tensors(
    shape: tuple[int, int, int, int, int], *, whole: bool = False, layout: str = "contiguous", seed: int = 0
) -> list[Tensor]:
    """theta, phi, g, weight in float64; `whole` numbers make ties aᵢ = −bⱼ and duplicate keys."""
    batch, queries, keys, compared, carried = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        if whole:
            return torch.randint(-2, 3, size, generator=generator).double()
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    made = []
    for length, width in ((queries, compared), (keys, compared), (keys, carried)):
        if layout == "transposed":
            x = draw(batch, width, length).mT
        elif layout == "strided":
            x = draw(batch, 2 * length, width + 1)[:, ::2, 1:]
        else:
            x = draw(batch, length, width)
        made.append(x.requires_grad_())
    return [*made, draw(2 * compared).requires_grad_()]


def outcome(algorithm: str, inputs: list[Tensor], pairwise: str, scale: float = 1.0) -> list[Tensor]:
    """y and the gradient of every input, for one fixed upstream gradient."""
    theta, phi, g, weight = inputs
    used = inputs if pairwise == "concatenation" else inputs[:3]
    y = nonlocal_operation(
        theta,
        phi,
        g,
        pairwise=pairwise,
        weight=weight if used is inputs else None,
        scale=scale,
        algorithm=algorithm,
    )
    upstream = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return [y, *torch.autograd.grad(y, used, upstream)]


def assert_same(algorithm: str, inputs: list[Tensor], scale: float = 1.0) -> None:
    pairwise = FAST[algorithm]
    scale = 1.0 if pairwise == "concatenation" else scale
    got = outcome(algorithm, inputs, pairwise, scale)
    want = outcome("definition", inputs, pairwise, scale)
    for fast, slow in zip(got, want, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


@algorithms
@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(
        st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5)
    ),
    whole=st.booleans(),
    layout=st.sampled_from(["contiguous", "transposed", "strided"]),
    scale=st.sampled_from([1.0, 0.5, -2.0]),
    seed=st.integers(0, 1000),
)
def test_equals_the_definition(
    algorithm: str, shape: tuple[int, int, int, int, int], whole: bool, layout: str, scale: float, seed: int
):
    assert_same(algorithm, tensors(shape, whole=whole, layout=layout, seed=seed), scale)


@algorithms
def test_equals_the_definition_at_length(algorithm: str):
    assert_same(algorithm, tensors((2, 157, 83, 12, 10)), 12**-0.5)


@algorithms
def test_equals_the_definition_with_one_position(algorithm: str):
    for shape in [(2, 1, 1, 3, 2), (2, 1, 6, 3, 2), (2, 6, 1, 3, 2)]:
        assert_same(algorithm, tensors(shape))


def test_concatenation_without_an_active_pair_is_zero():
    theta, phi, g, weight = (x.detach() for x in tensors((2, 7, 5, 3, 4)))
    theta[..., 0], weight[0] = 1, -50  # a ≈ −50, b of order 1
    inputs = [x.requires_grad_() for x in (theta, phi, g, weight)]
    assert all(not x.any() for x in outcome("sorted", inputs, "concatenation"))


def test_concatenation_with_every_pair_active_is_linear():
    theta, phi, g, weight = (x.detach() for x in tensors((2, 7, 5, 3, 4)))
    theta[..., 0], weight[0] = 1, 50
    a, b = theta @ weight[:3], phi @ weight[3:]
    expected = a[:, :, None] * g.mean(1, keepdim=True) + (b[:, :, None] * g).mean(1, keepdim=True)
    got = exact.concatenation_sorted(theta, phi, g, weight=weight)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_concatenation_ties_count_as_inactive():
    # a = 1, b = −1, 0, −1: only the middle key is active, with ReLU(1 + 0) = 1; the tied ones get no gradient
    theta = torch.tensor([[[1.0]]], dtype=torch.float64, requires_grad=True)
    phi = torch.tensor([[[-1.0], [0.0], [-1.0]]], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([[[30.0], [6.0], [90.0]]], dtype=torch.float64)
    weight = torch.ones(2, dtype=torch.float64)
    y = exact.concatenation_sorted(theta, phi, g, weight=weight)
    dtheta, dphi = torch.autograd.grad(y.sum(), (theta, phi))
    assert y.item() == dtheta.item() == 2.0
    assert dphi.flatten().tolist() == [0.0, 2.0, 0.0]


def operation(algorithm: str, theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """The algorithm as a function of four tensors; the tiled softmax with tiles of a few rows."""
    if algorithm == "tiled":
        return softmax_tiled(theta, phi, g, scale=0.7, tile=7)
    if algorithm == "sorted":
        return exact.concatenation_sorted(theta, phi, g, weight=weight)
    fast = {"sdpa": exact.softmax_sdpa, "reassociated": exact.dot_product_reassociated}
    return fast[algorithm](theta, phi, g, scale=0.7)


@algorithms
def test_gradcheck(algorithm: str):
    inputs = tensors((2, 5, 3, 3, 2))
    count = 4 if algorithm == "sorted" else 3
    torch.autograd.gradcheck(lambda *x: operation(algorithm, *x, *inputs[count:]), inputs[:count])


@pytest.mark.parametrize("algorithm", TWICE)
def test_gradgradcheck(algorithm: str):
    inputs = tensors((2, 4, 3, 2, 2))
    count = 4 if algorithm == "sorted" else 3
    torch.autograd.gradgradcheck(lambda *x: operation(algorithm, *x, *inputs[count:]), inputs[:count])


@pytest.mark.parametrize("algorithm", TWICE)
def test_second_derivatives_equal_the_definition(algorithm: str):
    inputs = tensors((2, 6, 5, 3, 2), whole=True)
    count = 4 if algorithm == "sorted" else 3

    def penalty_gradient(algorithm: str) -> tuple[Tensor, ...]:
        y = nonlocal_operation(
            *inputs[:3], pairwise=pairwise, weight=inputs[3] if count == 4 else None, algorithm=algorithm
        )
        first = torch.autograd.grad(y.square().sum(), inputs[:count], create_graph=True)
        return (*first, *torch.autograd.grad(sum(x.square().sum() for x in first), inputs[:count]))

    pairwise = FAST[algorithm]
    for fast, slow in zip(penalty_gradient(algorithm), penalty_gradient("definition"), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("algorithm", TWICE)
def test_functional_gradient(algorithm: str):
    inputs = [x.detach() for x in tensors((1, 5, 4, 3, 2))]
    got = torch.func.grad(lambda *x: operation(algorithm, *x).sum(), argnums=(0, 1, 2))(*inputs)
    settings = {"weight": inputs[3]} if algorithm == "sorted" else {"scale": 0.7}
    leaves = [x.requires_grad_() for x in inputs[:3]]
    want = torch.autograd.grad(definition(*leaves, pairwise=FAST[algorithm], **settings).sum(), leaves)
    for fast, slow in zip(got, want, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tile", [1, 5, 12, 35, 1000])
def test_tile_size_changes_nothing(tile: int):
    theta, phi, g, _ = tensors((3, 7, 5, 4, 2))
    y = softmax_tiled(theta, phi, g, scale=1.0, tile=tile)
    want = definition(theta, phi, g, pairwise="softmax")
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad(y.sin().sum(), (theta, phi, g))
    for fast, slow in zip(got, torch.autograd.grad(want.sin().sum(), (theta, phi, g)), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 4, 9, 100])
@pytest.mark.parametrize("backwards", [False, True])
def test_running_sums(rows: int, backwards: bool):
    x = torch.randint(-5, 6, (2, rows, 3)).double()
    expected = [x[:, r:].sum(1) if backwards else x[:, : r + 1].sum(1) for r in range(rows)]
    exact._run_sums_(x, backwards=backwards)
    torch.testing.assert_close(x, torch.stack(expected, dim=1), rtol=0, atol=0)


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation returns, backward included."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [
            x.untyped_storage().nbytes() // x.itemsize for x in tree_leaves(out) if isinstance(x, Tensor)
        ]
        self.elements = max([self.elements, *sizes])
        return out


QUERIES, KEYS, WIDTH = 1000, 700, 4
LINEAR = 5 * (QUERIES + KEYS) * 2 * WIDTH


def largest(algorithm: str, pairwise: str, *, create_graph: bool = False) -> int:
    theta, phi, g, weight = tensors((1, QUERIES, KEYS, WIDTH, WIDTH))
    call = partial(nonlocal_operation, pairwise=pairwise, algorithm=algorithm)
    if algorithm == "tiled":
        call = partial(softmax_tiled, scale=1.0, tile=10 * KEYS)
    used = [theta, phi, g, weight] if pairwise == "concatenation" else [theta, phi, g]
    with LargestTensor() as seen:
        y = call(theta, phi, g, weight=weight) if len(used) == 4 else call(theta, phi, g)
        first = torch.autograd.grad(y.square().sum(), used, create_graph=create_graph)
        if create_graph:
            torch.autograd.grad(sum(x.square().sum() for x in first), used)
    return seen.elements


@algorithms
def test_no_map_is_allocated_forward_or_backward(algorithm: str):
    assert largest(algorithm, FAST[algorithm]) <= LINEAR < QUERIES * KEYS


@pytest.mark.parametrize("algorithm", ["reassociated", "sorted"])
def test_no_map_is_allocated_by_second_derivatives(algorithm: str):
    assert largest(algorithm, FAST[algorithm], create_graph=True) <= LINEAR


@pytest.mark.parametrize("pairwise", ["softmax", "dot_product", "concatenation"])
def test_the_detector_sees_the_map_of_the_definition(pairwise: str):
    assert largest("definition", pairwise) >= QUERIES * KEYS


def test_sdpa_of_two_widths_and_any_layout_stays_fused():
    theta = torch.randn(1, WIDTH, QUERIES).mT
    phi, g = torch.randn(1, WIDTH, KEYS).mT, torch.randn(1, KEYS, 2 * WIDTH)
    with LargestTensor() as seen:
        y = exact.softmax_sdpa(theta, phi, g, scale=1.0)
    assert seen.elements <= 2 * LINEAR
    torch.testing.assert_close(y, definition(theta, phi, g, pairwise="softmax"), rtol=1e-4, atol=1e-5)


def test_sorted_sums_in_float32_are_as_good_as_the_quadratic_ones():
    theta, phi, g, weight = (x.detach() for x in tensors((1, 2000, 1500, 8, 4)))
    truth = definition(theta, phi, g, pairwise="concatenation", weight=weight)
    single = [x.float() for x in (theta, phi, g)]
    error = (exact.concatenation_sorted(*single, weight=weight.float()) - truth).abs().max()
    a, b = theta @ weight[:8], phi @ weight[8:]
    bound = 8 * torch.finfo(torch.float32).eps * (a.abs().max() + b.abs().max()) * g.abs().mean(1).max()
    assert error <= bound
