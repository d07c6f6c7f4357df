"""Benchmarks at toy size: ways that agree, ratios and memory by definition, and a document with its passport."""

import json
import time

import pytest
import torch

from nlnet.apps.bench import command
from nlnet.apps.bench.block import PlainBlock, block_contests
from nlnet.apps.bench.network import network_contests
from nlnet.apps.bench.operation import growth_contests, operation_contests, training
from nlnet.apps.bench.roofline import Limits, limits
from nlnet.apps.bench.side_by_side import MIB, Contest, Timing, Work, peak_bytes, race, timed
from nlnet.apps.cli.main import app
from nlnet.block import NonLocalBlock
from nlnet.errors import ConfigError


def test_a_race_knows_the_slower_way():
    """Sleeps of 4 and 2 ms, the second for two things at once: about four times as fast."""
    contest = Contest(
        name="sleep",
        ways={"slow": lambda: time.sleep(0.004), "fast": lambda: time.sleep(0.002)},
        amounts={"fast": 2},
    )
    timings = race(contest, seconds=0, least=5)
    assert timings["slow"].rounds == timings["fast"].rounds == 5
    assert timings["slow"].speedup == 1
    assert timings["slow"].low <= timings["slow"].median <= timings["slow"].high
    assert timings["fast"].median < timings["slow"].median
    assert timings["fast"].speedup > 1.5
    assert timings["slow"].bytes is None


def test_peak_memory_is_what_a_run_holds_at_most():
    """64 MiB held at once, twice one after the other: 64, not 128, and what was held before does not count."""
    before = torch.ones(32 * MIB)

    def run() -> None:
        for _ in range(2):
            torch.ones(16 * MIB).sum()  # float32

    assert 60 * MIB < peak_bytes(run) < 80 * MIB
    assert before.sum() == 32 * MIB


def test_the_ways_of_the_operation_agree():
    """Values and gradients, softmax and the others; the chosen one is among them."""
    for contest in operation_contests("cpu", torch.float32, ((2, 12, 6, 4),)):
        expected, *others = (run() for run in contest.ways.values())
        assert contest.chosen in contest.ways
        assert contest.baseline == "definition"
        for got in others:
            for one, two in zip(got, expected, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_work_is_held_against_what_the_machine_can_do(monkeypatch):
    """Ways at half of the limit of products, and of copies; one whose work is not known has no share."""
    monkeypatch.setattr(command, "limits", lambda device, dtype: Limits(flops=1e9, bytes=1e6))
    nothing = {"low": 0.0, "high": 0.0, "rounds": 1, "speedup": 1.0, "bytes": None}
    contest = Contest(
        name="work",
        ways=dict.fromkeys(("products", "copies", "unknown"), lambda: None),
        work={"products": Work(flops=1e9, bytes=1e5), "copies": Work(flops=1e8, bytes=1e6)},
    )
    timings = {way: Timing(median=2.0, **nothing) for way in contest.ways}
    assert command.shares_of_limits(contest, timings, "cpu") == {"products": 0.5, "copies": 0.5}


def test_limits_are_measured_and_no_product_is_far_beyond_them():
    most = limits("cpu", torch.float32)
    a, b = torch.randn(2, 1024, 1024)
    best = min(timed(lambda: a @ b) for _ in range(5))
    assert 2 * 1024**3 / best < 3 * most.flops
    assert 1e8 < most.bytes < 1e12


def test_work_of_the_operation_by_hand():
    """2 × 12 × 6 pairs of 4 + 4 channels: 1152 multiply-adds forward; three times that, three and a half by tiles."""
    softmax, dot, _ = operation_contests("cpu", torch.bfloat16, ((2, 12, 6, 4),))
    assert softmax.work["definition"] == Work(flops=6 * 1152, bytes=4 * 2 * 18 * 4 * 2, dtype=torch.float32)
    assert softmax.work["tiled"].flops == 7 * 1152
    assert softmax.work["tiled"].dtype == torch.bfloat16
    assert dot.work["reassociated"].flops == 6 * 2 * 18 * 16
    assert softmax.facts["sdpa"] in ("flash_attention", "math")


def test_growth_doubles():
    contests = list(growth_contests("cpu", torch.float32, (32, 64)))
    assert [contest.facts["sizes"] for contest in contests] == [(32, 64)] * 3
    for contest in contests:
        small, large = (run() for run in contest.ways.values())
        assert large[0].shape[1] == 2 * small[0].shape[1]
    run = training("softmax", (1, 8, 2, 4), "sdpa", "cpu", torch.float32)
    assert all(torch.equal(one, two) for one, two in zip(run(), run(), strict=True))


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize("shape", [(2, 8, 2, 4, 4), (1, 8, 6, 6)])
def test_the_plain_block_computes_the_same(pairwise, shape):
    """With the weights of ours under mmcv's convention: the comparison is of speed alone."""
    plain = PlainBlock(8, ndim=len(shape) - 2, pairwise=pairwise)
    ours = NonLocalBlock(8, ndim=len(shape) - 2, pairwise=pairwise, convention="mmcv", out_bias=True)
    ours.load_state_dict(plain.state_dict())
    torch.nn.init.normal_(plain.norm.weight)
    ours.norm.weight.data.copy_(plain.norm.weight)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(ours.double()(x), plain.double()(x))


def test_blocks_and_networks_run():
    for contest in block_contests("cpu", torch.float32, ((1, 8, 2, 4, 4), (1, 8, 6, 6))):
        assert list(contest.ways) == ["plain", "ours", "ours, channels-last"]
        for run in contest.ways.values():
            run()
    for contest in block_contests("cpu", torch.float32, ((1, 8, 6, 6),), lambda shape, pairwise: None):
        assert contest.baseline == "ours"
    inference, *steps = network_contests("cpu", name="i3d_mini_nl1", clip=(2, 8, 32, 32), compiled=False)
    expected = inference.ways["float32 by channels"]()
    for way, run in inference.ways.items():
        if "bf16" not in way:  # see docs/log.md for bf16 on the CPU
            torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-5)
    for step, clips in zip(steps, (2, 4), strict=True):
        assert f", {clips} × 8 × 32 × 32" in step.name
        step.ways["channels-last"]()


def test_the_command_writes_what_it_shows(tmp_path, monkeypatch, capsys):
    toy = list(operation_contests("cpu", torch.float32, ((1, 12, 6, 4),)))
    monkeypatch.setattr(command, "contests", lambda group, *rest: toy if group == "op" else [])
    out = tmp_path / "bench.json"
    app(["bench", "op", "--seconds", "0", "--out", str(out)], standalone_mode=False)
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert {"commit", "machine", "torch"} <= set(result["passport"])
    assert [contest["operator"] for contest in result["contests"]] == [
        "softmax",
        "dot_product",
        "concatenation",
    ]
    for contest in result["contests"]:
        assert contest["name"] in printed
        assert contest["ways"]["definition"]["speedup"] == 1
        assert contest["ways"]["definition"]["rounds"] >= 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["opp"], "got opp; expected op, growth, block, network, loader, test or all"),
        (["op", "--precision", "fp8"], "precision: got 'fp8', expected float32 or bf16"),
    ],
)
def test_unknown_words_are_told(words, message):
    with pytest.raises(ConfigError, match=message):
        app(["bench", *words], standalone_mode=False)
