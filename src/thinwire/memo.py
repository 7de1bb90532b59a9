"""Results that are kept for the next time, within a bound of bytes: arguments may come from strangers."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """A function of one argument that keeps what it returned last.

    Args:
        make: the function; what it returns is shared, so nobody may write to it.
        num_bytes: memory of an argument and its result, which are kept together.
        limit: bytes that are kept in all. A result that is larger is made anew each time.

    Example:
        >>> squares = Memo(lambda n: n * n, lambda n, result: 8, 16)
        >>> squares(3), squares(4), squares(5), squares.num_kept_bytes
        (9, 16, 25, 16)
    """

    def __init__(self, make: Callable[[K], V], num_bytes: Callable[[K, V], int], limit: int) -> None:
        self._make = make
        self._num_bytes = num_bytes
        self._limit = limit
        # The one that was asked for last is at the end.
        self._kept: dict[K, tuple[V, int]] = {}
        self._lock = threading.Lock()
        self.num_kept_bytes = 0
        """Memory of what is kept now."""

    def __call__(self, key: K) -> V:
        """The result, made now or before."""
        with self._lock:
            found = self._kept.pop(key, None)
            if found is not None:
                self._kept[key] = found
                return found[0]
        value = self._make(key)
        size = self._num_bytes(key, value)
        if size <= self._limit:
            with self._lock:
                self._keep(key, value, size)
        return value

    def _keep(self, key: K, value: V, size: int) -> None:
        if key in self._kept:
            return  # another thread was quicker
        while self.num_kept_bytes + size > self._limit:
            self.num_kept_bytes -= self._kept.pop(next(iter(self._kept)))[1]
        self._kept[key] = (value, size)
        self.num_kept_bytes += size
