"""Block statistics: their definition, and that measuring them changes nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.training import run, settings, weights
from torch import nn

from nlnet import NonLocalBlock
from nlnet.block_stats import QUERIES, entropies, measure, queries, verdict
from nlnet.engine.runs.directory import RunDir
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.zoo import create_model

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def active(**options) -> NonLocalBlock:
    """A block that changes its input, in float64."""
    block = NonLocalBlock(4, **options).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def stats_of(block: NonLocalBlock, x: torch.Tensor) -> dict:
    with measure({"b": block}) as stats:
        block(x)
    return stats.read()["b"]


@pytest.mark.parametrize("norm", ["batch", "group", "affine", "none"])
def test_ratio_is_what_the_block_adds_over_what_it_was_given(norm):
    block, x = active(norm=norm), torch.randn(3, 4, 2, 4, 4, dtype=torch.float64)
    found = stats_of(block, x)
    added = (block(x) - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert found["ratio"] == pytest.approx(added.mean().item(), rel=1e-5)
    trained = norm in ("batch", "group")
    assert found["switch"] == ("norm" if trained else "W_z")
    of = (block.norm.weight if trained else block.W_z.weight).abs()
    assert found["gamma"] == pytest.approx(of.mean().item(), rel=1e-5)
    assert found["gamma_max"] == pytest.approx(of.max().item(), rel=1e-5)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_fresh_block_adds_nothing(norm):
    found = stats_of(NonLocalBlock(4, norm=norm), torch.randn(2, 4, 2, 4, 4))
    assert (found["gamma"], found["gamma_max"], found["ratio"]) == (0, 0, 0)
    assert 0 < found["entropy"] < 1


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_entropy_is_that_of_the_definitions_rows(pairwise):
    """All pairs of a small map by the equation, without pooling: f from the embeddings, p = |f| / Σ|f|."""
    block = active(pairwise=pairwise, subsample=False)
    x = torch.randn(3, 4, 2, 3, 3, dtype=torch.float64)
    theta, phi = (e.flatten(2).mT for e in block.embeddings(x))
    if pairwise == "concatenation":
        half = block.inner_channels
        f = (theta @ block.w_f[:half])[:, :, None] + (phi @ block.w_f[half:])[:, None, :]
        f = f.relu()
    else:
        f = block.scale * theta @ phi.mT
        f = f.exp() if "gaussian" in pairwise else f.abs()
    p = f / f.sum(dim=2, keepdim=True)
    expected = -(p * p.clamp(min=1e-300).log()).sum(dim=2) / math.log(18)
    at = [(t * 3 + y) * 3 + x for t, y, x in queries((2, 3, 3))]
    picked = torch.stack([expected[n % 3, i] for n, i in enumerate(at)])
    torch.testing.assert_close(entropies(block, x), picked)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"axis": "space"},
        {"axis": "time"},
        {"groups": 2},
        {"subsample": False},
        {"ndim": 2},
        {"ndim": 1, "groups": 2},
        {"pool_position": "before"},
    ],
)
def test_keys_that_are_all_alike_have_entropy_one(options):
    """θ = 0 makes every exp(θᵀφ) equal, whatever a position sees; M is the number that it sees."""
    block = active(**options)
    for parameter in block.theta.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 4, *(8, 6, 6)[: block.ndim], dtype=torch.float64)
    assert stats_of(block, x)["entropy"] == pytest.approx(1, abs=1e-12)


def test_one_key_has_entropy_zero():
    found = stats_of(active(scale=1e6), torch.randn(2, 4, 2, 4, 4, dtype=torch.float64))
    assert found["entropy"] == pytest.approx(0, abs=1e-6)


def test_statistics_without_a_finite_value_are_none():
    single = stats_of(active(), torch.randn(2, 4, 1, 1, 1, dtype=torch.float64))
    assert single["entropy"] is None  # log M = 0
    silent = active(pairwise="concatenation")
    nn.init.zeros_(silent.w_f)
    assert stats_of(silent, torch.randn(2, 4, 2, 4, 4, dtype=torch.float64))["entropy"] is None
    assert stats_of(active(), torch.zeros(2, 4, 2, 4, 4, dtype=torch.float64))["ratio"] is None
    assert stats_of(active(norm="none"), torch.zeros(0, 4, 2, 4, 4, dtype=torch.float64))["ratio"] is None


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_queries_lie_on_the_grid_and_are_spread(grid):
    cells = queries(grid)
    assert len(cells) == QUERIES
    assert all(0 <= c < n for cell in cells for c, n in zip(cell, grid, strict=True))
    for axis, size in enumerate(grid):
        halves = {cell[axis] < size / 2 for cell in cells}
        assert size == 1 or len(halves) == 2


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_measuring_changes_nothing(precision, pairwise):
    """Outputs, gradients, running statistics and random state are the same bit for bit as without measuring; no hook remains."""
    results = []
    for measuring in (True, False):
        torch.manual_seed(0)
        model = create_model("c2d_mini_nl1", num_classes=5, variant="8x8", pairwise=pairwise).train()
        blocks = nonlocal_blocks(model)
        for block in blocks.values():
            nn.init.normal_(block.norm.weight)
        hooks = [len(m._forward_hooks) for m in model.modules()]
        clip = torch.randn(2, 3, 8, 32, 32)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            with measure(blocks if measuring else {}) as stats:
                logits = model(clip)
            logits.float().square().sum().backward()
        assert [len(m._forward_hooks) for m in model.modules()] == hooks
        assert set(stats.read()) == (set(blocks) if measuring else set())
        parts = [
            logits,
            *(p.grad for p in model.parameters()),
            *model.buffers(),
            torch.random.get_rng_state(),
        ]
        results.append(parts)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_hooks_are_removed_when_the_forward_pass_fails():
    block = active()
    with pytest.raises(ValueError, match="expected"), measure({"b": block}):
        block(torch.randn(2, 5, 2, 4, 4, dtype=torch.float64))
    assert not block._forward_hooks
    assert not block.norm._forward_hooks


def test_the_first_call_counts():
    block, x = active(norm="affine"), torch.randn(2, 4, 2, 4, 4, dtype=torch.float64)
    alone = stats_of(block, x)
    with measure({"b": block}) as stats:
        block(x)
        block(2 * x + 1)
    assert stats.read()["b"] == alone


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("training.accumulate=2", "training.checkpointing=true"),
        ("training.precision=bf16", "training.checkpointing=true"),
    ],
)
def test_training_is_the_same_bit_for_bit(color_videos, tmp_path, more, request):
    """With and without measuring, also if the backward pass runs blocks again; iterations 1, 2 (due) and 3 (last) have records."""
    if "training.precision=bf16" in more:
        request.getfixturevalue("without_onednn")
    for every in (0, 2):
        run(
            settings(color_videos, "schedule.iterations=3", f"training.block_stats_every={every}", *more),
            tmp_path / str(every),
        )
    without, with_ = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert all(torch.equal(without[key], with_[key]) for key in without)
    kinds = [[r for r in RunDir(tmp_path / d).metrics() if r["kind"] == "block_stats"] for d in ("0", "2")]
    assert kinds[0] == []
    assert [(r["iteration"], r["block"]) for r in kinds[1]] == [
        (n, "layer2.1.nonlocal_block") for n in (1, 2, 3)
    ]
    assert kinds[1][0]["gamma"] == kinds[1][0]["ratio"] == 0
    assert kinds[1][-1]["gamma"] > 0


def test_a_resumed_run_has_the_records_of_a_whole_one(color_videos, tmp_path):
    config = settings(color_videos, "schedule.iterations=3", "training.block_stats_every=2")
    run(config, tmp_path / "whole")
    run(config, tmp_path / "halves", until=2)
    run(config, tmp_path / "halves", resume=True)
    whole, halves = (
        [r for r in RunDir(tmp_path / d).metrics() if r["kind"] == "block_stats"] for d in ("whole", "halves")
    )
    assert whole == halves


def record(**values) -> dict:
    plain = {"pairwise": "embedded_gaussian", "switch": "norm", "gamma": 0.2, "ratio": 0.3, "entropy": 0.5}
    return {"iteration": 20} | plain | values


@pytest.mark.parametrize(
    ("last", "state"),
    [
        ({}, "learned"),
        ({"gamma": 0.00099}, "inactive"),
        ({"gamma": 0.00101}, "learned"),
        ({"ratio": 0.00099}, "inactive"),
        ({"ratio": 0.00101}, "learned"),
        ({"gamma": 0.0009, "switch": "W_z"}, "learned"),
        ({"entropy": 0.0199}, "saturated"),
        ({"entropy": 0.0201}, "learned"),
        ({"entropy": 0.0199, "pairwise": "dot_product"}, "learned"),
        ({"entropy": 0.9951}, "uniform"),
        ({"entropy": 0.9949}, "learned"),
        ({"entropy": None}, "learned"),
        ({"ratio": None}, "unknown"),
        ({"gamma": 0.0, "ratio": 0.0, "entropy": 1.0}, "inactive"),
    ],
)
def test_verdicts(last, state):
    """The thresholds are those that the page of `nlnet report` states: 0.001, 0.02 log M and 0.995 log M."""
    said = verdict([record(iteration=1, gamma=0.0), record(**last)])
    assert said.state == state
    assert said.words.startswith(f"{state}: adds ")
    assert "(iterations 1 to 20)" in said.words


def test_a_verdict_contains_the_statistics():
    said = verdict([record(iteration=1, gamma=0.0), record(gamma=0.00021, ratio=0.0004, entropy=0.86)])
    assert said.words == (
        "inactive: adds 0.04 % of its input, mean |γ| 0 → 0.00021, attention entropy 0.86 of log M "
        "(iterations 1 to 20); still nearly the identity that it was at the start"
    )
    other = verdict([record(pairwise="concatenation", switch="W_z")])
    assert "mean |W_z| 0.2 → 0.2, entropy of |f| 0.5" in other.words


def test_a_verdict_needs_records():
    with pytest.raises(ValueError, match="records: got none, expected the statistics of one block"):
        verdict([])
