"""Intervals and verdicts, closed forms throughout.

Every network of a comparison is tested on the same videos, so differences are taken video by video. The intervals
hold for these trained networks on other videos; that another seed of training may end elsewhere is answered by
asking that every seed agrees.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Z = 1.959963984540054
"""Two-sided 95 % of the normal distribution."""
MARGIN = 3.0
"""Percentage points that count as a difference worth naming, for claims that say "alike" or "no gain"."""

Verdict = Literal["shown", "not shown", "contradicted", "not run"]


@dataclass(frozen=True)
class Interval:
    """An estimate in percent, or a difference in percentage points, with its 95 % interval and the seeds' values."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...] = ()

    def text(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def wilson(right: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion `right`/`count`, as shares of 1. `right` may be a mean over seeds.

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
    """
    if count < 1:
        raise ValueError(f"an interval needs at least one video, got {count}")
    p = right / count
    centre, width = p + Z**2 / (2 * count), Z * math.sqrt(p * (1 - p) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    # rounding must not push an end beyond the value or the range
    return max(0.0, min(p, (centre - width) / scale)), min(1.0, max(p, (centre + width) / scale))


def accuracy(correct: np.ndarray) -> Interval:
    """The share of videos that are right, (seeds, videos) booleans: the mean over seeds, Wilson over the videos."""
    low, high = wilson(float(correct.mean(0).sum()), correct.shape[1])
    return Interval(
        100 * float(correct.mean()), 100 * low, 100 * high, tuple(100 * float(s) for s in correct.mean(1))
    )


def difference(ours: np.ndarray, other: np.ndarray) -> Interval:
    """ours − other, (seeds, videos) booleans of the same videos and seeds: mean ± z·sd/√n of the videos' differences."""
    by_video = (ours.astype(float) - other).mean(0)
    mean, error = float(by_video.mean()), float(by_video.std(ddof=1)) / math.sqrt(len(by_video))
    seeds = (ours.astype(float) - other).mean(1)
    return Interval(
        100 * mean, 100 * (mean - Z * error), 100 * (mean + Z * error), tuple(100 * float(s) for s in seeds)
    )


def drop(near: np.ndarray, far: np.ndarray) -> Interval:
    """near − far, accuracies on two sets of videos, (seeds, videos) each: the variances of the two means add."""
    parts = [part.astype(float).mean(0) for part in (near, far)]
    mean = float(parts[0].mean() - parts[1].mean())
    error = math.sqrt(sum(float(p.var(ddof=1)) / len(p) for p in parts))
    seeds = near.mean(1) - far.mean(1)
    return Interval(
        100 * mean, 100 * (mean - Z * error), 100 * (mean + Z * error), tuple(100 * float(s) for s in seeds)
    )


def better(by: Interval) -> Verdict:
    """A difference is above 0: its whole interval and every seed."""
    if by.low > 0 and min(by.seeds) > 0:
        return "shown"
    return "contradicted" if by.high < 0 and max(by.seeds) < 0 else "not shown"


def alike(by: Interval) -> Verdict:
    """A difference lies within ±MARGIN: its whole interval and every seed. Contradicted where all are on one side."""
    if by.low > -MARGIN and by.high < MARGIN and max(map(abs, by.seeds)) < MARGIN:
        return "shown"
    above = by.low > MARGIN and min(by.seeds) > MARGIN
    below = by.high < -MARGIN and max(by.seeds) < -MARGIN
    return "contradicted" if above or below else "not shown"


def no_gain(by: Interval) -> Verdict:
    """A difference is below MARGIN: its whole interval and every seed. Contradicted where all are above."""
    if by.high < MARGIN and max(by.seeds) < MARGIN:
        return "shown"
    return "contradicted" if by.low > MARGIN and min(by.seeds) > MARGIN else "not shown"


def above(value: Interval, level: float) -> Verdict:
    """An accuracy is above `level` percent: its whole interval and every seed."""
    if value.low > level and min(value.seeds) > level:
        return "shown"
    return "contradicted" if value.high < level and max(value.seeds) < level else "not shown"


def below(value: Interval, level: float) -> Verdict:
    """An accuracy is below `level` percent: its whole interval and every seed."""
    opposite: dict[Verdict, Verdict] = {"shown": "contradicted", "contradicted": "shown"}
    verdict = above(value, level)
    return opposite.get(verdict, verdict)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim of several parts: not run if a part was not, contradicted if one is, shown if all are."""
    for decisive in ("not run", "contradicted", "not shown"):
        if decisive in verdicts:
            return decisive
    return "shown"
