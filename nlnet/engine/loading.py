"""What training and testing share about loading: the clip's sampling and well-behaved worker processes."""

import signal
from collections.abc import Sequence
from pathlib import Path

from nlnet.data import VideoList, read_classes, read_videos
from nlnet.engine.config import Config, DataConfig
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
    """Leave Ctrl-C to the main process, which finishes its step and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
