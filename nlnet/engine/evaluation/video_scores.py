"""Scores of the views of test videos, and what they amount to.

Letters: V views of a video, K classes, N videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nlnet.data import Label
from nlnet.engine.evaluation.metrics import average_precision, charades_precision, rank_of


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video."""

    index: int
    path: Path
    label: Label
    views: Tensor
    """(V, K) probabilities, clips outermost, crops inside."""
    starts: tuple[int, ...] = ()
    """First frame of each clip."""
    aggregate: Literal["mean", "max"] = "mean"

    @property
    def video(self) -> Tensor:
        """(K,) the mean, or class by class the largest, over all views: clips and crops alike."""
        return self.views.mean(dim=0) if self.aggregate == "mean" else self.views.amax(dim=0)


@dataclass(frozen=True)
class Unread:
    """A video that gave no scores, and why: "path: reason; fix"."""

    index: int
    path: Path
    label: Label
    reason: str


@dataclass(frozen=True)
class Missing:
    """A video that the list names and the disk lacks (`data.missing=leave_out`)."""

    path: Path
    label: Label


@dataclass(frozen=True)
class Evaluation:
    """Scores of every readable video, in the list's order, and the failures: counted, never replaced."""

    videos: tuple[VideoScores, ...]
    failures: tuple[Unread, ...]
    classes: tuple[str, ...]
    missing: tuple[Missing, ...] = ()
    """Videos that the list names and the disk lacks."""

    @property
    def complete(self) -> bool:
        """Every video of the list was there and could be read."""
        return not self.failures and not self.missing

    @property
    def multilabel(self) -> bool:
        """A video may show any number of classes."""
        return any(isinstance(v.label, tuple) for v in self.videos)

    def metrics(self, *, unread_as_wrong: bool = False) -> dict[str, float]:
        """Percentages over the labelled videos that were read.

        `video_*` judge a video's score, `clip_*` single views. One class a video: `*_top1`, `*_top5` where there are
        more than five classes, and `video_mean_class`, the mean of the classes' top-1. Any number of classes: `*_map`,
        the mean over the classes of the average precision by the official Charades evaluation; classes that no video
        shows are left out of the mean; `video_map_all`, where there are videos without any class, lets these compete.

        With `unread_as_wrong` the `video_*` figures alone, over all labelled videos: one that could not be read, or is
        not there, is wrong, or comes last for every class. The release and the official Charades evaluation count so.
        """
        read = [v for v in self.videos if v.label is not None]
        gone = (
            [*(f.label for f in self.failures), *(m.label for m in self.missing)] if unread_as_wrong else []
        )
        lost = [label for label in gone if label is not None]
        if not read:
            return {}
        found = self._precisions(read, lost) if self.multilabel else self._accuracies(read, lost)
        return {name: v for name, v in found.items() if name.startswith("video_") or not unread_as_wrong}

    def _accuracies(self, read: Sequence[VideoScores], lost: Sequence[Label]) -> dict[str, float]:
        labels = torch.tensor([*(v.label for v in read), *lost])
        worst = torch.full((len(lost),), len(self.classes))
        video_ranks = torch.cat([*(rank_of(v.video, v.label)[None] for v in read), worst])  # type: ignore[arg-type]
        clip_ranks = torch.stack([rank_of(v.views, v.label).float() for v in read])  # type: ignore[arg-type]
        right = (video_ranks < 1).float()
        metrics = {
            "video_top1": 100 * right.mean().item(),
            "video_mean_class": 100
            * torch.stack([right[labels == c].mean() for c in labels.unique()]).mean().item(),
            "clip_top1": 100 * (clip_ranks < 1).float().mean().item(),
        }
        if len(self.classes) > 5:
            metrics["video_top5"] = 100 * (video_ranks < 5).float().mean().item()
            metrics["clip_top5"] = 100 * (clip_ranks < 5).float().mean().item()
        return metrics

    def _precisions(self, read: Sequence[VideoScores], lost: Sequence[Label]) -> dict[str, float]:
        last = torch.full((len(lost), len(self.classes)), -torch.inf)
        scores = torch.cat([*(v.video[None] for v in read), last])
        shown = self._shown([*(v.label for v in read), *lost])
        if not shown.any():
            return {}
        found = {"video_map": charades_precision(scores, shown)}
        if not shown.any(dim=1).all():
            found["video_map_all"] = average_precision(scores, shown)
        of_views = torch.cat([self._shown([v.label]).expand(len(v.views), -1) for v in read])
        found["clip_map"] = charades_precision(torch.cat([v.views for v in read]), of_views)
        return {name: 100 * precision.nanmean().item() for name, precision in found.items()}

    def by_class(self) -> list[dict[str, Any]]:
        """For each class the number of videos that show it, and its top-1 or average precision, in percent.

        The figure is None for a class that no readable video shows.
        """
        read = [v for v in self.videos if v.label is not None]
        if not read:
            return []
        shown = self._shown([v.label for v in read])
        scores = torch.stack([v.video for v in read])
        if self.multilabel:
            name, values = "average_precision", charades_precision(scores, shown)
        else:
            ranks = torch.stack([rank_of(v.video, v.label) for v in read])  # type: ignore[arg-type]
            name, values = "top1", (shown & (ranks < 1)[:, None]).sum(dim=0) / shown.sum(dim=0)
        figures = [None if value != value else round(100 * value, 4) for value in values.tolist()]
        counts = shown.sum(dim=0).tolist()
        return [
            {"class": label, "videos": count, name: figure}
            for label, count, figure in zip(self.classes, counts, figures, strict=True)
        ]

    def _shown(self, labels: Sequence[Label]) -> Tensor:
        """(N, K) bool: which classes each video shows."""
        rows = torch.zeros(len(labels), len(self.classes), dtype=torch.bool)
        for row, label in zip(rows, labels, strict=True):
            row[list(label) if isinstance(label, tuple) else label] = True
        return rows
