import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.videos import number_of, write_video
from torch import Tensor
from torch.utils.data import DataLoader

from nlnet.data.batch import Batch, Failure, Sample, collate
from nlnet.data.dataset import EvalViews, FrameCache, TrainClips
from nlnet.data.transforms import EvalTransform, TrainTransform
from nlnet.data.video import frame_folder
from nlnet.data.video.decode import Video
from nlnet.data.video_list import VideoItem, VideoList
from nlnet.data.views import Views
from nlnet.errors import NlnetError

NBYTES = 30 * 48 * 64 * 3
PLAIN = TrainTransform(crop=48, scales=(48, 48), flip=False)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """Three good videos of 30 frames, of classes 0, 1, 0; a broken one of class 1 lies between them."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [write_video(folder / f"{k}.mp4", 30, options={"g": "10"}) for k in range(3)]
    broken = folder / "broken.mp4"
    broken.write_bytes(paths[0].read_bytes()[:700])
    paths.insert(1, broken)
    return VideoList(tuple(map(VideoItem, paths, (0, 1, 1, 0))), ("a", "b"), folder)


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """One video of 30 square frames without a label: a crop can be the whole frame."""
    folder = tmp_path_factory.mktemp("square")
    path = write_video(folder / "square.mp4", 30, size=(64, 64), options={"g": "10"})
    return VideoList((VideoItem(path, None),), (), folder)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Video]:
    """All Videos that the data sets open, in order."""
    seen: list[Video] = []

    class Seen(Video):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            seen.append(self)

    monkeypatch.setattr(frame_folder, "Video", Seen)
    return seen


def _clip(sample: Sample) -> Tensor:
    assert sample.clip is not None
    return sample.clip


def numbers(clip: Tensor) -> list[int]:
    """The numbers of the frames that a clip (3, T, H, W) of whole frames consists of."""
    return [number_of(frame) for frame in clip.permute(1, 2, 3, 0).numpy()]


def test_a_sample_is_a_function_of_index_and_seed(videos: VideoList) -> None:
    def samples(cache_bytes: int) -> list[Sample]:
        data = TrainClips(
            videos,
            length=4,
            stride=2,
            transform=TrainTransform(crop=32, scales=(40, 60)),
            cache_bytes=cache_bytes,
        )
        return [data[index, seed] for index, seed in ((0, 1), (2, 1), (0, 2), (0, 1))]

    first, cached = samples(0), samples(1 << 20)
    for a, b in zip(first, cached, strict=True):
        assert a.clip is not None
        assert b.clip is not None
        assert a.clip.shape == (3, 4, 32, 32)
        assert torch.equal(a.clip, b.clip)
        assert (a.index, a.label, a.failure) == (b.index, b.label, b.failure)
    assert torch.equal(first[0].clip, first[3].clip)  # type: ignore[arg-type]
    assert not torch.equal(first[0].clip, first[2].clip)  # type: ignore[arg-type]
    assert [sample.label for sample in first] == [0, 1, 0, 0]


def test_a_clip_starts_where_its_draw_says(square: VideoList) -> None:
    data = TrainClips(square, length=4, stride=3, transform=TrainTransform(64, (64, 64), flip=False))
    for seed in range(8):
        start = int(random.Random(seed).random() * (30 - 12 + 1))
        assert numbers(_clip(data[0, seed])) == [start, start + 3, start + 6, start + 9]


def test_a_short_video_loops(square: VideoList) -> None:
    data = TrainClips(square, length=8, stride=5, transform=TrainTransform(64, (64, 64), flip=False))
    assert numbers(_clip(data[0, 5])) == [0, 5, 10, 15, 20, 25, 0, 5]


def test_a_broken_video_gives_a_failure(videos: VideoList) -> None:
    broken = videos.items[1].path
    sample = TrainClips(videos, length=4, stride=2, transform=PLAIN)[1, 0]
    assert sample.clip is None
    assert sample.label == 1
    assert sample.failure is not None
    assert sample.failure.startswith(f"{broken}: is not a video or image")
    views = EvalViews(videos, length=4, stride=2, num_clips=2, transform=EvalTransform(48, 48))[1]
    assert views.clips is None
    assert views.failure == sample.failure
    assert views.pin_memory() is views


def test_a_test_video_is_opened_and_decoded_once(square: VideoList, opened: list[Video]) -> None:
    views = EvalViews(square, length=4, stride=2, num_clips=10, transform=EvalTransform(64, 64))[0]
    assert len(opened) == 1
    assert opened[0].frames_decoded <= 30
    assert views.starts == tuple(range(0, 30, 3))
    assert views.clips is not None
    assert views.clips.shape == (30, 3, 4, 64, 64)
    assert views.clips.dtype == torch.uint8
    for view, clip in enumerate(views.clips):
        start = 3 * (view // 3)
        assert numbers(clip) == [(start + 2 * i) % 30 for i in range(4)]


def test_only_frames_that_some_view_needs_are_decoded(videos: VideoList, opened: list[Video]) -> None:
    transform = EvalTransform(48, 48, num_crops=1)
    EvalViews(videos, length=2, stride=1, num_clips=1, transform=transform, protocol="single")[0]
    assert opened[0].frames_decoded <= 8  # frames 14 and 15, from the keyframe at 10


def test_views_are_the_transforms_crops(videos: VideoList) -> None:
    transform = EvalTransform(crop=24, short_side=30)
    views = EvalViews(videos, length=3, stride=2, num_clips=2, transform=transform)[2]
    assert views.clips is not None
    with Video(videos.items[2].path) as video:
        expected = torch.cat([transform(video.frames([s, s + 2, s + 4])) for s in (0, 15)])
    assert torch.equal(views.clips, expected)


def test_views_come_in_parts_of_any_size(videos: VideoList) -> None:
    transform = EvalTransform(crop=24, short_side=30)
    views = EvalViews(videos, length=3, stride=2, num_clips=4, transform=transform)[2]
    assert views.clips is not None
    assert views.clips.is_contiguous()
    for size in (1, 5, 12, 100):
        parts = list(views.parts(size, torch.device("cpu")))
        assert [len(part) for part in parts] == [size] * (12 // size) + [12 % size] * (12 % size > 0)
        assert torch.equal(torch.cat(parts), views.clips)
        assert all(part.permute(0, 2, 3, 4, 1).is_contiguous() for part in parts)


def test_a_frame_that_many_views_share_is_kept_once(videos: VideoList) -> None:
    transform = EvalTransform(crop=48, short_side=48)
    views = EvalViews(videos, length=4, stride=2, num_clips=10, transform=transform)[0]
    assert views.frames is not None
    assert views.frames.shape == (30, 48, 64, 3)  # starts 0, 3, …: odd and even numbers
    with Video(videos.items[0].path) as video:
        assert torch.equal(views.frames, video.frames(range(30)))


def test_an_unreadable_video_has_no_parts() -> None:
    with pytest.raises(ValueError, match=r"video 3 has no views: it could not be read \(x.mp4: is empty\)"):
        next(Views(3, None, 0, failure="x.mp4: is empty").parts(2, torch.device("cpu")))


def test_a_clip_is_the_transform_of_whole_frames(videos: VideoList) -> None:
    """Copying only a part of each frame gives the same bits, with the cache and without."""
    transform = TrainTransform(crop=32, scales=(40, 60))
    for cache_bytes in (0, 1 << 20):
        data = TrainClips(videos, length=4, stride=2, transform=transform, cache_bytes=cache_bytes)
        for seed in range(6):
            rng = random.Random(seed)
            start = int(rng.random() * (30 - 8 + 1))
            with Video(videos.items[0].path) as video:
                frames = video.frames(range(start, start + 8, 2))
            assert torch.equal(_clip(data[0, seed]), transform(frames, rng))


def test_a_rotated_video_is_cropped_as_it_is_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "turned.mp4", 10, rotation=90)
    videos = VideoList((VideoItem(path, None),), (), tmp_path)
    with Video(path) as video:
        frames = video.frames(range(10))
    assert frames.shape == (10, 64, 48, 3)
    for seed in range(3):
        rng = random.Random(seed)
        start = int(rng.random() * 9)
        transform = TrainTransform(crop=32, scales=(52, 60))
        sample = TrainClips(videos, length=2, stride=1, transform=transform)[0, seed]
        assert torch.equal(_clip(sample), transform(frames[start : start + 2], rng))
    views = EvalViews(videos, length=2, stride=1, num_clips=1, transform=EvalTransform(52, 52))[0].clips
    assert torch.equal(views, EvalTransform(52, 52)(frames[:2]))  # type: ignore[arg-type]


def test_cached_videos_are_opened_once(videos: VideoList, opened: list[Video]) -> None:
    data = TrainClips(videos, length=4, stride=2, transform=PLAIN, cache_bytes=2 * NBYTES)
    for seed in range(3):
        for index in (0, 2, 3):
            data[index, seed]
    # two videos fit; the third is opened every time and gives only what it is asked for
    assert [video.path for video in opened] == [videos.items[k].path for k in (0, 2, 3, 3, 3)]
    assert opened[0].frames_decoded == 30
    assert opened[2].frames_decoded <= 20
    assert data.cache.used_bytes == 2 * NBYTES
    tested = EvalViews(
        videos, length=4, stride=2, num_clips=2, transform=EvalTransform(48, 48), cache_bytes=NBYTES
    )
    assert torch.equal(tested[0].clips, tested[0].clips)  # type: ignore[arg-type]
    assert len(opened) == 6


def test_a_pickled_cache_starts_empty(videos: VideoList) -> None:
    cache = FrameCache(1 << 20)
    with Video(videos.items[0].path) as video:
        assert cache.add(video) is not None
    assert cache.get(videos.items[0].path) is not None
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.get(videos.items[0].path) is None
    assert (copy.budget_bytes, copy.used_bytes) == (1 << 20, 0)


def keys() -> Iterator[tuple[int, int]]:
    return iter([(index, 10 * epoch + index) for epoch in range(2) for index in range(4)])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_from_any_number_of_workers(workers: int, videos: VideoList) -> None:
    data = TrainClips(
        videos, length=4, stride=2, transform=TrainTransform(crop=32, scales=(40, 60)), cache_bytes=1 << 20
    )
    loader = DataLoader(data, batch_size=4, sampler=list(keys()), num_workers=workers, collate_fn=collate)
    batches = list(loader)
    assert len(batches) == 2
    for epoch, batch in enumerate(batches):
        assert isinstance(batch, Batch)
        assert batch.indices.tolist() == [0, 2, 3]
        assert batch.labels is not None
        assert batch.labels.tolist() == [0, 1, 0]
        assert [failure.index for failure in batch.failures] == [1]
        assert str(videos.items[1].path) in batch.failures[0].reason
        expected = [_clip(data[index, 10 * epoch + index]) for index in (0, 2, 3)]
        assert torch.equal(batch.clips, torch.stack(expected))  # type: ignore[arg-type]


def test_views_come_complete_from_a_worker(videos: VideoList) -> None:
    data = EvalViews(videos, length=4, stride=2, num_clips=2, transform=EvalTransform(48, 48))
    loader = DataLoader(data, batch_size=None, num_workers=1)
    for index, views in enumerate(loader):
        assert isinstance(views, Views)
        assert views.index == index
        assert views.label == videos.items[index].label
        assert (views.clips is None) == (index == 1)
        if views.clips is not None:
            assert views.starts == (0, 15)
            assert torch.equal(views.clips, data[index].clips)  # type: ignore[arg-type]


def test_collate() -> None:
    clip = torch.ones((3, 2, 4, 4), dtype=torch.uint8)
    mixed = collate([Sample(5, clip, 2), Sample(6, None, 1, "x.mp4: is empty"), Sample(7, clip * 2, 0)])
    assert mixed.clips is not None
    assert mixed.labels is not None
    assert mixed.clips[:, 0, 0, 0, 0].tolist() == [1, 2]
    assert mixed.labels.tolist() == [2, 0]
    assert mixed.indices.tolist() == [5, 7]
    assert mixed.failures == (Failure(6, "x.mp4: is empty"),)
    broken = collate([Sample(6, None, 1, "x.mp4: is empty"), Sample(8, None, 1, "y.mp4: is empty")])
    assert broken.clips is None
    assert broken.labels is not None
    assert broken.labels.shape == broken.indices.shape == (0,)
    assert [failure.index for failure in broken.failures] == [6, 8]
    unlabelled = collate([Sample(5, clip, None)])
    assert unlabelled.labels is None
    with pytest.raises(
        ValueError, match="either all videos of a batch have labels or none has, got 1 labels for 2 videos"
    ):
        collate([Sample(5, clip, None), Sample(6, clip, 1)])


def test_collate_of_several_labels() -> None:
    clip = torch.zeros(3, 2, 4, 4, dtype=torch.uint8)
    samples = [Sample(5, clip, (0, 3)), Sample(6, None, (1,), "x.mp4: is empty"), Sample(7, clip, ())]
    labels = collate(samples, num_classes=4).labels
    assert labels is not None
    assert labels.dtype == torch.float32
    assert labels.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="got 2 tuples among 2 labels, and num_classes None"):
        collate(samples)
    with pytest.raises(ValueError, match="got 1 tuples among 2 labels, and num_classes 4"):
        collate([samples[0], Sample(8, clip, 2)], num_classes=4)


def test_pinning_goes_through_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Tensor, "pin_memory", lambda self: self + 1
    )  # no accelerator needed to see that it is called
    clip = torch.zeros((3, 1, 1, 1), dtype=torch.uint8)
    batch = collate([Sample(0, clip, 4)]).pin_memory()
    assert batch.clips is not None
    assert batch.labels is not None
    assert batch.clips.sum() == 3
    assert batch.labels.tolist() == [5]
    assert collate([Sample(0, None, 4, "x")]).pin_memory().clips is None
    frames = torch.zeros((2, 1, 1, 3), dtype=torch.uint8)
    views = Views(0, frames, 4, (1, 2), ((0,), (1,)), EvalTransform(1, 1, num_crops=1)).pin_memory()
    assert views.clips is not None
    assert views.clips.sum() == 6
    assert views.starts == (1, 2)


def test_settings_are_checked_before_any_video_is_read(videos: VideoList) -> None:
    with pytest.raises(NlnetError, match="stride 0"):
        TrainClips(videos, length=4, stride=0, transform=PLAIN)
    with pytest.raises(NlnetError, match="num_clips must be 1 or more, got 0"):
        EvalViews(videos, length=4, stride=1, num_clips=0, transform=EvalTransform(48, 48))
    with pytest.raises(NlnetError, match="cache_bytes must be 0 or more, got -1"):
        TrainClips(videos, length=4, stride=1, transform=PLAIN, cache_bytes=-1)
