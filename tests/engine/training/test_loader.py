"""Batches from worker processes are the samples, although their memory is reused."""

import time

import pytest
import torch
from support.color_videos import COLORS

from nlnet.data import TrainClips, TrainTransform, VideoItem, VideoList, collate, read_videos
from nlnet.engine.training.loader import AHEAD, CollateIntoBuffers, TrainLoader

BATCHES = [[(k % 12, 7 * k + j) for j in range(1 + k % 3)] for k in range(14)]  # of 1, 2 or 3 clips


@pytest.fixture
def clips(color_videos):
    return TrainClips(
        read_videos(color_videos / "train"), length=4, stride=2, transform=TrainTransform(24, (26, 30))
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_batch_is_valid_until_the_next(clips, workers):
    """More batches than a worker has buffers, twice, read after the workers have had time to go on."""
    loader = TrainLoader(clips, BATCHES, workers=workers, persistent=True)
    assert len(BATCHES) > workers * (AHEAD + 1)
    for _ in range(2):
        for keys, batch in zip(BATCHES, loader, strict=True):
            time.sleep(0.05 if workers else 0)
            expected = collate([clips[key] for key in keys])
            assert torch.equal(batch.clips, expected.clips)
            assert batch.clips.stride() == expected.clips.stride()
            assert batch.indices.tolist() == [index for index, _ in keys]
            assert batch.clips.is_shared() == (workers > 0)


def test_a_worker_allocates_its_buffers_once(clips, monkeypatch):
    monkeypatch.setattr("nlnet.engine.training.loader.get_worker_info", lambda: "a worker")
    collate_batch = CollateIntoBuffers(None)
    made = [collate_batch([clips[0, k], clips[1, k]]).clips for k in range(3 * (AHEAD + 1))]
    assert all(clip.is_shared() for clip in made)
    assert len({clip.data_ptr() for clip in made}) == AHEAD + 1
    assert collate_batch([clips[0, 0]]).clips.data_ptr() in {
        clip.data_ptr() for clip in made
    }  # a smaller one fits
    larger = collate_batch([clips[0, k] for k in range(3)])
    assert torch.equal(larger.clips, collate([clips[0, k] for k in range(3)]).clips)


def test_failures_and_labels_come_through(color_videos, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"")
    good = read_videos(color_videos / "train").items[0].path
    items = (VideoItem(good, (0, 2)), VideoItem(tmp_path / "bad.mp4", (1,)))
    videos = VideoList(items, COLORS, tmp_path)
    data = TrainClips(videos, length=4, stride=2, transform=TrainTransform(24, (26, 30)))
    loader = TrainLoader(data, [[(0, 0), (1, 0)], [(1, 1)]], workers=1, num_classes=3)
    both, none = loader
    assert both.labels.tolist() == [[1, 0, 1]]
    assert both.clips.shape == (1, 3, 4, 24, 24)
    assert [failure.index for failure in both.failures] == [1]
    assert none.clips is None
    assert "bad.mp4: is empty" in none.failures[0].reason
