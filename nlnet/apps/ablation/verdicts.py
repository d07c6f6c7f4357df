"""The verdict on each claim, from the results of the rows that it compares."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nlnet.apps.ablation.claims import BOUND, Claim, Part, Rule
from nlnet.apps.ablation.results import Outcome
from nlnet.apps.ablation.statistics import (
    Interval,
    Verdict,
    above,
    alike,
    below,
    better,
    difference,
    drop,
    no_gain,
    together,
)


@dataclass(frozen=True)
class PartVerdict:
    """The verdict on one part of a claim; `interval` is None if it compares costs or a row was not run."""

    part: Part
    verdict: Verdict
    interval: Interval | None
    text: str
    """The rows and the numbers, for the tables."""


def judge(claim: Claim, outcomes: Mapping[str, Outcome]) -> tuple[Verdict, list[PartVerdict]]:
    """Return the verdict on a claim and on each of its parts.

    Args:
        outcomes: results of the rows of the claim's table, by row name; rows without a result are left out.
    """
    parts = [_judge_part(part, outcomes) for part in claim.parts]
    return together([part.verdict for part in parts]), parts


def _judge_part(part: Part, outcomes: Mapping[str, Outcome]) -> PartVerdict:
    names = [part.ours] + ([part.other] if part.other else [])
    missing = [name for name in names if name not in outcomes]
    label = part.ours + (f" − {part.other}" if part.other else "")
    if missing:
        return PartVerdict(part, "not run", None, f"{label}: {' and '.join(missing)} did not run")
    ours = outcomes[part.ours]
    if part.rule == "cheaper":
        assert part.other is not None
        # multiply-adds are counted, not measured: no interval and no third verdict
        pair = (ours.cost.macs, outcomes[part.other].cost.macs)
        verdict: Verdict = "shown" if pair[0] < pair[1] else "contradicted"
        return PartVerdict(part, verdict, None, f"{label}: {pair[0] / 1e6:.1f} M and {pair[1] / 1e6:.1f} M")
    interval = _interval(part, ours, outcomes[part.other] if part.other else None)
    verdict = _verdict(part.rule, interval)
    return PartVerdict(part, verdict, interval, f"{label}{_suffix(part)}: {interval.text()}")


def _suffix(part: Part) -> str:
    """Text that says what the rules "falls" and "flat" subtract; empty for all other rules."""
    return f", nearest − farthest in {part.axis}" if part.rule in ("falls", "flat") else ""


def _interval(part: Part, ours: Outcome, other: Outcome | None) -> Interval:
    """The accuracy or the difference that the rule of a part is about."""
    if part.rule in ("related", "unrelated"):
        return ours.accuracy
    if part.rule in ("falls", "flat"):
        near, far = thirds(getattr(ours.distances, part.axis))
        return drop(ours.correct[:, near], ours.correct[:, far])
    assert other is not None
    if part.rule in ("loses", "keeps"):
        # the rows are tested on different videos, which cannot be paired
        return drop(ours.correct, other.correct)
    return difference(ours.correct, other.correct)


def _verdict(rule: Rule, interval: Interval) -> Verdict:
    """What the rule says about the interval."""
    if rule in ("better", "falls", "loses"):
        return better(interval)
    if rule in ("alike", "flat"):
        return alike(interval)
    if rule in ("no gain", "keeps"):
        return no_gain(interval)
    return above(interval, BOUND) if rule == "related" else below(interval, BOUND)


def thirds(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks of videos: the nearest third by distance and the farthest third; no video is in both.

    Near is up to the lower tercile, far is from the upper tercile on. Distances are discrete, so both terciles can be the
    same value; then all videos are split there in two.

    Raises:
        ValueError: all distances are the same.
    """
    low, high = np.quantile(distance, [1 / 3, 2 / 3])
    if distance.min() == distance.max():
        raise ValueError(f"distance: expected distances that differ, got {float(low):g} for every video")
    if low < high:
        return distance <= low, distance >= high
    # the frequent value itself counts as near, unless no distance is larger
    near = distance <= low if low < distance.max() else distance < low
    return near, ~near
