"""95 % intervals of accuracies and of their differences, and the rules by which a difference counts as shown.

All intervals are closed forms. Networks of a table are tested on the same videos, so differences are taken video by
video. The intervals say what these trained networks would reach on other videos. They do not cover other seeds of
training; for that, every rule also asks each seed to agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Z = 1.959963984540054
"""97.5 % quantile of the standard normal distribution: two-sided 95 %."""
MARGIN = 3.0
"""Percentage points below which a difference is too small to matter, for the rules "alike" and "no gain"."""

Verdict = Literal["shown", "not shown", "contradicted", "not run"]


@dataclass(frozen=True)
class Interval:
    """An accuracy in percent, or a difference in percentage points: mean over seeds, 95 % interval, value of each seed."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()

    def text(self) -> str:
        """Return "value [low, high]"."""
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def wilson(right: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the proportion p = `right`/`count`, as fractions; n = `count`.

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). Unlike p ± z √(p(1−p)/n), it stays inside [0, 1] and has a width
    at p = 0 and 1. `right` need not be an integer: it may be a mean over seeds.

    Raises:
        ValueError: count < 1.
    """
    if count < 1:
        raise ValueError(f"count: got {count}, expected at least one video")
    p = right / count
    centre, width = p + Z**2 / (2 * count), Z * math.sqrt(p * (1 - p) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    # floating-point error must not push an end past p or out of [0, 1]
    return max(0.0, min(p, (centre - width) / scale)), min(1.0, max(p, (centre + width) / scale))


def accuracy(correct: np.ndarray) -> Interval:
    """Return the accuracy of (seeds, videos) booleans: the mean over seeds, with Wilson's interval over the videos."""
    # n is the number of videos and not seeds × videos: the seeds see the same videos, so they are no new sample
    low, high = wilson(float(correct.mean(0).sum()), correct.shape[1])
    return Interval(
        100 * float(correct.mean()), 100 * low, 100 * high, tuple(100 * float(s) for s in correct.mean(1))
    )


def difference(ours: np.ndarray, other: np.ndarray) -> Interval:
    """Return ours − other, from (seeds, videos) booleans of the same videos: mean ± z·sd/√n over the videos.

    Paired: videos that are hard for both networks cancel, so the interval is narrower than that of `drop`.
    """
    # first the mean over seeds: one number a video is the sample
    by_video = (ours.astype(float) - other).mean(0)
    mean, error = float(by_video.mean()), float(by_video.std(ddof=1)) / math.sqrt(len(by_video))
    seeds = (ours.astype(float) - other).mean(1)
    return Interval(
        100 * mean, 100 * (mean - Z * error), 100 * (mean + Z * error), tuple(100 * float(s) for s in seeds)
    )


def drop(near: np.ndarray, far: np.ndarray) -> Interval:
    """Return near − far, the difference of the accuracies on two disjoint sets of videos, (seeds, videos) booleans each.

    The two means are independent, so their variances add: mean ± z √(sd²_near/n_near + sd²_far/n_far).
    """
    parts = [part.astype(float).mean(0) for part in (near, far)]
    mean = float(parts[0].mean() - parts[1].mean())
    error = math.sqrt(sum(float(p.var(ddof=1)) / len(p) for p in parts))
    seeds = near.mean(1) - far.mean(1)
    return Interval(
        100 * mean, 100 * (mean - Z * error), 100 * (mean + Z * error), tuple(100 * float(s) for s in seeds)
    )


def better(by: Interval) -> Verdict:
    """Return "shown" if the whole interval and every seed are above 0, "contradicted" if all are below."""
    if by.low > 0 and min(by.seeds) > 0:
        return "shown"
    return "contradicted" if by.high < 0 and max(by.seeds) < 0 else "not shown"


def alike(by: Interval) -> Verdict:
    """Return "shown" if the interval and every seed lie within ±MARGIN, "contradicted" if all lie on one side of it.

    An interval that contains 0 would not be enough: few videos would then show any two networks to be alike.
    """
    if by.low > -MARGIN and by.high < MARGIN and max(map(abs, by.seeds)) < MARGIN:
        return "shown"
    above = by.low > MARGIN and min(by.seeds) > MARGIN
    below = by.high < -MARGIN and max(by.seeds) < -MARGIN
    return "contradicted" if above or below else "not shown"


def no_gain(by: Interval) -> Verdict:
    """Return "shown" if the whole interval and every seed are below MARGIN, "contradicted" if all are above."""
    if by.high < MARGIN and max(by.seeds) < MARGIN:
        return "shown"
    return "contradicted" if by.low > MARGIN and min(by.seeds) > MARGIN else "not shown"


def above(value: Interval, level: float) -> Verdict:
    """Return "shown" if the whole interval and every seed are above `level` percent, "contradicted" if all are below."""
    if value.low > level and min(value.seeds) > level:
        return "shown"
    return "contradicted" if value.high < level and max(value.seeds) < level else "not shown"


def below(value: Interval, level: float) -> Verdict:
    """Return "shown" if the whole interval and every seed are below `level` percent, "contradicted" if all are above."""
    opposite: dict[Verdict, Verdict] = {"shown": "contradicted", "contradicted": "shown"}
    verdict = above(value, level)
    return opposite.get(verdict, verdict)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a claim: "shown" if every part is, "contradicted" if at least one part is."""
    # the first that occurs decides: with a part missing nothing is known, and one contradicted part is enough
    for decisive in ("not run", "contradicted", "not shown"):
        if decisive in verdicts:
            return decisive
    return "shown"
