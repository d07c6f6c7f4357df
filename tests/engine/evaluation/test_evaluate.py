"""Multi-view testing: scores and metrics by their definitions, and prediction as a test of one video."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.color_videos import write_video
from support.training import settings

from nlnet.data import EvalTransform, EvalViews, Video, VideoItem, VideoList, read_videos
from nlnet.data.transforms import resize
from nlnet.engine.config import override
from nlnet.engine.distributed import World, world
from nlnet.engine.evaluation.evaluate import evaluate, score_views
from nlnet.engine.evaluation.metrics import rank_of
from nlnet.engine.evaluation.rescore import select
from nlnet.engine.evaluation.score_files import SavedScores
from nlnet.engine.evaluation.video_scores import Evaluation, VideoScores
from nlnet.engine.network import build_model, training_window
from nlnet.errors import ConfigError, EvaluationError


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
    """Three videos of two views, two classes: clip metrics and video metrics differ."""
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
    """Definition: softmax at each position of the window, then the mean; not the softmax of mean logits."""
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


def test_a_view_without_a_window_is_scored_once(model, config):
    """mmaction2's head: softmax(fc(mean over the whole map))."""
    views = torch.randint(0, 256, (2, 3, 4, 60, 44), dtype=torch.uint8)
    got = score_views(model, views, window=None, data=config.data, device=torch.device("cpu"))
    with torch.no_grad():
        features = model.features((views.float() / 255 - 0.45) / 0.225)
        expected = model.fc(features.mean(dim=(2, 3, 4))).softmax(dim=1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    dense = score_views(
        model,
        views,
        window=training_window(model, config),
        data=config.data,
        device=torch.device("cpu"),
    )
    assert (got - dense).abs().max() > 1e-5  # the two heads are not the same thing


def test_a_view_of_a_network_with_sigmoids(model, config):
    """The sigmoid of each class at each position of the window, then the mean."""
    views = torch.randint(0, 256, (2, 3, 4, 40, 40), dtype=torch.uint8)
    window = training_window(model, config)
    got = score_views(
        model, views, window=window, data=config.data, device=torch.device("cpu"), score="sigmoid"
    )
    with torch.no_grad():
        logits = model.dense_logits((views.float() / 255 - 0.45) / 0.225, window)
    assert logits[0, 0].numel() > 1
    torch.testing.assert_close(got, (1 / (1 + (-logits).exp())).mean(dim=(2, 3, 4)), rtol=1e-4, atol=1e-6)


def expected_scores(model, config, video, protocol):
    """The scores by the definition of a protocol, for a video of 10 frames of 32×32: 2 clips of 4 frames, stride 2.

    released, paper: starts 0 and 5. slowfast: at 25 frames a second a clip spans 8·25/30 = 6.67, so the second starts
    at 3.33/2 = 1.67, and frames are 5.67/3 = 1.89 apart. mmaction2: starts 0 and 2; mmaction2_v1: room 10 − 7 = 3,
    starts 0 and 3. The scaled side is 30, the crop 28.
    """
    frames = {
        "released": [[0, 2, 4, 6], [5, 7, 9, 1]],
        "paper": [[0, 2, 4, 6], [5, 7, 9, 1]],
        "slowfast": [[0, 1, 3, 5], [1, 3, 5, 7]],
        "mmaction2": [[0, 2, 4, 6], [2, 4, 6, 8]],
        "mmaction2_v1": [[0, 2, 4, 6], [3, 5, 7, 9]],
        "single": [[1, 3, 5, 7]],
    }[protocol]
    crops = {  # of 30 × 30: r = 2
        "released": [(0, 1), (1, 1), (2, 1)],
        "slowfast": [(1, 0), (1, 1), (1, 2)],
        "mmaction2": [(0, 1), (1, 1), (2, 1)],
        "mmaction2_v1": [(0, 1), (1, 1), (2, 1)],
        "single": [(1, 1)],
        "paper": [(0, 0)],
    }[protocol]
    side = 30 if protocol == "paper" else 28
    with Video(video) as file:
        shown = resize(file.frames(range(10)), (30, 30)).permute(3, 0, 1, 2)
    clips = [shown[:, f, y : y + side, x : x + side] for f in frames for y, x in crops]
    pooled = None if protocol.startswith("mmaction2") else training_window(model, config)
    return score_views(model, torch.stack(clips), window=pooled, data=config.data, device=torch.device("cpu"))


@pytest.mark.parametrize("protocol", ["released", "paper", "slowfast", "mmaction2", "mmaction2_v1", "single"])
def test_a_protocol_decides_frames_crops_and_head(protocol, model, config, color_videos):
    # the two heads differ where the window has room to slide and the scores are far from even
    model.fc.weight.data.mul_(100)
    overrides = [f"test.protocol={protocol}", "test.short_side=30", "data.crop=16"]
    overrides += [] if protocol == "single" else ["test.clips=2"]
    overrides += [] if protocol == "paper" else ["test.crop=28"]
    videos = read_videos(color_videos / "val")
    with world("cpu") as here:
        evaluation = evaluate(model, videos, override(config, overrides), world=here)
    for item, scores in zip(videos.items, evaluation.videos, strict=True):
        expected = expected_scores(model, override(config, ["data.crop=16"]), item.path, protocol)
        torch.testing.assert_close(scores.views, expected, rtol=1e-4, atol=1e-6)


def test_the_papers_frames_may_have_any_shape(model, config, tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (("wide", (32, 64)), ("tall", (48, 32))):
        write_video(tmp_path / "a" / f"{name}.mp4", rng.integers(0, 255, (10, *size, 3), dtype=np.uint8))
    videos = read_videos(tmp_path, classes=("a", "b", "c"))
    whole = override(config, ["test.protocol=paper", "test.clips=2"])
    with world("cpu") as here:
        evaluation = evaluate(model, videos, whole, world=here)
    assert [v.views.shape for v in evaluation.videos] == [(2, 3), (2, 3)]
    # the wide frame becomes 30×60 and is seen to both ends: covering its right end changes the score
    views = EvalViews(
        videos, length=4, stride=2, num_clips=2, protocol="paper", transform=EvalTransform(30, 30, 1, "paper")
    )[1].clips
    assert views.shape == (2, 3, 4, 30, 60)
    covered = views.clone()
    covered[..., 50:] = 0
    options = {"window": training_window(model, config), "data": config.data, "device": torch.device("cpu")}
    assert (score_views(model, views, **options) - score_views(model, covered, **options)).abs().max() > 1e-6


def test_fewer_clips_of_saved_scores_are_the_test_with_fewer_clips(model, config, color_videos):
    videos = read_videos(color_videos / "val")
    with world("cpu") as here:
        for protocol in ("released", "slowfast"):
            tests = [override(config, [f"test.protocol={protocol}", f"test.clips={n}"]) for n in (2, 4)]
            few, many = (evaluate(model, videos, test, world=here) for test in tests)
            saved = SavedScores(
                evaluation=many,
                score="softmax",
                test=tests[1].test,
                frames=4,
                stride=2,
                run="run",
                checkpoint="last",
                iteration=0,
            )
            for a, b in zip(select(saved, clips=2).evaluation.videos, few.videos, strict=True):
                assert a.starts == b.starts
                torch.testing.assert_close(a.views, b.views, rtol=1e-5, atol=1e-7)


def test_several_classes_a_video(model, config, color_videos):
    listed = read_videos(color_videos / "val")
    items = tuple(replace(item, label=(item.label, 2)[: 2 - item.label]) for item in listed.items)
    videos = replace(listed, items=items)
    sigmoid = override(config, ["training.loss=sigmoid", "test.aggregate=max"])
    with world("cpu") as here:
        evaluation = evaluate(model, videos, sigmoid, world=here)
        with pytest.raises(ConfigError, match="set training.loss=sigmoid"):
            evaluate(model, videos, config, world=here)
        with pytest.raises(ConfigError, match="set training.loss=softmax"):
            evaluate(model, listed, sigmoid, world=here)
    assert {"video_map", "clip_map"} <= set(evaluation.metrics())
    for video in evaluation.videos:
        assert torch.equal(video.video, video.views.amax(dim=0))
        assert video.views.sum(dim=1).sub(1).abs().min() > 1e-3  # sigmoids do not add up to 1


def test_a_crop_smaller_than_the_heads_window(model, config, color_videos):
    small = override(config, ["test.crop=8"])
    with (
        world("cpu") as here,
        pytest.raises(
            EvaluationError, match=r"test.crop=8 gives a last map of .* test on crops of at least that size"
        ),
    ):
        evaluate(model, read_videos(color_videos / "val"), small, world=here)
    pooled = override(config, ["test.protocol=mmaction2", "test.clips=1", "test.crop=8"])
    with world("cpu") as here:  # a pooled map has no window to fit
        assert evaluate(model, read_videos(color_videos / "val"), pooled, world=here).metrics()


def test_views_at_once_does_not_change_results(model, config, color_videos):
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
    assert (evaluation.failures[0].path, evaluation.failures[0].label) == (bad, 2)


def test_nothing_readable(model, config, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"")
    videos = VideoList((VideoItem(tmp_path / "x.mp4", 0),), ("a", "b", "c"), tmp_path)
    with (
        world("cpu") as here,
        pytest.raises(EvaluationError, match=r"none of the 1 videos could be read: .*x\.mp4"),
    ):
        evaluate(model, videos, config, world=here)


def test_scores_that_are_nan(model, config, color_videos):
    model.fc.bias.data.fill_(float("nan"))
    with world("cpu") as here, pytest.raises(EvaluationError, match="scores are NaN or infinite"):
        evaluate(model, read_videos(color_videos / "val"), config, world=here)


def test_the_model_keeps_its_mode(model, config, color_videos):
    with world("cpu") as here:
        evaluate(model.train(), read_videos(color_videos / "val"), config, world=here)
    assert model.training


def test_the_network_gets_the_views_of_nlnet_data(config, color_videos):
    views = EvalViews(
        read_videos(color_videos / "val"), length=4, stride=2, num_clips=2, transform=EvalTransform(30, 30, 3)
    )[0]
    assert views.clips.shape == (6, 3, 4, 30, 30)
    assert views.starts == (0, 5)  # int(k·10/2)
