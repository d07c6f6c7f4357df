"""Saved scores evaluated again: fewer views, the other aggregate, fused runs, each against its definition."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scores import saved_scores

from nlnet.engine.config import EvalConfig
from nlnet.engine.evaluation.rescore import by_clips, fuse, select
from nlnet.engine.evaluation.score_files import SavedScores
from nlnet.engine.evaluation.video_scores import Evaluation, VideoScores
from nlnet.errors import ScoresError


def numbered(clips: int, crops: int) -> SavedScores:
    """One video whose view of clip j and crop i scores (10·j + i)/1000 and the rest."""
    values = torch.tensor([(10 * j + i) / 1000 for j in range(clips) for i in range(crops)])
    views = torch.stack([values, 1 - values], dim=1)
    video = VideoScores(0, Path("0.mp4"), 1, views, tuple(range(0, 30 * clips, 30)))
    base = saved_scores()
    test = EvalConfig(clips=clips, crops=crops)
    return replace(base, test=test, evaluation=Evaluation((video,), (), ("a", "b")))


def kept(saved: SavedScores) -> list[int]:
    return [round(1000 * v) for v in saved.evaluation.videos[0].views[:, 0].tolist()]


def test_clips_are_spread_evenly_and_keep_their_crops():
    saved = numbered(10, 3)
    five = select(saved, clips=5)
    assert kept(five) == [10 * j + i for j in (0, 2, 4, 6, 8) for i in range(3)]
    assert five.evaluation.videos[0].starts == (0, 60, 120, 180, 240)
    assert (five.test.clips, five.test.crops) == (5, 3)
    assert kept(select(saved, clips=3, centre_crop=True)) == [1, 31, 61]
    assert kept(select(saved, clips=1)) == [0, 1, 2]
    assert kept(select(saved)) == kept(saved)
    assert kept(select(numbered(4, 1), clips=2, centre_crop=True)) == [0, 20]
    with pytest.raises(ScoresError, match="clips: got 11, expected 1 to 10, the number saved in runs/x"):
        select(saved, clips=11)


def test_the_other_aggregate():
    saved = numbered(2, 1)
    assert select(saved, aggregate="max").evaluation.videos[0].video.tolist() == pytest.approx([0.01, 1.0])
    assert select(saved).evaluation.videos[0].video.tolist() == pytest.approx([0.005, 0.995])


def test_figures_by_the_number_of_clips():
    rows = by_clips(numbered(3, 1))
    assert [row["clips"] for row in rows] == [1, 2, 3]
    assert all(set(row) == {"clips", "video_top1", "video_mean_class"} for row in rows)


@settings(deadline=None, max_examples=25)
@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=4))
def test_fusion_is_the_weighted_mean_of_video_scores(weights: list[float]):
    runs = [saved_scores((0, 1, 1), seed=seed) for seed in range(len(weights))]
    fused = fuse(runs, weights)
    for k, video in enumerate(fused.videos):
        rows = torch.stack([run.evaluation.videos[k].views.double().mean(dim=0) for run in runs])
        share = torch.tensor(weights, dtype=torch.float64)[:, None] / sum(weights)
        torch.testing.assert_close(video.video.double(), (share * rows).sum(dim=0), rtol=1e-5, atol=1e-6)
        assert video.label == (0, 1, 1)[k]


def test_a_run_fused_with_itself_is_itself_and_weight_0_leaves_a_run_out():
    a, b = saved_scores((0, 1, 1)), saved_scores((0, 1, 1), seed=1)
    for fused in (fuse([a, a]), fuse([a, b], [1, 0]), fuse([b, a, a], [0, 2, 5])):
        for video, own in zip(fused.videos, a.evaluation.videos, strict=True):
            torch.testing.assert_close(video.video, own.video)


def moved(saved: SavedScores, folder: Path, order: list[int]) -> SavedScores:
    """The same videos in another folder and another order."""
    videos = saved.evaluation.videos
    videos = tuple(replace(videos[k], index=n, path=folder / videos[k].path) for n, k in enumerate(order))
    lost = tuple(replace(f, path=folder / f.path) for f in saved.evaluation.failures)
    return replace(saved, run="runs/y", evaluation=replace(saved.evaluation, videos=videos, failures=lost))


def test_videos_are_matched_by_their_path_whatever_the_folder_and_order():
    a = saved_scores((0, 1, 1))
    fused = fuse([a, moved(a, Path("/elsewhere/deep"), [2, 0, 1])])
    for video, own in zip(fused.videos, a.evaluation.videos, strict=True):
        assert video.path == own.path
        torch.testing.assert_close(video.video, own.video)


def test_what_cannot_be_fused():
    a = saved_scores((0, 1, 1))
    other = moved(a, Path("/b"), [0, 1, 2])

    def with_videos(*videos: VideoScores) -> SavedScores:
        return replace(other, evaluation=replace(other.evaluation, videos=videos))

    v = other.evaluation.videos
    renamed = replace(other, evaluation=replace(other.evaluation, classes=("a b", "c")))
    for wrong, message in (
        (with_videos(*v[:2]), "runs/x and runs/y cannot be fused: runs/y has no scores of 2.mp4"),
        (with_videos(*v, replace(v[0], path=Path("/b/v/9.mp4"))), "runs/x has no scores of 9.mp4"),
        (with_videos(replace(v[0], label=1), *v[1:]), "the labels differ for 0.mp4"),
        (with_videos(v[0], *v), "runs/y: a video is listed more than once"),
        (renamed, "the classes c, ü are in one run only"),
        (
            replace(other, evaluation=replace(other.evaluation, classes=("ü", "a b"))),
            "the order of the classes differs",
        ),
        (replace(other, score="sigmoid"), "one has softmax scores, the other sigmoid scores"),
    ):
        with pytest.raises(ScoresError, match=message):
            fuse([a, wrong])
    many = with_videos(*(replace(v[0], path=Path(f"/b/v/{k}.mp4")) for k in range(10, 20)), *v)
    with pytest.raises(ScoresError, match=r"has no scores of 10.mp4, 11.mp4, .*, 17.mp4, … \(10 in all\)"):
        fuse([a, many])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "weights: got 1 for 2 runs; give one for each run"),
        ([1.0, -1.0], "weights: got 1.0, -1.0, expected finite numbers of at least 0, one above 0"),
        ([0.0, 0.0], "got 0.0, 0.0, expected .* one above 0"),
        ([1.0, float("nan")], "got 1.0, nan"),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(ScoresError, match=message):
        fuse([saved_scores((0, 1, 1))] * 2, weights)
