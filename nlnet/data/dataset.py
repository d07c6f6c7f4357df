"""Videos as training clips and as test views. A video that cannot be read is a value that says so, never an
exception in a worker, and never another video in its place."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from nlnet.data.annotations import VideoList
from nlnet.data.clips import Protocol, clip_indices, random_start, test_starts
from nlnet.data.decode import Video, VideoError
from nlnet.data.transforms import TestTransform, TrainTransform


@dataclass(frozen=True, eq=False)
class Sample:
    """A training clip, uint8 (3, T, H, W), or None with the `failure` "path: reason; fix". `index` is the video's."""

    index: int
    clip: Tensor | None
    label: int | None
    failure: str | None = None


@dataclass(frozen=True, eq=False)
class Views:
    """All views of a test video, uint8 (V, 3, T, H, W), or None with the `failure` "path: reason; fix".

    V = clips × crops; view v is crop v mod crops of the clip that begins at frame starts[v // crops].
    """

    index: int
    clips: Tensor | None
    label: int | None
    starts: tuple[int, ...] = ()
    failure: str | None = None

    def pin_memory(self) -> "Views":
        """What a DataLoader with pin_memory=True calls."""
        return self if self.clips is None else replace(self, clips=self.clips.pin_memory())


@dataclass(frozen=True)
class Failure:
    """Which video could not be read, and the "path: reason; fix" of it."""

    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples that could be read: clips uint8 (B, 3, T, H, W), labels and indices int64 (B,), in order.

    `clips` is None when not one could be read; `labels` is None when the videos have no labels.
    """

    clips: Tensor | None
    labels: Tensor | None
    indices: Tensor
    failures: tuple[Failure, ...]

    def pin_memory(self) -> "Batch":
        """What a DataLoader with pin_memory=True calls."""
        clips = None if self.clips is None else self.clips.pin_memory()
        labels = None if self.labels is None else self.labels.pin_memory()
        return replace(self, clips=clips, labels=labels)


class FrameCache:
    """Decoded frames of whole videos, kept until `budget_bytes` are full; what is kept stays.

    Training visits every video once an epoch, so throwing out the oldest would throw out just the next one
    needed. Each process has its own: W worker processes hold up to W budgets, and keep them from epoch to epoch
    only as persistent workers. A copy sent to another process starts empty; a forked one starts with the parent's.
    """

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < 0:
            raise ValueError(f"cache_bytes is 0 or more, got {budget_bytes}")
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._frames: dict[Path, Tensor] = {}

    def __getstate__(self) -> int:
        return self.budget_bytes

    def __setstate__(self, budget_bytes: int) -> None:
        self.budget_bytes, self.used_bytes, self._frames = budget_bytes, 0, {}

    def get(self, path: Path) -> UInt8[Tensor, "N H W 3"] | None:
        return self._frames.get(path)

    def keep(self, video: Video) -> UInt8[Tensor, "N H W 3"] | None:
        """All frames of a video if they fit in what is left of the budget, decoded and kept; else None."""
        if self.used_bytes + video.nbytes > self.budget_bytes:
            return None
        frames = video.frames(range(video.num_frames))
        self._frames[video.path] = frames
        self.used_bytes += frames.nbytes
        return frames


class TrainClips(Dataset[Sample]):
    """One random clip of a video: `dataset[index, seed]`.

    The same (index, seed) gives the same sample bit for bit, in any process. Each process keeps up to
    `cache_bytes` of decoded frames in memory (`FrameCache`).
    """

    def __init__(
        self, videos: VideoList, *, length: int, stride: int, transform: TrainTransform, cache_bytes: int = 0
    ) -> None:
        random_start(1, length=length, stride=stride, draw=0.0)  # bad numbers are told now, not in a worker
        self.videos, self.length, self.stride, self.transform = videos, length, stride, transform
        self.cache = FrameCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.videos.items)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        item = self.videos.items[index]
        rng = random.Random(seed)
        draw = rng.random()

        def clip(num_frames: int) -> list[int]:
            start = random_start(num_frames, length=self.length, stride=self.stride, draw=draw)
            return clip_indices(start, length=self.length, stride=self.stride, num_frames=num_frames)

        try:
            _, frames = _read(item.path, clip, self.cache)
        except VideoError as error:
            return Sample(index, None, item.label, str(error))
        return Sample(index, self.transform(frames, rng), item.label)


class TestViews(Dataset[Views]):
    """All views of a video, `num_clips` clips × the transform's crops: `dataset[index]`.

    A video is opened once, and each frame that some view needs is decoded and scaled once. Views stay uint8:
    30 views of 32 frames at 256² take 189 MB, a quarter of what they would as float32.
    """

    __test__ = False  # not a test case, whatever its name looks like to pytest

    def __init__(
        self,
        videos: VideoList,
        *,
        length: int,
        stride: int,
        num_clips: int,
        transform: TestTransform,
        protocol: Protocol = "released",
        cache_bytes: int = 0,
    ) -> None:
        test_starts(1, num_clips, length=length, stride=stride, protocol=protocol)  # bad numbers are told now
        self.videos, self.length, self.stride, self.num_clips = videos, length, stride, num_clips
        self.transform, self.protocol = transform, protocol
        self.cache = FrameCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.videos.items)

    def __getitem__(self, index: int) -> Views:
        item = self.videos.items[index]
        try:
            num_frames, frames = _read(item.path, self._needed, self.cache)
        except VideoError as error:
            return Views(index, None, item.label, failure=str(error))
        row = {number: k for k, number in enumerate(self._needed(num_frames))}
        clips = [[row[number] for number in clip] for clip in self._clips(num_frames)]
        return Views(index, self._cut(frames, clips), item.label, tuple(self._starts(num_frames)))

    def _starts(self, num_frames: int) -> list[int]:
        return test_starts(
            num_frames, self.num_clips, length=self.length, stride=self.stride, protocol=self.protocol
        )

    def _clips(self, num_frames: int) -> list[list[int]]:
        return [
            clip_indices(start, length=self.length, stride=self.stride, num_frames=num_frames)
            for start in self._starts(num_frames)
        ]

    def _needed(self, num_frames: int) -> list[int]:
        return sorted({number for clip in self._clips(num_frames) for number in clip})

    def _cut(
        self, frames: UInt8[Tensor, "n H W 3"], clips: list[list[int]]
    ) -> UInt8[Tensor, "V 3 T crop crop"]:
        """The crops of all clips, given as rows of `frames`."""
        scaled, crop, per_clip = self.transform.scale(frames), self.transform.crop, self.transform.num_crops
        views = torch.empty((len(clips) * per_clip, 3, self.length, crop, crop), dtype=torch.uint8)
        for k, rows in enumerate(clips):
            views[k * per_clip : (k + 1) * per_clip] = self.transform.crops(scaled[rows])
        return views


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of the samples that could be read, and the failures of the others."""
    read = [sample for sample in samples if sample.clip is not None]
    failures = tuple(Failure(sample.index, sample.failure or "") for sample in samples if sample.clip is None)
    labels = [sample.label for sample in read if sample.label is not None]
    if labels and len(labels) != len(read):
        raise ValueError(
            f"either all videos of a batch have labels or none has, got {len(labels)} of {len(read)}"
        )
    return Batch(
        clips=torch.stack([sample.clip for sample in read if sample.clip is not None]) if read else None,
        labels=torch.tensor(labels, dtype=torch.int64) if labels or not read else None,
        indices=torch.tensor([sample.index for sample in read], dtype=torch.int64),
        failures=failures,
    )


def _read(
    path: Path, choose: Callable[[int], list[int]], cache: FrameCache
) -> tuple[int, UInt8[Tensor, "n H W 3"]]:
    """The number of frames of a video, and the frames that `choose` names when told that number."""
    kept = cache.get(path)
    if kept is not None:
        return len(kept), kept[choose(len(kept))]
    with Video(path) as video:
        kept = cache.keep(video)
        wanted = choose(video.num_frames)
        return video.num_frames, video.frames(wanted) if kept is None else kept[wanted]
