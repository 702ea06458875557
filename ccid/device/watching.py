"""Readers and cards that come and go.

Theory of operation. The thread that iterates keeps the list of what is there and makes the events.
Others (libusb's event thread, applications that open and close readers) only leave a notice that
something happened to a reader: one for each, however much happens before the next event is asked
for. What happened to a card is not decided here: :mod:`ccid.link.card_state` knows whether a slot
has one and how many came, and events are made of the difference to what was told last.

Opening a reader and asking for its slots may take seconds, where the reader does not answer or a
thread of the application has its turn. That is the errand of a thread of its own, which is waited
for a moment only: a slow reader makes nobody else's events late.

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
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field

from ccid.device.find import list_readers
from ccid.device.open_readers import Key, key_of, opened
from ccid.device.reader import Reader
from ccid.device.verdict import Level, judge
from ccid.errors import AccessDenied, CcidError, ReaderBusy, ReaderForked, ReaderRemoved
from ccid.link.card_state import Presence
from ccid.transport import ReaderInfo, nothing_to_end

logger = logging.getLogger("ccid.watch")

POLL_S = 0.5
"""How often a reader that does not tell is asked for its slots."""
COMPARE_S = 1.0
"""How often the devices are listed where libusb does not tell."""
PATIENCE_S = 0.25
"""How long an errand is waited for, so that what is there at the start is told first."""
FOREVER_S = 1e9
"""More is as good as for ever."""
LONGEST_WAIT_S = 3600.0
"""After this a wait looks at the clock: one call cannot wait as long as an application may ask."""


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
    return _watch(None if timeout is None or timeout > FOREVER_S else float(timeout))


def _watch(timeout: float | None) -> Generator[Event, None, None]:
    watcher = _Watcher()
    try:
        watcher.start()
        yield from watcher.events(timeout)
    finally:
        try:
            watcher.end()
        except BaseException:  # as Ctrl-C: what it kept from being done, the second one does
            watcher.end()
            raise


class _Errand(threading.Thread):
    """Opens a reader, if it is not open, and has its slots asked for.

    Args:
        info: Which reader.
        reader: It, if it is open.
        post: Called, from this thread, whenever there is something to see.

    Attributes:
        reader: The open reader; None where there is none to be had.
        is_mine: This opened it.
        is_gone: The reader is not there any more.
        is_refused: Another process holds it, or this user must not open it.
        is_deaf: It could be opened, and not listened to: no thread is left for that.
        done: Set when all is done.
        leave: Ends listening to the reader.
    """

    def __init__(self, info: ReaderInfo, reader: Reader | None, post: Callable[[], object]) -> None:
        super().__init__(name=f"watch {info.path}", daemon=True)
        self._info = info
        self._post = post
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._asks_only = reader is not None
        self.reader = reader
        self.is_mine = self.is_gone = self.is_refused = self.is_deaf = False
        self.done = threading.Event()
        self.leave: Callable[[], None] = nothing_to_end

    def begin(self) -> None:
        """Do it in a thread, if there can be one more; else here and now."""
        try:
            self.start()
        except RuntimeError as error:
            logger.info("%s: %s", self._info, error)
            self.run()

    def run(self) -> None:
        """Do it."""
        try:
            if self._asks_only or self._borrow():
                self._ask()
        except ReaderRemoved:
            self.is_gone = True
        except CcidError as error:
            self.is_refused = isinstance(error, AccessDenied | ReaderBusy)
            logger.info("%s: its cards are not watched: %s", self._info, error)
        finally:
            self.done.set()
            self._post()

    def _borrow(self) -> bool:
        """Have the reader. False if there is none to be had, or nobody waits for it any more."""
        if judge(self._info).level is Level.UNSUPPORTED:
            logger.info("%s cannot be used: its cards are not watched", self._info)
            return False
        reader, is_mine = opened.borrow(self._info, Reader)
        if reader is None:
            return False  # it is being opened, and that will be told
        leaves: list[Callable[[], None]] = []

        def leave() -> None:
            for end in leaves:
                end()
            if is_mine:
                opened.give_back(reader)

        is_kept = False
        try:
            leaves.append(reader.cards.listen(self._told))
            leaves.append(reader.listen(self._told))
            with self._lock:
                is_kept = not self._is_abandoned
                if is_kept:
                    self.reader, self.is_mine, self.leave = reader, is_mine, leave
        except CcidError:
            self.is_deaf = True
            raise
        finally:
            if not is_kept:
                leave()
        return is_kept

    def _told(self, _: object) -> None:
        self._post()

    def _ask(self) -> None:
        """Have the status of all slots known: what listens to the cards is told of it."""
        assert self.reader is not None
        for slot in self.reader.slots:
            try:
                slot.commands.slot_status()
            except ReaderRemoved:
                raise
            except CcidError as error:
                logger.info("%s: slot %d: %s", self._info, slot.index, error)

    def abandon(self) -> None:
        """Nobody wants the reader any more."""
        with self._lock:
            self._is_abandoned = True
        self.leave()


class _Leaving(threading.Thread):
    """Leaves what an errand opened, in a thread of its own: closing a reader that does not answer
    takes seconds."""

    def __init__(self, errand: _Errand) -> None:
        super().__init__(name=f"leaving {errand.name}", daemon=True)
        self._errand = errand
        self.done = threading.Event()

    def begin(self) -> None:
        """Do it, here and now if it takes no time, or if there can be no more thread."""
        if self._errand.is_mine:
            with suppress(RuntimeError):
                self.start()
                return
        self.run()

    def run(self) -> None:
        """Do it."""
        try:
            self._errand.abandon()
        finally:
            self.done.set()


@dataclass(slots=True, eq=False)
class _Watched:
    """A reader that is there, and what was told of it."""

    info: ReaderInfo
    link: _Errand | None = None
    """What opened it."""
    question: _Errand | None = None
    """What asks for its slots again, for a reader that does not tell."""
    is_told: bool = False
    changed_hands: bool = False
    """While it was being opened."""
    cards: set[int] = field(default_factory=set)
    arrivals: dict[int, int] = field(default_factory=dict)

    @property
    def reader(self) -> Reader | None:
        return None if self.link is None else self.link.reader

    @property
    def is_refused(self) -> bool:
        return self.link is not None and self.link.is_refused

    @property
    def is_polled(self) -> bool:
        interface = self.info.reader
        return self.reader is not None and not (interface.is_iccd or interface.interrupt_in)


class _Watcher:
    def __init__(self) -> None:
        self._notices: queue.SimpleQueue[_Watched | Key | None] = queue.SimpleQueue()
        self._waiting: set[_Watched | Key | None] = set()
        """Of these a notice is in the queue already."""
        self._hands: dict[Key, ReaderInfo] = {}
        self._there: dict[Key, _Watched] = {}
        self._told: deque[Event] = deque()
        self._ends: list[Callable[[], None]] = []
        self._compares = False
        self._owner = os.getpid()

    def start(self) -> None:
        from ccid.transport.asynchronous import on_hotplug

        self._ends.append(opened.listen(self._post_hands))
        end = on_hotplug(lambda: self._post(None))
        if end is not None:
            self._ends.append(end)
        atexit.register(self.end)  # libusb is loaded by now: so this is done before it is ended
        if end is None:
            logger.info("libusb does not tell who comes and goes: devices are listed each second")
            self._compares = True
        self._discover(list_readers())
        for reader in list(opened.readers.values()):
            self._changed_hands(reader.info)

    def end(self) -> None:
        """Hear of nothing any more, and leave all readers. Those that are closed slowly are closed
        at the same time, and waited for a moment only. May be called again."""
        atexit.unregister(self.end)
        for end in self._ends:
            end()
        leaving = [_Leaving(one.link) for one in self._there.values() if one.link is not None]
        for one in leaving:
            one.begin()
        until = time.monotonic() + PATIENCE_S
        for one in leaving:
            one.done.wait(max(0.0, until - time.monotonic()))

    def events(self, timeout: float | None) -> Generator[Event, None, None]:
        happened, now = time.monotonic(), time.monotonic()
        poll_at, compare_at = now + POLL_S, now + COMPARE_S
        while True:
            while self._told:
                yield self._told.popleft()
                happened = time.monotonic()
                self._check()
            now = time.monotonic()
            times = [now + LONGEST_WAIT_S]
            if timeout is not None:
                times.append(happened + timeout)
            if any(one.is_polled for one in self._there.values()):
                times.append(poll_at)
            if self._compares:
                times.append(compare_at)
            try:
                notice = self._notices.get(timeout=max(0.0, min(times) - now))
            except queue.Empty:
                now = time.monotonic()
            else:
                self._waiting.discard(notice)  # what happens from now on is another notice's
                self._handle(notice)
                continue
            if now >= poll_at:
                poll_at = now + POLL_S
                for one in list(self._there.values()):
                    self._ask_again(one)
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

    # Notices, from any thread ---------------------------------------------------------------------

    def _post(self, what: _Watched | Key | None) -> None:
        """Something happened to ``what``; None stands for the devices on the bus."""
        if what not in self._waiting:
            try:
                self._waiting.add(what)
            finally:  # a signal's handler may raise in between, and none would be put any more
                self._notices.put(what)

    def _post_hands(self, info: ReaderInfo) -> None:
        self._hands[key_of(info)] = info
        self._post(key_of(info))

    # What came ------------------------------------------------------------------------------------

    def _handle(self, notice: _Watched | Key | None) -> None:
        if notice is None:
            self._rediscover()
        elif isinstance(notice, _Watched):
            self._catch_up(notice)
        else:
            self._changed_hands(self._hands.pop(notice))

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
        self._arrived([info for info in infos if key_of(info) not in self._there])

    def _arrived(self, infos: list[ReaderInfo]) -> None:
        came = [_Watched(info) for info in infos]
        for one in came:
            self._there[key_of(one.info)] = one
            self._link(one)
        self._wait_for(came)

    def _wait_for(self, linked: list[_Watched]) -> None:
        """Give their errands a moment, and see what has become of them."""
        until = time.monotonic() + PATIENCE_S
        for one in linked:
            assert one.link is not None
            one.link.done.wait(max(0.0, until - time.monotonic()))
            if not (one.is_told or one.link.is_gone):  # it may take long, but it is there
                one.is_told = True
                self._told.append(Event(EventKind.READER_ARRIVED, one.info))
            self._catch_up(one)

    def _gone(self, one: _Watched) -> None:
        if self._there.get(key_of(one.info)) is not one:
            return
        del self._there[key_of(one.info)]
        self._unlink(one)
        for slot in sorted(one.cards):
            self._told.append(Event(EventKind.CARD_LEFT, one.info, slot))
        if one.is_told:
            self._told.append(Event(EventKind.READER_LEFT, one.info))
            self._post(None)  # another may have its address already

    def _changed_hands(self, info: ReaderInfo) -> None:
        """It was opened or closed by somebody in this process."""
        one, reader = self._there.get(key_of(info)), opened.readers.get(key_of(info))
        if one is None:
            if reader is not None and reader.transport.dead is None:
                self._arrived([info])
        elif one.link is not None and one.reader is None and not one.link.done.is_set():
            one.changed_hands = True  # perhaps to the errand's: that is seen when it is done
        elif one.link is not None and one.link.is_deaf and reader is None:
            pass  # it was closed for that: another try would be as good
        elif one.reader is None or one.reader is not reader:
            self._relink(one)

    # One reader -----------------------------------------------------------------------------------

    def _relink(self, one: _Watched) -> None:
        self._unlink(one)
        self._link(one)
        self._wait_for([one])

    def _link(self, one: _Watched) -> None:
        """Begin to listen to it, if it can be had."""
        one.arrivals.clear()  # another object may have counted others
        one.link = _Errand(one.info, None, lambda: self._post(one))
        one.link.begin()

    def _unlink(self, one: _Watched) -> None:
        if one.link is not None:
            one.link.abandon()
        one.link = None

    def _ask_again(self, one: _Watched) -> None:
        is_asking = one.question is not None and not one.question.done.is_set()
        if one.is_polled and not is_asking:
            one.question = _Errand(one.info, one.reader, lambda: self._post(one))
            one.question.begin()

    def _catch_up(self, one: _Watched) -> None:
        """Tell of all that happened to it since this was called last."""
        reader = one.reader
        if one.link is None or self._there.get(key_of(one.info)) is not one:
            return
        if one.link.is_gone or (reader and isinstance(reader.transport.dead, ReaderRemoved)):
            self._gone(one)
            return
        if one.changed_hands and one.link.done.is_set():
            one.changed_hands, link = False, one.link
            self._changed_hands(one.info)
            if one.link is not link:
                return  # all was told when that was linked
        if reader is None:
            return
        for slot in reader.slots:
            state = reader.cards[slot.index]
            if state.presence is not Presence.UNKNOWN:
                self._is(one, slot.index, state.is_present, state.arrivals)

    def _is(self, one: _Watched, slot: int, present: bool, arrivals: int) -> None:
        """``slot`` has a card or none now, and so many came into it."""
        came = arrivals - one.arrivals.get(slot, arrivals)
        one.arrivals[slot] = arrivals
        if came and slot in one.cards:
            self._card(one, slot, False)
        if came or present:
            self._card(one, slot, True)
        if not present:
            self._card(one, slot, False)

    def _card(self, one: _Watched, slot: int, present: bool) -> None:
        if present and slot not in one.cards:
            one.cards.add(slot)
            self._told.append(Event(EventKind.CARD_ARRIVED, one.info, slot))
        elif not present and slot in one.cards:
            one.cards.discard(slot)
            self._told.append(Event(EventKind.CARD_LEFT, one.info, slot))
