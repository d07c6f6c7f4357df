"""Ctrl-C and SIGTERM as a request to stop, not as an accident."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Requests:
    stop: bool = False


_listening: list[Requests] = []
"""Those of this process that are being listened for."""


@contextmanager
def stop_requests() -> Iterator[Requests]:
    """Turn the first SIGINT or SIGTERM into `stop`; a second SIGINT raises KeyboardInterrupt at once.

    A process forked inside, a loader's worker, begins with SIGTERM blocked: what is sent to all processes at once must
    not find it before it has settled what to do about it (`nlnet.engine.loading.ignore_interrupts`).
    """
    requests = Requests()

    def ask(number: int, frame: FrameType | None) -> None:
        if requests.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.stop = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    _listening.append(requests)
    try:
        yield requests
    finally:
        _listening.remove(requests)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_raises(error: BaseException) -> Iterator[None]:
    """SIGTERM raises `error` inside, so that what was begun is ended and removed; as before afterwards."""

    def end(number: int, frame: FrameType | None) -> None:
        raise error

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _block_in_child() -> None:
    if _listening:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


os.register_at_fork(after_in_child=_block_in_child)
