"""The block against the equation spelled out over all pairs with a mask, and against its own promises."""

import copy
import math
import os
import pickle
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support.blocks import CHANNELS, CONVENTIONS, PAIRWISE, pooled, randomise, visible
from torch import Tensor, nn

from nlnet.block import NonLocalBlock

GRIDS = {1: (6,), 2: (5, 4), 3: (4, 5, 4)}


def build(**options: object) -> NonLocalBlock:
    torch.manual_seed(0)
    return randomise(NonLocalBlock(CHANNELS, **options)).double()


def sample(ndim: int, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, CHANNELS, *GRIDS[ndim], dtype=torch.float64)


def spelled_out(block: NonLocalBlock, x: Tensor, convention: str, **options: object) -> Tensor:
    """z = γ·(W_z y − mean)/√(var + 1e-5) + β + x with every pair written down; training-mode batch norm."""
    p = dict(block.named_parameters())
    pairwise, axis = options.get("pairwise", "embedded_gaussian"), options.get("axis", "spacetime")
    groups, ndim = options.get("groups", 1), x.ndim - 2
    subsample = options.get("subsample", True) and not (ndim == 3 and axis == "time")

    def linear(name: str, t: Tensor) -> Tensor:
        weight = p[f"{name}.weight"].flatten(1)
        y = torch.einsum("oc,bc...->bo...", weight, t)
        return y + p[f"{name}.bias"].view(-1, *[1] * (t.ndim - 2)) if f"{name}.bias" in p else y

    def pool(t: Tensor) -> Tensor:
        return pooled(t, ndim, groups) if subsample else t

    embedded = pairwise != "gaussian"
    if convention == "released":
        source = pool(x)
        phi, g = linear("phi", source) if embedded else source, linear("g", source)
    else:
        phi, g = pool(linear("phi", x) if embedded else x), pool(linear("g", x))
    theta = linear("theta", x) if embedded else x
    mask = visible(tuple(x.shape[2:]), tuple(phi.shape[2:]), axis, groups)
    theta, phi, g = (t.flatten(2) for t in (theta, phi, g))
    if pairwise == "concatenation":
        w_query, w_key = p["w_f"].chunk(2)
        a, b = torch.einsum("d,bdi->bi", w_query, theta), torch.einsum("d,bdj->bj", w_key, phi)
        f = (a[:, :, None] + b[:, None]).clamp(min=0)
    else:
        f = torch.einsum("bdi,bdj->bij", theta, phi)
    if embedded and pairwise == "embedded_gaussian" and convention != "paper":
        f = f / math.sqrt(block.g.weight.shape[0])
    if pairwise in ("gaussian", "embedded_gaussian"):
        f = (f - f.amax(dim=-1, keepdim=True)).exp() * mask
        f = f / f.sum(dim=-1, keepdim=True)
    else:
        f = f * mask / mask.sum(dim=1, keepdim=True)
    y = torch.einsum("bij,bdj->bdi", f, g)
    w = linear("W_z", y)
    mean, var = w.mean(dim=(0, 2), keepdim=True), w.var(dim=(0, 2), keepdim=True, unbiased=False)
    z = p["norm.weight"].view(-1, 1) * (w - mean) / (var + 1e-5).sqrt() + p["norm.bias"].view(-1, 1)
    return z.view_as(x) + x


CASES = [
    {"ndim": 3, "axis": "spacetime"},
    {"ndim": 3, "axis": "spacetime", "groups": 2},
    {"ndim": 3, "axis": "spacetime", "subsample": False},
    {"ndim": 3, "axis": "space"},
    {"ndim": 3, "axis": "time"},
    {"ndim": 3, "axis": "time", "groups": 2},
    {"ndim": 2, "axis": "space"},
    {"ndim": 2, "axis": "spacetime"},
    {"ndim": 1, "axis": "time"},
    {"ndim": 1, "axis": "spacetime", "groups": 2},
]


def case_id(case: dict[str, object]) -> str:
    return "-".join(f"{k}={v}" if k != "axis" else str(v) for k, v in case.items())


