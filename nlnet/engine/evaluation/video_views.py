"""The views of one video, as `nlnet test` cuts them, and how a network scores one."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from nlnet.data import (
    EvalTransform,
    EvalViews,
    FrameFolder,
    Video,
    VideoError,
    VideoItem,
    VideoList,
    Views,
    open_video,
)
from nlnet.data.clips import eval_clips, scaled_size
from nlnet.data.dataset import Extent
from nlnet.data.protocols import protocol_of
from nlnet.engine.config import Config
from nlnet.engine.config.inputs import sampling
from nlnet.engine.evaluation.evaluate import score_views
from nlnet.engine.network import eval_window
from nlnet.errors import EvaluationError
from nlnet.models.resnet import VideoResNet


class Unreadable(ValueError):
    """A video that cannot be read: `reason` says why and what to do about it, the message the path as well."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class TooLarge(ValueError):
    """A video whose frames would take more memory than they may."""


@dataclass(frozen=True, eq=False)
class Footage:
    """The views of one video as one run cuts them, and where their frames come from."""

    cut: Views
    numbers: tuple[tuple[int, ...], ...]
    """Of each clip: which frames of the video it takes."""
    crops: int
    times_seconds: tuple[float, ...] | None
    """Of every frame of the video; None for a folder of frames, whose rate nobody says."""

    def __len__(self) -> int:
        """The number of views, clips × crops, clips outermost."""
        return len(self.numbers) * self.crops

    def view(self, number: int) -> UInt8[Tensor, "3 T H W"]:
        """One crop of one clip."""
        assert self.cut.transform is not None
        assert self.cut.frames is not None
        clip, crop = divmod(number, self.crops)
        frames = self.cut.transform.crops(self.cut.frames)[crop]
        return frames[list(self.cut.rows[clip])].permute(3, 0, 1, 2).contiguous()

    def seconds(self, number: int) -> tuple[float, ...] | None:
        """When each frame of a view is shown in the video."""
        times = self.times_seconds
        return None if times is None else tuple(times[n] for n in self.numbers[number // self.crops])


def middle_view(clips: int, crops: int) -> int:
    """The centre crop of the middle clip, the earlier of two."""
    return (clips - 1) // 2 * crops + crops // 2


def cut_video(path: Path, config: Config, *, limit_bytes: int | None = None) -> Footage:
    """All views of a video under the run's test settings.

    Raises:
        Unreadable: it cannot be read.
        TooLarge: its frames would take more than `limit_bytes` (`check_size`).
    """
    (length, stride), test = sampling(config), config.test
    item = VideoItem(path=path, label=None)
    transform = EvalTransform(test.crop, test.short_side, test.crops, test.protocol)
    try:
        with open_video(item) as video:
            extent = Extent.of(video)
            numbers = eval_clips(
                extent.num_frames,
                test.clips,
                length=length,
                stride=stride,
                protocol=test.protocol,
                rate=extent.rate,
            )
            if limit_bytes is not None:
                check_size(video, len({n for clip in numbers for n in clip}), transform, limit_bytes)
            times = tuple(video.times_seconds) if isinstance(video, Video) else None
    except VideoError as error:
        raise Unreadable(error.path, f"{error.reason}; {error.fix}") from error
    cut = EvalViews(
        VideoList(items=(item,), classes=(), source=path),
        length=length,
        stride=stride,
        num_clips=test.clips,
        protocol=test.protocol,
        transform=transform,
    )[0]
    if cut.frames is None:
        raise Unreadable(path, (cut.failure or "").removeprefix(f"{path}: "))
    return Footage(cut, tuple(map(tuple, numbers)), test.crops, times)


def check_size(video: Video | FrameFolder, needed: int, transform: EvalTransform, limit_bytes: int) -> None:
    """TooLarge if one decoded frame and `needed` scaled ones, which are held together, exceed the limit.

    A video that is small as a file may be large as frames. What one of them takes is told by the file's head; only
    if that fits is one decoded, to see how long its longer side becomes.
    """
    frame = video.nbytes // video.num_frames

    def check(scaled: int) -> None:
        held = frame + needed * scaled
        if held > limit_bytes:
            raise TooLarge(
                f"its frames are too large: {needed} of them would take {held / 1e6:.0f} MB, more than the "
                f"{limit_bytes / 1e6:g} MB that an upload may; scale them down, or name the video on the command line, "
                "where there is no limit"
            )

    check(0)
    rounding = protocol_of(transform.protocol).scaled
    height, width = scaled_size(video.height, video.width, transform.short_side, rounding)
    check(3 * height * width)


def score_view(model: VideoResNet, config: Config, view: UInt8[Tensor, "3 T H W"]) -> Tensor:
    """The (K,) probabilities of one view, by the code of `nlnet test`.

    Raises:
        EvaluationError: they are no numbers.
    """
    (scores,) = score_views(
        model,
        view[None],
        window=eval_window(model, config, config.test),
        data=config.data,
        device=next(model.parameters()).device,
        precision=config.training.precision,
        score=config.training.loss,
    )
    if not torch.isfinite(scores).all():
        raise EvaluationError("the network's scores are not finite numbers")
    return scores
