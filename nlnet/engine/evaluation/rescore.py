"""Saved scores evaluated again without decoding: on fewer views, with another aggregate, or fused with other runs."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from nlnet.engine.evaluation.score_files import SavedScores
from nlnet.engine.evaluation.video_scores import Evaluation, VideoScores
from nlnet.errors import ScoresError, listed


def select(
    saved: SavedScores,
    *,
    clips: int | None = None,
    centre_crop: bool = False,
    aggregate: Literal["mean", "max"] | None = None,
) -> SavedScores:
    """Keep the scores of some views, and set how the views of a video are aggregated.

    Args:
        clips: keep k of the K saved clips, spread evenly: clips ⌊j·K/k⌋ for j < k. None keeps all. If k divides K, under
            the protocols released, paper and slowfast, these are the clips that a test with k clips takes.
        centre_crop: keep the centre crop alone.
        aggregate: mean or max over the views; None keeps the saved one.

    Raises:
        ScoresError: `clips` is not between 1 and the number of saved clips.
    """
    test = saved.test
    clips = clips or test.clips
    if not 1 <= clips <= test.clips:
        raise ScoresError(f"clips: got {clips}, expected 1 to {test.clips}, the number saved in {saved.run}")
    chosen = torch.tensor([j * test.clips // clips for j in range(clips)])
    crops = slice(1, 2) if centre_crop and test.crops == 3 else slice(None)
    aggregate = aggregate or test.aggregate

    def select_views(video: VideoScores) -> VideoScores:
        views = video.views.unflatten(0, (test.clips, test.crops))[chosen, crops].flatten(0, 1)
        starts = tuple(video.starts[j] for j in chosen.tolist()) if video.starts else ()
        return replace(video, views=views, starts=starts, aggregate=aggregate)

    videos = tuple(select_views(video) for video in saved.evaluation.videos)
    changes = {"clips": clips, "crops": 1 if centre_crop else test.crops, "aggregate": aggregate}
    return replace(
        saved, evaluation=replace(saved.evaluation, videos=videos), test=test.model_copy(update=changes)
    )


def fuse(runs: Sequence[SavedScores], weights: Sequence[float] | None = None) -> Evaluation:
    """Late fusion: the score of each video is Σ_m w_m·p_m / Σ_m w_m over the video scores p_m of the runs.

    Videos are matched by their path relative to the common folder of all videos of a run. Labels, classes and the kind
    of score must be the same in all runs. A fused video has a single row of views, so only the `video_*` metrics of
    the result are meaningful.

    Raises:
        ScoresError: wrong weights, or runs that differ in videos, labels, classes or kind of score.
    """
    weights = [1.0] * len(runs) if weights is None else list(weights)
    if len(weights) != len(runs):
        raise ScoresError(f"weights: got {len(weights)} for {len(runs)} runs; give one for each run")
    if not all(0 <= weight < math.inf for weight in weights) or sum(weights) == 0:
        raise ScoresError(
            f"weights: got {', '.join(map(str, weights))}, expected finite numbers of at least 0, one above 0"
        )
    first, tables = runs[0], [by_path(run) for run in runs]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        check_same(first, run, tables[0], table)
    videos = []
    for name, video in tables[0].items():
        rows = [weight * table[name].video for weight, table in zip(weights, tables, strict=True)]
        fused = torch.stack(rows).sum(dim=0) / sum(weights)
        # one row of views, whose mean is the fused score itself
        videos.append(replace(video, views=fused[None], starts=(), aggregate="mean"))
    return replace(first.evaluation, videos=tuple(videos))


def by_path(run: SavedScores) -> dict[str, VideoScores]:
    """The videos of a run, by their path relative to the common folder of all of its videos."""
    # with the unreadable videos: without them the common folder could be a deeper one in this run alone
    paths = [*(v.path for v in run.evaluation.videos), *(f.path for f in run.evaluation.failures)]
    folder = os.path.commonpath([path.absolute().parent for path in paths])
    table = {str(v.path.absolute().relative_to(folder)): v for v in run.evaluation.videos}
    if len(table) < len(run.evaluation.videos):
        raise ScoresError(f"{run.run}: a video is listed more than once, so videos cannot be matched by path")
    return table


def check_same(
    first: SavedScores, other: SavedScores, ours: dict[str, VideoScores], theirs: dict[str, VideoScores]
) -> None:
    """Raise ScoresError, naming the first difference, if the scores of two runs cannot be fused."""
    pair = f"{first.run} and {other.run} cannot be fused"
    if first.score != other.score:
        raise ScoresError(
            f"{pair}: one has {first.score} scores, the other {other.score} scores; "
            "fuse runs with the same training.loss"
        )
    if first.evaluation.classes != other.evaluation.classes:
        differ = set(first.evaluation.classes) ^ set(other.evaluation.classes)
        what = (
            f"the classes {listed(sorted(differ))} are in one run only"
            if differ
            else "the order of the classes differs"
        )
        raise ScoresError(f"{pair}: {what}")
    if missing := ours.keys() - theirs.keys():
        raise ScoresError(f"{pair}: {other.run} has no scores of {listed(sorted(missing))}")
    if missing := theirs.keys() - ours.keys():
        raise ScoresError(f"{pair}: {first.run} has no scores of {listed(sorted(missing))}")
    if moved := [name for name, video in ours.items() if video.label != theirs[name].label]:
        raise ScoresError(f"{pair}: the labels differ for {listed(sorted(moved))}")


def by_clips(saved: SavedScores) -> list[dict[str, float]]:
    """The `video_*` metrics for 1, 2, … K clips, one row for each number of `clips`."""
    rows = []
    for clips in range(1, saved.test.clips + 1):
        found = select(saved, clips=clips).evaluation.metrics()
        rows.append({"clips": clips} | {k: v for k, v in found.items() if k.startswith("video_")})
    return rows
