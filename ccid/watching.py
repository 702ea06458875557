"""Readers and cards that come and go.

Theory of operation. All work is done in the thread that iterates; others (libusb's event thread,
applications that open and close readers) only put a notice into its queue. So an application may
open a reader between two events, in the same thread or in another.

libusb goes on listing a device for a moment after its transfers ended because it was unplugged, and
the next one may get its address. So what is listed is believed to be there only if it can be opened
or another holds it.
"""

from __future__ import annotations

import atexit
import enum
import logging
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ccid.codes import IccStatus
from ccid.errors import AccessDenied, CcidError, ReaderBusy, ReaderForked, ReaderRemoved
from ccid.find import list_readers
from ccid.opened import Key, key_of, opened
from ccid.transport import ReaderInfo
from ccid.verdict import Level, judge

if TYPE_CHECKING:
    from ccid.messages.events import SlotChange
    from ccid.reader import Reader

logger = logging.getLogger("ccid.watch")

POLL_S = 0.5
"""How often a reader that does not tell is asked for its slots."""
COMPARE_S = 1.0
"""How often the devices are listed where libusb does not tell."""


class EventKind(enum.Enum):
    """What happened."""

    READER_ARRIVED = "reader arrived"
    READER_LEFT = "reader left"
    CARD_ARRIVED = "card arrived"
    CARD_LEFT = "card left"


@dataclass(frozen=True, slots=True)
class Event:
    """A reader or a card came or went.

    Attributes:
        kind: What happened.
        reader: To which reader, or to the card of which.
        slot: The card's slot, from 0; None for a reader.
    """

    kind: EventKind
    reader: ReaderInfo
    slot: int | None = None


LONGEST_S = 1e9
"""A longer time than this is never over, and no system can wait for it."""


