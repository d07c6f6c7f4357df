"""What was computed lately, kept: each value is made once, and the oldest go when there are too many."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The latest `capacity` values, none of them None, by key. Threads may share it.

    Values are made one at a time under `making`, which several caches may share; what is kept already is had
    without waiting for it.
    """

    def __init__(self, capacity: int, making: Lock) -> None:
        self.capacity, self._making = capacity, making
        self._values: OrderedDict[K, V] = OrderedDict()
        self._looking = Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`, made by `make` if it is not there. An error of `make` is passed on and not kept."""
        kept = self.find(key)
        if kept is not None:
            return kept
        with self._making:
            kept = self.find(key)  # another thread may have made it meanwhile
            if kept is not None:
                return kept
            value = make()
            with self._looking:
                self._values[key] = value
                while len(self._values) > self.capacity:
                    self._values.popitem(last=False)
            return value

    def find(self, key: K) -> V | None:
        """The value of `key` if it is there."""
        with self._looking:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]
