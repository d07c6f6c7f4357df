"""Shapes that a file claims: which of them a tensor can have."""

from math import prod

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
