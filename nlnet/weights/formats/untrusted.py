"""What readers of files that nobody vouches for have in common."""

import mmap
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from nlnet.errors import WeightsError


class Refused(WeightsError):
    """A pickle or torch file that asks for something other than plain data."""


def brief(value: object) -> str:
    """`repr`, cut short: thirty pairs, each of the one before twice, are a hundred bytes and a text of gigabytes."""
    short = reprlib.Repr()
    short.maxlevel = 2
    return short.repr(value)


@contextmanager
def opened(path: Path) -> Iterator[mmap.mmap]:
    """The file as a stream; nothing of it is read yet."""
    with path.open("rb") as file:
        try:
            stream = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise Refused(f"{path}: is empty") from None
        except OSError:
            raise Refused(f"{path}: is no plain file") from None
        with stream:
            yield stream


MAX_SIZE = 2**31 - 1
"""Of one axis."""


MAX_ELEMENTS = 2**62
"""Of all axes that are not empty: torch multiplies these, too, where another one is."""


def is_shape(sizes: object, axes: int) -> bool:
    """Whether it is a tuple or list of up to `axes` sizes that a tensor can have."""
    return (
        isinstance(sizes, tuple | list)
        and len(sizes) <= axes
        and all(type(n) is int and 0 <= n <= MAX_SIZE for n in sizes)
        and prod(n or 1 for n in sizes) <= MAX_ELEMENTS
    )
