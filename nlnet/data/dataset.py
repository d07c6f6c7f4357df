"""Videos as training clips and as test views. A video that cannot be read is a value that says so, never an
exception in a worker, and never another video in its place."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from nlnet.data.clips import clip_indices, random_start, test_clips
from nlnet.data.decode import Video, VideoError
from nlnet.data.framefolder import FrameFolder, open_video
from nlnet.data.protocols import Protocol
from nlnet.data.transforms import TestTransform, TrainTransform
from nlnet.data.videolist import Label, VideoItem, VideoList


@dataclass(frozen=True, eq=False)
class Sample:
    """A training clip, uint8 (3, T, H, W), or None with the `failure` "path: reason; fix". `index` is the video's."""

    index: int
    clip: Tensor | None
    label: Label
    failure: str | None = None


@dataclass(frozen=True, eq=False)
class Views:
    """All views of a test video, uint8 (V, 3, T, H, W), or None with the `failure` "path: reason; fix".

    V = clips × crops; view v is crop v mod crops of the clip that begins at frame starts[v // crops]. H and W are
    the crop's, or under the protocol `paper` the scaled frame's, which differ from video to video.
    """

    index: int
    clips: Tensor | None
    label: Label
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
    """The samples that could be read: clips uint8 (B, 3, T, H, W), indices int64 (B,), in order.

    `labels` is int64 (B,), or float32 (B, K) of zeros and ones where a video has any number of the K classes; None
    when the videos have no labels. `clips` is None when not one could be read.
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


class Extent(NamedTuple):
    """How long a video is: its frames, and how many of them are shown in a second on average (None: not known)."""

    num_frames: int
    rate: Fraction | None

    @classmethod
    def of(cls, video: Video | FrameFolder) -> "Extent":
        seconds = video.duration_seconds
        # the denominator of 30000/1001 and of other rates in use; removes the rounding of the division
        rate = Fraction(video.num_frames / seconds).limit_denominator(10_000) if seconds else None
        return cls(video.num_frames, rate)


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
        self.extents: dict[Path, Extent] = {}

    def __getstate__(self) -> int:
        return self.budget_bytes

    def __setstate__(self, budget_bytes: int) -> None:
        self.budget_bytes, self.used_bytes, self._frames, self.extents = budget_bytes, 0, {}, {}

    def get(self, path: Path) -> UInt8[Tensor, "N H W 3"] | None:
        return self._frames.get(path)

    def keep(self, video: Video | FrameFolder) -> UInt8[Tensor, "N H W 3"] | None:
        """All frames of a video if they fit in what is left of the budget, decoded and kept; else None."""
        if self.used_bytes + video.nbytes > self.budget_bytes:
            return None
        frames = video.frames(range(video.num_frames))
        self._frames[video.path], self.extents[video.path] = frames, Extent.of(video)
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

        def clip(extent: Extent) -> list[int]:
            start = random_start(extent.num_frames, length=self.length, stride=self.stride, draw=draw)
            return clip_indices(start, length=self.length, stride=self.stride, num_frames=extent.num_frames)

        try:
            _, frames = _read(item, clip, self.cache)
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
        test_clips(1, num_clips, length=length, stride=stride, protocol=protocol)  # bad numbers are told now
        self.videos, self.length, self.stride, self.num_clips = videos, length, stride, num_clips
        self.transform, self.protocol = transform, protocol
        self.cache = FrameCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.videos.items)

    def __getitem__(self, index: int) -> Views:
        item = self.videos.items[index]
        try:
            extent, frames = _read(item, self._needed, self.cache)
        except VideoError as error:
            return Views(index, None, item.label, failure=str(error))
        row = {number: k for k, number in enumerate(self._needed(extent))}
        clips = self._clips(extent)
        rows = [[row[number] for number in clip] for clip in clips]
        return Views(index, self._cut(frames, rows), item.label, tuple(clip[0] for clip in clips))

    def _clips(self, extent: Extent) -> list[list[int]]:
        return test_clips(
            extent.num_frames,
            self.num_clips,
            length=self.length,
            stride=self.stride,
            protocol=self.protocol,
            rate=extent.rate,
        )

    def _needed(self, extent: Extent) -> list[int]:
        return sorted({number for clip in self._clips(extent) for number in clip})

    def _cut(self, frames: UInt8[Tensor, "n H W 3"], clips: list[list[int]]) -> UInt8[Tensor, "V 3 T th tw"]:
        """The crops of all clips, given as rows of `frames`."""
        scaled = self.transform.scale(frames)
        size = self.transform.crops(scaled[:1]).shape[3:]
        per_clip = self.transform.num_crops
        views = torch.empty((len(clips) * per_clip, 3, self.length, *size), dtype=torch.uint8)
        for k, rows in enumerate(clips):
            views[k * per_clip : (k + 1) * per_clip] = self.transform.crops(scaled[rows])
        return views


def collate(samples: Sequence[Sample], *, num_classes: int | None = None) -> Batch:
    """One batch of the samples that could be read, and the failures of the others.

    Labels that are tuples of classes need `num_classes`, the width K of a multi-hot row.
    """
    read = [sample for sample in samples if sample.clip is not None]
    failures = tuple(Failure(sample.index, sample.failure or "") for sample in samples if sample.clip is None)
    labels = [sample.label for sample in read if sample.label is not None]
    if labels and len(labels) != len(read):
        raise ValueError(
            f"either all videos of a batch have labels or none has, got {len(labels)} of {len(read)}"
        )
    return Batch(
        clips=torch.stack([sample.clip for sample in read if sample.clip is not None]) if read else None,
        labels=_label_tensor(labels, num_classes) if labels or not read else None,
        indices=torch.tensor([sample.index for sample in read], dtype=torch.int64),
        failures=failures,
    )


def _label_tensor(labels: Sequence[int | tuple[int, ...]], num_classes: int | None) -> Tensor:
    """int64 (B,) of class numbers, or float32 (B, K) multi-hot of tuples of them."""
    tuples = [label for label in labels if isinstance(label, tuple)]
    if not tuples:
        return torch.tensor(labels, dtype=torch.int64)
    if len(tuples) != len(labels) or num_classes is None:
        raise ValueError(
            f"labels are all tuples of classes below num_classes, or all class numbers, got {len(tuples)} tuples of "
            f"{len(labels)} and num_classes {num_classes}"
        )
    rows = torch.zeros(len(tuples), num_classes)
    for row, label in zip(rows, tuples, strict=True):
        row[list(label)] = 1.0
    return rows


def _read(
    item: VideoItem, choose: Callable[[Extent], list[int]], cache: FrameCache
) -> tuple[Extent, UInt8[Tensor, "n H W 3"]]:
    """The extent of a video, and the frames that `choose` names when told it."""
    kept = cache.get(item.path)
    if kept is not None:
        extent = cache.extents[item.path]
        return extent, kept[choose(extent)]
    with open_video(item) as video:
        kept, extent = cache.keep(video), Extent.of(video)
        wanted = choose(extent)
        return extent, video.frames(wanted) if kept is None else kept[wanted]
