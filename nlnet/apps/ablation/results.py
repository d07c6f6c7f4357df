"""What the runs of the study say, read from their own files: accuracy, distance, cost, vital signs.

Nothing is kept between the runs and the tables: the same runs give the same results, bit for bit, however often
they were stopped on the way. Only `seconds` is a measurement and differs.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nlnet.apps.ablation.statistics import Interval, accuracy
from nlnet.apps.recipes.costs import NetworkCost, network_cost
from nlnet.data.diagnostic.task import DiagnosticSpec, Item, make_clip
from nlnet.engine.evaluation.score_files import read_scores
from nlnet.engine.runs.directory import RunDir


@dataclass(frozen=True, kw_only=True)
class Distances:
    """How far the cue is from the digit that it asks for, one number a test video."""

    space: np.ndarray
    """Pixels between the centres."""
    time: np.ndarray
    """Frames between the nearest two that show them; 0 where both are there at once."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The seeds of one row."""

    correct: np.ndarray
    """(seeds, videos) booleans: whether the mean over the views of a test video is right."""
    distances: Distances
    cost: NetworkCost
    seconds: float
    """Of training a clip, the median over the log lines of all seeds, beside whatever else ran."""
    vitals: tuple[Mapping[str, Any], ...] = field(default=())
    """Records of kind "vitals" of the first seed, in the order of training."""

    @property
    def blocks(self) -> dict[str, dict[str, float | None]]:
        """{block: {gamma, ratio, entropy}} at the end of training (`nlnet.block_stats`), first seed."""
        return {r["block"]: {key: r[key] for key in ("gamma", "ratio", "entropy")} for r in self.vitals}

    @property
    def accuracy(self) -> Interval:
        return accuracy(self.correct)


def read_outcome(runs: Sequence[Path], spec: DiagnosticSpec) -> Outcome:
    """The outcome of a row from the directories of its runs, a seed each."""
    tests = [read_scores(run).evaluation for run in runs]
    for run, test in zip(runs, tests, strict=True):
        if test.failures:
            raise ValueError(
                f"{run}: {len(test.failures)} test videos could not be read; write the data again"
            )
    config, classes = RunDir(runs[0]).read_config()
    records = [RunDir(run).metrics() for run in runs]
    speeds = [r["clips_per_second"] for rs in records for r in rs if r["kind"] == "train"]
    return Outcome(
        correct=np.array([[int(v.video.argmax()) == v.label for v in test.videos] for test in tests]),
        distances=distances(spec, tuple(int(v.path.stem) for v in tests[0].videos)),
        cost=network_cost(config, len(classes)),
        seconds=1 / statistics.median(speeds),
        vitals=tuple(r for r in records[0] if r["kind"] == "vitals"),
    )


@cache
def distances(spec: DiagnosticSpec, indices: tuple[int, ...]) -> Distances:
    """From the facts of the test videos of those numbers."""
    pairs = [_partners(spec, index) for index in indices]
    return Distances(
        space=np.array([np.hypot(a.top - b.top, a.left - b.left) for a, b in pairs]),
        time=np.array([min(abs(f - g) for f in a.frames for g in b.frames) for a, b in pairs]),
    )


def _partners(spec: DiagnosticSpec, index: int) -> tuple[Item, Item]:
    """The cue and the digit on its colour."""
    red, green, cue = make_clip(spec, "test", index).items
    return cue, red if cue.color == "red" else green


@dataclass(frozen=True)
class Bin:
    """The test videos whose distance is in [low, high], and the accuracy on them."""

    low: float
    high: float
    videos: int
    accuracy: Interval


def reach(outcome: Outcome, axis: str, *, bins: int = 6, least: int = 30) -> list[Bin]:
    """Accuracy by distance along "space" or "time": bins of about equally many videos, at least `least` each.

    Equal distances stay together; an axis without distances that differ gives one bin, or none at all where the
    videos are too few.
    """
    distance = getattr(outcome.distances, axis)
    values, counts = np.unique(np.round(distance, 6), return_counts=True)
    size = max(least, -(-len(distance) // bins))
    found, first, held = [], 0, 0
    for k, count in enumerate(counts):
        held += count
        if held >= size:
            found.append((values[first], values[k]))
            first, held = k + 1, 0
    if held and found:  # what is left is too few for a bin of its own
        found[-1] = (found[-1][0], values[-1])
    return [_bin(outcome, distance, float(low), float(high)) for low, high in found]


def _bin(outcome: Outcome, distance: np.ndarray, low: float, high: float) -> Bin:
    inside = (np.round(distance, 6) >= low) & (np.round(distance, 6) <= high)
    return Bin(low, high, int(inside.sum()), accuracy(outcome.correct[:, inside]))
