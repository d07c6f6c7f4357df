"""A lock file that one process at a time holds; the lock ends when that process ends, even by SIGKILL."""

import fcntl
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nlnet.errors import RunError

PATIENCE_SECONDS = 0.5
"""How long `exclusive` retries, because `is_locked` takes the lock for an instant."""

_own_handles: set[int] = set()
"""File descriptors of the locks that this process holds."""


class LockedError(RunError):
    """Another process holds the lock; the message says which process on which machine."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock on a file inside the `with`. The file stays afterwards and names its last holder.

    Forked child processes do not hold the lock. On a file system without locks there is a warning and no lock.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be written.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _own_handles.add(handle)
    try:
        _acquire(handle, path)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        _own_handles.discard(handle)
        os.close(
            handle
        )  # releases the lock; deleting the file would let two processes lock two files of one name


def is_locked(path: Path) -> bool:
    """Whether some process, this one included, holds the lock on this file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # a shared lock, so that two processes that only ask do not see each other
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _acquire(handle: int, path: Path) -> None:
    """Take the lock, retrying for `PATIENCE_SECONDS`."""
    last = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > last:
                raise LockedError(os.read(handle, 200).decode(errors="replace").strip()) from None
            time.sleep(0.02)
        except OSError as error:
            warnings.warn(f"{path}: this file system has no locks ({error.strerror})", stacklevel=2)
            return None


def _close_in_child() -> None:
    """Close the lock files that a forked child inherits: an flock lasts until every copy of its descriptor is closed."""
    for handle in _own_handles:
        os.close(handle)
    _own_handles.clear()


os.register_at_fork(after_in_child=_close_in_child)
