"""The contract: laws of the operation, dtypes, autocast, compile and export, and every error message."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nlnet.ops import nonlocal_operation
from nlnet.ops.algorithms import ALGORITHMS

PAIRS = [(pairwise, algorithm) for pairwise, names in ALGORITHMS.items() for algorithm in ("auto", *names)]
every = pytest.mark.parametrize(("pairwise", "algorithm"), PAIRS)


def tensors(
    batch: int = 2,
    queries: int = 7,
    keys: int = 5,
    compared: int = 4,
    carried: int = 3,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = ((batch, queries, compared), (batch, keys, compared), (batch, keys, carried), (2 * compared,))
    theta, phi, g, weight = (torch.randn(size, dtype=dtype) for size in made)
    return theta, phi, g, weight


def operate(
    pairwise: str, algorithm: str, theta: Tensor, phi: Tensor, g: Tensor, weight: Tensor, scale: float = 1.0
) -> Tensor:
    if pairwise == "concatenation":
        return nonlocal_operation(theta, phi, g, pairwise=pairwise, weight=weight, algorithm=algorithm)
    return nonlocal_operation(theta, phi, g, pairwise=pairwise, scale=scale, algorithm=algorithm)


def assert_equal(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@every
@settings(max_examples=10, deadline=None)
@given(keys=st.integers(1, 8), seed=st.integers(0, 100))
def test_order_of_keys_does_not_matter(pairwise: str, algorithm: str, keys: int, seed: int):
    torch.manual_seed(seed)
    theta, phi, g, weight = tensors(keys=keys)
    order = torch.randperm(keys)
    got = operate(pairwise, algorithm, theta, phi[:, order], g[:, order], weight)
    assert_equal(got, operate(pairwise, algorithm, theta, phi, g, weight))


@every
def test_permuted_queries_permute_the_output(pairwise: str, algorithm: str):
    theta, phi, g, weight = tensors()
    order = torch.randperm(7)
    got = operate(pairwise, algorithm, theta[:, order], phi, g, weight)
    assert_equal(got, operate(pairwise, algorithm, theta, phi, g, weight)[:, order])


@every
def test_every_key_twice_changes_nothing(pairwise: str, algorithm: str):
    theta, phi, g, weight = tensors()
    got = operate(pairwise, algorithm, theta, phi.repeat(1, 2, 1), g.repeat(1, 2, 1), weight)
    assert_equal(got, operate(pairwise, algorithm, theta, phi, g, weight))


@every
def test_linear_in_g(pairwise: str, algorithm: str):
    theta, phi, g, weight = tensors()
    h = torch.randn_like(g)
    got = operate(pairwise, algorithm, theta, phi, 2 * g - 3 * h, weight)
    want = 2 * operate(pairwise, algorithm, theta, phi, g, weight) - 3 * operate(
        pairwise, algorithm, theta, phi, h, weight
    )
    assert_equal(got, want)


@every
def test_batch_items_do_not_meet(pairwise: str, algorithm: str):
    theta, phi, g, weight = tensors(batch=3)
    whole = operate(pairwise, algorithm, theta, phi, g, weight)
    for b in range(3):
        assert_equal(
            whole[b : b + 1],
            operate(pairwise, algorithm, theta[b : b + 1], phi[b : b + 1], g[b : b + 1], weight),
        )


@pytest.mark.parametrize("algorithm", ALGORITHMS["softmax"])
def test_softmax_ignores_a_shift_of_all_keys(algorithm: str):
    theta, phi, g, weight = tensors()
    got = operate("softmax", algorithm, theta, phi + torch.randn(2, 1, 4, dtype=torch.float64), g, weight)
    assert_equal(got, operate("softmax", algorithm, theta, phi, g, weight))


@pytest.mark.parametrize("algorithm", ALGORITHMS["softmax"])
def test_softmax_averages_equal_keys(algorithm: str):
    theta, phi, g, weight = tensors()
    got = operate("softmax", algorithm, theta, torch.zeros_like(phi), g, weight)
    assert_equal(got, g.mean(1, keepdim=True).expand(-1, 7, -1))


@pytest.mark.parametrize("algorithm", ALGORITHMS["concatenation"])
def test_concatenation_scales_with_a_positive_weight(algorithm: str):
    theta, phi, g, weight = tensors()
    got = operate("concatenation", algorithm, theta, phi, g, 3 * weight)
    assert_equal(got, 3 * operate("concatenation", algorithm, theta, phi, g, weight))


@pytest.mark.parametrize("name", ["gaussian", "embedded_gaussian"])
def test_both_gaussians_are_the_softmax(name: str):
    theta, phi, g, _ = tensors()
    assert torch.equal(
        nonlocal_operation(theta, phi, g, pairwise=name),
        nonlocal_operation(theta, phi, g, pairwise="softmax"),
    )


@every
@pytest.mark.parametrize(("batch", "queries"), [(0, 7), (2, 0), (0, 0)])
def test_nothing_in_nothing_out(pairwise: str, algorithm: str, batch: int, queries: int):
    inputs = [x.requires_grad_() for x in tensors(batch=batch, queries=queries)]
    y = operate(pairwise, algorithm, *inputs)
    assert y.shape == (batch, queries, 3)
    used = inputs if pairwise == "concatenation" else inputs[:3]
    gradients = torch.autograd.grad(y.sum(), used)
    assert all(not d.any() and d.shape == x.shape for d, x in zip(gradients, used, strict=True))


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_error_is_within_the_stated_bound(pairwise: str, algorithm: str, dtype: torch.dtype):
    inputs = [x.to(dtype).requires_grad_() for x in tensors(2, 90, 60, 16, 16)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    used = slice(4 if pairwise == "concatenation" else 3)
    y = operate(pairwise, algorithm, *inputs, scale=0.25)
    truth = operate(pairwise, "definition", *exact, scale=0.25)
    assert y.dtype == dtype
    upstream = torch.randn_like(y)
    eps = torch.finfo(dtype).eps
    # the sum of |f/C|·|g|, which is what rounding is relative to
    magnitude = (
        [x.detach().abs() for x in exact]
        if pairwise == "dot_product"
        else [*exact[:2], exact[2].abs(), exact[3]]
    )
    bound = 3 * eps * operate(pairwise, "definition", *magnitude, scale=0.25)
    assert ((y - truth).abs() <= bound + 1e-6).all()
    got = torch.autograd.grad(y, inputs[used], upstream)
    want = torch.autograd.grad(truth, exact[used], upstream.double())
    for low, high in zip(got, want, strict=True):
        assert low.dtype == dtype
        assert (low - high).abs().max() <= 4 * eps * high.abs().max()


@every
def test_fp16_stays_finite_with_large_activations(pairwise: str, algorithm: str):
    theta, phi, g, weight = (32 * x for x in tensors(1, 64, 48, 512, 8, torch.float16))
    y = operate(pairwise, algorithm, theta, phi, g, weight / 512, scale=512**-0.5)
    assert y.isfinite().all()


def test_fp16_reassociation_does_not_overflow_in_the_inner_sum():
    # every product is 1024 and the mean 1024, but the sum over 100 keys 102,400 > 65,504
    x = torch.full((1, 100, 1), 32.0, dtype=torch.float16)
    y = nonlocal_operation(x, x, x, pairwise="dot_product", scale=0.5, algorithm="reassociated")
    torch.testing.assert_close(y, torch.full_like(y, 16384.0), rtol=4e-3, atol=0)


@every
def test_autocast_does_not_reach_the_sums(pairwise: str, algorithm: str):
    theta, phi, g, weight = tensors(2, 40, 30, 8, 8, torch.float32)
    want = operate(pairwise, algorithm, theta, phi, g, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = operate(pairwise, algorithm, theta, phi, g, weight)
    assert torch.equal(got, want)


@every
def test_autocast_brings_theta_and_phi_to_g(pairwise: str, algorithm: str):
    theta, phi, g, weight = tensors(2, 40, 30, 8, 8, torch.float32)
    theta, phi, low = theta.requires_grad_(), phi.requires_grad_(), g.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = operate(pairwise, algorithm, theta, phi, low, weight)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, operate(pairwise, algorithm, theta.bfloat16(), phi.bfloat16(), low, weight))
    assert torch.autograd.grad(got.sum(), theta)[0].dtype == torch.float32


class Operation(nn.Module):
    def __init__(self, pairwise: str, algorithm: str) -> None:
        super().__init__()
        self.pairwise, self.algorithm = pairwise, algorithm
        self.weight = nn.Parameter(torch.randn(8)) if pairwise == "concatenation" else None

    def forward(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return nonlocal_operation(
            theta, phi, g, pairwise=self.pairwise, weight=self.weight, algorithm=self.algorithm
        )


@pytest.mark.unhooked
@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # dynamo's own, for "tiled"
@pytest.mark.parametrize(
    ("pairwise", "algorithm"), [*((pairwise, "auto") for pairwise in ALGORITHMS), ("softmax", "tiled")]
)
def test_compiles_whole(pairwise: str, algorithm: str):
    torch.compiler.reset()
    module = Operation(pairwise, algorithm)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for length in (7, 9):  # the second one makes sizes symbolic
        inputs = [x.float().requires_grad_() for x in tensors(queries=length, keys=length)[:3]]
        leaves = [*inputs, *module.parameters()]
        got, want = compiled(*inputs), module(*inputs)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        gradients = (torch.autograd.grad(y.sin().sum(), leaves) for y in (got, want))
        for fast, slow in zip(*gradients, strict=True):
            torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.unhooked
@pytest.mark.parametrize("pairwise", ALGORITHMS)
@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_any_batch(pairwise: str, strict: bool):
    module = Operation(pairwise, "auto").eval()
    inputs = tuple(x.float() for x in tensors()[:3])
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, inputs, dynamic_shapes=({0: batch},) * 3, strict=strict)
    other = [x.float() for x in tensors(batch=5)[:3]]
    torch.testing.assert_close(program.module()(*other), module(*other), rtol=1e-5, atol=1e-6)


@pytest.mark.unhooked
@pytest.mark.parametrize("pairwise", ALGORITHMS)
def test_compiles_whole_under_autocast(pairwise: str):
    torch.compiler.reset()
    module = Operation(pairwise, "auto")
    inputs = [x.bfloat16() for x in tensors()[:3]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(got, module(*inputs), rtol=2e-2, atol=2e-2)


# Errors. Un-hooked where the shape annotations would speak first.


@pytest.mark.unhooked
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": torch.ones(7, 4)}, r"got theta \(7, 4\), phi \(2, 5, 4\), .*expected theta \(B, N, D\)"),
        ({"phi": torch.ones(3, 5, 4)}, r"phi \(3, 5, 4\), .*expected one batch size B"),
        ({"phi": torch.ones(2, 5, 6)}, r"theta \(2, 7, 4\), phi \(2, 5, 6\), .*with the same D"),
        ({"g": torch.ones(2, 6, 3)}, r"phi \(2, 5, 4\), g \(2, 6, 3\); .*with the same M"),
        ({"g": torch.ones(2, 5, 3, dtype=torch.int64)}, r"g torch.int64; expected floating point"),
        ({"phi": torch.ones(2, 0, 4), "g": torch.ones(2, 0, 3)}, r"at least one key position \(M ≥ 1\)"),
        (
            {"pairwise": "concatenation", "weight": torch.ones(4)},
            r"got weight \(4,\); expected \(2D,\) = \(8,\)",
        ),
        (
            {"pairwise": "concatenation", "weight": torch.ones(8).long()},
            r"got weight torch.int64 on cpu; expected floating",
        ),
    ],
)
def test_shapes_that_do_not_fit(change: dict, message: str):
    settings = {
        "theta": torch.ones(2, 7, 4),
        "phi": torch.ones(2, 5, 4),
        "g": torch.ones(2, 5, 3),
        "pairwise": "softmax",
    }
    with pytest.raises(ValueError, match=message):
        nonlocal_operation(**settings | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"phi": torch.ones(2, 5, 4).half()},
            r"theta torch.float32, phi torch.float16, .*expected one dtype",
        ),
        (
            {"g": torch.ones(2, 5, 3, device="meta")},
            r"got theta on cpu, phi on cpu, g on meta; expected one device",
        ),
        ({"pairwise": "dotproduct"}, r"unknown pairwise 'dotproduct'; .*did you mean 'dot_product'\?"),
        ({"weight": torch.ones(8)}, r"got a weight with pairwise 'softmax'; only 'concatenation' has one"),
        ({"pairwise": "concatenation"}, r"needs weight = w_f of shape \(8,\); got None"),
        (
            {"pairwise": "concatenation", "weight": torch.ones(8), "scale": 0.5},
            r"got scale=0.5 .*scale the weight",
        ),
        (
            {"pairwise": "concatenation", "weight": torch.ones(8, device="meta")},
            r"on meta; expected .* on cpu",
        ),
        (
            {"algorithm": "sorted"},
            r"'sorted' cannot compute pairwise 'softmax'; .*'definition', 'tiled', 'sdpa'",
        ),
        ({"algorithm": "fast"}, r"'fast' cannot compute"),
    ],
)
def test_settings_that_do_not_fit(change: dict, message: str):
    settings = {
        "theta": torch.ones(2, 7, 4),
        "phi": torch.ones(2, 5, 4),
        "g": torch.ones(2, 5, 3),
        "pairwise": "softmax",
    }
    with pytest.raises(ValueError, match=message):
        nonlocal_operation(**settings | change)
