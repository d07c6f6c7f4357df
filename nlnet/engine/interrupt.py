"""Ctrl-C and SIGTERM as a request to stop, not as an accident."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Requests:
    stop: bool = False


@contextmanager
def stop_requests() -> Iterator[Requests]:
    """Turn the first SIGINT or SIGTERM into `stop`; a second SIGINT raises KeyboardInterrupt at once."""
    requests = Requests()

    def ask(number: int, frame: FrameType | None) -> None:
        if requests.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.stop = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
