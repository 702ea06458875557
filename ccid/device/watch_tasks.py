"""What a watch does with one reader, in a thread for each task.

Opening a reader, asking for the status of its slots, and closing it may take seconds: the reader
may not answer, and a thread of the application may have the turn. So each of these is a
:class:`Task`, and a watch (:mod:`ccid.device.watching`) waits for a task only for a moment. A slow
reader does not delay the events of other readers.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from ccid.device.open_readers import opened
from ccid.device.reader import Reader
from ccid.device.verdict import Level, judge
from ccid.errors import AccessDenied, CcidError, ReaderBusy, ReaderRemoved
from ccid.ground.signal_safe_locks import new_lock
from ccid.transport import ReaderInfo

logger = logging.getLogger("ccid.watch")


class Task(ABC, threading.Thread):
    """One task, in a thread of its own.

    Args:
        name: Name of the thread.

    Attributes:
        done: Set when the task has ended.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.done = threading.Event()

    def begin(self) -> None:
        """Begin the task in its thread; do the whole task here if no thread can be started."""
        try:
            self.start()
        except RuntimeError as error:
            logger.info("%s: %s", self.name, error)
            self.run()

    @abstractmethod
    def run(self) -> None:
        """Do the task, then set :attr:`done`."""


class Attachment:
    """An open reader to which a watch listens.

    Args:
        reader: The open reader.
        is_lent: The reader was opened for the watch; the attachment closes the reader at the end.

    Attributes:
        reader: The open reader.
        is_lent: The reader was opened for the watch.
    """

    def __init__(self, reader: Reader, is_lent: bool) -> None:
        self.reader = reader
        self.is_lent = is_lent
        self._ends: list[Callable[[], None]] = []

    def listen(self, tell: Callable[[object], None]) -> None:
        """Call ``tell`` for each change of a card, and for each notification.

        Args:
            tell: Called from any thread, with details that a watch does not need. Must not block.

        Raises:
            CcidError: The reader cannot be listened to.
        """
        self._ends.append(self.reader.cards.listen(tell))
        self._ends.append(self.reader.listen(tell))

    def end(self) -> None:
        """Stop listening, and close the reader if it is lent. A second call has no effect."""
        for end in self._ends:
            end()
        if self.is_lent:
            opened.give_back(self.reader)


class OpenTask(Task):
    """Opens a reader for a watch, listens to the reader, and asks for the status of its slots.

    Args:
        info: The reader.
        notify: Called when the watch has something to report; from any thread.

    Attributes:
        is_gone: The reader is not on USB any more.
        is_refused: Another process holds the reader, or this user may not open the device.
        cannot_listen: The reader could be opened, but no thread is left to listen to it.
        has_failed: The reader could not be opened, for none of these reasons: it did not answer, or
            answered wrongly.
    """

    def __init__(self, info: ReaderInfo, notify: Callable[[], object]) -> None:
        super().__init__(f"watch {info.path}")
        self._info = info
        self._notify = notify
        self._lock = new_lock()
        self._is_abandoned = False
        self._attachment: Attachment | None = None
        self.is_gone = self.is_refused = self.cannot_listen = self.has_failed = False

    @property
    def reader(self) -> Reader | None:
        """The open reader; None if it is not open, or not open yet."""
        return None if self._attachment is None else self._attachment.reader

    @property
    def is_lent(self) -> bool:
        """The reader was opened for the watch, and must be closed at the end."""
        return self._attachment is not None and self._attachment.is_lent

    def run(self) -> None:
        """Open the reader and ask for the status of its slots."""
        try:
            reader = self._attach()
            if reader is not None:
                ask_for_status(reader)
        except ReaderRemoved:
            self.is_gone = True
        except CcidError as error:
            self.is_refused = isinstance(error, AccessDenied | ReaderBusy)
            self.has_failed = not (self.is_refused or self.cannot_listen)
            logger.info("%s: its cards are not watched: %s", self._info, error)
        finally:
            self.done.set()
            self._notify()

    def _attach(self) -> Reader | None:
        """Open the reader and listen to it. None if the watch cannot have the reader, or does not
        need it any more."""
        if judge(self._info).level is Level.UNSUPPORTED:
            logger.info("%s cannot be used: its cards are not watched", self._info)
            return None
        reader, is_lent = opened.borrow(self._info, partial(Reader, reopen=False))
        if reader is None:
            return None  # an application opens the reader; the watch gets a notice of that
        attachment = Attachment(reader, is_lent)
        try:
            attachment.listen(self._event_came)
            with self._lock:
                if not self._is_abandoned:
                    self._attachment = attachment
        except CcidError:
            self.cannot_listen = True
            raise
        finally:
            if self._attachment is None:
                attachment.end()
        return self.reader

    def _event_came(self, _details: object) -> None:
        self._notify()

    def abandon(self) -> None:
        """Stop listening, and close the reader if it was opened for the watch; do so as soon as
        the reader is open, if the task is not done. A second call has no effect."""
        with self._lock:
            self._is_abandoned = True
        if self._attachment is not None:
            self._attachment.end()


class StatusTask(Task):
    """Asks for the status of the slots of an open reader.

    Args:
        reader: The open reader.
        notify: Called when the task has ended; from any thread.
    """

    def __init__(self, reader: Reader, notify: Callable[[], object]) -> None:
        super().__init__(f"watch {reader.info.path}")
        self._reader = reader
        self._notify = notify

    def run(self) -> None:
        """Ask for the status of the slots."""
        try:
            ask_for_status(self._reader)
        except ReaderRemoved:
            logger.info("%s is gone", self._reader.info)
        finally:
            self.done.set()
            self._notify()


class CloseTask(Task):
    """Abandons an :class:`OpenTask`: closing a reader that does not answer takes seconds.

    Args:
        opening: The task that opened the reader.
    """

    def __init__(self, opening: OpenTask) -> None:
        super().__init__(f"leaving {opening.name}")
        self._opening = opening

    def begin(self) -> None:
        """Begin the task in its thread; do the whole task here if no reader must be closed."""
        if self._opening.is_lent:
            super().begin()
        else:
            self.run()

    def run(self) -> None:
        """Abandon the task that opened the reader."""
        try:
            self._opening.abandon()
        finally:
            self.done.set()


def ask_for_status(reader: Reader) -> None:
    """Send GetSlotStatus (USB CCID rev 1.1, 6.1.3) to all slots. Those that listen to
    ``reader.cards`` get the changes.

    Args:
        reader: The open reader.

    Raises:
        ReaderRemoved: The reader is gone.
    """
    for slot in reader.slots:
        try:
            slot.commands.slot_status()
        except ReaderRemoved:
            raise
        except CcidError as error:
            logger.info("%s: slot %d: %s", reader.info, slot.index, error)
