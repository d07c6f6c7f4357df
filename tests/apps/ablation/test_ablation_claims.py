"""Distances and bins of test videos, and claims judged on hand-made results."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlnet.apps.ablation.claims import CLAIMS, Claim, Part
from nlnet.apps.ablation.results import Distances, Outcome, distances, reach
from nlnet.apps.ablation.rows import TABLES
from nlnet.apps.ablation.study import DATA
from nlnet.apps.ablation.verdicts import judge, thirds
from nlnet.apps.recipes.costs import NetworkCost
from nlnet.data.diagnostic.task import make_clip
from nlnet.models.memory import Memory


def outcome(correct, space=None, time=None, macs=1) -> Outcome:
    correct = np.array(correct, dtype=bool)
    videos = correct.shape[1]
    return Outcome(
        correct=correct,
        distances=Distances(
            space=np.zeros(videos) if space is None else np.array(space, float),
            time=np.zeros(videos) if time is None else np.array(time, float),
        ),
        cost=NetworkCost(
            parameters=1, blocks=0, macs=macs, eval_macs=1, memory=Memory(kept=1, checkpointed=1)
        ),
        seconds=1.0,
    )


@pytest.mark.parametrize("task", ["space", "time", "spacetime"])
def test_distances_are_from_the_cue_to_the_digit_of_its_colour(task):
    """By definition, from the items; along an axis that a task does not separate, all distances are 0."""
    spec = DATA[task].spec
    found = distances(spec, tuple(range(12)))
    for index in range(12):
        clip = make_clip(spec, "test", index)
        cue = clip.items[2]
        digit = next(item for item in clip.items[:2] if item.color == cue.color)
        assert digit.digit == clip.label
        assert found.space[index] == ((cue.top - digit.top) ** 2 + (cue.left - digit.left) ** 2) ** 0.5
        gaps = [abs(f - g) for f in cue.frames for g in digit.frames]
        assert found.time[index] == min(gaps)
    assert (found.space == 0).all() == (task == "time")
    assert (found.time == 0).all() == (task == "space")


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=120), st.integers(1, 40))
def test_bins_hold_every_video_once(time, least):
    """In rising order, equal distances together, none smaller than `least`; too few videos give no bin."""
    correct = np.arange(len(time))[None] % 3 == 0
    bins = reach(outcome(correct, time=time), "time", least=least)
    if len(time) < least:
        assert bins == []
        return
    assert sum(b.videos for b in bins) == len(time)
    assert all(b.videos >= least for b in bins)
    assert all(one.high < two.low for one, two in zip(bins, bins[1:], strict=False))
    right = sum(round(b.accuracy.value / 100 * b.videos) for b in bins)
    assert right == correct.sum()


def test_thirds_are_the_nearest_and_the_farthest():
    near, far = thirds(np.arange(9))
    assert list(np.flatnonzero(near)) == [0, 1, 2]
    assert list(np.flatnonzero(far)) == [6, 7, 8]
    for few in ([3, 3, 3, 9], [3, 9, 9, 9], [3, 3, 9, 9]):
        near, far = thirds(np.array(few))
        assert list(near) == [d == 3 for d in few]
        assert list(far) == [d == 9 for d in few]
    with pytest.raises(ValueError, match="distance: expected distances that differ, got 3 for every video"):
        thirds(np.full(5, 3))


def test_the_verdict_on_each_rule():
    videos = 200
    good, bad = np.ones((2, videos), bool), np.tile(np.arange(videos) % 2 == 0, (2, 1))
    time = np.arange(videos)
    falling = np.tile(time < 100, (2, 1))
    outcomes = {
        "nl": outcome(good, time=time, macs=1),
        "local": outcome(bad, time=time, macs=2),
        "conv": outcome(falling, time=time),
    }

    def verdict(*parts: Part) -> str:
        return judge(Claim(table="2a", statement="", source="", parts=parts), outcomes)[0]

    assert verdict(Part("better", "nl", "local")) == "shown"
    assert verdict(Part("better", "local", "nl")) == "contradicted"
    assert verdict(Part("no gain", "local", "nl")) == "shown"
    assert verdict(Part("alike", "local", "nl")) == "contradicted"
    assert verdict(Part("related", "nl"), Part("unrelated", "local")) == "shown"
    assert verdict(Part("falls", "conv"), Part("flat", "nl")) == "shown"
    assert verdict(Part("flat", "conv")) == "contradicted"
    assert verdict(Part("loses", "nl", "conv"), Part("keeps", "local", "nl")) == "shown"
    assert verdict(Part("keeps", "nl", "local")) == "contradicted"
    assert verdict(Part("loses", "local", "nl")) == "contradicted"
    assert verdict(Part("cheaper", "nl", "local")) == "shown"
    assert verdict(Part("cheaper", "local", "nl")) == "contradicted"
    assert verdict(Part("better", "nl", "absent")) == "not run"
    assert "absent did not run" in judge(CLAIMS[0], {})[1][0].text.replace("Gaussian and baseline", "absent")


def test_claims_name_rows_that_exist():
    for claim in CLAIMS:
        names = {row.name for row in TABLES[claim.table].rows}
        for part in claim.parts:
            assert {part.ours, part.other or part.ours} <= names, (claim.statement, part)
    assert {claim.table for claim in CLAIMS} == set(TABLES)
