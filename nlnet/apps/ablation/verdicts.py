"""What the runs say about a claim: its parts one by one, and all together."""

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
class Finding:
    """What became of a part; `interval` is None for costs and rows that were not run."""

    part: Part
    verdict: Verdict
    interval: Interval | None
    text: str


def judge(claim: Claim, outcomes: Mapping[str, Outcome]) -> tuple[Verdict, list[Finding]]:
    """The verdict on a claim from the outcomes of its table's rows, by row name."""
    findings = [_find(part, outcomes) for part in claim.parts]
    return together([finding.verdict for finding in findings]), findings


def _find(part: Part, outcomes: Mapping[str, Outcome]) -> Finding:
    names = [part.ours] + ([part.other] if part.other else [])
    missing = [name for name in names if name not in outcomes]
    label = part.ours + (f" − {part.other}" if part.other else "")
    if missing:
        return Finding(part, "not run", None, f"{label}: {' and '.join(missing)} did not run")
    ours = outcomes[part.ours]
    if part.rule == "cheaper":
        assert part.other is not None
        pair = (ours.cost.macs, outcomes[part.other].cost.macs)
        verdict: Verdict = "shown" if pair[0] < pair[1] else "contradicted"
        return Finding(part, verdict, None, f"{label}: {pair[0] / 1e6:.1f} M and {pair[1] / 1e6:.1f} M")
    interval = _interval(part, ours, outcomes[part.other] if part.other else None)
    verdict = _verdict(part.rule, interval)
    shown = f"{label}{_thirds(part)}: {interval.text()}"
    return Finding(part, verdict, interval, shown)


def _thirds(part: Part) -> str:
    return f", nearest − farthest in {part.axis}" if part.rule in ("falls", "flat") else ""


def _interval(part: Part, ours: Outcome, other: Outcome | None) -> Interval:
    if part.rule in ("related", "unrelated"):
        return ours.accuracy
    if part.rule in ("falls", "flat"):
        near, far = thirds(getattr(ours.distances, part.axis))
        return drop(ours.correct[:, near], ours.correct[:, far])
    assert other is not None
    if part.rule in ("loses", "keeps"):
        return drop(ours.correct, other.correct)
    return difference(ours.correct, other.correct)


def _verdict(rule: Rule, interval: Interval) -> Verdict:
    if rule in ("better", "falls", "loses"):
        return better(interval)
    if rule in ("alike", "flat"):
        return alike(interval)
    if rule in ("no gain", "keeps"):
        return no_gain(interval)
    return above(interval, BOUND) if rule == "related" else below(interval, BOUND)


def thirds(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The videos up to the lower tercile of the distances, and those from the upper one on, never the same ones;
    split at their most frequent value where both terciles are that.

    Raises:
        ValueError: the distances are all the same.
    """
    low, high = np.quantile(distance, [1 / 3, 2 / 3])
    if distance.min() == distance.max():
        raise ValueError(f"near and far: expected distances that differ, got {float(low):g} for every video")
    if low < high:
        return distance <= low, distance >= high
    near = distance <= low if low < distance.max() else distance < low
    return near, ~near
