"""Ctrl-C and SIGTERM: a request to stop cleanly, in the main process and in a loader's workers.

Both signals reach all processes at once: Ctrl-C goes to the terminal's process group, and batch systems send SIGTERM
to every process of a job. The main process finishes its step, saves and ends its workers; workers ignore the signals.

stop_requests       main process: the first signal becomes a flag that the training loop reads
sigterm_raises      main process: SIGTERM raises an exception, so that `finally` blocks run
ignore_interrupts   worker process: only a SIGTERM from the main process ends it
end_with_parent     child process: the kernel ends it when its parent dies
"""

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
    """Whether a signal has asked the process to stop."""

    stop: bool = False


_active: list[Requests] = []
"""The `stop_requests` blocks that this process is in."""


@contextmanager
def stop_requests() -> Iterator[Requests]:
    """Turn the first SIGINT or SIGTERM into `stop`; a second SIGINT raises KeyboardInterrupt at once."""
    requests = Requests()

    def ask(number: int, frame: FrameType | None) -> None:
        if requests.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.stop = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    _active.append(requests)
    try:
        yield requests
    finally:
        _active.remove(requests)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_raises(error: BaseException) -> Iterator[None]:
    """Make SIGTERM raise `error` inside the `with`, so that clean-up code runs; restore the handler afterwards."""

    def end(number: int, frame: FrameType | None) -> None:
        raise error

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _block_in_child() -> None:
    """Block SIGTERM in a process forked inside `stop_requests`, until `ignore_interrupts` has decided what to do.

    The child inherits the handler of the main process: a signal in between would only set a flag that nobody reads.
    """
    if _active:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


os.register_at_fork(after_in_child=_block_in_child)


def ignore_interrupts(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM in a loader's worker, except a SIGTERM from the main process, which ends it at once.

    Torch sends that SIGTERM to a worker that does not end by itself. If the main process is killed, the kernel ends
    the worker: torch's own watchdog does not while the worker is blocked on a full pipe.
    """
    end_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS: the sender of a signal is unknown
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    # a blocked signal stays pending until the thread takes it, together with its sender; a handler is not told the
    # sender, and would not run while the worker is inside a decoder
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_parents_sigterm, daemon=True).start()


def _exit_on_parents_sigterm() -> None:
    """End this process when a SIGTERM from the main process arrives; ignore those of other senders."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker process"
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


_PR_SET_PDEATHSIG = 1
"""Number of the request of Linux's prctl(2) that sets the signal of the parent's death."""
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
"""Loaded at import: between fork and exec a process should do as little as possible."""


def end_with_parent(number: signal.Signals) -> None:
    """Make the kernel send this process a signal when its parent dies, even by SIGKILL; does nothing outside Linux."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, number)
