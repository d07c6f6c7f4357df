"""A thread-safe LRU cache that computes each missing value once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """A cache of the `capacity` most recently used values by key. Threads may share it; no value may be None.

    Missing values are computed one at a time under the lock `computing`, which several caches may share. A cached
    value is returned without waiting for that lock.
    """

    def __init__(self, capacity: int, computing: Lock) -> None:
        self.capacity, self._computing = capacity, computing
        self._values: OrderedDict[K, V] = OrderedDict()
        # a second lock, held for moments only: lookups must not wait for a computation of seconds
        self._accessing = Lock()

    def get(self, key: K, compute: Callable[[], V]) -> V:
        """Return the value of `key`, calling `compute` if it is not cached. An exception of `compute` is not cached."""
        cached = self.find(key)
        if cached is not None:
            return cached
        with self._computing:
            cached = self.find(key)  # another thread may have computed it while this one waited
            if cached is not None:
                return cached
            value = compute()
            with self._accessing:
                self._values[key] = value
                while len(self._values) > self.capacity:
                    self._values.popitem(last=False)
            return value

    def find(self, key: K) -> V | None:
        """Return the value of `key`, or None if it is not cached."""
        with self._accessing:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]
