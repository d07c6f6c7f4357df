"""Ctrl-C and SIGTERM as a request to stop, not as an accident."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
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
    not find it before it has settled what to do about it (`nlnet.engine.signals.ignore_interrupts`).
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


_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
"""Looked up before any fork: a forked process does next to nothing before it becomes another program."""


_SET_SIGNAL_ON_PARENTS_DEATH = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process the signal when its parent dies, by SIGKILL too (Linux; elsewhere nothing)."""
    if _PRCTL is not None:
        _PRCTL(_SET_SIGNAL_ON_PARENTS_DEATH, number)


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
