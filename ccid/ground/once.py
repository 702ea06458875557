"""What is made once, whichever threads ask for it first at the same moment.

:func:`functools.cache` makes a value twice when two threads miss at once, and throws one away. That
does no harm to a value that is only computed. Of libusb's context there must be one.

A fork waits until no thread makes anything: a child in which half of libusb is loaded, by a thread
that is not there, could never load the rest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_lock = (
    threading.RLock()
)  # the same thread may come again: for another value, or in a signal handler


class Once(Generic[T]):
    """A function without arguments that is called once: when its value is first asked for.

    Args:
        make: It. What it raises is raised, and it is called again next time.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self.__doc__ = make.__doc__

    def __call__(self) -> T:
        if not self._made:
            with _lock:
                if not self._made:
                    # a signal handler that came meanwhile may have made one: the first counts, and
                    # none is thrown away
                    self._made.append(self._make())
        return self._made[0]

    @property
    def is_made(self) -> bool:
        """It was asked for, and is there."""
        return bool(self._made)


def _acquire() -> None:
    _lock.acquire()


def _release() -> None:
    _lock.release()


def _renew() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_renew)
