"""Softmax by tiles through oneDNN's fused products, against the definition in float64: values, gradients, when taken."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nlnet.layers import matmul as products
from nlnet.ops import tiled
from nlnet.ops.reference import definition
from nlnet.ops.tiled import kept_rows, softmax_tiled

bf16_only = pytest.mark.skipif(not products.BF16, reason="oneDNN without bf16 on this CPU")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=bf16_only)]
SHARE = {torch.float32: 2e-5, torch.bfloat16: 2**-6}
"""Of float32 mostly the rounding of logits of some tens; of bf16 four roundings."""
pytestmark = pytest.mark.skipif(products.ONEDNN is None, reason="torch without oneDNN's linear layer")
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    monkeypatch.setattr(products, "MIN_MACS", 0)


def drawn(
    batch: int,
    queries: int,
    keys: int,
    compared: int,
    carried: int,
    *,
    dtype: torch.dtype,
    size: float = 1.0,
    turned: bool = False,
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(queries * 31 + keys * 7 + compared)
    shapes = ((batch, queries, compared, size), (batch, keys, compared, size), (batch, keys, carried, 1.0))
    made = [torch.randn(b, n, c, generator=generator) * s for b, n, c, s in shapes]
    if turned:
        made = [x.mT.contiguous().mT for x in made]
    return [x.to(dtype).requires_grad_() for x in made]


def kernel_calls(call) -> tuple[Tensor, int]:
    with mock.patch.object(tiled, "exp_product", wraps=tiled.exp_product) as kernel:
        return call(), kernel.call_count


def assert_is_the_definition(
    inputs: list[Tensor], *, scale: float, share: float, tile: int = 200, kept: float = 3.0
) -> None:
    """The output and each gradient, element by element, as a share of the sum of what was added with every sign plus."""
    y = softmax_tiled(*inputs, scale=scale, tile=tile, kept=kept)
    u = torch.linspace(-1, 2, y.numel()).view(y.shape).to(y.dtype)
    got = [y.detach(), *torch.autograd.grad(y, inputs, u)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    true = definition(*exact, pairwise="softmax", scale=scale)
    want = [true.detach(), *torch.autograd.grad(true, exact, u.double())]
    theta, phi, g = (x.detach() for x in exact)
    p = (theta @ phi.mT * scale).softmax(-1)
    size = u.double().abs()
    moved = p * (size @ g.abs().mT + (size * (p @ g.abs())).sum(-1, keepdim=True)) * abs(scale)
    allowed = (p @ g.abs(), moved @ phi.abs(), moved.mT @ theta.abs(), p.mT @ size)
    for ours, truth, most, name in zip(got, want, allowed, ("y", "dtheta", "dphi", "dg"), strict=True):
        assert ours.dtype == inputs[0].dtype
        assert ours.shape == truth.shape
        excess = ((ours.double() - truth).abs() - share * most).max() if most.numel() else 0
        assert excess <= 1e-12, f"{name}: {excess} over"


@each_dtype
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(
        st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20)
    ),
    scale=st.sampled_from([1.0, 0.25, 0.7, -2.0]),
    tile=st.sampled_from([1, 70, 10_000]),
    kept=st.sampled_from([0.0, 0.3, 3.0]),
    turned=st.booleans(),
)
def test_equals_the_definition(dtype, sizes, scale, tile, kept, turned):
    inputs = drawn(*sizes, dtype=dtype, turned=turned)
    assert_is_the_definition(inputs, scale=scale, tile=tile, kept=kept, share=SHARE[dtype])


@each_dtype
def test_equals_the_definition_at_length(dtype):
    inputs = drawn(2, 300, 257, 64, 48, dtype=dtype)
    assert_is_the_definition(inputs, scale=64**-0.5, tile=20_000, share=SHARE[dtype])


@each_dtype
def test_large_logits_with_a_scale_that_bf16_has_not(dtype):
    """Logits of hundreds: rounding s θ to bf16 alone would be worth several tenths of one."""
    inputs = drawn(1, 60, 40, 16, 8, dtype=dtype, size=8)
    assert_is_the_definition(inputs, scale=0.7, share={torch.float32: 1e-4}.get(dtype, SHARE[dtype]))


@each_dtype
def test_logits_far_below_what_the_lengths_allow(dtype):
    """θ is long in channels where φ is naught: |θ||φ| bounds the logits by 2500 and none is above some tens."""
    theta, phi, g = (x.detach() for x in drawn(1, 50, 40, 16, 8, dtype=dtype))
    theta[..., :4], phi[..., :4] = 50, 0
    phi[..., 4:8], theta[..., 4:8] = 50, 0
    inputs = [x.requires_grad_() for x in (theta, phi, g)]
    y, calls = kernel_calls(lambda: softmax_tiled(*inputs, scale=0.25, tile=400))
    assert y.isfinite().all()
    again = {torch.float32: 0, torch.bfloat16: 5}[dtype]
    assert calls == 1 + again, "one tile of five shows it; then by the largest, of float32 from the logits"
    for kept in (0.0, 3.0):
        assert_is_the_definition(inputs, scale=0.25, tile=400, share=SHARE[dtype], kept=kept)


@each_dtype
def test_huge_logits_whose_largest_is_rounded(dtype):
    """16444 and 16424, of bf16 both 16384, and a bound of 26444: exp(16444 − 16384) would saturate, and so would the other."""
    theta = torch.tensor([[[128.0, 8.0, 100.0, 0.0]]]).to(dtype)
    phi = torch.tensor([[[128.0, 7.5, 0.0, 100.0], [128.0, 5.0, 0.0, 100.0]]]).to(dtype)
    y, calls = kernel_calls(lambda: softmax_tiled(theta, phi, torch.eye(2)[None].to(dtype), scale=1.0))
    assert calls == {torch.float32: 1, torch.bfloat16: 2}[dtype]
    torch.testing.assert_close(y, torch.tensor([[[1.0, 0.0]]]).to(dtype), rtol=0, atol=1e-8)


@bf16_only
def test_the_mean_that_is_subtracted_is_not_rounded():
    """g and u nearly constant: dP is some 1028 everywhere and dP − δ some 3; bf16 has 1024 and 1032."""
    theta, phi, g = (x.detach() for x in drawn(1, 50, 40, 8, 1028, dtype=torch.bfloat16))
    inputs = [x.requires_grad_() for x in (theta, phi.abs(), 1 + g / 10)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    (truth,) = torch.autograd.grad(definition(*exact, pairwise="softmax", scale=1.0).sum(), exact[:1])
    (found,) = torch.autograd.grad(softmax_tiled(*inputs, scale=1.0).sum(), inputs[:1])
    of_a_query = (found.double() - truth).abs().amax(-1)
    assert of_a_query.median() < 0.5, (
        "the roundings of y are worth tenths, seldom more; that of δ would be worth 2"
    )


@bf16_only
def test_logits_are_not_rounded_to_bf16():
    """Two keys whose logits 64 and 64.25 are one number in bf16; the weights are those of a difference of 1/4."""
    theta = torch.tensor([[[8.0, 0.5]]], dtype=torch.bfloat16)
    phi = torch.tensor([[[8.0, 0.0], [8.0, 0.5]]], dtype=torch.bfloat16)
    g = torch.tensor([[[0.0], [1.0]]], dtype=torch.bfloat16)
    assert torch.tensor(64.25).bfloat16() == 64
    y, calls = kernel_calls(lambda: softmax_tiled(theta, phi, g, scale=1.0))
    assert calls
    torch.testing.assert_close(y.float(), torch.full((1, 1, 1), 0.25).sigmoid(), rtol=2**-7, atol=0)


def test_what_is_taken_and_what_is_left():
    def calls(inputs, **options):
        return kernel_calls(lambda: softmax_tiled(*inputs, scale=1.0, **options))[1]

    inputs = drawn(2, 9, 7, 4, 3, dtype=torch.float32)
    assert calls(inputs, tile=21) == 6, "three tiles of each item"
    assert not calls([x.double() for x in inputs])
    assert not calls([x.half() for x in inputs])
    with mock.patch.object(products, "MIN_MACS", 1000):
        assert not calls(inputs), "small products are left to torch"
    torch._C._set_mkldnn_enabled(False)
    try:
        assert not calls(inputs)
    finally:
        torch._C._set_mkldnn_enabled(True)


@each_dtype
def test_tiles_are_kept_for_the_backward_pass(dtype):
    """Four tiles of 10 queries for each of two items; 3·8·(40 + 20)/20 = 72 queries' tiles hold three times the inputs and y."""
    inputs = drawn(2, 40, 20, 4, 4, dtype=dtype)
    assert kept_rows(40, 20, 8) == 40
    assert kept_rows(40, 20, 8, 20 / 24) == 20
    assert kept_rows(40, 20, 8, 9.9 / 24) == 0, "less than a quarter is not worth it"
    for kept, made in ((3.0, 0), (20 / 24, 4), (0.0, 8)):
        y = softmax_tiled(*inputs, scale=0.5, tile=200, kept=kept)
        _, calls = kernel_calls(lambda y=y: torch.autograd.grad(y.sum(), inputs))
        assert calls == made
    with torch.no_grad():
        assert not tiled.softmax_by_tiles(*inputs, 0.5, 200, 0.0)[3]
        with mock.patch.object(tiled, "softmax_by_tiles", wraps=tiled.softmax_by_tiles) as operator:
            softmax_tiled(*inputs, scale=0.5)
    assert operator.call_args.args[-1] == 0


