"""Readers that nobody closed: the forgotten ones, and those that are open when Python ends.

Theory of operation. A forgotten reader is found by the garbage collector, and that comes when it
likes: within any lock, in a callback of libusb, while Python ends. Closing a reader takes locks and
talks over USB, so ``Reader.__del__`` does neither: it puts the reader into a queue, and a thread
takes it from there. Whoever opens a reader meanwhile has the queue emptied first: it may be the
same reader.
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
from ccid.ground.once import Once

if TYPE_CHECKING:
    from ccid.device.reader import Reader

logger = logging.getLogger("ccid.reader")


class Unclosed:
    """The readers of this process that are to be closed."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew; in a forked child, where all of them are the parent's."""
        self._open: dict[weakref.ref[Reader], None] = {}
        self._forgotten: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        self._closing = threading.RLock()
        self._ends = False

    def opened(self, reader: Reader) -> None:
        """``reader`` is to be closed before Python ends."""
        _close_at_end()
        self._open[weakref.ref(reader, self._gone)] = None

    def closed(self, reader: Reader) -> None:
        """It was closed."""
        self._open.pop(weakref.ref(reader), None)

    def _gone(self, reference: weakref.ref[Reader]) -> None:
        self._open.pop(reference, None)

    def forgotten(self, reader: Reader) -> None:
        """Nobody has ``reader`` any more: have it closed soon. For ``__del__``: this neither
        waits nor takes a lock that Python code holds."""
        self._forgotten.put(reader)
        with suppress(RuntimeError):  # no thread: the next to open a reader closes this one
            _thread.start_new_thread(self._start, ())

    def _start(self) -> None:
        """Start the thread that closes, from one that holds no lock: one that
        :mod:`threading` does not know is no place to close a reader in."""
        with suppress(RuntimeError):
            threading.Thread(target=self.settle, name="ccid forgotten", daemon=True).start()

    def settle(self) -> None:
        """Close what was forgotten. When this returns, that is closed."""
        with self._closing:
            while True:
                try:
                    reader = self._forgotten.get_nowait()
                except queue.Empty:
                    return
                self._close(reader)
                del reader

    def before_opening(self) -> None:
        """To be called by whoever is about to open a reader.

        Raises:
            ReaderClosed: Python ends, and this is not the thread that calls its exit handlers.
        """
        if self._ends and threading.current_thread() is not threading.main_thread():
            raise ReaderClosed("Python ends: no reader is opened any more")
        self.settle()

    def close_all(self) -> None:
        """Close every reader: Python ends."""
        self._ends = True
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
_close_at_end = Once(lambda: at_exit.add(unclosed.close_all))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=unclosed.reset)
