"""Closes the readers that the application did not close.

Theory of operation. There are two kinds: readers that the application lost without closing them,
and readers that are open when Python ends. The garbage collector finds the first kind, and the
garbage collector runs at any time: while a thread holds a lock, in a callback of libusb, while
Python ends. Closing a reader acquires locks and uses USB. So ``Reader.__del__`` closes nothing: the
method puts the reader into a queue, and a thread closes the readers in the queue. Opening a reader
empties the queue first, because the queue may hold the same reader. An exit handler closes the
second kind.
"""

from __future__ import annotations

import _thread
import logging
import os
import queue
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from ccid.errors import ReaderClosed
from ccid.ground import at_exit
from ccid.ground.mailbox import Mailbox
from ccid.ground.once import Once
from ccid.ground.signal_safe_locks import new_rlock

if TYPE_CHECKING:
    from ccid.device.reader import Reader

logger = logging.getLogger("ccid.reader")


class Unclosed:
    """The readers of this process that still must be closed. There is one object:
    :data:`unclosed`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: in a forked child all readers are the parent's."""
        self._open: dict[weakref.ref[Reader], None] = {}
        """The open readers, in the order of opening."""
        self._lost: Mailbox[Reader] = Mailbox()
        self._closing = new_rlock()
        self._python_ends = False

    def opened(self, reader: Reader) -> None:
        """Register a reader that is open now: the exit handler closes it, if nothing else does.

        Args:
            reader: The reader.
        """
        _close_at_end()
        self._open[weakref.ref(reader, self._gone)] = None

    def closed(self, reader: Reader) -> None:
        """Remove a reader that is closed now.

        Args:
            reader: The reader.
        """
        self._open.pop(weakref.ref(reader), None)

    def _gone(self, reference: weakref.ref[Reader]) -> None:
        self._open.pop(reference, None)

    def forgotten(self, reader: Reader) -> None:
        """Close a reader soon, in another thread. For ``Reader.__del__``: this method neither
        blocks nor acquires a lock that Python code holds.

        Args:
            reader: A reader to which the application has no reference any more.
        """
        self._lost.put(reader)
        with suppress(RuntimeError):  # no thread can be started: before_opening() closes the reader
            _thread.start_new_thread(self._start, ())

    def _start(self) -> None:
        """Start the thread that closes readers.

        This method runs in a thread of its own, which holds no lock. :mod:`threading` does not know
        that thread, so no reader can be closed in it.
        """
        with suppress(RuntimeError):
            threading.Thread(target=self.settle, name="ccid forgotten", daemon=True).start()

    def settle(self) -> None:
        """Close all readers in the queue. They are closed when this method returns."""
        with self._closing:
            while True:
                try:
                    reader = self._lost.get_nowait()
                except queue.Empty:
                    return
                self._close(reader)
                del reader

    def before_opening(self) -> None:
        """Close all readers in the queue. :class:`ccid.Reader` calls this before it opens a reader.

        Raises:
            ReaderClosed: Python ends, and the calling thread does not run the exit handlers.
        """
        if self._python_ends and threading.current_thread() is not threading.main_thread():
            raise ReaderClosed("Python ends: no reader is opened any more")
        self.settle()

    def close_all(self) -> None:
        """Close every reader. The exit handler: Python ends."""
        self._python_ends = True
        self.settle()
        for reference in reversed(self._open.copy()):
            reader = reference()
            if reader is not None:
                self._close(reader)

    def _close(self, reader: Reader) -> None:
        try:
            reader.close()
        except Exception:
            logger.exception("%s cannot be closed", reader.name)


unclosed = Unclosed()
"""The readers of this process that still must be closed."""
_close_at_end = Once(lambda: at_exit.add(unclosed.close_all))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=unclosed.reset)