def test_second_derivatives():
    """With create_graph the backward pass is the one that autograd can follow; inputs without gradients have none."""
    inputs = drawn(2, 6, 5, 3, 2, dtype=torch.float32)
    exact = [x.detach().double().requires_grad_() for x in inputs]

    def both(way, given, used):
        y = way(*given)
        first = torch.autograd.grad(y.square().sum(), used, create_graph=True)
        return (*first, *torch.autograd.grad(sum(x.square().sum() for x in first), used))

    for count in (3, 1):
        got = both(lambda *x: softmax_tiled(*x, scale=0.7), inputs, inputs[:count])
        want = both(
            lambda *x: definition(*x, pairwise="softmax", scale=0.7),
            [*exact[:count], *(x.detach() for x in exact[count:])],
            exact[:count],
        )
        for ours, true in zip(got, want, strict=True):
            torch.testing.assert_close(
                ours.double(), true, rtol=1e-4, atol=1e-4 * float(true.detach().abs().max())
            )
        inputs = [*inputs[:1], *(x.detach() for x in inputs[1:])]


def test_transforms_take_the_way_they_can_follow():
    inputs = [x.detach() for x in drawn(2, 5, 4, 3, 2, dtype=torch.float32)]
    got = torch.func.grad(lambda x: softmax_tiled(x, *inputs[1:], scale=1.0).sin().sum())(inputs[0])
    leaf = inputs[0].clone().requires_grad_()
    (want,) = torch.autograd.grad(
        definition(leaf, *inputs[1:], pairwise="softmax", scale=1.0).sin().sum(), leaf
    )
    torch.testing.assert_close(got, want)


