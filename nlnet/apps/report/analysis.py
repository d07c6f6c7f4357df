"""What `nlnet report` computes from the records of a run and the scores of its test; no files, no pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from nlnet.block_stats import Verdict, verdict
from nlnet.data import Label
from nlnet.engine.evaluation.video_scores import Evaluation, VideoScores
from nlnet.engine.runs.directory import block_stats_records

Records = Sequence[Mapping[str, Any]]
"""The lines of metrics.jsonl, each with its "kind"."""


@dataclass(frozen=True)
class HardVideo:
    """A test video whose true class got a low probability."""

    path: Path
    truth: str
    """Name of its class; if it has several, the one with the lowest probability."""
    probability: float
    """Probability of that class."""
    prediction: str
    """Class with the highest probability; if it has several classes, the highest of the others."""
    predicted: float
    """Probability of that class."""


def of_kind(records: Records, kind: str) -> list[Mapping[str, Any]]:
    """Return the records of a kind, such as "train" or "validation"."""
    return [record for record in records if record["kind"] == kind]


def by_block(records: Records) -> dict[str, list[Mapping[str, Any]]]:
    """Return the statistics of each block over training: {block: records}, in the order of the network."""
    blocks: dict[str, list[Mapping[str, Any]]] = {}
    for record in block_stats_records(records):
        blocks.setdefault(record["block"].removesuffix(".nonlocal_block"), []).append(record)
    return blocks


def verdicts(records: Records) -> dict[str, Verdict]:
    """Return the state of each block (`nlnet.block_stats.verdict`); empty if no statistics were recorded."""
    return {block: verdict(statistics) for block, statistics in by_block(records).items()}


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the moving mean over `window` values (an odd number), centred on each value.

    Near the ends the window shrinks on both sides alike, so that it stays centred and a straight line stays straight.

    Raises:
        ValueError: an even window, or one below 1.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: got {window}, expected an odd number of at least 1")
    means = []
    for index in range(len(values)):
        reach = min(window // 2, index, len(values) - 1 - index)
        around = values[index - reach : index + reach + 1]
        means.append(sum(around) / len(around))
    return means


def confusion(evaluation: Evaluation) -> Int[Tensor, "K K"]:
    """Return the confusion matrix: number of videos by true class (row) and predicted class (column).

    Videos without a label are left out.

    Raises:
        ValueError: videos have several classes each.
    """
    if evaluation.multilabel:
        raise ValueError(
            "a confusion matrix needs one class per video, got videos with any number of classes"
        )
    size = len(evaluation.classes)
    matrix = torch.zeros(size, size, dtype=torch.long)
    for video in evaluation.videos:
        if isinstance(video.label, int):
            matrix[video.label, int(video.video.argmax())] += 1
    return matrix


def most_confused(
    matrix: Int[Tensor, "K K"], classes: Sequence[str], count: int
) -> list[dict[str, str | int | float]]:
    """Return the `count` largest entries off the diagonal, without zeros, with their share of the row in percent."""
    off = matrix.clone().fill_diagonal_(0)
    # stable: equal counts stay in the order of the classes, so a report is the same every time
    order = off.flatten().argsort(descending=True, stable=True)[:count].tolist()
    totals = matrix.sum(dim=1).tolist()
    pairs: list[dict[str, str | int | float]] = []
    for flat in order:
        row, column = divmod(flat, len(classes))
        videos = int(off[row, column])
        if videos > 0:
            share = round(100 * videos / totals[row], 1)
            pairs.append(
                {"class": classes[row], "taken for": classes[column], "videos": videos, "share": share}
            )
    return pairs


def hardest(evaluation: Evaluation, count: int) -> list[HardVideo]:
    """Return the `count` labelled videos whose true class got the lowest probability, lowest first."""
    judged = [_hard(v, v.label, evaluation.classes) for v in evaluation.videos if v.label not in (None, ())]
    return sorted(judged, key=lambda video: video.probability)[:count]


def _hard(video: VideoScores, label: Label, classes: Sequence[str]) -> HardVideo:
    shown = list(label) if isinstance(label, tuple) else [label] if label is not None else []
    scores = video.video
    truth = min(shown, key=lambda k: float(scores[k]))
    others = scores.clone()
    if isinstance(label, tuple):
        # none of the classes that the video has is a wrong prediction; -1 is below every probability
        others[shown] = -1
    best = int(others.argmax())
    return HardVideo(video.path, classes[truth], float(scores[truth]), classes[best], float(scores[best]))
