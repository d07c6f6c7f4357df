"""The results of the study's runs, read from their files: accuracy, distances, cost, block statistics, provenance.

The same runs always give the same results, bit for bit, whether they were stopped on the way or not; only `seconds` and
the sessions are measurements and differ. A session is one call of `nlnet ablate`. The file sessions.json beside the
runs lists which session made which runs, on which commit and machine.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nlnet.apps.ablation.statistics import Interval, accuracy
from nlnet.apps.recipes.costs import NetworkCost, network_cost
from nlnet.data.diagnostic.task import DiagnosticSpec, Item, make_clip
from nlnet.engine.evaluation.score_files import read_scores
from nlnet.engine.runs.atomic_write import write_json
from nlnet.engine.runs.directory import RunDir, block_stats_records
from nlnet.engine.runs.provenance import provenance
from nlnet.errors import EvaluationError


@dataclass(frozen=True, kw_only=True)
class Distances:
    """Distance between the cue and the digit on a tile of its colour, one number for each test video."""

    space: np.ndarray
    """Pixels between their centres."""
    time: np.ndarray
    """Frames between the nearest two frames that show them; 0 if a frame shows both."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of one row, over its seeds."""

    correct: np.ndarray
    """(seeds, videos) booleans: whether the scores of a test video, averaged over its views, give its class."""
    distances: Distances
    cost: NetworkCost
    seconds: float
    """Training time of a clip: the median over the records of all seeds, with other runs at the same time."""
    block_stats: tuple[Mapping[str, Any], ...] = field(default=())
    """The block statistics in metrics.jsonl of the first seed, in the order of training."""

    @property
    def blocks(self) -> dict[str, dict[str, float | None]]:
        """{block: {gamma, ratio, entropy}} at the end of training (`nlnet.block_stats`), first seed."""
        # a later record replaces an earlier one of the same block
        return {r["block"]: {key: r[key] for key in ("gamma", "ratio", "entropy")} for r in self.block_stats}

    @property
    def accuracy(self) -> Interval:
        """Top-1 on the test videos, percent."""
        return accuracy(self.correct)


def read_outcome(runs: Sequence[Path], spec: DiagnosticSpec) -> Outcome:
    """Return the results of a row from the directories of its runs, one per seed.

    Raises:
        EvaluationError: a run could not read all of its test videos, so its rows cannot be compared video by video.
    """
    tests = [read_scores(run).evaluation for run in runs]
    for run, test in zip(runs, tests, strict=True):
        if test.failures:
            raise EvaluationError(
                f"{run}: {len(test.failures)} test videos could not be read; remove {run / 'test'} and the data set "
                "of these videos, and give the same command again to make both anew"
            )
    config, classes = RunDir(runs[0]).read_config()
    records = [RunDir(run).metrics() for run in runs]
    speeds = [r["clips_per_second"] for rs in records for r in rs if r["kind"] == "train"]
    return Outcome(
        correct=np.array([[int(v.video.argmax()) == v.label for v in test.videos] for test in tests]),
        # a test video's file name is its index in the data set
        distances=distances(spec, tuple(int(v.path.stem) for v in tests[0].videos)),
        cost=network_cost(config, len(classes)),
        seconds=1 / statistics.median(speeds),
        block_stats=tuple(block_stats_records(records[0])),
    )


@cache
def distances(spec: DiagnosticSpec, indices: tuple[int, ...]) -> Distances:
    """Return the distances of the test videos with these indices, from the positions and frames of their items."""
    pairs = [_cue_and_digit(spec, index) for index in indices]
    return Distances(
        space=np.array([np.hypot(a.top - b.top, a.left - b.left) for a, b in pairs]),
        time=np.array([min(abs(f - g) for f in a.frames for g in b.frames) for a, b in pairs]),
    )


def _cue_and_digit(spec: DiagnosticSpec, index: int) -> tuple[Item, Item]:
    """The cue of a test video, and the digit on a tile of the cue's colour."""
    red, green, cue = make_clip(spec, "test", index).items
    return cue, red if cue.color == "red" else green


@dataclass(frozen=True)
class Bin:
    """The test videos whose distance lies in [low, high], and the accuracy on them."""

    low: float
    high: float
    videos: int
    accuracy: Interval


def reach(outcome: Outcome, axis: str, *, bins: int = 6, least: int = 30) -> list[Bin]:
    """Return the accuracy by distance along "space" or "time", in bins of about equally many videos.

    Every bin has at least `least` videos; equal distances share a bin. One bin if all distances are the same, none if
    there are too few videos.
    """
    distance = getattr(outcome.distances, axis)
    # rounded, so that distances that differ by floating-point error alone share a bin
    values, counts = np.unique(np.round(distance, 6), return_counts=True)
    size = max(least, -(-len(distance) // bins))
    found, first, held = [], 0, 0
    for k, count in enumerate(counts):
        held += count
        if held >= size:
            found.append((values[first], values[k]))
            first, held = k + 1, 0
    if held and found:  # the farthest videos are too few for a bin of their own and join the last one
        found[-1] = (found[-1][0], values[-1])
    return [_bin(outcome, distance, float(low), float(high)) for low, high in found]


def _bin(outcome: Outcome, distance: np.ndarray, low: float, high: float) -> Bin:
    inside = (np.round(distance, 6) >= low) & (np.round(distance, 6) <= high)
    return Bin(low, high, int(inside.sum()), accuracy(outcome.correct[:, inside]))


class Session:
    """This call of `nlnet ablate`, recorded in sessions.json as soon as it has made a run.

    The file is written anew at the end of every run, so that a session that is killed is recorded up to then.
    """

    def __init__(self, out: Path, command: str) -> None:
        self.path = out / "sessions.json"
        self.earlier = read_sessions(out)
        self.start = time.perf_counter()
        self.entry: dict[str, Any] = {
            "command": command,
            "provenance": provenance(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "runs": [],
        }

    def add_run(self, name: str) -> None:
        """Record that this session finished a run."""
        self.entry["runs"].append(name)
        self.save()

    def save(self) -> None:
        """Write sessions.json; a session without runs (it only wrote tables) is left out."""
        self.entry["seconds"] = round(time.perf_counter() - self.start, 1)
        if self.entry["runs"]:
            write_json(self.path, [*self.earlier, self.entry])


def read_sessions(out: Path) -> list[dict[str, Any]]:
    """Return the sessions of a study in order; an empty list if no run has ended yet."""
    path = out / "sessions.json"
    entries = json.loads(path.read_text()) if path.exists() else []
    # older studies call the provenance a passport
    return [{"provenance" if key == "passport" else key: value for key, value in e.items()} for e in entries]


def runs_by_provenance(sessions: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> list[dict[str, Any]]:
    """Count `runs` by provenance: [{"provenance": …, "runs": count}]; None for runs that no session lists."""
    found: list[dict[str, Any]] = []
    left = set(runs)
    for session in sessions:
        mine = left.intersection(session["runs"])
        # a run that several sessions list counts once
        left -= mine
        same = next((entry for entry in found if entry["provenance"] == session["provenance"]), None)
        if same is not None:
            same["runs"] += len(mine)
        elif mine:
            found.append({"provenance": session["provenance"], "runs": len(mine)})
    if left:
        found.append({"provenance": None, "runs": len(left)})
    return found
