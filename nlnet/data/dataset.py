"""Data sets of training clips and of test views.

A video that cannot be read gives a sample with its failure message: it raises no exception in a worker, and no other
video replaces it.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from nlnet.data.batch import Sample
from nlnet.data.clips import clip_indices, eval_clips, random_start
from nlnet.data.protocols import Protocol
from nlnet.data.transforms import EvalTransform, TrainTransform
from nlnet.data.video.decode import Video
from nlnet.data.video.frame_folder import FrameFolder, open_video
from nlnet.data.video.frames import stack_frames
from nlnet.data.video.packets import VideoError
from nlnet.data.video_list import VideoItem, VideoList
from nlnet.data.views import Views
from nlnet.errors import NlnetError


class Extent(NamedTuple):
    """The length of a video: its number of frames, and its mean frame rate in frames per second (None: unknown)."""

    num_frames: int
    rate: Fraction | None

    @classmethod
    def of(cls, video: Video | FrameFolder) -> "Extent":
        """The extent of an opened video."""
        seconds = video.duration_seconds
        # removes the rounding of the division: rates in use, such as 30000/1001, have smaller denominators
        rate = Fraction(video.num_frames / seconds).limit_denominator(10_000) if seconds else None
        return cls(video.num_frames, rate)


class FrameCache:
    """A cache of the decoded frames of whole videos, up to `budget_bytes`; nothing is evicted.

    Training reads every video once per epoch, so evicting the oldest video (LRU) would evict the one that is needed
    next. Each process has its own cache: W worker processes hold up to W budgets, and keep them from epoch to epoch
    only as persistent workers. A copy pickled to another process starts empty; a forked one starts with the parent's.
    """

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < 0:
            raise NlnetError(f"cache_bytes must be 0 or more, got {budget_bytes}")
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._frames: dict[Path, Tensor] = {}
        self.extents: dict[Path, Extent] = {}

    def __getstate__(self) -> int:
        return self.budget_bytes

    def __setstate__(self, budget_bytes: int) -> None:
        self.budget_bytes, self.used_bytes, self._frames, self.extents = budget_bytes, 0, {}, {}

    def get(self, path: Path) -> UInt8[Tensor, "N H W 3"] | None:
        """The cached frames of a video, or None."""
        return self._frames.get(path)

    def add(self, video: Video | FrameFolder) -> UInt8[Tensor, "N H W 3"] | None:
        """Decode and cache all frames of a video, and return them; None if they exceed what is left of the budget."""
        # without a budget `nbytes` is not asked for: a folder of frames decodes a frame to know its size
        if self.budget_bytes == 0 or self.used_bytes + video.nbytes > self.budget_bytes:
            return None
        frames = video.frames(range(video.num_frames))
        self._frames[video.path], self.extents[video.path] = frames, Extent.of(video)
        self.used_bytes += frames.nbytes
        return frames


class TrainClips(Dataset[Sample]):
    """A data set of random training clips: `dataset[index, seed]` is one clip of video `index`.

    The same (index, seed) gives the same sample bit for bit, in any process. Each process caches up to `cache_bytes` of
    decoded frames (`FrameCache`).
    """

    def __init__(
        self, videos: VideoList, *, length: int, stride: int, transform: TrainTransform, cache_bytes: int = 0
    ) -> None:
        random_start(
            1, length=length, stride=stride, draw=0.0
        )  # raise for wrong numbers here, not in a worker
        self.videos, self.length, self.stride, self.transform = videos, length, stride, transform
        self.cache = FrameCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.videos.items)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        index, seed = key
        item = self.videos.items[index]
        rng = random.Random(seed)
        draw = (
            rng.random()
        )  # before the transform's draws: the order of the draws is part of what a seed means

        def clip(extent: Extent) -> list[int]:
            start = random_start(extent.num_frames, length=self.length, stride=self.stride, draw=draw)
            return clip_indices(start, length=self.length, stride=self.stride, num_frames=extent.num_frames)

        try:
            return Sample(index, self._cut(item, clip, rng), item.label)
        except VideoError as error:
            return Sample(index, None, item.label, str(error))

    def _cut(
        self, item: VideoItem, choose: Callable[[Extent], list[int]], rng: random.Random
    ) -> UInt8[Tensor, "3 T crop crop"]:
        """The clip of the frames whose numbers `choose` returns; only the pixels that the crop needs are copied."""
        with _opened(item, self.cache) as (extent, video):
            indices = choose(extent)
            if isinstance(video, Tensor):
                return self.transform(video[indices], rng)
            frames = video.iter_frames(indices)
            first = next(frames)  # its size is needed to draw the crop
            height, width, _ = first[1].shape
            transform = self.transform.draw(height, width, rng)
            rows, columns = transform.source
            frames = chain([first], frames)
            return transform(stack_frames(frames, len(indices), lambda frame: frame[:rows, :columns]))


class EvalViews(Dataset[Views]):
    """A data set of test videos: `dataset[index]` is all views of a video, `num_clips` clips × the transform's crops.

    Each video is opened once, and each frame that some view needs is decoded, scaled and stored once.
    """

    def __init__(
        self,
        videos: VideoList,
        *,
        length: int,
        stride: int,
        num_clips: int,
        transform: EvalTransform,
        protocol: Protocol = "released",
        cache_bytes: int = 0,
    ) -> None:
        # raise for wrong numbers here, not in a worker
        eval_clips(1, num_clips, length=length, stride=stride, protocol=protocol)
        self.videos, self.length, self.stride, self.num_clips = videos, length, stride, num_clips
        self.transform, self.protocol = transform, protocol
        self.cache = FrameCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.videos.items)

    def __getitem__(self, index: int) -> Views:
        item = self.videos.items[index]
        try:
            with _opened(item, self.cache) as (extent, video):
                clips = self._clips(extent)
                needed = sorted({number for clip in clips for number in clip})
                frames = self._scaled(video, needed)
        except VideoError as error:
            return Views(index, None, item.label, failure=str(error))
        row = {number: k for k, number in enumerate(needed)}
        rows = tuple(tuple(row[number] for number in clip) for clip in clips)
        return Views(index, frames, item.label, tuple(clip[0] for clip in clips), rows, self.transform)

    def _clips(self, extent: Extent) -> list[list[int]]:
        return eval_clips(
            extent.num_frames,
            self.num_clips,
            length=self.length,
            stride=self.stride,
            protocol=self.protocol,
            rate=extent.rate,
        )

    def _scaled(
        self, video: Video | FrameFolder | UInt8[Tensor, "N H W 3"], needed: list[int]
    ) -> UInt8[Tensor, "n h w 3"]:
        """The needed frames, each scaled once it is decoded: few whole frames are in memory at a time."""
        if isinstance(video, Tensor):
            return self.transform.scale(video[needed])
        return stack_frames(video.iter_frames(needed), len(needed), self._scale)

    def _scale(self, frame: np.ndarray) -> np.ndarray:
        return self.transform.scale(torch.from_numpy(np.ascontiguousarray(frame))[None])[0].numpy()


@contextmanager
def _opened(
    item: VideoItem, cache: FrameCache
) -> Iterator[tuple[Extent, Video | FrameFolder | UInt8[Tensor, "N H W 3"]]]:
    """The extent of a video, with all its frames if they are or fit in the cache, else with the open video."""
    cached = cache.get(item.path)
    if cached is not None:
        yield cache.extents[item.path], cached
        return
    with open_video(item) as video:
        cached = cache.add(video)
        yield Extent.of(video), video if cached is None else cached
