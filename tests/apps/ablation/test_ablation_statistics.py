"""Intervals against published values and their equations, and the rules on intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlnet.apps.ablation.statistics import (
    Interval,
    above,
    accuracy,
    alike,
    below,
    better,
    difference,
    drop,
    no_gain,
    together,
    wilson,
)


def test_wilson_is_the_published_formula():
    """Wilson (1927) for 8 of 10: 0.490 to 0.943 (Newcombe 1998, and any statistics table)."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)  # z²/(n + z²)
    with pytest.raises(ValueError, match="at least one video"):
        wilson(0, 0)


@given(right=st.integers(0, 300), more=st.integers(0, 300))
def test_wilson_solves_its_equation(right, more):
    """Its ends are where |p − q| = z √(q(1 − q)/n); it mirrors under p → 1 − p and stays inside [0, 1]."""
    count = right + more
    if count == 0:
        return
    low, high = wilson(right, count)
    p = right / count
    assert 0 <= low <= p <= high <= 1
    for q in (low, high):
        if 0 < q < 1:
            assert abs(p - q) == pytest.approx(1.959964 * np.sqrt(q * (1 - q) / count), abs=1e-6)
    mirrored = wilson(more, count)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_accuracy_is_the_mean_over_seeds_with_the_interval_of_one_test_set():
    correct = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], dtype=bool)
    value = accuracy(correct)
    assert (value.value, value.seeds) == (62.5, (75.0, 50.0))
    assert (value.low, value.high) == pytest.approx([100 * v for v in wilson(2.5, 4)])


@given(seed=st.integers(0, 2**16), seeds=st.integers(1, 3), videos=st.integers(2, 40))
def test_differences_are_paired_by_video(seed, seeds, videos):
    """sd of the videos' differences by hand; a network does not differ from itself; swapping turns the sign."""
    rng = np.random.default_rng(seed)
    one, two = rng.random((2, seeds, videos)) < 0.6
    d = [sum(int(one[s, v]) - int(two[s, v]) for s in range(seeds)) / seeds for v in range(videos)]
    mean = sum(d) / videos
    sd = (sum((x - mean) ** 2 for x in d) / (videos - 1)) ** 0.5
    found = difference(one, two)
    assert found.value == pytest.approx(100 * mean)
    assert found.high - found.value == pytest.approx(100 * 1.959964 * sd / videos**0.5, abs=1e-4)
    assert difference(one, one) == Interval(0.0, 0.0, 0.0, (0.0,) * seeds)
    back = difference(two, one)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_drop_adds_the_variances_of_two_sets():
    near, far = np.array([[1, 1, 1, 0]], dtype=bool), np.array([[1, 0]], dtype=bool)
    error = (0.25 / 4 + 0.5 / 2) ** 0.5  # sample variances 0.25 and 0.5
    found = drop(near, far)
    assert found.value == pytest.approx(25.0)
    assert found.high == pytest.approx(25 + 100 * 1.959964 * error, abs=1e-3)


@pytest.mark.parametrize(
    ("rule", "interval", "verdict"),
    [
        (better, Interval(5, 1, 9, (4, 6)), "shown"),
        (better, Interval(5, 1, 11, (-1, 11)), "not shown"),  # a seed disagrees
        (better, Interval(2, -1, 5, (1, 3)), "not shown"),
        (better, Interval(-5, -9, -1, (-4, -6)), "contradicted"),
        (alike, Interval(1, -2, 2.9, (1, 1)), "shown"),
        (alike, Interval(1, -2, 4, (1, 1)), "not shown"),
        (
            alike,
            Interval(0.1, -2.5, 2.7, (38.5, -38.3)),
            "not shown",
        ),  # seeds far apart, whose mean is near 0
        (alike, Interval(8, 6, 10, (8, 8)), "contradicted"),
        (alike, Interval(-8, -10, -6, (-8, -8)), "contradicted"),
        (alike, Interval(8, 6, 10, (1, 15)), "not shown"),
        (no_gain, Interval(-9, -12, -5, (-9, -9)), "shown"),
        (no_gain, Interval(1, -2, 4, (1, 1)), "not shown"),
        (no_gain, Interval(0.1, -2.5, 2.7, (38.5, -38.3)), "not shown"),
        (no_gain, Interval(9, 5, 12, (9, 9)), "contradicted"),
        (no_gain, Interval(9, 5, 12, (1, 17)), "not shown"),
    ],
)
def test_rules_need_the_interval_and_every_seed(rule, interval, verdict):
    assert rule(interval) == verdict


def test_above_and_below_a_level():
    high, low, split = (
        Interval(90, 88, 92, (89, 91)),
        Interval(50, 47, 53, (49, 51)),
        Interval(80, 77, 83, (70, 90)),
    )
    assert [above(i, 75) for i in (high, low, split)] == ["shown", "contradicted", "not shown"]
    assert [below(i, 75) for i in (high, low, split)] == ["contradicted", "shown", "not shown"]


def test_a_claim_has_the_verdict_of_its_weakest_part():
    assert together(["shown", "shown"]) == "shown"
    assert together(["shown", "not shown"]) == "not shown"
    assert together(["not shown", "contradicted"]) == "contradicted"
    assert together(["contradicted", "not run"]) == "not run"
