"""What training and testing share about loading: the clip's sampling and well-behaved worker processes."""

import signal

from nlnet.engine.config import Config
from nlnet.models import TIMINGS


def sampling(config: Config) -> tuple[int, int]:
    """Frames of a clip and their distance in the video: the configuration's, else the model variant's."""
    timing = TIMINGS.get(config.model.variant)
    if timing is None:
        raise ValueError(f"model.variant: got {config.model.variant!r}, expected one of {', '.join(TIMINGS)}")
    return config.data.frames or timing.frames, config.data.stride or timing.stride


def ignore_interrupts(worker: int) -> None:
    """Leave Ctrl-C to the main process, which finishes its step and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
