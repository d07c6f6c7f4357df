"""Does every video of a list really decode? For `nlnet data check` and before a long run."""

from collections.abc import Callable
from typing import NamedTuple

from nlnet.data.decode import VideoError
from nlnet.data.framefolder import open_video
from nlnet.data.videolist import VideoItem, VideoList


class Check(NamedTuple):
    """One video: what is in it, or the `error` "path: reason; fix" (then the rest is None)."""

    item: VideoItem
    error: str | None
    num_frames: int | None = None
    duration_seconds: float | None = None
    height: int | None = None
    width: int | None = None

    @property
    def fps(self) -> float | None:
        """Mean frame rate; None for a video without duration and a folder of frames of unknown rate."""
        return self.num_frames / self.duration_seconds if self.num_frames and self.duration_seconds else None


def check_video(item: VideoItem, *, every_frame: bool = True) -> Check:
    """Opens a video and, with `every_frame`, decodes all of it; without, its first frame."""
    try:
        with open_video(item) as video:
            if every_frame:
                video.verify()
            return Check(item, None, video.num_frames, video.duration_seconds, video.height, video.width)
    except VideoError as error:
        return Check(item, str(error))


def check_videos(
    videos: VideoList, *, every_frame: bool = True, progress: Callable[[Check], None] | None = None
) -> list[Check]:
    """`check_video` for each item, in order; `progress` is called with each result as it is there."""
    checks = []
    for item in videos.items:
        checks.append(check_video(item, every_frame=every_frame))
        if progress is not None:
            progress(checks[-1])
    return checks