def watch(timeout: float | None = None) -> Generator[Event, None, None]:
    """Readers and cards as they come and go; what is there at the start comes first.

    It waits and does not ask, but for readers without an interrupt endpoint, whose slots are asked
    for twice a second (USB CCID rev 1.1, 6.1.3), and where libusb does not tell of devices, which
    are then listed once a second. No card is powered. A reader that this process has open is
    shared; one that another holds is told of without its cards, and tried again when something is
    plugged in or out; all others are open while this waits, and given up as soon as this process
    opens them. Begins with the first ``next()``.

    Args:
        timeout: Seconds without an event after which this ends; None for never.

    Raises:
        UsbUnavailable: libusb cannot be loaded.
        ReaderForked: It began in the parent of this process: only there events are told.
        ValueError: A negative time.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"a time of {timeout} s")
    return _watch(None if timeout is not None and timeout > LONGEST_S else timeout)


def _watch(timeout: float | None) -> Generator[Event, None, None]:
    watcher = _Watcher()
    try:
        watcher.start()
        yield from watcher.events(timeout)
    finally:
        watcher.end()


@dataclass(slots=True, eq=False)
class _Watched:
    """A reader that is there."""

    info: ReaderInfo
    cards: set[int] = field(default_factory=set)
    reader: Reader | None = None
    is_mine: bool = False
    announced: set[int] = field(default_factory=set)
    """The slots of which the reader said last that they are full."""
    is_refused: bool = False
    leave: Callable[[], None] | None = None

    @property
    def is_polled(self) -> bool:
        interface = self.info.reader
        return self.reader is not None and not (interface.is_iccd or interface.interrupt_in)


_Said = tuple["_Watched", "Reader", "list[SlotChange] | None"]


class _Watcher:
    def __init__(self) -> None:
        self._notices: queue.SimpleQueue[_Said | ReaderInfo | None] = queue.SimpleQueue()
        self._there: dict[Key, _Watched] = {}
        self._told: deque[Event] = deque()
        self._ends: list[Callable[[], None]] = []
        self._compares = False
        self._owner = os.getpid()

    def start(self) -> None:
        from ccid.transport.asynchronous import on_hotplug

        self._ends.append(opened.listen(self._notices.put))
        end = on_hotplug(lambda: self._notices.put(None))
        atexit.register(self.end)  # libusb is loaded by now: so this is done before it is ended
        if end is None:
            logger.info("libusb does not tell who comes and goes: devices are listed each second")
            self._compares = True
        else:
            self._ends.append(end)
        self._discover(list_readers())
        for reader in list(opened.readers.values()):
            self._changed_hands(reader.info)

    def end(self) -> None:
        atexit.unregister(self.end)
        while self._ends:
            self._ends.pop()()
        for one in self._there.values():
            self._unlink(one)

    def events(self, timeout: float | None) -> Generator[Event, None, None]:
        happened, now = time.monotonic(), time.monotonic()
        poll_at, compare_at = now + POLL_S, now + COMPARE_S
        while True:
            while self._told:
                yield self._told.popleft()
                happened = time.monotonic()
                self._check()
            now = time.monotonic()
            times = [happened + timeout] if timeout is not None else []
            if any(one.is_polled for one in self._there.values()):
                times.append(poll_at)
            if self._compares:
                times.append(compare_at)
            try:
                wait = max(0.0, min(times) - now) if times else None
                self._handle(self._notices.get(timeout=wait))
                continue
            except queue.Empty:
                now = time.monotonic()
            if now >= poll_at:
                poll_at = now + POLL_S
                for one in list(self._there.values()):
                    if one.is_polled:
                        self._ask(one)
            if self._compares and now >= compare_at:
                compare_at = now + COMPARE_S
                self._rediscover()
            if timeout is not None and now >= happened + timeout and not self._told:
                return

    def _check(self) -> None:
        if self._owner != os.getpid():
            raise ReaderForked(
                f"this watch began in process {self._owner}, and this is its fork {os.getpid()}: "
                f"nothing is told here. Begin another"
            )

    # What came ------------------------------------------------------------------------------------

    def _handle(self, notice: _Said | ReaderInfo | None) -> None:
        if notice is None:
            self._rediscover()
        elif isinstance(notice, ReaderInfo):
            self._changed_hands(notice)
        else:
            one, reader, slots = notice
            if one.reader is not reader:
                return
            if isinstance(reader.transport.dead, ReaderRemoved):
                self._gone(one)
            elif slots is not None:
                self._said(one, slots)

    def _rediscover(self) -> None:
        try:
            self._discover(list_readers())
        except CcidError as error:
            logger.info("the devices cannot be listed: %s", error)

    def _discover(self, infos: list[ReaderInfo]) -> None:
        keys = {key_of(info) for info in infos}
        for key, one in list(self._there.items()):
            if key not in keys and not one.info.path.startswith("virtual:"):
                self._gone(one)
            elif one.is_refused and not self._compares:
                self._relink(one)
        for info in infos:
            if key_of(info) not in self._there:
                self._arrived(info)

    def _arrived(self, info: ReaderInfo) -> None:
        one = _Watched(info)
        if self._link(one):
            self._there[key_of(info)] = one
            self._told.append(Event(EventKind.READER_ARRIVED, info))
            self._ask(one)

    def _gone(self, one: _Watched) -> None:
        if self._there.get(key_of(one.info)) is not one:
            return
        del self._there[key_of(one.info)]
        self._unlink(one)
        for slot in sorted(one.cards):
            self._told.append(Event(EventKind.CARD_LEFT, one.info, slot))
        self._told.append(Event(EventKind.READER_LEFT, one.info))
        self._notices.put(None)  # another may have its address already

    def _changed_hands(self, info: ReaderInfo) -> None:
        """It was opened or closed by somebody in this process."""
        one, reader = self._there.get(key_of(info)), opened.readers.get(key_of(info))
        if one is None:
            if reader is not None and reader.transport.dead is None:
                self._arrived(info)
        elif one.reader is None or one.reader is not reader:
            self._relink(one)

    # One reader -----------------------------------------------------------------------------------

    def _relink(self, one: _Watched) -> None:
        self._unlink(one)
        if self._link(one):
            self._ask(one)
        else:
            self._gone(one)

    def _link(self, one: _Watched) -> bool:
        """Listen to it, if it can be had. False if it is not there any more."""
        one.is_refused = False
        try:
            if judge(one.info).level is Level.UNSUPPORTED:
                logger.info("%s cannot be used: its cards are not watched", one.info)
                return True
            reader, one.is_mine = opened.borrow(one.info)
            if reader is None:
                return True  # it is being opened, and that will be told
            one.reader, one.announced = reader, set(reader.changes.announced)
            one.leave = reader.listen(lambda slots: self._notices.put((one, reader, slots)))
        except ReaderRemoved:
            self._unlink(one)
            return False
        except CcidError as error:
            one.is_refused = isinstance(error, AccessDenied | ReaderBusy)
            logger.info("%s: its cards are not watched: %s", one.info, error)
        return True

    def _unlink(self, one: _Watched) -> None:
        reader, one.reader = one.reader, None
        leave, one.leave = one.leave, None
        if leave is not None:
            leave()
        if reader is not None and one.is_mine:
            opened.give_back(reader)
        one.is_mine = False

    def _ask(self, one: _Watched) -> None:
        reader = one.reader
        if reader is None:
            return
        for slot in reader.slots:
            try:
                present = slot.commands.slot_status().icc is not IccStatus.ABSENT
            except ReaderRemoved:
                self._gone(one)
                return
            except CcidError as error:
                logger.info("%s: slot %d: %s", one.info, slot.index, error)
                continue
            self._is(one, slot.index, present)

    def _said(self, one: _Watched, slots: list[SlotChange]) -> None:
        for slot, present, changed in slots:
            was_announced = slot in one.announced
            (one.announced.add if present else one.announced.discard)(slot)
            if present and changed and was_announced:  # else its own arrival, told late
                self._is(one, slot, False)
            self._is(one, slot, present)

    def _is(self, one: _Watched, slot: int, present: bool) -> None:
        if present and slot not in one.cards:
            one.cards.add(slot)
            self._told.append(Event(EventKind.CARD_ARRIVED, one.info, slot))
        elif not present and slot in one.cards:
            one.cards.discard(slot)
            self._told.append(Event(EventKind.CARD_LEFT, one.info, slot))
