"""Ctrl-C and SIGTERM: a request to stop cleanly, in the main process and in a loader's workers.

Both signals reach all processes at once: Ctrl-C goes to the terminal's process group, and batch systems send SIGTERM
to every process of a job. The main process finishes its step, saves and ends its workers; workers ignore the signals.

stop_requests       main process: the first signal becomes a flag that the training loop reads
sigterm_raises      main process: SIGTERM raises an exception, so that `finally` blocks run
ignore_interrupts   worker process: only a SIGTERM from the main process ends it
end_with_parent     child process: the kernel ends it when its parent dies
wait_for_threads    main process, before it starts workers: a fork while another thread runs can block the worker for ever
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker process"
    end_with_parent(signal.SIGKILL, parent.pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS: the sender of a signal is unknown
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    # a blocked signal stays pending until the thread takes it, together with its sender; a handler is not told the
    # sender, and would not run while the worker is inside a decoder
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_on_parents_sigterm, args=(parent.pid,), daemon=True).start()


def _exit_on_parents_sigterm(parent: int | None) -> None:
    """End this process when a SIGTERM from the main process arrives; ignore those of other senders."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


_PR_SET_PDEATHSIG = 1
"""Number of the request of Linux's prctl(2) that sets the signal of the parent's death."""
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
"""Loaded at import: between fork and exec a process should do as little as possible."""


def end_with_parent(number: signal.Signals, parent: int | None) -> None:
    """Make the kernel send this process a signal when its parent dies, even by SIGKILL; does nothing outside Linux.

    `parent` is the parent's process id, taken before the fork: a parent that died in between is noticed by it, and the
    signal is sent at once. (Asked for later, the parent's id would be that of process 1.)
    """
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def wait_for_threads(seconds: float = 1.0) -> None:
    """Wait until no other thread of this process is running, or for `seconds`; does nothing outside Linux.

    CPython 3.11 takes a lock of its own in a forked child before it resets it. If another thread held that lock at the
    fork, the child waits for ever. Threads of C++ hold it for microseconds when they enter Python: those of gloo do so right
    after a collective operation, to free its tensors, which is when a distributed run starts the workers of its next
    loader. A thread that holds the lock does not sleep, so the fork is safe once all others do.
    """
    tasks = Path("/proc/self/task")
    end = time.monotonic() + seconds
    while tasks.is_dir() and time.monotonic() < end:
        time.sleep(0.001)  # releases the GIL, for which such a thread may be waiting
        own = str(threading.get_native_id())
        if not any(_is_running(task) for task in tasks.iterdir() if task.name != own):
            return


def _is_running(task: Path) -> bool:
    """Whether a thread of /proc/self/task is on a processor or waits for one."""
    try:
        # "ID (NAME) STATE …", and a name may hold spaces and brackets
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:  # it has ended
        return False