@pytest.mark.parametrize("case", CASES, ids=case_id)
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_block_is_the_equation(pairwise: str, convention: str, case: dict[str, object]) -> None:
    options = {**case, "pairwise": pairwise}
    block = build(convention=convention, **options)
    x = sample(case["ndim"]).requires_grad_()
    expected = spelled_out(block, x, convention, **options)
    actual = block(x)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)
    upstream = torch.randn_like(actual)
    inputs = [x, *block.parameters()]
    for a, e in zip(
        torch.autograd.grad((actual * upstream).sum(), inputs),
        torch.autograd.grad((expected * upstream).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, e, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=case_id)
@pytest.mark.parametrize("convention", ["paper", "released"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_affinity_rows_are_the_rows_the_block_used(
    pairwise: str, convention: str, case: dict[str, object]
) -> None:
    """W_z(Σ_j row_ij g_j) must be the branch at i, for the g that the convention carries."""
    options = {**case, "pairwise": pairwise}
    block = build(convention=convention, norm="none", **options)
    ndim, groups = case["ndim"], case.get("groups", 1)
    x = sample(ndim)
    before, after = (pooled, lambda t, *_: t)[:: 1 if convention == "released" else -1]
    if block.pool is None:
        before = after = lambda t, *_: t
    g = after(block.g(before(x, ndim, groups)), ndim, groups)
    branch = block(x) - x
    for query in [(0,) * ndim, tuple(n - 1 for n in GRIDS[ndim]), tuple(n // 2 for n in GRIDS[ndim])]:
        row = block.affinity_rows(x, query)
        assert row.shape[1:] == g.shape[2:]
        y = (row[:, None] * g).flatten(2).sum(-1)
        z = torch.einsum("oc,bc->bo", block.W_z.weight.flatten(1), y) + block.W_z.bias
        torch.testing.assert_close(z, branch[(..., *query)], atol=1e-10, rtol=1e-10)
        mask = visible(GRIDS[ndim], tuple(row.shape[1:]), case["axis"], groups)
        seen = mask.reshape(*GRIDS[ndim], -1)[query].reshape(row.shape[1:])
        assert bool((row[:, ~seen] == 0).all())
        if "gaussian" in pairwise:
            assert bool((row >= 0).all())
            torch.testing.assert_close(row.flatten(1).sum(1), torch.ones(2, dtype=torch.float64))
    if pairwise == "dot_product":
        assert bool((row < 0).any())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"in_channels": 512}, 526_592),
        ({"in_channels": 1024}, 2_101_760),
        ({"in_channels": 1024, "convention": "released"}, 2_101_760),
        ({"in_channels": 1024, "convention": "mmcv"}, 2_101_760 - 1024),
        # without θ, φ: g 512·256 + 256, W_z 256·512 + 512, norm 2·512
        ({"in_channels": 512, "pairwise": "gaussian"}, 263_936),
        ({"in_channels": 512, "pairwise": "concatenation"}, 526_592 + 512),
        ({"in_channels": 512, "norm": "none", "convention": "mmcv"}, 526_592 - 1024),
        ({"in_channels": 512, "norm": "affine"}, 526_592 - 1024),
        ({"in_channels": 6, "inner_channels": 1, "norm": "none", "out_bias": False}, 3 * 7 + 6),
    ],
)
def test_parameter_counts_of_the_release(options: dict[str, object], expected: int) -> None:
    """Literals of the released blocks: θ, φ, g: d(C + 1) each, W_z: C(d + 1), batch norm: 2C."""
    block = NonLocalBlock(**options)
    assert sum(p.numel() for p in block.parameters()) == expected


def test_five_gaussian_blocks_count_as_derived() -> None:
    counts = [sum(p.numel() for p in NonLocalBlock(c, pairwise="gaussian").parameters()) for c in (512, 1024)]
    assert 2 * counts[0] + 3 * counts[1] == 3_684_352


def test_macs_of_the_five_block_network_at_224() -> None:
    """8.13 GMAC for two res3 blocks (4×28×28) and three res4 blocks (4×14×14) of the release."""
    res3 = NonLocalBlock(512, convention="released").macs((512, 4, 28, 28))
    res4 = NonLocalBlock(1024, convention="released").macs((1024, 4, 14, 14))
    c, d, n, m = 1024, 512, 784, 196
    assert res4 == 2 * n * c * d + 2 * m * c * d + 2 * n * m * d
    assert round((2 * res3 + 3 * res4) / 1e7) == 813
    # φ and g at full resolution when pooling comes after; grouping by 4 frames keeps the projections
    after = NonLocalBlock(1024).macs((1024, 4, 14, 14))
    assert after == 4 * n * c * d + 2 * n * m * d
    grouped = NonLocalBlock(1024, groups=4).macs((1024, 4, 14, 14))
    assert grouped == 4 * n * c * d + 2 * n * (m // 4) * d
    gaussian = NonLocalBlock(1024, pairwise="gaussian").macs((1024, 4, 14, 14))
    assert gaussian == 2 * n * c * d + n * m * (c + d)
    concatenation = NonLocalBlock(1024, pairwise="concatenation").macs((1024, 4, 14, 14))
    assert concatenation == 4 * n * c * d + 3 * n * m * d


@pytest.mark.parametrize(
    ("options", "grid", "expected"),
    [
        ({}, (4, 14, 14), (784, 196, 1)),
        ({"groups": 4}, (16, 28, 28), (3136, 784, 4)),
        ({"axis": "space"}, (4, 14, 14), (196, 49, 4)),
        ({"axis": "time"}, (4, 14, 14), (4, 4, 196)),
        ({"axis": "time", "groups": 2}, (4, 14, 14), (2, 2, 392)),
        ({"subsample": False}, (4, 14, 14), (784, 784, 1)),
        ({}, (4, 7, 7), (196, 36, 1)),
        ({}, (4, 1, 1), (4, 4, 1)),
        ({"ndim": 2}, (7, 1), (7, 3, 1)),
        ({"ndim": 1, "groups": 2}, (10,), (5, 2, 2)),
    ],
)
def test_positions(options: dict[str, object], grid: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    assert tuple(NonLocalBlock(8, **options).positions(grid)) == expected


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "sync", "group", "layer", "affine", "none"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_fresh_block_is_the_identity_bit_for_bit(pairwise: str, norm: str, training: bool) -> None:
    for ndim in (1, 2, 3):
        block = NonLocalBlock(CHANNELS, ndim=ndim, pairwise=pairwise, norm=norm).train(training)
        x = sample(ndim).float()
        assert torch.equal(block(x), x)
        block.reset_parameters()
        assert torch.equal(block(x), x)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_fresh_block_learns(pairwise: str) -> None:
    """γ = 0 passes gradient to γ at once and to all other weights after one step; nothing stays dead."""
    block = NonLocalBlock(CHANNELS, pairwise=pairwise).double()
    x, upstream = sample(3), torch.randn_like(sample(3))
    optimiser = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        (block(x) * upstream).sum().backward()
        optimiser.step()
    silent = [name for name, p in block.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_initialisation(convention: str) -> None:
    torch.manual_seed(0)
    block = NonLocalBlock(512, 128, pairwise="concatenation", convention=convention)
    he = convention == "paper"
    for weight, fan_in in [
        (block.theta.weight, 512),
        (block.g.weight, 512),
        (block.W_z.weight, 128),
        (block.w_f, 256),
    ]:
        std = math.sqrt(2 / fan_in) if he else 0.01
        assert weight.std().item() == pytest.approx(std, rel=0.15 if weight is block.w_f else 0.02)
    for layer in (block.theta, block.phi, block.g, block.W_z):
        assert layer.bias is None or not layer.bias.any()
    assert (block.W_z.bias is None) is (convention == "mmcv")


@pytest.mark.parametrize(
    ("convention", "pairwise", "expected"),
    [
        ("paper", "embedded_gaussian", 1.0),
        ("released", "embedded_gaussian", 0.25),
        ("mmcv", "embedded_gaussian", 0.25),
        ("released", "gaussian", 1.0),
        ("released", "dot_product", 1.0),
        ("mmcv", "concatenation", 1.0),
    ],
)
def test_scale_by_convention(convention: str, pairwise: str, expected: float) -> None:
    assert NonLocalBlock(32, 16, pairwise=pairwise, convention=convention).scale == expected


def test_every_point_of_a_convention_can_be_set() -> None:
    """`released` spelled as overrides of `paper` is the same function of the same weights, and the reverse."""
    x = sample(3)
    released = build(convention="released")
    spelled = build(pool_position="before", scale=3**-0.5, init="normal", out_bias=True)
    assert torch.equal(released(x), spelled(x))
    assert released.settings() == {**spelled.settings(), "convention": "released"}
    paper = build(convention="released", pool_position="after", scale=1.0, init="he")
    assert torch.equal(paper(x), build()(x))


def test_max_then_linear_is_another_function() -> None:
    x = sample(3)
    before, after = build(pool_position="before"), build(pool_position="after")
    assert not torch.allclose(before(x), after(x), atol=1e-3)
    without = [build(pool_position=p, subsample=False)(x) for p in ("before", "after")]
    assert torch.equal(*without)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_spacetime_without_pooling_is_permutation_equivariant(pairwise: str) -> None:
    block, x = build(pairwise=pairwise, subsample=False), sample(3)
    order = torch.randperm(math.prod(GRIDS[3]))

    def shuffled(t: Tensor) -> Tensor:
        return t.flatten(2)[:, :, order].view_as(t)

    torch.testing.assert_close(block(shuffled(x)), shuffled(block(x)), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"axis": "space"}, (slice(0, 1), slice(None), slice(None))),
        ({"axis": "time"}, (slice(None), slice(0, 1), slice(0, 1))),
        ({"groups": 2}, (slice(0, 2), slice(None), slice(None))),
        ({"axis": "time", "groups": 2}, (slice(0, 2), slice(0, 1), slice(0, 1))),
    ],
)
def test_positions_outside_the_problem_do_not_matter(
    options: dict[str, object], changed: tuple[slice, ...]
) -> None:
    """Batch norm in evaluation: in training its statistics couple all positions."""
    block, x = build(**options).eval(), sample(3)
    other = x.clone()
    other[(..., *changed)] += 1
    difference = (block(other) - block(x)).abs().amax(dim=(0, 1))
    inside = torch.zeros(GRIDS[3], dtype=torch.bool)
    inside[changed] = True
    assert bool((difference[~inside] == 0).all())
    assert bool((difference[inside] > 0).all())
    everywhere = build().eval()
    assert bool(((everywhere(other) - everywhere(x)).abs().amax(dim=(0, 1)) > 0).all())


@pytest.mark.parametrize(
    ("ndim", "grid"),
    [(1, (1,)), (1, (5,)), (2, (1, 1)), (2, (1, 3)), (3, (1, 1, 1)), (3, (2, 1, 5)), (3, (3, 3, 2))],
)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_tiny_and_odd_maps(pairwise: str, ndim: int, grid: tuple[int, ...]) -> None:
    block = build(ndim=ndim, pairwise=pairwise)
    x = torch.randn(3, CHANNELS, *grid, dtype=torch.float64)
    torch.testing.assert_close(block(x), spelled_out_any(block, x, pairwise), atol=1e-9, rtol=1e-9)


def spelled_out_any(block: NonLocalBlock, x: Tensor, pairwise: str) -> Tensor:
    """`spelled_out` on maps with sides of one, which are doubled first: a maximum of two equals does not care."""
    doubled = x
    for axis in range(2 if x.ndim < 5 else 3, x.ndim):
        if x.shape[axis] == 1:
            doubled = doubled.repeat_interleave(2, dim=axis)
    y = spelled_out(block, doubled, "paper", pairwise=pairwise)
    return y[tuple(slice(0, n) for n in x.shape)]


def test_empty_batch() -> None:
    assert build().eval()(sample(3)[:0]).shape == (0, CHANNELS, *GRIDS[3])


@pytest.mark.parametrize("axis", ["space", "time", "spacetime"])
def test_memory_format_is_kept(axis: str) -> None:
    block, x = build(axis=axis), sample(3)
    last = x.to(memory_format=torch.channels_last_3d)
    y = copy.deepcopy(block).to(memory_format=torch.channels_last_3d)(last)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert block(x).is_contiguous()
    torch.testing.assert_close(y, block(x), atol=1e-10, rtol=1e-10)
    flat = build(ndim=2)
    y = flat(sample(2).to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["batch", "group", "affine"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_autocast(pairwise: str, norm: str, dtype: torch.dtype) -> None:
    block = build(pairwise=pairwise, norm=norm).float()
    x = sample(3).float()
    with torch.autocast("cpu", dtype=dtype):
        y = block(x)
        half = block(x.to(dtype))
    assert (y.dtype, half.dtype) == (torch.float32, dtype)
    tolerance = 0.15 if dtype == torch.bfloat16 else 0.02
    torch.testing.assert_close(y, block(x), atol=tolerance, rtol=tolerance)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def test_output_has_the_inputs_dtype_where_the_norm_leaves_half_precision() -> None:
    """As group norm does under CUDA autocast."""

    class InFloat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float()

    block = build(norm="none").bfloat16()
    block.norm = InFloat()
    assert block(sample(3).bfloat16()).dtype == torch.bfloat16


def test_settings_rebuild_the_block() -> None:
    block = NonLocalBlock(
        16, 4, ndim=2, pairwise="dot_product", axis="space", norm="group", convention="mmcv"
    )
    again = NonLocalBlock(**block.settings())
    assert again.settings() == block.settings()
    assert again.settings()["pool_position"] == "after"
    again.load_state_dict(block.state_dict())
    assert repr(again) == repr(block)
    assert "16→4, ndim=2, pairwise=dot_product" in repr(block)


def test_seed_reproduces_the_weights() -> None:
    first, second = (build().state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_copies_and_pickles(pairwise: str) -> None:
    block, x = build(pairwise=pairwise), sample(3)
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(other(x), block(x))
        assert other.settings() == block.settings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pairwise": "embeded_gaussian"},
            "pairwise: got 'embeded_gaussian'.*did you mean 'embedded_gaussian'",
        ),
        ({"axis": "spacetme"}, "axis: got 'spacetme'.*did you mean 'spacetime'"),
        ({"norm": "grp"}, "norm: got 'grp', expected one of batch"),
        ({"convention": "caffe2"}, "convention: got 'caffe2', expected one of paper, released, mmcv"),
        ({"algorithm": "sorted"}, "algorithm: got 'sorted', expected one of auto, definition"),
        ({"pool_position": "first"}, "pool_position: got 'first', expected one of before, after"),
        ({"init": "xavier"}, "init: got 'xavier', expected one of he, normal"),
        ({"pool_position": ""}, "pool_position: got '', expected one of before, after"),
        ({"init": ""}, "init: got '', expected one of he, normal"),
        ({"inner_channels": 0}, "inner_channels: got 0, expected at least 1"),
        ({"groups": 0}, "groups: got 0, expected at least 1"),
        ({"ndim": 4}, "ndim: got 4, expected 1"),
        ({"ndim": 2, "axis": "time"}, "axis: got 'time' for a 2-D map"),
        ({"ndim": 1, "axis": "space"}, "axis: got 'space' for a 1-D map"),
        ({"axis": "space", "groups": 2}, "groups: got 2 with axis 'space' on a 3-D map, expected 1"),
        ({"ndim": 2, "groups": 2}, "groups: got 2 with axis 'spacetime' on a 2-D map, expected 1"),
        ({"scale": float("nan")}, "scale: got nan, expected a finite number"),
        (
            {"pairwise": "concatenation", "scale": 0.5},
            "scale: got 0.5 with concatenation, which has no scale",
        ),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NonLocalBlock(CHANNELS, **options)


def test_bad_maps() -> None:
    block = NonLocalBlock(CHANNELS, groups=2)
    with pytest.raises(ValueError, match=r"got a map of shape \(2, 6, 5, 4\), expected \(B, 6, T, H, W\)"):
        block(torch.zeros(2, 6, 5, 4))
    with pytest.raises(ValueError, match=r"got a map of shape \(2, 5, 4, 4, 4\), expected \(B, 6, T, H, W\)"):
        block(torch.zeros(2, 5, 4, 4, 4))
    with pytest.raises(ValueError, match="got 3 frames, expected a multiple of groups = 2"):
        block(torch.zeros(2, 6, 3, 4, 4))
    with pytest.raises(ValueError, match="got 3 frames"):
        block.positions((3, 4, 4))
    for query in [(0, 0), (4, 0, 0), (0, 0, -1)]:
        with pytest.raises(ValueError, match=r"query: got .*expected indices \(T, H, W\) inside \(4, 5, 4\)"):
            block.affinity_rows(torch.zeros(1, 6, 4, 5, 4), query)
    with pytest.raises(ValueError, match="in_channels: got 0"):
        NonLocalBlock(0)


# every pairwise, axis and pool order at least once
TRACED = [
    ("gaussian", {"axis": "space"}),
    ("embedded_gaussian", {"axis": "time"}),
    ("embedded_gaussian", {"convention": "released"}),
    ("dot_product", {"groups": 2}),
    ("concatenation", {"axis": "space", "convention": "mmcv"}),
]


@pytest.mark.unhooked
@pytest.mark.parametrize(("pairwise", "options"), TRACED)
def test_compiles_as_one_graph(pairwise: str, options: dict[str, object]) -> None:
    block, x = build(pairwise=pairwise, **options), sample(3)
    torch.compiler.reset()  # one block per test must not exhaust dynamo's limit of compilations per function
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), block(x), atol=1e-10, rtol=1e-10)
    compiled(x).sum().backward()
    assert all(p.grad is not None for p in block.parameters())


@pytest.mark.unhooked
@pytest.mark.parametrize(("pairwise", "options"), TRACED)
def test_exports_with_a_dynamic_batch(pairwise: str, options: dict[str, object]) -> None:
    block, x = build(pairwise=pairwise, **options).eval(), sample(3, batch=5)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(block, (x[:2],), dynamic_shapes=({0: batch},))
    for size in (1, 5):
        torch.testing.assert_close(program.module()(x[:size]), block(x[:size]), atol=1e-10, rtol=1e-10)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def ddp_worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    grads = {}
    for pairwise in PAIRWISE:
        block = build(pairwise=pairwise, norm="sync")
        x = sample(3, batch=4).chunk(2)[rank]
        parallel = nn.parallel.DistributedDataParallel(block)  # held: its hooks die with it
        parallel(x).square().mean().backward()
        grads[pairwise] = {name: p.grad for name, p in block.named_parameters()}
    torch.save(grads, f"{folder}/{rank}.pt")
    # torch's clean-up with gloo aborts a process now and then (docs/log.md, "Leaving under torchrun"): all is written
    os._exit(0)


def test_two_processes_give_the_gradients_of_the_joined_batch(tmp_path: Path) -> None:
    """DistributedDataParallel over gloo with sync norm: the same gradients as one process on all four samples."""
    mp.spawn(ddp_worker, args=(free_port(), str(tmp_path)), nprocs=2)
    for rank in (0, 1):
        grads = torch.load(tmp_path / f"{rank}.pt")
        for pairwise in PAIRWISE:
            block = build(pairwise=pairwise, norm="batch")
            block(sample(3, batch=4)).square().mean().backward()
            for name, parameter in block.named_parameters():
                torch.testing.assert_close(grads[pairwise][name], parameter.grad, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("norm", ["batch", "sync", "affine"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_a_fixed_norm_is_folded_where_no_gradient_is_wanted(norm: str, layout: torch.memory_format) -> None:
    """The same map as with the norm on its own, which runs where somebody watches it."""
    torch.manual_seed(0)
    block = NonLocalBlock(4, norm=norm).double().eval()
    randomise(block)
    if norm != "affine":
        block.norm.running_mean.normal_()
        block.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 2, 4, 4, dtype=torch.float64).contiguous(memory_format=layout)
    expected = block(x).detach()
    seen: list[Tensor] = []
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
        handle = block.norm.register_forward_hook(lambda module, args, out: seen.append(out))
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
        handle.remove()
    assert len(seen) == 1
    assert block(x).stride() == x.stride()


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_keys_keep_the_dtype_of_autocast_when_pooled(ndim):
    """So that the operation sees bf16 throughout."""
    block = NonLocalBlock(4, ndim=ndim, convention="paper")
    with torch.autocast("cpu", torch.bfloat16):
        theta, phi, g = block._embed(torch.randn(2, 4, *[4] * ndim))
    assert theta.dtype == phi.dtype == g.dtype == torch.bfloat16
