"""The readers that this process has open.

Theory of operation. Two kinds of users open a reader: the application and a watch
(:mod:`ccid.device.watching`). The application has priority. :class:`ccid.Reader` announces here
that an application opens a reader; if a watch has that reader open, the reader is closed before the
application claims the interface. One lock per reader keeps a watch from opening the reader again
in between.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ccid.errors import ReaderRemoved
from ccid.ground.signal_safe_locks import new_rlock

if TYPE_CHECKING:
    from ccid.device.reader import Reader
    from ccid.transport import ReaderInfo

Key = tuple[str, int, int]
"""Path, bus and address of a reader. The next device at the same port has another address."""


def device_of(info: ReaderInfo) -> str:
    """The place of a reader's device: that of all its interfaces, even after it left USB and came
    back.

    Args:
        info: The reader.
    """
    return info.path.removesuffix(str(info.interface_number))


def key_of(info: ReaderInfo) -> Key:
    """The key of a reader, different from the key of every other reader.

    Args:
        info: The reader.
    """
    return (info.path, info.bus, info.address)


class Opened:
    """The open readers of this process. There is one object: :data:`opened`.

    Attributes:
        readers: The open readers, by key.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: in a forked child all readers are the parent's."""
        self.readers: WeakValueDictionary[Key, Reader] = WeakValueDictionary()
        self._application_counts: dict[Key, int] = {}
        """By key: how many readers applications have open, or are opening."""
        self._lent: dict[Key, Reader] = {}
        """By key: the reader that is open for a watch only."""
        self._locks: WeakValueDictionary[Key, threading.RLock] = WeakValueDictionary()
        """By key: the lock, for as long as a thread holds it or waits for it."""
        # Re-entrant: the garbage collector may run while the lock is held, and close a reader
        self._guard = new_rlock()
        self._listeners: tuple[Callable[[ReaderInfo], None], ...] = ()
        self._thread = threading.local()

    def _lock(self, key: Key) -> threading.RLock:
        """The lock of a reader. The caller keeps it in a variable: ``with`` alone does not keep
        every kind of lock in memory (:mod:`ccid.ground.signal_safe_locks`)."""
        with self._guard:
            lock = self._locks.get(key)
            if lock is None:
                self._locks[key] = lock = new_rlock()
            return lock

    def listen(self, tell: Callable[[ReaderInfo], None]) -> Callable[[], None]:
        """Call ``tell`` from now on whenever a reader was opened or closed.

        Args:
            tell: Called with the reader, in the thread that opened or closed the reader. Must not
                block.

        Returns:
            A function that ends the calls. A second call of that function has no effect.
        """

        def end() -> None:
            with self._guard:
                self._listeners = tuple(one for one in self._listeners if one is not tell)

        try:
            with self._guard:
                self._listeners = (*self._listeners, tell)
        except BaseException:  # Ctrl-C right after ``tell`` was added
            end()
            raise
        return end

    def there(self) -> list[Reader]:
        """The open readers. To iterate over :attr:`readers` may meet another thread that opens or
        closes one."""
        found = (reference() for reference in self.readers.valuerefs())  # a copy, made in one step
        return [reader for reader in found if reader is not None]

    def _tell(self, info: ReaderInfo) -> None:
        for tell in self._listeners:
            tell(info)

    # Calls of Reader ------------------------------------------------------------------------------

    @contextmanager
    def opening(self, info: ReaderInfo) -> Iterator[None]:
        """A context in which a reader is opened, for the first time or again at another place. A
        watch that has the reader open gives it up.

        Args:
            info: The reader.
        """
        if getattr(self._thread, "opens_for_watch", False):
            yield
            return
        key, is_counted = key_of(info), False
        try:
            lock = self._lock(key)
            with lock:
                with self._guard:  # another thread may close such a reader
                    self._application_counts[key] = self._application_counts.get(key, 0) + 1
                    is_counted = True
                lent = self._lent.pop(key, None)
                if lent is not None:
                    lent.close()
            yield
        except BaseException:
            with self._guard:  # the first call here: a signal may come at any call before it
                if is_counted:
                    left = self._application_counts[key] - 1
                    if left:
                        self._application_counts[key] = left
                    else:
                        del self._application_counts[key]
            self._tell(info)
            raise

    def opened(self, reader: Reader) -> None:
        """Register a reader that is open now, and tell the listeners.

        Args:
            reader: The reader.
        """
        self.readers[key_of(reader.info)] = reader
        self._tell(reader.info)

    def moved(self, reader: Reader, before: ReaderInfo) -> None:
        """An application's reader left USB, came back at another address, and is open there
        (:meth:`opening`); tell the listeners.

        Args:
            reader: The reader as it is now.
            before: What it was.
        """
        old, new = key_of(before), key_of(reader.info)
        with self._guard:
            if self.readers.get(old) is reader:
                del self.readers[old]
                self.readers[new] = reader
        self._count_down(old)
        self._tell(reader.info)

    def closed(self, reader: Reader) -> None:
        """Remove a reader that is closed now, and tell the listeners.

        Args:
            reader: The reader.
        """
        key = key_of(reader.info)
        with self._guard:
            if self.readers.get(key) is reader:
                del self.readers[key]
        if not getattr(reader, "is_lent", False):
            self._count_down(key)
        self._tell(reader.info)

    def _count_down(self, key: Key) -> None:
        """An application has one reader less open at ``key``."""
        with self._guard:
            if self._application_counts.get(key, 0) > 1:
                self._application_counts[key] -= 1
            else:
                self._application_counts.pop(key, None)

    # Calls of a watch -----------------------------------------------------------------------------

    def borrow(
        self, info: ReaderInfo, open_it: Callable[[ReaderInfo], Reader]
    ) -> tuple[Reader | None, bool]:
        """The open reader, for a watch. Opens the reader if this process does not have it open.

        A reader that was opened for a watch is closed as soon as an application opens it.

        Args:
            info: The reader.
            open_it: Opens the reader.

        Returns:
            The open reader, or None while an application opens it; and True if the caller must
            :meth:`give_back` the reader.

        Raises:
            CcidError: The reader cannot be opened.
        """
        key = key_of(info)
        lock = self._lock(key)
        with lock:
            open_reader = self.readers.get(key)
            if open_reader is not None and not isinstance(
                open_reader.transport.dead, ReaderRemoved
            ):
                return open_reader, False
            # An unplugged reader stays registered until the application closes it, although another
            # may be in its place by now: that application does not count as opening this reader
            has_unplugged = open_reader is not None and not open_reader.is_lent
            opening = self._application_counts.get(key, 0) - (1 if has_unplugged else 0)
            if opening > 0:
                return None, False
            self._thread.opens_for_watch = True
            try:
                reader = open_it(info)
            finally:
                self._thread.opens_for_watch = False
            reader.is_lent = True
            self._lent[key] = reader
            return reader, True

    def give_back(self, reader: Reader) -> None:
        """Close a reader that :meth:`borrow` opened for a watch.

        Args:
            reader: The reader. A second call with the same reader has no effect.
        """
        key = key_of(reader.info)
        lock = self._lock(key)
        with lock:
            if self._lent.get(key) is reader:
                del self._lent[key]
            reader.close()


opened = Opened()
"""The open readers of this process."""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=opened.reset)
