"""The views of one video as `nlnet test` cuts them, and the scores of a single view."""

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
from nlnet.errors import EvaluationError, NlnetError
from nlnet.models.resnet import VideoResNet


class UnreadableVideoError(NlnetError):
    """A video that cannot be read; `reason` is the message without the path: "reason; fix"."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class VideoTooLargeError(NlnetError):
    """A video whose frames need more memory than the limit."""


@dataclass(frozen=True, eq=False)
class VideoViews:
    """All views of one video under the test settings of a run, with the numbers and times of their frames."""

    cut: Views
    numbers: tuple[tuple[int, ...], ...]
    """For each clip: the numbers of its frames in the video."""
    crops: int
    """Crops of each clip."""
    times_seconds: tuple[float, ...] | None
    """The time of every frame of the video; None for a folder of frames, which has no frame rate."""

    def __len__(self) -> int:
        """The number of views, clips × crops; all crops of the first clip come first."""
        return len(self.numbers) * self.crops

    def view(self, number: int) -> UInt8[Tensor, "3 T H W"]:
        """The pixels of a view: one crop of one clip."""
        assert self.cut.transform is not None
        assert self.cut.frames is not None
        clip, crop = divmod(number, self.crops)
        frames = self.cut.transform.crops(self.cut.frames)[crop]
        return frames[list(self.cut.rows[clip])].permute(3, 0, 1, 2).contiguous()

    def seconds(self, number: int) -> tuple[float, ...] | None:
        """The times of the frames of a view, in seconds from the start of the video."""
        times = self.times_seconds
        return None if times is None else tuple(times[n] for n in self.numbers[number // self.crops])


def middle_view(clips: int, crops: int) -> int:
    """The number of the middle view: the centre crop of the middle clip (of two, the earlier)."""
    return (clips - 1) // 2 * crops + crops // 2


def cut_video(path: Path, config: Config, *, limit_bytes: int | None = None) -> VideoViews:
    """Decode a video and cut all its views under the test settings of a run.

    Args:
        limit_bytes: the most memory that its frames may take; None for no limit.

    Raises:
        UnreadableVideoError: the video cannot be read.
        VideoTooLargeError: its frames would take more than `limit_bytes` (`check_size`).
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
        raise UnreadableVideoError(error.path, f"{error.reason}; {error.fix}") from error
    cut = EvalViews(
        VideoList(items=(item,), classes=(), source=path),
        length=length,
        stride=stride,
        num_clips=test.clips,
        protocol=test.protocol,
        transform=transform,
    )[0]
    if cut.frames is None:
        # `failure` begins with the path, which the error adds itself
        raise UnreadableVideoError(path, (cut.failure or "").removeprefix(f"{path}: "))
    return VideoViews(cut, tuple(map(tuple, numbers)), test.crops, times)


def check_size(video: Video | FrameFolder, needed: int, transform: EvalTransform, limit_bytes: int) -> None:
    """Raise VideoTooLargeError if one decoded frame and `needed` scaled frames together exceed the limit.

    A small file may have huge frames. The file's header tells the size of one; only if that fits is a frame decoded, to
    know its exact height and width.
    """
    frame = video.nbytes // video.num_frames

    def check(scaled: int) -> None:
        total = frame + needed * scaled
        if total > limit_bytes:
            raise VideoTooLargeError(
                f"its frames are too large: {needed} of them would take {total / 1e6:.0f} MB, and the limit for an "
                f"upload is {limit_bytes / 1e6:g} MB; scale the video down, or name it on the command line, where there "
                "is no limit"
            )

    check(0)  # the size of a decoded frame is in the header
    rounding = protocol_of(transform.protocol).rounding
    height, width = scaled_size(video.height, video.width, transform.short_side, rounding)
    check(3 * height * width)


def score_view(model: VideoResNet, config: Config, view: UInt8[Tensor, "3 T H W"]) -> Tensor:
    """The (K,) probabilities of one view, computed as in `nlnet test`.

    Raises:
        EvaluationError: a probability is NaN or infinite.
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
        raise EvaluationError("the network's scores are NaN or infinite")
    return scores
