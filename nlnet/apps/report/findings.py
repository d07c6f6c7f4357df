"""What the records of a run and its saved scores say: curves, confusions, the hardest videos. Arithmetic alone."""

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

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Hard:
    """A video whose own class got little."""

    path: Path
    truth: str
    """The name of its class; of several, the one that got least."""
    probability: float
    prediction: str
    """The class that got most; of a video with several, the highest that it does not show."""
    predicted: float


def of_kind(records: Records, kind: str) -> list[Mapping[str, Any]]:
    return [record for record in records if record["kind"] == kind]


def by_block(records: Records) -> dict[str, list[Mapping[str, Any]]]:
    """The vital signs of each block, in the order of the network and of time."""
    blocks: dict[str, list[Mapping[str, Any]]] = {}
    for record in of_kind(records, "vitals"):
        blocks.setdefault(record["block"].removesuffix(".nonlocal_block"), []).append(record)
    return blocks


def verdicts(records: Records) -> dict[str, Verdict]:
    """What the vital signs of each block amount to; empty where none were recorded."""
    return {block: verdict(signs) for block, signs in by_block(records).items()}


def smooth(values: Sequence[float], window: int) -> list[float]:
    """The mean over `window` values around each, an odd number of them; near the ends over fewer, evenly on both sides."""
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window: got {window}, expected an odd number of at least 1")
    means = []
    for place in range(len(values)):
        reach = min(window // 2, place, len(values) - 1 - place)
        around = values[place - reach : place + reach + 1]
        means.append(sum(around) / len(around))
    return means


def confusion(evaluation: Evaluation) -> Int[Tensor, "K K"]:
    """Videos by their class (row) and by the class that got most (column); each has one class or none.

    Raises:
        ValueError: videos of several classes have no such matrix.
    """
    if evaluation.multilabel:
        raise ValueError("confusion: these videos have several classes each; a confusion matrix needs one")
    size = len(evaluation.classes)
    matrix = torch.zeros(size, size, dtype=torch.long)
    for video in evaluation.videos:
        if isinstance(video.label, int):
            matrix[video.label, int(video.video.argmax())] += 1
    return matrix


def most_confused(
    matrix: Int[Tensor, "K K"], classes: Sequence[str], count: int
) -> list[dict[str, str | int | float]]:
    """The largest entries off the diagonal, with their part of the row in percent; at most `count`."""
    off = matrix.clone().fill_diagonal_(0)
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


def hardest(evaluation: Evaluation, count: int) -> list[Hard]:
    """The videos whose class got the lowest probability, lowest first."""
    judged = [_hard(v, v.label, evaluation.classes) for v in evaluation.videos if v.label not in (None, ())]
    return sorted(judged, key=lambda video: video.probability)[:count]


def _hard(video: VideoScores, label: Label, classes: Sequence[str]) -> Hard:
    shown = list(label) if isinstance(label, tuple) else [label] if label is not None else []
    scores = video.video
    truth = min(shown, key=lambda k: float(scores[k]))
    rivals = scores.clone()
    if isinstance(label, tuple):
        rivals[shown] = -1
    best = int(rivals.argmax())
    return Hard(video.path, classes[truth], float(scores[truth]), classes[best], float(scores[best]))
