"""Metrics of a test by hand: one class a video, any number of classes, and videos that could not be read.

(The figures for one class a video are tested in test_evaluate.py as well.)
"""

from pathlib import Path

import pytest
import torch

from nlnet.engine.evaluation.video_scores import Evaluation, Missing, Unread, VideoScores


def video(index: int, label, *views, aggregate="mean") -> VideoScores:
    return VideoScores(index, Path(f"{index}.mp4"), label, torch.tensor(views), aggregate=aggregate)


def unread(index: int, label) -> Unread:
    return Unread(index, Path(f"{index}.mp4"), label, f"{index}.mp4: is empty; download it again")


def test_mean_and_max_over_the_views():
    views = [0.9, 0.1], [0.2, 0.3]
    assert video(0, 0, *views).video.tolist() == pytest.approx([0.55, 0.2])
    assert video(0, 0, *views, aggregate="max").video.tolist() == pytest.approx([0.9, 0.3])


def test_several_classes_by_hand():
    """Four videos, three classes; no video shows the third, and the last video shows none."""
    evaluation = Evaluation(
        (
            video(0, (0,), [0.9, 0.3, 0.5], [0.7, 0.1, 0.5]),  # means 0.8, 0.2
            video(1, (0, 1), [0.5, 0.9, 0.5], [0.5, 0.1, 0.5]),  # means 0.5, 0.5
            video(2, (1,), [0.8, 0.6, 0.5], [0.4, 0.6, 0.5]),  # means 0.6, 0.6
            video(3, (), [0.9, 0.9, 0.5], [0.9, 0.9, 0.5]),
        ),
        (),
        ("a", "b", "c"),
    )
    assert evaluation.multilabel
    metrics = evaluation.metrics()
    # the official way, video 3 last. a: 0 (yes), 2 (no), 1 (yes): (1 + 2/3)/2. b: 2, 1 (both yes), 0: 1
    assert metrics["video_map"] == pytest.approx(100 * (5 / 6 + 1) / 2)
    # video 3 competes and leads: a: (1/2 + 2/4)/2; b: 2 and 1 second and third: (1/2 + 2/3)/2
    assert metrics["video_map_all"] == pytest.approx(100 * (1 / 2 + 7 / 12) / 2)
    # six views. a: 0.9+ 0.8- 0.7+ 0.5+ 0.5+ 0.4-: (1 + 2/3 + 3/4 + 4/5)/4; b: 0.9+ 0.6+ 0.6+ 0.3- 0.1- 0.1+ (the
    # two 0.1 in the list's order): (1 + 1 + 1 + 4/6)/4
    assert metrics["clip_map"] == pytest.approx(100 * ((1 + 2 / 3 + 3 / 4 + 4 / 5) / 4 + (3 + 4 / 6) / 4) / 2)
    assert set(metrics) == {"video_map", "video_map_all", "clip_map"}
    assert evaluation.by_class() == [
        {"class": "a", "videos": 2, "average_precision": pytest.approx(100 * 5 / 6, abs=1e-4)},
        {"class": "b", "videos": 2, "average_precision": 100.0},
        {"class": "c", "videos": 0, "average_precision": None},
    ]


def test_video_map_all_is_for_videos_without_classes():
    evaluation = Evaluation((video(0, (0,), [0.9]), video(1, (0,), [0.1])), (), ("a",))
    assert evaluation.metrics() == {"video_map": 100.0, "clip_map": 100.0}
    assert Evaluation((video(0, (), [0.9]),), (), ("a",)).metrics() == {}


def test_an_unread_video_with_several_classes_comes_last():
    evaluation = Evaluation(
        (video(0, (1,), [0.6, 0.5]), video(2, (0,), [0.5, 0.6])), (unread(1, (0,)),), ("a", "b")
    )
    assert evaluation.metrics()["video_map"] == pytest.approx(100 * (1 / 2 + 1 / 2) / 2)
    # a: video 0 (no), 2 (yes), then 1 (yes): (1/2 + 2/3)/2; b: 2 (no), 0 (yes)
    lost = evaluation.metrics(unread_as_wrong=True)
    assert lost == {"video_map": pytest.approx(100 * (7 / 12 + 1 / 2) / 2)}


def test_an_unread_video_with_one_class_is_wrong():
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    evaluation = Evaluation(
        (video(0, 0, right), video(1, 0, right), video(2, 1, right)), (unread(3, 1), unread(4, 0)), ("a", "b")
    )
    assert evaluation.metrics()["video_top1"] == pytest.approx(100 * 2 / 3)
    lost = evaluation.metrics(unread_as_wrong=True)
    # a: 2 of 3, b: 0 of 2
    assert lost == {
        "video_top1": pytest.approx(100 * 2 / 5),
        "video_mean_class": pytest.approx(100 * (2 / 3 + 0) / 2),
    }
    assert evaluation.by_class() == [
        {"class": "a", "videos": 2, "top1": 100.0},
        {"class": "b", "videos": 1, "top1": 0.0},
    ]
    many = Evaluation((video(0, 0, [0.2] * 6),), (unread(1, 0),), tuple("abcdef"))
    assert many.metrics(unread_as_wrong=True)["video_top5"] == pytest.approx(50)
    assert Evaluation((video(0, 0, wrong),), (), ("a", "b")).metrics()["video_top1"] == 0


def test_a_video_that_the_disk_lacks_counts_as_one_that_was_not_read():
    right = [0.9, 0.1]
    here = (video(0, 0, right), video(1, 1, right))
    lacking = tuple(Missing(Path(f"{k}.mp4"), label) for k, label in ((2, 0), (3, 1), (4, None)))
    evaluation = Evaluation(here, (), ("a", "b"), lacking)
    assert not evaluation.complete
    assert Evaluation(here, (), ("a", "b")).complete
    assert evaluation.metrics()["video_top1"] == 50
    # right: one of four; class a 1 of 2, class b 0 of 2
    assert evaluation.metrics(unread_as_wrong=True) == {"video_top1": 25.0, "video_mean_class": 25.0}
    several = Evaluation((video(0, (0,), [0.9]),), (), ("a",), (Missing(Path("1.mp4"), (0,)),))
    assert several.metrics(unread_as_wrong=True) == {"video_map": 100.0}  # it comes last: 1/1 and 2/2


def test_without_labels_there_are_no_metrics():
    evaluation = Evaluation((video(0, None, [0.5, 0.5]),), (unread(1, None),), ("a", "b"))
    assert evaluation.metrics() == evaluation.metrics(unread_as_wrong=True) == {}
    assert evaluation.by_class() == []
    assert not evaluation.multilabel
