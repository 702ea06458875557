"""The locks of a conversation, and what a signal may do while they are held.

Signals. Python runs the handler of a signal (Ctrl-C) between two steps of a program. An exception
that the handler raises ends what the thread is doing. So these rules hold for every lock below
:mod:`ccid.device.reader`:

- A lock is an RLock of :mod:`ccid.ground.signal_safe_locks` and is entered by ``with``: no handler
  runs between its two ends and the block. ``acquire()`` lets a handler run before its result is
  looked at. So does an ``__enter__`` or ``__exit__`` in Python, as those of Condition, Semaphore
  and Event are.
- Threads wake each other by a Mailbox and wait on it in slices: a lost notice costs one slice.
- A note that holds only while a lock is held is made within ``try`` and removed in its
  ``finally``, in the same function, with no call before it.
  :meth:`ccid.link.conversation.Conversation.perform` does so for all.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator
from operator import methodcaller
from typing import Any, NoReturn

from ccid.errors import CcidError

SLICE_MS = 250
"""A wait looks so often whether it is still wanted."""
QUIET_S = 10.0
"""Closing waits so long for a command under way to end."""
IDLE_S = 2.0
"""Closing waits so long for a thread that keeps its turn and has no command under way: it may
compute, or sleep, between two APDUs."""


def nothing_meanwhile() -> None:
    """For a wait with nothing to do meanwhile."""


class Shut:
    """Replaces the lock when no command can be sent any more: to enter it raises the reason.

    The path of every APDU enters the lock in any case, so it needs no flag. And a forked child
    must never wait for a lock that a thread of its parent holds.
    """

    def __init__(self, reason: CcidError) -> None:
        self.reason = reason

    def acquire(self, blocking: bool = True, timeout: float = -1) -> NoReturn:
        raise copy.copy(self.reason)

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        """Never reached: entering raises."""

    release = __exit__

    @staticmethod
    def _is_owned() -> bool:
        """No thread holds it."""
        return False


Lock = Any  # threading.RLock is a function before Python 3.13; or a Shut


def take(lock: Lock, taken: list[Lock], timeout_s: float) -> bool:
    """Acquire ``lock`` within ``timeout_s``; False if that fails.

    ``lock`` is added to ``taken`` first: a signal handler may raise right after the lock is
    acquired, and the lock must be known as taken by then. A lock that this thread already holds is
    left alone: the outer holder releases it."""
    if lock._is_owned():
        return True
    taken.append(lock)
    acquired: bool = lock.acquire(timeout=timeout_s)
    return acquired


def giving_back(taken: list[Lock]) -> Iterator[None]:
    """An iterator that releases those of ``taken`` that this thread holds; :data:`run` runs it.

    All of that happens in C, so no signal handler runs within it; nor before it, where it is the
    first statement of a ``finally``.
    """
    return map(RELEASE, filter(IS_OWNED, taken))


RELEASE, IS_OWNED = methodcaller("release"), methodcaller("_is_owned")
run = deque[None](maxlen=0).extend


class Quiet:
    """Holds locks; see :meth:`ccid.link.conversation.Conversation.quiet`.

    To exit it without entering it, or more than once, does no harm. An ``ExitStack`` that has it
    twice releases the locks even if a signal handler raises as the first exit begins.

    Args:
        locks: The locks.
        meanwhile: Called every :data:`SLICE_MS` while entering waits.
        is_busy: Whether a command is under way.
        idle_s: Seconds to wait for a lock while no command is under way.
    """

    def __init__(
        self,
        locks: list[Lock],
        meanwhile: Callable[[], object],
        is_busy: Callable[[], object] = lambda: True,
        idle_s: float = QUIET_S,
    ) -> None:
        self._locks = locks
        self._meanwhile = meanwhile
        self._is_busy = is_busy
        self._idle_s = idle_s
        self._taken: list[Lock] = []

    def __enter__(self) -> bool:
        back, again = giving_back(self._taken), giving_back(self._taken)
        try:
            try:
                return self._take()
            except BaseException:
                run(back)
                raise
        except BaseException:
            run(again)
            raise

    def _take(self) -> bool:
        busy_at = time.monotonic()
        until, quiet = busy_at + QUIET_S, True
        for lock in self._locks:
            while not take(lock, self._taken, SLICE_MS / 1000):
                self._meanwhile()
                now = time.monotonic()
                busy_at = now if self._is_busy() else busy_at
                if now > min(until, busy_at + self._idle_s):
                    quiet = False
                    break
        return quiet

    def __exit__(self, *_: object) -> None:
        run(giving_back(self._taken))
