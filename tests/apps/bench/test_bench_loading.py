"""The benchmarks of loading at toy size: each way loads as many clips as its amount says."""

import pytest

from nlnet.apps.bench.loading import evaluation_comparisons, loader_comparisons
from nlnet.apps.bench.side_by_side import time_by_turns
from nlnet.apps.bench.videos import write_videos
from nlnet.data import TrainTransform, Video
from nlnet.engine.config import Config, override

SIZE = (48, 64)


def test_the_loader_beside_the_decoder():
    comparisons = loader_comparisons(
        clips=8,
        batch=2,
        sampling=((4, 2),),
        transform=TrainTransform(32, (40, 50)),
        num_frames=40,
        size=SIZE,
        workers=(1, 2),
    )
    names = []
    for comparison in comparisons:
        names.append(comparison.name)
        assert comparison.baseline == "one decoder"
        assert set(comparison.ways) == {"one decoder", "decoders, 1", "loader, 1", "decoders, 2", "loader, 2"}
        assert comparison.ways["one decoder"]() == [4] * 8  # frames of each clip
        assert comparison.ways["loader, 2"]() == comparison.amount("loader, 2") == 8
        timings = time_by_turns(comparison, seconds=0, least=2)
        assert all(timing.speedup > 0 for timing in timings.values())
    assert len(names) == len(set(names)) == 2


def test_the_test_beside_decoding_and_the_network():
    overrides = [
        "model.name=c2d_mini",
        "data.frames=4",
        "data.stride=2",
        "data.crop=28",
        "data.scales=[30, 32]",
    ]
    small = override(Config(), [*overrides, "test.short_side=32", "test.crop=32", "data.workers=1"])
    for comparison in evaluation_comparisons(small, videos=2, num_frames=40, size=SIZE, num_classes=3):
        assert "30 views" in comparison.name
        assert comparison.facts["decoded"] == 20  # starts 0, 4, … 36: every second frame
        assert [video.views.shape for video in comparison.ways["test"]().videos] == [(30, 3)] * 2
        assert set(time_by_turns(comparison, seconds=0, least=1)) == {"one decode + network", "test"}


@pytest.mark.parametrize(("options", "keyframes"), [({}, 1), ({"g": "10"}, 3)])
def test_a_synthetic_video_has_the_asked_size_keyframes_and_motion(options, keyframes, tmp_path):
    (item,) = write_videos(tmp_path, 1, num_frames=30, size=SIZE, options=options).items
    with Video(item.path) as video:
        assert (video.num_frames, video.height, video.width) == (30, *SIZE)
        assert sum(fact.is_keyframe for fact in video._source.packets) == keyframes
        frames = video.frames([0, 29]).float()
    assert (frames[0] - frames[1]).abs().mean() > 10  # it moves
    assert 20 < frames.std() < 70
