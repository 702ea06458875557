"""Locks that ``with`` takes and gives back with no signal in between.

Python runs the handler of a signal (Ctrl-C) between two steps of a program, and an exception of the
handler ends what is done. Up to CPython 3.13 no handler runs between the ``__enter__`` of a lock,
which is C, and the block of its ``with``. CPython 3.14 runs it there (its issue 148874): then the
block is left without ``__exit__``, and the lock is held for ever.

It runs none behind a function in Python that returns, nor behind a step of a ``for`` that takes the
next value of an iterator in C. So the locks for CPython 3.14 have an ``__enter__`` that does just
that: the iterator acquires the lock. Their ``__exit__`` is the one of the lock itself. So ``with``
keeps the lock itself in memory, and not the object around it: who finds that by a weak reference
keeps it in a variable, too.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

IS_NEEDED = sys.version_info[:2] == (3, 14)
"""This Python may have the fault. Where a later 3.14 has not, the locks are right as well."""


class SignalSafeLock:
    """A lock in place of a :class:`threading.Lock` or a :class:`threading.RLock`.

    Args:
        lock: The lock proper.
    """

    __slots__ = (
        "__exit__", "__weakref__", "_acquiring", "_is_owned", "acquire", "locked", "release",
    )  # fmt: skip

    __exit__: Callable[..., None]
    """Of the lock, and so in C: a function in Python may be ended before its first step."""

    def __init__(self, lock: Any) -> None:
        self._acquiring: Iterator[bool] = iter(lock.acquire, None)
        self.acquire, self.release = lock.acquire, lock.release
        self.__exit__ = lock.__exit__
        for name in ("locked", "_is_owned"):
            if hasattr(lock, name):
                setattr(self, name, getattr(lock, name))

    def __enter__(self) -> bool:
        for _ in self._acquiring:
            return True  # no step between this and the block of ``with`` may be a call
        raise AssertionError("an iterator without an end has ended")


def new_lock() -> threading.Lock:
    """A :class:`threading.Lock`, or what is one for ``with``, ``acquire`` and ``release``."""
    lock = threading.Lock()
    return cast("threading.Lock", SignalSafeLock(lock)) if IS_NEEDED else lock


def new_rlock() -> threading.RLock:
    """A :class:`threading.RLock`, or what is one for ``with``, ``acquire`` and ``release``."""
    lock = threading.RLock()
    return cast("threading.RLock", SignalSafeLock(lock)) if IS_NEEDED else lock
