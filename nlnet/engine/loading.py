"""What training and testing share about loading: the clip's sampling and well-behaved worker processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from nlnet.data import VideoList, read_classes, read_videos
from nlnet.engine.config import Config, DataConfig
from nlnet.engine.parent import end_with_parent
from nlnet.models import TIMINGS


def sampling(config: Config) -> tuple[int, int]:
    """Frames of a clip and their distance in the video: the configuration's, else the model variant's."""
    timing = TIMINGS.get(config.model.variant)
    if timing is None:
        raise ValueError(f"model.variant: got {config.model.variant!r}, expected one of {', '.join(TIMINGS)}")
    return config.data.frames or timing.frames, config.data.stride or timing.stride


def configured_videos(data: DataConfig, source: Path, classes: Sequence[str] | None = None) -> VideoList:
    """The videos of `source`, read as configured; their classes are `classes`, or the configured file's, or its own."""
    if classes is None and data.classes is not None:
        classes = read_classes(data.classes)
    return read_videos(source, root=data.root, classes=classes, format=data.format, missing=data.missing)


def ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the main process, which finishes its step and then ends the workers.

    Both reach a whole process group, or all processes of a batch job, at once. A SIGTERM from the main process itself
    ends the worker at once, whatever it is doing (torch sends it to one that does not end by itself). With a main
    process that is killed the kernel ends the worker: torch's own watchdog does not where a full pipe holds it up.
    """
    end_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # then nobody can tell who sent a signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for a SIGTERM from the main process."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker process"
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
