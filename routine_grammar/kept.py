"""What is kept to be used again: up to a bound on its bytes, the least recently used out first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key, up to `most_bytes` by what `bytes_of` says of each as it is put in. Safe to use from several threads.

    What was put in last is kept whatever its size.
    """

    def __init__(self, most_bytes: int, bytes_of: Callable[[V], int]) -> None:
        self._most = most_bytes
        self._bytes_of = bytes_of
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def __len__(self) -> int:
        """How many values there are."""
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value of a key, where it is still kept."""
        with self._lock:
            known = self._values.get(key)
            if known is None:
                return None
            self._values.move_to_end(key)
            return known[0]

    def put(self, key: K, value: V) -> V:
        """Keep a value, unless there is one by now; returns the one that there is."""
        with self._lock:
            known = self._values.get(key)
            if known is not None:
                return known[0]
            size = self._bytes_of(value)
            self._values[key] = value, size
            self.nbytes += size
            while self.nbytes > self._most and len(self._values) > 1:
                self.nbytes -= self._values.popitem(last=False)[1][1]
            return value


def kept(most_bytes: int, bytes_of: Callable[[V], int]) -> Callable[[Callable[[K], V]], Callable[[K], V]]:
    """Have what a function of one argument returns kept, as `Kept` does."""

    def decorate(function: Callable[[K], V]) -> Callable[[K], V]:
        known = Kept[K, V](most_bytes, bytes_of)

        @wraps(function)
        def asked(key: K) -> V:
            value = known.get(key)
            return known.put(key, function(key)) if value is None else value

        return asked

    return decorate
