"""Check that every video of a list can be decoded, for `nlnet data check` and before a long run."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from nlnet.data.video.frame_folder import open_video
from nlnet.data.video.packets import VideoError
from nlnet.data.video_list import VideoItem, VideoList

VIDEOS_PER_TASK = 8
"""Videos that a worker process receives at a time. Starting a process does not pay for fewer videos than this."""


class Check(NamedTuple):
    """The result for one video: its length and size, or the `error` "path: reason; fix" (then the rest is None)."""

    item: VideoItem
    error: str | None
    num_frames: int | None = None
    duration_seconds: float | None = None
    height: int | None = None
    width: int | None = None

    @property
    def fps(self) -> float | None:
        """Mean frame rate; None for a video without a duration and for a folder of frames of unknown rate."""
        return self.num_frames / self.duration_seconds if self.num_frames and self.duration_seconds else None


def check_video(item: VideoItem, *, every_frame: bool = True) -> Check:
    """Open a video and decode every frame, or only the first frame with `every_frame=False`."""
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
    """`check_video` for each item, in order, in `processes` processes; `progress` is called with each result."""
    checks = []
    for check in _checks(videos, partial(check_video, every_frame=every_frame), processes):
        checks.append(check)
        progress(check)
    return checks


def _checks(videos: VideoList, check: Callable[[VideoItem], Check], processes: int) -> Iterator[Check]:
    processes = min(processes, len(videos.items) // VIDEOS_PER_TASK)
    if processes <= 1:
        yield from map(check, videos.items)
        return
    # "spawn": a forked child would lack the threads that the decoder and torch have started in this process
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_ignore_ctrl_c) as pool:
        try:
            yield from pool.map(check, videos.items, chunksize=VIDEOS_PER_TASK)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ignore_ctrl_c() -> None:
    """Ignore Ctrl-C in a worker process: the main process receives it too, and stops the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
