"""Saved scores judged again without decoding: on fewer views, aggregated otherwise, or several runs' fused."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from nlnet.engine.evaluation.score_files import SavedScores
from nlnet.engine.evaluation.video_scores import Evaluation, VideoScores
from nlnet.errors import ScoresError


def select(
    saved: SavedScores,
    *,
    clips: int | None = None,
    centre_crop: bool = False,
    aggregate: Literal["mean", "max"] | None = None,
) -> SavedScores:
    """The scores of `clips` clips spread evenly over those saved, ⌊j·K/k⌋ for j < k, and of the centre crop alone.

    None leaves things as they are. Where k divides K, under the protocols released, paper and slowfast, these are
    the very clips that a test with k clips would take.
    """
    test = saved.test
    clips = clips or test.clips
    if not 1 <= clips <= test.clips:
        raise ScoresError(f"clips: got {clips}, expected 1 to {test.clips}, those of {saved.run}")
    chosen = torch.tensor([j * test.clips // clips for j in range(clips)])
    crops = slice(1, 2) if centre_crop and test.crops == 3 else slice(None)
    aggregate = aggregate or test.aggregate

    def thinned(video: VideoScores) -> VideoScores:
        views = video.views.unflatten(0, (test.clips, test.crops))[chosen, crops].flatten(0, 1)
        starts = tuple(video.starts[j] for j in chosen.tolist()) if video.starts else ()
        return replace(video, views=views, starts=starts, aggregate=aggregate)

    videos = tuple(thinned(video) for video in saved.evaluation.videos)
    changes = {"clips": clips, "crops": 1 if centre_crop else test.crops, "aggregate": aggregate}
    return replace(
        saved, evaluation=replace(saved.evaluation, videos=videos), test=test.model_copy(update=changes)
    )


def fuse(runs: Sequence[SavedScores], weights: Sequence[float] | None = None) -> Evaluation:
    """Late fusion: each video's score is Σ_m w_m·p_m / Σ_m w_m over the runs' video scores p_m.

    The runs' videos are matched by their path below the folder that all videos of a run share, and must agree in
    labels, as the runs must in classes and in the kind of score. A fused video has one row of views, so only the
    `video_*` figures mean something.

    Raises ScoresError naming what differs.
    """
    weights = [1.0] * len(runs) if weights is None else list(weights)
    if len(weights) != len(runs):
        raise ScoresError(f"weights: got {len(weights)} for {len(runs)} runs; give one for each")
    if not all(0 <= weight < math.inf for weight in weights) or sum(weights) == 0:
        raise ScoresError(f"weights are 0 or more and not all 0, got {', '.join(map(str, weights))}")
    first, tables = runs[0], [by_name(run) for run in runs]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        check_alike(first, run, tables[0], table)
    videos = []
    for name, video in tables[0].items():
        rows = [weight * table[name].video for weight, table in zip(weights, tables, strict=True)]
        fused = torch.stack(rows).sum(dim=0) / sum(weights)
        videos.append(replace(video, views=fused[None], starts=(), aggregate="mean"))
    return replace(first.evaluation, videos=tuple(videos))


def by_name(run: SavedScores) -> dict[str, VideoScores]:
    """A run's videos by their path below the folder that all of its videos, read or not, share."""
    paths = [*(v.path for v in run.evaluation.videos), *(f.path for f in run.evaluation.failures)]
    folder = os.path.commonpath([path.absolute().parent for path in paths])
    table = {str(v.path.absolute().relative_to(folder)): v for v in run.evaluation.videos}
    if len(table) < len(run.evaluation.videos):
        raise ScoresError(f"{run.run}: holds a video more than once, so its videos cannot be matched by path")
    return table


def check_alike(
    first: SavedScores, other: SavedScores, ours: dict[str, VideoScores], theirs: dict[str, VideoScores]
) -> None:
    """Raise where two runs' scores cannot be fused, listing how they differ."""
    pair = f"{first.run} and {other.run} cannot be fused"
    if first.score != other.score:
        raise ScoresError(f"{pair}: {first.score} and {other.score} scores do not mix")
    if first.evaluation.classes != other.evaluation.classes:
        differ = set(first.evaluation.classes) ^ set(other.evaluation.classes)
        what = (
            f"the classes {listed(differ)} are not in both" if differ else "the order of the classes differs"
        )
        raise ScoresError(f"{pair}: {what}")
    if missing := ours.keys() - theirs.keys():
        raise ScoresError(f"{pair}: {other.run} has no scores of {listed(missing)}")
    if missing := theirs.keys() - ours.keys():
        raise ScoresError(f"{pair}: {first.run} has no scores of {listed(missing)}")
    if moved := [name for name, video in ours.items() if video.label != theirs[name].label]:
        raise ScoresError(f"{pair}: the labels differ of {listed(moved)}")


def listed(names: set[str] | Sequence[str]) -> str:
    some = sorted(names)
    return ", ".join(some[:5]) + (f" and {len(some) - 5} more" if len(some) > 5 else "")


def by_clips(saved: SavedScores) -> list[dict[str, float]]:
    """The video figures on 1, 2, … K clips, each row with its number of `clips`."""
    rows = []
    for clips in range(1, saved.test.clips + 1):
        found = select(saved, clips=clips).evaluation.metrics()
        rows.append({"clips": clips} | {k: v for k, v in found.items() if k.startswith("video_")})
    return rows
