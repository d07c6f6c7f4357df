"""Multi-view testing: what a score is, what a metric is, and that prediction is the same thing."""

from pathlib import Path

import pytest
import torch
from test_train import settings

from nlnet.data import TestTransform, TestViews, VideoItem, VideoList, read_videos
from nlnet.engine.config import override
from nlnet.engine.distributed import World, world
from nlnet.engine.evaluate import (
    Evaluation,
    EvaluationError,
    VideoScores,
    build_model,
    evaluate,
    rank_of,
    score_views,
    training_window,
)


@pytest.fixture
def config(color_videos):
    tests = ("test.clips=2", "test.crops=3", "test.short_side=30", "test.crop=30")
    return override(settings(color_videos), list(tests))


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return build_model(config, 3).eval()


def scored(label, *views):
    return VideoScores(0, Path("x.mp4"), label, torch.tensor(views))


def test_metrics_by_hand():
    """Three videos of two views, two classes: the clip and video metrics are different things."""
    evaluation = Evaluation(
        videos=(
            scored(0, [0.9, 0.1], [0.4, 0.6]),  # views right, wrong; mean 0.65: video right
            scored(0, [0.6, 0.4], [0.1, 0.9]),  # views right, wrong; mean 0.35: video wrong
            scored(1, [0.2, 0.8], [0.3, 0.7]),  # both right
        ),
        failures=(),
        classes=("a", "b"),
    )
    metrics = evaluation.metrics()
    assert metrics["clip_top1"] == pytest.approx(100 * 4 / 6)
    assert metrics["video_top1"] == pytest.approx(100 * 2 / 3)
    assert metrics["video_mean_class"] == pytest.approx(100 * (0.5 + 1) / 2)
    assert "video_top5" not in metrics


def test_top5_by_hand():
    probabilities = torch.arange(10.0) / 45  # class 9 is first, class 5 fifth, class 4 sixth
    evaluation = Evaluation(
        (scored(5, probabilities.tolist()), scored(4, probabilities.tolist())), (), tuple("abcdefghij")
    )
    assert evaluation.metrics()["video_top5"] == pytest.approx(50)
    assert [int(rank_of(probabilities, k)) for k in (9, 5, 4)] == [0, 4, 5]


def test_videos_without_labels_have_no_metrics():
    assert Evaluation((scored(None, [0.5, 0.5]),), (), ("a", "b")).metrics() == {}


def test_a_view_is_scored_by_the_mean_softmax_of_the_sliding_window(model, config):
    """Definition: softmax at each place of the head's grid, then the mean; not softmax of mean logits."""
    views = torch.randint(0, 256, (3, 3, 4, 60, 44), dtype=torch.uint8)
    window = training_window(model, config)
    got = score_views(
        model, views, window=window, data=config.data, device=torch.device("cpu"), views_at_once=2
    )
    with torch.no_grad():
        features = model.features((views.float() / 255 - 0.45) / 0.225)
        parts = [
            model.fc(features[:, :, :, i : i + window[1], j : j + window[2]].mean(dim=(2, 3, 4))).softmax(
                dim=1
            )
            for i in range(features.shape[3] - window[1] + 1)
            for j in range(features.shape[4] - window[2] + 1)
        ]
    assert len(parts) > 1
    torch.testing.assert_close(got, torch.stack(parts).mean(dim=0), rtol=1e-4, atol=1e-6)


def test_views_at_once_bounds_memory_not_results(model, config, color_videos):
    videos = read_videos(color_videos / "val")
    with world("cpu") as here:
        results = [
            evaluate(model, videos, override(config, [f"test.views_at_once={n}"]), world=here)
            for n in (1, 4, 6)
        ]
    for other in results[1:]:
        for a, b in zip(results[0].videos, other.videos, strict=True):
            torch.testing.assert_close(a.views, b.views, rtol=1e-5, atol=1e-7)


def test_predicting_a_file_is_testing_it(model, config, color_videos):
    videos = read_videos(color_videos / "val")
    with world("cpu") as here:
        tested = evaluate(model, videos, config, world=here)
        for item, scores in zip(videos.items, tested.videos, strict=True):
            alone = VideoList((VideoItem(item.path, None),), videos.classes, item.path)
            predicted = evaluate(model, alone, config, world=here).videos[0]
            assert (predicted.video - scores.video).abs().max() <= 1e-6
            assert predicted.views.shape == (6, 3)


def test_every_process_takes_its_share(model, config, color_videos):
    """Rank r of w takes videos r, r + w, …; together each exactly once."""
    videos = read_videos(color_videos / "train")

    class Alone(World):
        def gather(self, value):
            return [value]

    shares = [
        [v.index for v in evaluate(model, videos, config, world=Alone(r, 5, torch.device("cpu"))).videos]
        for r in range(5)
    ]
    assert shares == [list(range(r, 12, 5)) for r in range(5)]


def test_a_corrupt_video_is_left_out_and_named(model, config, color_videos, corrupted):
    copy, bad = corrupted(color_videos, "val/red")
    with world("cpu") as here:
        evaluation = evaluate(model, read_videos(copy / "val"), config, world=here)
    assert len(evaluation.videos) == 5
    assert [f.index for f in evaluation.failures] == [4]
    assert str(bad) in evaluation.failures[0].reason


def test_nothing_readable(model, config, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"")
    videos = VideoList((VideoItem(tmp_path / "x.mp4", 0),), ("a", "b", "c"), tmp_path)
    with (
        world("cpu") as here,
        pytest.raises(EvaluationError, match=r"none of the 1 videos could be read: .*x\.mp4"),
    ):
        evaluate(model, videos, config, world=here)


def test_scores_that_are_no_numbers(model, config, color_videos):
    model.fc.bias.data.fill_(float("nan"))
    with world("cpu") as here, pytest.raises(EvaluationError, match="scores are not finite numbers"):
        evaluate(model, read_videos(color_videos / "val"), config, world=here)


def test_the_model_keeps_its_mode(model, config, color_videos):
    with world("cpu") as here:
        evaluate(model.train(), read_videos(color_videos / "val"), config, world=here)
    assert model.training


def test_the_network_sees_the_views_of_the_data_floor(config, color_videos):
    views = TestViews(
        read_videos(color_videos / "val"), length=4, stride=2, num_clips=2, transform=TestTransform(30, 30, 3)
    )[0]
    assert views.clips.shape == (6, 3, 4, 30, 30)
    assert views.starts == (0, 5)  # int(k·10/2)
