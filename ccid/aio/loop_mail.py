"""How threads tell an event loop that something is over.

To wake a loop costs more than all else that a command of a task costs beside the command itself.
asyncio wakes its loop by a byte in a pair of sockets, which it reads until none is left: three
system calls, two objects and an exception. On Linux an eventfd of our own does so by two calls.
Where there is none, or a loop takes no descriptor (that of Windows), asyncio's own way serves.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from weakref import WeakValueDictionary


class Told(Protocol):
    """What is over."""

    def tell(self) -> None:
        """Tell the task that waits. Called in the loop."""


class EventDescriptor:
    """An eventfd that has a loop call something. Whoever knows this object last closes it: the
    loop does until :meth:`end`, or until it is closed itself.

    Args:
        loop: The loop.
        call: What the loop calls.

    Raises:
        OSError: The process has no descriptor left.
        AttributeError, NotImplementedError: The system has none such, or the loop takes none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
        self._fd = -1
        self._loop = loop
        self._call = call
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.add_reader(self._fd, self._ring)

    def wake(self) -> None:
        """Have the loop call what it has to. Called in any thread."""
        os.eventfd_write(self._fd, 1)

    def _ring(self) -> None:
        os.eventfd_read(self._fd)
        self._call()

    def end(self) -> None:
        """Have the loop forget this object. Called in any thread."""
        with suppress(RuntimeError):  # the loop is closed, and has forgotten it
            self._loop.call_soon_threadsafe(self._loop.remove_reader, self._fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class LoopMail:
    """Tells one event loop what is over. What ends while the loop is busy with others does not wake
    it once more.

    Args:
        loop: The loop. Its thread is the one that makes this object.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._box = _Box()
        self._ending: _Ending | None = None
        self._wake: Callable[[], object] = self._call_soon
        with suppress(AttributeError, NotImplementedError, OSError):
            descriptor = EventDescriptor(loop, self._box.deliver)
            self._ending = _Ending(descriptor)
            self._wake = descriptor.wake

    def put(self, what: Told) -> None:
        """Have the loop call ``what.tell()``. Called in any thread."""
        box = self._box
        box.over.append(what)
        if not box.is_called:  # else deliver() is yet to look at the deque
            box.is_called = True
            self._wake()

    def _call_soon(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: no task waits any more
            self._loop.call_soon_threadsafe(self._box.deliver)


class _Ending:
    """Ends a descriptor when its mail is forgotten. The mail has no ``__del__`` of its own: while
    that runs, perhaps in another thread, :func:`mail_of` would still find the mail, and a reader
    that is opened just then would have one that wakes its loop no more.

    Args:
        descriptor: The descriptor.
    """

    def __init__(self, descriptor: EventDescriptor) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        self._descriptor.end()


class _Box:
    """What is over and not told yet. The loop knows it, and not the mail."""

    __slots__ = ("is_called", "over")

    def __init__(self) -> None:
        self.over: deque[Told] = deque()
        self.is_called = False

    def deliver(self) -> None:
        self.is_called = False
        for _ in range(len(self.over)):
            self.over.popleft().tell()


_mails: WeakValueDictionary[int, LoopMail] = WeakValueDictionary()
"""By the identity of its loop, which it keeps."""


def mail_of(loop: asyncio.AbstractEventLoop) -> LoopMail:
    """The mail of a loop: the same for all readers, as long as one of them keeps it.

    Args:
        loop: The loop that runs in this thread.
    """
    mail = _mails.get(id(loop))
    if mail is None:
        mail = _mails[id(loop)] = LoopMail(loop)
    return mail
