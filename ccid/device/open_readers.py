"""Which readers this process has open, and who wants to know of it.

Theory of operation. An application's reader goes before a watcher's (:mod:`ccid.device.watching`):
whoever opens one says so first, and a watcher that has it open gives it up before the claim is
made. One lock per reader keeps a watcher from taking it back in between.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ccid.errors import ReaderRemoved

if TYPE_CHECKING:
    from ccid.device.reader import Reader
    from ccid.transport import ReaderInfo

Key = tuple[str, int, int]
"""Path, bus and address: another device at the same place has another."""


def key_of(info: ReaderInfo) -> Key:
    """What tells ``info`` from all other readers."""
    return (info.path, info.bus, info.address)


class Opened:
    """The readers that are open.

    Attributes:
        readers: The open readers of this process, by place.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew; in a forked child, where all of this is the parent's."""
        self.readers: WeakValueDictionary[Key, Reader] = WeakValueDictionary()
        self._wanted: dict[Key, int] = {}
        self._lent: dict[Key, Reader] = {}
        self._locks: defaultdict[Key, threading.RLock] = defaultdict(threading.RLock)
        self._guard = threading.RLock()  # within it a forgotten reader may be collected, and closed
        self._tellers: tuple[Callable[[ReaderInfo], None], ...] = ()
        self._mine = threading.local()

    def _lock(self, key: Key) -> threading.RLock:
        with self._guard:
            return self._locks[key]

    def listen(self, tell: Callable[[ReaderInfo], None]) -> Callable[[], None]:
        """Have ``tell`` called whenever a reader was opened or closed. It must not wait for
        anything. Returns what ends this."""

        def end() -> None:
            with self._guard:
                self._tellers = tuple(one for one in self._tellers if one is not tell)

        try:
            with self._guard:
                self._tellers = (*self._tellers, tell)
        except BaseException:  # as Ctrl-C, behind it
            end()
            raise
        return end

    def _tell(self, info: ReaderInfo) -> None:
        for tell in self._tellers:
            tell(info)

    # What Reader says -----------------------------------------------------------------------------

    @contextmanager
    def opening(self, info: ReaderInfo) -> Iterator[None]:
        """``info`` is opened within this; a watcher gives it up first."""
        if getattr(self._mine, "lends", False):
            yield
            return
        key, is_wanted = key_of(info), False
        try:
            with self._lock(key):
                self._wanted[key] = self._wanted.get(key, 0) + 1
                is_wanted = True
                lent = self._lent.pop(key, None)
                if lent is not None:
                    lent.close()
            yield
        except BaseException:
            with self._guard:  # and nothing called before: a signal may come then, too
                if is_wanted:
                    self._wanted[key] -= 1
            self._tell(info)
            raise

    def opened(self, reader: Reader) -> None:
        """It is open."""
        self.readers[key_of(reader.info)] = reader
        self._tell(reader.info)

    def closed(self, reader: Reader) -> None:
        """It was closed, and given back."""
        key = key_of(reader.info)
        if self.readers.get(key) is reader:
            del self.readers[key]
        if not getattr(reader, "is_lent", False):
            self._unwanted(key)
        self._tell(reader.info)

    def _unwanted(self, key: Key) -> None:
        with self._guard:
            if self._wanted.get(key, 0) > 1:
                self._wanted[key] -= 1
            else:
                self._wanted.pop(key, None)

    # What a watcher does --------------------------------------------------------------------------

    def borrow(
        self, info: ReaderInfo, open_it: Callable[[ReaderInfo], Reader]
    ) -> tuple[Reader | None, bool]:
        """The reader, if this process has it open; else open it for a watcher, until an
        application wants it.

        Args:
            info: Which reader.
            open_it: Opens it.

        Returns:
            The reader, or None while an application opens it; and whether the caller is to
            :meth:`give_back` the reader.

        Raises:
            CcidError: It cannot be opened.
        """
        key = key_of(info)
        with self._lock(key):
            there = self.readers.get(key)
            if there is not None and not isinstance(there.transport.dead, ReaderRemoved):
                return there, False
            # one that was unplugged stays open until it is closed; another may be in its place
            if self._wanted.get(key, 0) > (there is not None and not there.is_lent):
                return None, False
            self._mine.lends = True
            try:
                made = open_it(info)
            finally:
                self._mine.lends = False
            made.is_lent = True
            self._lent[key] = made
            return made, True

    def give_back(self, reader: Reader) -> None:
        """A watcher needs it no more."""
        key = key_of(reader.info)
        with self._lock(key):
            if self._lent.get(key) is reader:
                del self._lent[key]
            reader.close()


opened = Opened()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=opened.reset)
