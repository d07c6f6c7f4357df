"""Products by oneDNN against torch's own: values, every derivative, transforms, and when oneDNN is chosen."""

import math
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from nlnet.layers import matmul as products
from nlnet.layers.matmul import EXP_SCALE_BITS, can_fuse, exp_product, linear, product, scaled_product

pytestmark = pytest.mark.skipif(products.ONEDNN is None, reason="torch without oneDNN's linear layer")


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    monkeypatch.setattr(products, "MIN_MACS", 0)


def drawn(n: int, c: int, d: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n * 31 + c * 7 + d)
    return tuple(torch.randn(size, generator=generator) for size in ((n, c), (d, c), (d,)))


@settings(max_examples=60, deadline=None)
@given(sizes=st.tuples(*[st.integers(1, 40)] * 3), bias=st.booleans(), turned=st.booleans())
def test_linear_is_torchs(sizes, bias, turned):
    """Value, gradients and second derivatives in float32 against float64."""
    x, weight, shift = drawn(*sizes)
    if turned:
        x, weight = x.t().contiguous().t(), weight.t().contiguous().t()
    given = [x, weight] + [shift] * bias
    outcomes = []
    for way, dtype in ((linear, torch.float32), (F.linear, torch.float64)):
        inner = [t.to(dtype).requires_grad_() for t in given]
        y = way(*inner, *[None] * (not bias))
        first = torch.autograd.grad(y.sin().sum(), inner, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inner)
        outcomes.append((y, *first, *second))
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(
            ours.double(), theirs, rtol=1e-4, atol=1e-4 * max(1, float(theirs.detach().abs().max()))
        )


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_product_of_each_item(batch):
    a, b = torch.randn(batch, 5, 4, requires_grad=True), torch.randn(batch, 4, 7, requires_grad=True)
    y = product(a, b.mT)
    torch.testing.assert_close(y, a @ b)
    for ours, theirs in zip(*(torch.autograd.grad(z.sin().sum(), (a, b)) for z in (y, a @ b)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_stale_memory_does_not_enter():
    """Results are written, not added to what freed memory held."""
    for n, c, d in ((5, 3, 7), (65, 33, 17), (1000, 16, 16)):
        torch.full((n * d,), torch.nan)
        x, weight, shift = drawn(n, c, d)
        assert linear(x, weight, shift).isfinite().all()


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)  # torch's own, on first use
def test_forward_derivatives_and_transforms():
    x, weight, shift = drawn(6, 4, 3)
    moved = torch.randn_like(x)
    with forward_ad.dual_level():
        y = linear(forward_ad.make_dual(x, moved), weight, shift)
        torch.testing.assert_close(forward_ad.unpack_dual(y).tangent, F.linear(moved, weight))
    tangents = tuple(torch.randn_like(t) for t in (x, weight, shift))
    ours, theirs = (torch.func.jvp(way, (x, weight, shift), tangents) for way in (linear, F.linear))
    torch.testing.assert_close(ours, theirs)
    per_sample = torch.func.vmap(
        torch.func.grad(lambda w, row: linear(row[None], w, None).sin().sum()), (None, 0)
    )
    expected = torch.stack([row.matmul(weight.t()).cos()[:, None] * row for row in x])
    torch.testing.assert_close(per_sample(weight, x), expected)


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8)], ids=str)
def test_exponentials_and_factors_inside_a_product(dtype, share):
    """The error is relative to each number, also where the exponential is small."""
    if dtype == torch.bfloat16 and not products.BF16:
        pytest.skip("oneDNN without bf16 on this CPU")
    x, weight, _ = (t.to(dtype) for t in drawn(50, 16, 40))
    assert can_fuse(x, weight)
    assert not can_fuse(x.double(), weight.double())
    logits = x.double() @ weight.double().t()
    shift = logits.amax(0).float()
    exact = (logits - shift - EXP_SCALE_BITS[dtype] * math.log(2)).exp()
    assert exact.min() < 1e-9 * exact.max(), "a wide range"
    got = exp_product(x, weight, shift)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), exact, rtol=share * 1.1, atol=0)
    factor = torch.randn(50, 40).to(dtype)
    true = (logits - shift) * factor.double()
    error = (scaled_product(x, weight, -shift, factor).double() - true).abs()
    assert (error <= 3 * share * true.abs() + 1e-4 * factor.double().abs()).all()


def test_torchs_counter_counts_it():
    x, weight, _ = drawn(5, 3, 4)
    with FlopCounterMode(display=False) as counter:
        linear(x.requires_grad_(), weight, None).sum().backward()
    assert counter.get_total_flops() == 2 * 2 * 5 * 3 * 4


def taken(x: torch.Tensor, weight: torch.Tensor) -> bool:
    with mock.patch.object(products, "ONEDNN", wraps=products.ONEDNN) as kernel:
        linear(x, weight, None)
    return bool(kernel.called)


def test_onednn_is_chosen_for_float32_on_the_cpu_only(monkeypatch):
    x, weight, _ = drawn(4, 4, 4)
    assert taken(x, weight)
    assert not taken(x.double(), weight.double())
    assert not taken(x.bfloat16(), weight.bfloat16())
    assert not taken(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not taken(x, weight)
    torch._C._set_mkldnn_enabled(False)
    try:
        assert not taken(x, weight)
    finally:
        torch._C._set_mkldnn_enabled(True)
    monkeypatch.setattr(products, "MIN_MACS", 65)
    assert not taken(x, weight), "small products are left to torch"


@pytest.mark.unhooked
@pytest.mark.filterwarnings("ignore:.torch.jit.trace(_method)?. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("of_items", [False, True], ids=["linear", "product"])
def test_traced_programs_contain_torchs_own_product(of_items):
    """Neither oneDNN's operator nor the path for a single item: the program also takes more rows and more items."""
    x, weight, _ = drawn(4, 4, 4)
    if of_items:
        item = weight[None]
        program, more = torch.jit.trace(lambda a: product(a, item), x[None]), torch.randn(3, 4, 4)
    else:
        program, more = torch.jit.trace(lambda a: linear(a, weight, None), x), torch.randn(9, 4)
    kinds = {node.kind() for node in program.graph.nodes()}
    assert kinds == {"prim::Constant", *(("aten::mT", "aten::matmul") if of_items else ("aten::linear",))}
    torch.testing.assert_close(program(more), more @ weight.t())


@pytest.mark.unhooked
def test_compiled_code_holds_torchs_own_operators():
    x, weight, shift = drawn(8, 4, 4)
    graphs = []

    def keep(module, _):
        graphs.append(module.code)
        return module.forward

    torch.testing.assert_close(
        torch.compile(linear, backend=keep)(x, weight, shift), F.linear(x, weight, shift)
    )
    assert "mkldnn" not in graphs[0]
