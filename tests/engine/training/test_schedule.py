"""Learning rates: numbers of the release, and laws."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlnet.engine.config import Config, override
from nlnet.engine.training.schedule import learning_rate, scaled_rate, scheduled_rate
from nlnet.errors import ConfigError


def test_the_releases_steps():
    # 8-GPU 400k recipe: 0.01, 0.001 from 150k, 0.0001 from 300k
    steps = {"policy": "step", "steps": (150_000, 300_000), "gamma": 0.1, "iterations": 400_000, "peak": 0.01}
    rates = [learning_rate(i, **steps) for i in (0, 149_999, 150_000, 299_999, 300_000, 399_999)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])


def test_linear_scaling():
    # the 4-GPU recipe halves the batch of 64 and the rate of 0.01
    assert scaled_rate(0.01, 32, 64) == pytest.approx(0.005)


def test_the_rate_of_a_configured_run():
    """Peak 0.01·32/64; half a cosine over 100 iterations; warm-up from 0.5 over 20 iterations."""
    keys = ["training.batch=32", "schedule.policy=cosine", "schedule.iterations=100"]
    keys += ["schedule.warmup=20", "schedule.warmup_start=0.5"]
    config = override(Config(), keys)
    assert scheduled_rate(config, 0) == pytest.approx(0.0025)
    assert scheduled_rate(config, 50) == pytest.approx(0.0025)
    assert scheduled_rate(config, 10) == pytest.approx(0.005 * (1 + math.cos(math.pi / 10)) / 2 * 0.75)


def test_cosine_literals():
    rates = [learning_rate(i, peak=2.0, iterations=100, policy="cosine") for i in (0, 50, 100)]
    assert rates == pytest.approx([2.0, 1.0, 0.0])


def test_warm_up_rises_linearly_to_the_peak():
    rates = [learning_rate(i, peak=1.0, iterations=100, warmup=10, warmup_start=0.1) for i in range(12)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == rates[11] == 1.0
    assert all(b - a == pytest.approx(0.09) for a, b in zip(rates[:10], rates[1:11], strict=True))


@given(st.integers(1, 1000), st.sampled_from(["step", "cosine"]))
def test_rates_never_rise_after_the_warm_up(iterations, policy):
    rates = [
        learning_rate(i, peak=1.0, iterations=iterations, policy=policy, steps=(iterations // 2 + 1,))
        for i in range(iterations)
    ]
    assert all(b <= a for a, b in zip(rates, rates[1:], strict=False))
    assert all(math.isfinite(rate) and rate >= 0 for rate in rates)


def test_unknown_policy():
    with pytest.raises(ConfigError, match="schedule.policy: got 'linear', expected 'step' or 'cosine'"):
        learning_rate(0, peak=1.0, iterations=1, policy="linear")
