"""Videos as training clips and as test views. A video that cannot be read is a value that says so, never an
exception in a worker, and never another video in its place."""

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
from nlnet.data.video.frames import gathered
from nlnet.data.video.packets import VideoError
from nlnet.data.video_list import VideoItem, VideoList
from nlnet.data.views import Views


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
        # a frame folder decodes a picture to know its size
        if self.budget_bytes == 0 or self.used_bytes + video.nbytes > self.budget_bytes:
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
            return Sample(index, self._cut(item, clip, rng), item.label)
        except VideoError as error:
            return Sample(index, None, item.label, str(error))

    def _cut(
        self, item: VideoItem, choose: Callable[[Extent], list[int]], rng: random.Random
    ) -> UInt8[Tensor, "3 T crop crop"]:
        """The clip of the frames that `choose` names. Of each, only what the crop is made of is copied."""
        with _opened(item, self.cache) as (extent, video):
            wanted = choose(extent)
            if isinstance(video, Tensor):
                return self.transform(video[wanted], rng)
            pictures = video.pictures(wanted)
            first = next(pictures)
            height, width, _ = first[1].shape
            framing = self.transform.framing(height, width, rng)
            rows, columns = framing.source
            pictures = chain([first], pictures)
            return framing(gathered(pictures, len(wanted), lambda picture: picture[:rows, :columns]))


class EvalViews(Dataset[Views]):
    """All views of a video, `num_clips` clips × the transform's crops: `dataset[index]`.

    A video is opened once, and each frame that some view needs is decoded and scaled once, and kept once.
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
        eval_clips(1, num_clips, length=length, stride=stride, protocol=protocol)  # bad numbers are told now
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
        """These frames of a video, each scaled as soon as it is decoded."""
        if isinstance(video, Tensor):
            return self.transform.scale(video[needed])
        return gathered(video.pictures(needed), len(needed), self._scale)

    def _scale(self, picture: np.ndarray) -> np.ndarray:
        return self.transform.scale(torch.from_numpy(np.ascontiguousarray(picture))[None])[0].numpy()


@contextmanager
def _opened(
    item: VideoItem, cache: FrameCache
) -> Iterator[tuple[Extent, Video | FrameFolder | UInt8[Tensor, "N H W 3"]]]:
    """The extent of a video, and all its frames where the cache has or takes them, else the opened video."""
    kept = cache.get(item.path)
    if kept is not None:
        yield cache.extents[item.path], kept
        return
    with open_video(item) as video:
        kept = cache.keep(video)
        yield Extent.of(video), video if kept is None else kept