def test_torchs_counter_counts_it():
    """Two products forward, five backward: three of D, two of C; one of D less where the tiles were kept."""
    inputs = drawn(2, 9, 7, 4, 3, dtype=torch.float32)
    for kept, again in ((0.0, 3), (3.0, 2)):
        with FlopCounterMode(display=False) as counter:
            y = softmax_tiled(*inputs, scale=1.0, kept=kept)
            forward = counter.get_total_flops()
            y.sum().backward()
        assert forward == 2 * 2 * 9 * 7 * (4 + 3)
        assert counter.get_total_flops() - forward == 2 * 2 * 9 * 7 * (again * 4 + 2 * 3)


def test_nothing_in_nothing_out():
    for batch, queries in ((0, 7), (2, 0)):
        theta, phi, g = torch.zeros(batch, queries, 4), torch.zeros(batch, 5, 4), torch.zeros(batch, 5, 3)
        assert softmax_tiled(theta, phi, g, scale=1.0).shape == (batch, queries, 3)


def test_numbers_that_are_none_come_through():
    theta, phi, g = (x.detach() for x in drawn(1, 6, 5, 4, 3, dtype=torch.float32))
    theta[0, 2, 1] = torch.nan
    y = softmax_tiled(theta, phi, g, scale=1.0)
    assert y[0, 2].isnan().all()
    assert y[0, [0, 1, 3, 4, 5]].isfinite().all()


@pytest.mark.unhooked
@each_dtype
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_code_takes_the_tiles_as_they_are(dtype, dynamic):
    """No graph break, one operator for the whole softmax, the eager values and gradients."""
    inputs = drawn(2, 150, 130, 16, 24, dtype=dtype)
    graphs = []

    def keep(module, examples):
        graphs.append(module.code)
        return torch._dynamo.lookup_backend("aot_eager")(module, examples)

    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *x: softmax_tiled(*x, scale=0.25, tile=4000), backend=keep, dynamic=dynamic, fullgraph=True
    )
    y, truth = compiled(*inputs), softmax_tiled(*inputs, scale=0.25, tile=4000)
    assert torch.equal(y, truth)
    for ours, eager in zip(
        torch.autograd.grad(y.sin().sum(), inputs),
        torch.autograd.grad(truth.sin().sum(), inputs),
        strict=True,
    ):
        assert torch.equal(ours, eager)
    assert graphs[0].count("nlnet.softmax_by_tiles.default(") == 1
