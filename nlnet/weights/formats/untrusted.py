"""Guards shared by the readers of weight files that may be damaged or malicious."""

import mmap
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from nlnet.errors import WeightsError

MAX_AXIS_SIZE = 2**31 - 1
"""Largest size of one axis of a tensor."""
MAX_ELEMENTS = 2**62
"""Largest product of the sizes that are not 0, which torch multiplies even if another size is 0."""


class UnsafeFileError(WeightsError):
    """A weight file that is damaged, cut short, or holds anything but plain data; it is not loaded."""


def short_repr(value: object) -> str:
    """The `repr` of a value from a file, cut short for an error message.

    Pairs nested thirty deep, each holding the pair below twice, are a hundred bytes in a pickle, and gigabytes as text.
    """
    short = reprlib.Repr()
    short.maxlevel = 2
    return short.repr(value)


@contextmanager
def memory_mapped(path: Path) -> Iterator[mmap.mmap]:
    """Open a file as a read-only memory map, of which only the parts that are used are read.

    Raises:
        UnsafeFileError: the file is empty, or not a regular file (a device, a pipe).
    """
    with path.open("rb") as file:
        try:
            stream = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise UnsafeFileError("it is empty") from None
        except OSError:
            raise UnsafeFileError("it is not a regular file") from None
        with stream:
            yield stream


def is_shape(sizes: object, axes: int) -> bool:
    """Whether `sizes` is the shape of a tensor: a tuple or list of up to `axes` integers, none too large."""
    return (
        isinstance(sizes, tuple | list)
        and len(sizes) <= axes
        # the exact type: a float or bool from the file would pass the comparison
        and all(type(n) is int and 0 <= n <= MAX_AXIS_SIZE for n in sizes)
        and prod(n or 1 for n in sizes) <= MAX_ELEMENTS
    )
