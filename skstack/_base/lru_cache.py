"""A bounded in-memory cache that drops the least recently used values first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LRUCache(Generic[Value]):
    """Values by key, bounded by the sum of their sizes; safe to use from many threads.

    ``size_of`` a value is 1 by default. Values larger than ``largest`` are returned but not kept.
    No value is None.
    """

    def __init__(
        self, limit: int, size_of: Callable[[Value], int] | None = None, largest: int | None = None
    ):
        self._limit = limit
        self._size_of = size_of or (lambda value: 1)
        self._largest = limit if largest is None else largest
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._values: OrderedDict[Hashable, Value] = OrderedDict()
            self.size = 0

    def keeps(self, size: int) -> bool:
        """Whether a value of this size is kept."""
        return size <= self._largest

    def values(self) -> list[Value]:
        """All values, the least recently used first."""
        with self._lock:
            return list(self._values.values())

    def find(self, key: Hashable) -> Value | None:
        """Return the value of `key`, or None if there is none."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`, made if there is none.

        `make` runs without the lock, because it may be slow or use the cache itself. If
        several threads make a value for one key, all return the first one.
        """
        value = self.find(key)
        if value is not None:
            return value
        value = make()
        size = self._size_of(value)
        if not self.keeps(size):
            return value
        with self._lock:
            if key in self._values:
                return self._values[key]
            self._values[key] = value
            self.size += size
            while self.size > self._limit:
                _, oldest = self._values.popitem(last=False)
                self.size -= self._size_of(oldest)
            return value
