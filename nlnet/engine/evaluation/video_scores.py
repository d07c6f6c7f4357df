"""The scores of a test, and the metrics computed from them.

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
    """The scores of one video."""

    index: int
    path: Path
    label: Label
    views: Tensor
    """(V, K) probabilities: all crops of the first clip, then those of the next."""
    starts: tuple[int, ...] = ()
    """First frame of each clip."""
    aggregate: Literal["mean", "max"] = "mean"

    @property
    def video(self) -> Tensor:
        """The (K,) scores of the video: the mean, or class by class the maximum, over all views."""
        return self.views.mean(dim=0) if self.aggregate == "mean" else self.views.amax(dim=0)


@dataclass(frozen=True)
class Unread:
    """A video that could not be read, with the reason: "path: reason; fix"."""

    index: int
    path: Path
    label: Label
    reason: str


@dataclass(frozen=True)
class Missing:
    """A video that the list names and the disk lacks, left out by `data.missing=leave_out`."""

    path: Path
    label: Label


@dataclass(frozen=True)
class Evaluation:
    """The scores of every readable video of a list, in order, and the videos that could not be read."""

    videos: tuple[VideoScores, ...]
    failures: tuple[Unread, ...]
    classes: tuple[str, ...]
    missing: tuple[Missing, ...] = ()
    """The videos that the list names and the disk lacks."""

    @property
    def complete(self) -> bool:
        """Whether every video of the list was on the disk and could be read."""
        return not self.failures and not self.missing

    @property
    def multilabel(self) -> bool:
        """Whether a video may show any number of classes."""
        return any(isinstance(v.label, tuple) for v in self.videos)

    def metrics(self, *, unread_as_wrong: bool = False) -> dict[str, float]:
        """Metrics over the labelled videos that were read, by name, in percent.

        `video_*` are of the scores of videos, `clip_*` of the scores of single views.

        One class a video: `*_top1`; `*_top5` if there are more than five classes; `video_mean_class`, the mean over the
        classes of their top-1.

        Any number of classes a video: `*_map`, the mean over the classes of their average precision as in the official
        Charades evaluation (`charades_precision`), without the classes that no video shows; `video_map_all`, the same
        by plain `average_precision`, if there are videos without any class.

        Args:
            unread_as_wrong: return the `video_*` metrics alone, over all labelled videos. A video that could not be
                read or is missing counts as wrong, or is ranked last for every class, as in the release and in the
                official Charades evaluation.
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
        """The metrics for one class per video; `lost` are the labels of videos that count as wrong."""
        labels = torch.tensor([*(v.label for v in read), *lost])
        worst = torch.full((len(lost),), len(self.classes))  # a rank behind every class
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
        """The metrics for any number of classes per video; `lost` are the labels of videos ranked last."""
        last = torch.full((len(lost), len(self.classes)), -torch.inf)  # ranked behind every video with scores
        scores = torch.cat([*(v.video[None] for v in read), last])
        shown = self._shown([*(v.label for v in read), *lost])
        if not shown.any():
            return {}
        found = {"video_map": charades_precision(scores, shown)}
        if not shown.any(dim=1).all():
            found["video_map_all"] = average_precision(scores, shown)
        # each view has the classes of its video
        of_views = torch.cat([self._shown([v.label]).expand(len(v.views), -1) for v in read])
        found["clip_map"] = charades_precision(torch.cat([v.views for v in read]), of_views)
        return {name: 100 * precision.nanmean().item() for name, precision in found.items()}

    def by_class(self) -> list[dict[str, Any]]:
        """For each class: the number of videos that show it, and its top-1 or average precision, in percent.

        The percentage is None for a class that no readable video shows.
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
        # NaN, of a class without videos, is the only value that differs from itself
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
