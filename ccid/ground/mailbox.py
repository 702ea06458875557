"""A queue at which a thread waits for what others put into it, for a limited time.

:class:`queue.SimpleQueue` is such a queue, but its ``get`` may wait for ever in spite of its
time-out (CPython 3.8 to 3.14). It computes the time that is left once more after each step: after
a signal, after another thread took the item, and after an earlier ``put`` for which nobody waited.
If the time has run out by then, what is left is negative, and that means *for ever* to the lock
below. A short time-out, or a busy machine, is enough.

Signals. ``put`` adds the item and wakes the thread that waits in one step in C, so no handler of
a signal runs in between (:mod:`ccid.link.locks` has the rules). It may be called anywhere, in such
a handler and while objects are collected, too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from itertools import repeat
from operator import call
from queue import Empty
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_run = deque[None](maxlen=0).extend


class Mailbox(Generic[T]):
    """Has what is used of :class:`queue.SimpleQueue`, and waits no longer than it is told to."""

    __slots__ = ("__weakref__", "_bell", "_items", "_put")

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._bell = threading.Lock()
        """Free while it rings."""
        self._bell.acquire()
        self._put: tuple[Any, Any] = self._items.append, self._bell.__exit__

    def put(self, item: T) -> None:
        """Add ``item``, and wake a thread that waits. Never blocks."""
        try:
            _run(map(call, self._put, repeat(item)))
        except RuntimeError:
            return  # it rings already

    def get(self, timeout: float | None = None) -> T:
        """Take the oldest item; wait until there is one.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Raises:
            queue.Empty: There was none in time.
        """
        deadline = 0.0
        while True:
            try:
                return self._items.popleft()
            except IndexError:
                left_s = -1.0
            if timeout is not None:
                now = time.monotonic()
                deadline = deadline or now + timeout
                left_s = max(0.0, deadline - now)
            if not self._bell.acquire(timeout=left_s):
                raise Empty
            if len(self._items) > 1:  # it rings once for several, and another thread may wait
                self._ring()

    def get_nowait(self) -> T:
        """Take the oldest item.

        Raises:
            queue.Empty: There is none.
        """
        try:
            return self._items.popleft()
        except IndexError:
            raise Empty from None

    def empty(self) -> bool:
        """Whether there is no item."""
        return not self._items

    def qsize(self) -> int:
        """How many items there are."""
        return len(self._items)

    def _ring(self) -> None:
        with suppress(RuntimeError):
            self._bell.release()
