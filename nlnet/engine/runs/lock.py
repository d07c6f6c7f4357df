"""A lock that one process at a time holds, and that a process which dies gives back."""

import fcntl
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_SECONDS = 0.5
"""How long to try: `held` takes the lock for an instant, which is no reason to refuse anybody."""

_ours: set[int] = set()
"""Descriptors of the locks that this process holds."""


class LockedError(ValueError):
    """Another process holds the lock."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock on a file, which stays when the lock is gone and names its last holder.

    It ends with this process however that ends: processes forked from it do not hold it. On a file system without
    locks there is a warning, and no lock.

    Raises:
        LockedError: another process holds it. OSError: the file cannot be written.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _ours.add(handle)
    try:
        _take(handle, path)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        _ours.discard(handle)
        os.close(handle)


def held(path: Path) -> bool:
    """Whether some process, this one included, holds the lock on this file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _take(handle: int, path: Path) -> None:
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


def _drop_in_child() -> None:
    """A forked process closes what it inherited, or the lock would outlive its holder by the child's life."""
    for handle in _ours:
        os.close(handle)
    _ours.clear()


os.register_at_fork(after_in_child=_drop_in_child)
