"""Benchmarks at toy size: all ways agree, speedups and memory are correct, and a result file has its provenance."""

import json
import time

import pytest
import torch

from nlnet.apps.bench import command
from nlnet.apps.bench.block import PlainBlock, block_comparisons
from nlnet.apps.bench.network import network_comparisons
from nlnet.apps.bench.operation import growth_comparisons, operation_comparisons, training_step
from nlnet.apps.bench.roofline import Limits, measure_limits
from nlnet.apps.bench.side_by_side import MIB, Comparison, Timing, Work, peak_bytes, time_by_turns, timed
from nlnet.apps.cli.commands import app
from nlnet.block import NonLocalBlock
from nlnet.errors import ConfigError


def test_the_slower_way_is_found():
    """One thing in 4 ms against two things in 2 ms: about four times as fast."""
    comparison = Comparison(
        name="sleep",
        ways={"slow": lambda: time.sleep(0.004), "fast": lambda: time.sleep(0.002)},
        amounts={"fast": 2},
    )
    timings = time_by_turns(comparison, seconds=0, least=5)
    assert timings["slow"].rounds == timings["fast"].rounds == 5
    assert timings["slow"].speedup == 1
    assert timings["slow"].low <= timings["slow"].median <= timings["slow"].high
    assert timings["fast"].median < timings["slow"].median
    assert timings["fast"].speedup > 1.5
    assert timings["slow"].bytes is None


def test_peak_memory_is_the_most_that_a_run_holds():
    """64 MiB twice, one after the other: the peak is 64, not 128, and memory held before does not count."""
    before = torch.ones(32 * MIB)

    def run() -> None:
        for _ in range(2):
            torch.ones(16 * MIB).sum()  # float32

    assert 60 * MIB < peak_bytes(run) < 80 * MIB
    assert before.sum() == 32 * MIB


def test_the_ways_of_the_operation_agree():
    """Values and gradients, for every operator; the chosen algorithm is among the ways."""
    for comparison in operation_comparisons("cpu", torch.float32, ((2, 12, 6, 4),)):
        expected, *others = (run() for run in comparison.ways.values())
        assert comparison.chosen in comparison.ways
        assert comparison.baseline == "definition"
        for got in others:
            for one, two in zip(got, expected, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_times_are_compared_with_the_limits_of_the_machine(monkeypatch):
    """One way at half of the limit of products, one at half of that of copies; a way of unknown work has no share."""
    monkeypatch.setattr(command, "measure_limits", lambda device, dtype: Limits(flops=1e9, bytes=1e6))
    nothing = {"low": 0.0, "high": 0.0, "rounds": 1, "speedup": 1.0, "bytes": None}
    comparison = Comparison(
        name="work",
        ways=dict.fromkeys(("products", "copies", "unknown"), lambda: None),
        work={"products": Work(flops=1e9, bytes=1e5), "copies": Work(flops=1e8, bytes=1e6)},
    )
    timings = {way: Timing(median=2.0, **nothing) for way in comparison.ways}
    assert command.shares_of_limits(comparison, timings, "cpu") == {"products": 0.5, "copies": 0.5}


def test_limits_are_measured_and_no_product_is_far_beyond_them():
    most = measure_limits("cpu", torch.float32)
    a, b = torch.randn(2, 1024, 1024)
    best = min(timed(lambda: a @ b) for _ in range(5))
    assert 2 * 1024**3 / best < 3 * most.flops
    assert 1e8 < most.bytes < 1e12


def test_work_of_the_operation_by_hand():
    """2 × 12 × 6 pairs of 4 + 4 channels: 1152 multiply-adds forward; three times that, three and a half by tiles."""
    softmax, dot, _ = operation_comparisons("cpu", torch.bfloat16, ((2, 12, 6, 4),))
    assert softmax.work["definition"] == Work(flops=6 * 1152, bytes=4 * 2 * 18 * 4 * 2, dtype=torch.float32)
    assert softmax.work["tiled"].flops == 7 * 1152
    assert softmax.work["tiled"].dtype == torch.bfloat16
    assert dot.work["reassociated"].flops == 6 * 2 * 18 * 16
    assert softmax.facts["sdpa"] in ("flash_attention", "math")


def test_growth_doubles():
    comparisons = list(growth_comparisons("cpu", torch.float32, (32, 64)))
    assert [comparison.facts["sizes"] for comparison in comparisons] == [(32, 64)] * 3
    for comparison in comparisons:
        small, large = (run() for run in comparison.ways.values())
        assert large[0].shape[1] == 2 * small[0].shape[1]
    run = training_step("softmax", (1, 8, 2, 4), "sdpa", "cpu", torch.float32)
    assert all(torch.equal(one, two) for one, two in zip(run(), run(), strict=True))


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize("shape", [(2, 8, 2, 4, 4), (1, 8, 6, 6)])
def test_the_plain_block_computes_the_same(pairwise, shape):
    """As our block with the same weights under mmcv's convention, so that the benchmark compares speed alone."""
    plain = PlainBlock(8, ndim=len(shape) - 2, pairwise=pairwise)
    ours = NonLocalBlock(8, ndim=len(shape) - 2, pairwise=pairwise, convention="mmcv", out_bias=True)
    ours.load_state_dict(plain.state_dict())
    torch.nn.init.normal_(plain.norm.weight)
    ours.norm.weight.data.copy_(plain.norm.weight)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(ours.double()(x), plain.double()(x))


def test_blocks_and_networks_run():
    for comparison in block_comparisons("cpu", torch.float32, ((1, 8, 2, 4, 4), (1, 8, 6, 6))):
        assert list(comparison.ways) == ["plain", "ours", "ours, channels-last"]
        for run in comparison.ways.values():
            run()
    for comparison in block_comparisons("cpu", torch.float32, ((1, 8, 6, 6),), lambda shape, pairwise: None):
        assert comparison.baseline == "ours"
    inference, *steps = network_comparisons("cpu", name="i3d_mini_nl1", clip=(2, 8, 32, 32), compiled=False)
    expected = inference.ways["float32, channels-first"]()
    for way, run in inference.ways.items():
        if "bf16" not in way:  # see docs/log.md for bf16 on the CPU
            torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-5)
    for step, clips in zip(steps, (2, 4), strict=True):
        assert f", {clips} × 8 × 32 × 32" in step.name
        step.ways["channels-last"]()


def test_the_command_writes_what_it_prints(tmp_path, monkeypatch, capsys):
    toy = list(operation_comparisons("cpu", torch.float32, ((1, 12, 6, 4),)))
    monkeypatch.setattr(command, "comparisons_of", lambda group, *rest: toy if group == "op" else [])
    out = tmp_path / "bench.json"
    app(["bench", "op", "--seconds", "0", "--out", str(out)], standalone_mode=False)
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert {"commit", "machine", "torch"} <= set(result["provenance"])
    assert [comparison["operator"] for comparison in result["comparisons"]] == [
        "softmax",
        "dot_product",
        "concatenation",
    ]
    for comparison in result["comparisons"]:
        assert comparison["name"] in printed
        assert comparison["ways"]["definition"]["speedup"] == 1
        assert comparison["ways"]["definition"]["rounds"] >= 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["opp"],
            "benchmark: got opp; expected op, growth, block, network, loader, test or all; did you mean 'op'",
        ),
        (["op", "--precision", "fp8"], "precision: got 'fp8', expected float32 or bf16"),
    ],
)
def test_unknown_options_are_errors(words, message):
    with pytest.raises(ConfigError, match=message):
        app(["bench", *words], standalone_mode=False)
