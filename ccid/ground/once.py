"""A value that is made once, also if several threads ask for the value at the same time.

:func:`functools.cache` makes a value twice if two threads ask at the same time, and discards one.
That is harmless for a computed value. The context of libusb must exist only once.

A fork waits until no thread makes a value. Otherwise the child process might have a half-loaded
libusb without the thread that loads the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from ccid.ground.signal_safe_locks import new_rlock

T = TypeVar("T")

_lock = new_rlock()
"""Reentrant: making a value may need another value, and a signal handler may ask for a value."""


class Once(Generic[T]):
    """A value that is made at the first call.

    Args:
        make: Makes the value. An exception of ``make`` is passed on, and the next call tries
            again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self.__doc__ = make.__doc__

    def __call__(self) -> T:
        """The value."""
        if not self._made:
            with _lock:
                if not self._made:
                    # A signal handler may make a value during self._make(). The first value in the
                    # list counts; the list keeps both.
                    self._made.append(self._make())
        return self._made[0]

    @property
    def is_made(self) -> bool:
        """True if the value was made."""
        return bool(self._made)


def _before_fork() -> None:
    _lock.acquire()


def _after_fork_in_parent() -> None:
    _lock.release()


def _after_fork_in_child() -> None:
    """The lock of the parent belongs to a thread that the child does not have."""
    global _lock
    _lock = new_rlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
