"""Does every video of a list really decode? For `nlnet data check` and before a long run."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from nlnet.data.video.frame_folder import open_video
from nlnet.data.video.packets import VideoError
from nlnet.data.video_list import VideoItem, VideoList

AT_ONCE = 8
"""Videos that a process is given at a time; for fewer it is not worth its start."""


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
    videos: VideoList,
    *,
    every_frame: bool = True,
    processes: int = 1,
    progress: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """`check_video` for each item, in order, shared out over `processes`; `progress` is called with each result."""
    checks = []
    for check in _checks(videos, partial(check_video, every_frame=every_frame), processes):
        checks.append(check)
        progress(check)
    return checks


def _checks(videos: VideoList, check: Callable[[VideoItem], Check], processes: int) -> Iterator[Check]:
    processes = min(processes, len(videos.items) // AT_ONCE)
    if processes <= 1:
        yield from map(check, videos.items)
        return
    # fresh processes: the decoder's and torch's threads of this one would not be in a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_ctrl_c) as pool:
        try:
            yield from pool.map(check, videos.items, chunksize=AT_ONCE)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _leave_ctrl_c() -> None:
    """To the first process, which ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
