"""Readers and cards as they come and go: the function :func:`watch`.

Theory of operation. The thread that iterates keeps the list of readers and makes the events. Other
threads (libusb's event thread, applications that open and close readers, tasks) only put a notice
into a queue: something happened to this reader. Each reader has at most one notice in the queue,
however much happens before the next event is requested. The state machine
:mod:`ccid.link.card_state` knows whether a slot has a card and how many cards came; the events are
the difference between that and what was reported last.

Tasks in threads of their own open readers and ask for the status of slots
(:mod:`ccid.device.watch_tasks`). This module waits for a task only for a moment.

libusb goes on listing an unplugged device for a moment after its transfers have ended, and the next
device may get the same address. So a listed reader counts as present only if the reader can be
opened, or another process holds it.
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

from ccid.device.find import list_readers
from ccid.device.open_readers import Key, key_of, opened
from ccid.device.reader import Reader
from ccid.device.watch_tasks import CloseTask, OpenTask, StatusTask
from ccid.errors import CcidError, ReaderForked, ReaderRemoved
from ccid.ground.mailbox import Mailbox
from ccid.ground.records import record
from ccid.link.card_state import Presence
from ccid.transport import ReaderInfo

logger = logging.getLogger("ccid.watch")

POLL_S = 0.5
"""Seconds between two questions for the slots of a reader without notifications."""
COMPARE_S = 1.0
"""Seconds between two listings of the devices, where libusb may report no hot-plug events."""
PATIENCE_S = 0.25
"""Seconds to wait for the tasks of new readers, so that the cards at the start are reported
first."""
RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
"""Seconds until a reader that could not be opened is tried again: at first, doubled each time, and
at most."""
FOREVER_S = 1e9
"""A time-out longer than this, in seconds, counts as none."""
LONGEST_WAIT_S = 3600.0
"""Longest single wait in seconds: the queue cannot wait as long as an application may ask for."""


class EventKind(enum.Enum):
    """Kind of an event."""

    READER_ARRIVED = "reader arrived"
    READER_LEFT = "reader left"
    CARD_ARRIVED = "card arrived"
    CARD_LEFT = "card left"


@record
class Event:
    """A reader or a card came or went.

    Attributes:
        kind: Kind of the event.
        reader: The reader that came or went, or the reader of the card.
        slot: bSlot of the card, from 0; None for a reader.
    """

    kind: EventKind
    reader: ReaderInfo
    slot: int | None = None


def watch(timeout: float | None = None) -> Generator[Event, None, None]:
    """Yield an event for each reader and card that comes or goes; first for those that are present
    at the start. The watch begins with the first ``next()``.

    The watch waits for notifications of readers and hot-plug events of libusb. It polls only in two
    cases: a reader without an interrupt endpoint gets GetSlotStatus twice a second (USB CCID rev
    1.1, 6.1.3); and where libusb reports no hot-plug events, or nobody may tell libusb of them (in
    a container, or without udev), the devices are listed once a second. No card is powered.

    A reader that leaves USB and comes back within 2 s while this process has it open
    (:func:`ccid.open_reader` with ``reopen``) has no event, and neither has its card: the reader is
    open again. So has none that is reset and stays on USB. Another reader left and arrived.

    The watch shares the readers that this process has open. It opens all other readers, and closes
    a reader as soon as this process opens it. A reader that another process holds is reported
    without its cards, and tried again when a device is plugged in or unplugged. A reader that does
    not answer, or answers wrongly, is tried again after 1 s, then after 2 s, 4 s, at most 60 s.

    Args:
        timeout: Seconds without an event after which the iteration ends; None for no limit.

    Returns:
        The iterator.

    Raises:
        UsbUnavailable: libusb cannot be loaded.
        ReaderForked: The watch began in the parent of this process; the child gets no events.
        ValueError: ``timeout`` is negative or not a number (NaN).
    """
    return stoppable_watch(timeout)[0]


def stoppable_watch(
    timeout: float | None = None,
) -> tuple[Generator[Event, None, None], Callable[[], None]]:
    """As :func:`watch`, for a watch that another thread ends.

    Args:
        timeout: As for :func:`watch`.

    Returns:
        The iterator, and a function that ends the iteration soon, even while a thread waits for
        the next event. The function may be called from any thread, and does not block.

    Raises:
        ValueError: As for :func:`watch`.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"a time of {timeout} s")
    limit = None if timeout is None or timeout > FOREVER_S else float(timeout)
    watcher = _Watcher()
    return _watch(watcher, limit), watcher.stop


def _watch(watcher: _Watcher, timeout: float | None) -> Generator[Event, None, None]:
    try:
        watcher.start()
        yield from watcher.events(timeout)
    finally:
        try:
            watcher.end()
        except BaseException:  # Ctrl-C: the second call does what the first could not
            watcher.end()
            raise


@dataclass(slots=True, eq=False)
class _WatchedReader:
    """A reader that is present, and what was reported of it."""

    info: ReaderInfo
    opening: OpenTask | None = None
    """The task that opened the reader."""
    polling: StatusTask | None = None
    """The last task that asked for the slots of a reader without notifications."""
    is_reported: bool = False
    owner_changed: bool = False
    """This process opened or closed the reader while the task ``opening`` was under way."""
    failures: int = 0
    """How many tasks in succession could not open the reader."""
    retry_at: float | None = None
    """When to try again (monotonic clock)."""
    is_awaited: bool = False
    """The reader left USB while an application has it open, and may come back."""
    full_slots: set[int] = field(default_factory=set)
    """Slots whose card was reported."""
    arrivals: dict[int, int] = field(default_factory=dict)
    """By slot: how many cards had come at the last report."""

    @property
    def reader(self) -> Reader | None:
        return None if self.opening is None else self.opening.reader

    @property
    def polled_reader(self) -> Reader | None:
        """The open reader if it has no notifications, so that its slots must be polled."""
        interface = self.info.reader
        has_notifications = interface.is_iccd or interface.interrupt_in is not None
        return None if has_notifications else self.reader

    @property
    def is_refused(self) -> bool:
        return self.opening is not None and self.opening.is_refused


Notice = _WatchedReader | Key | None
"""A reader to which something happened; the key of a reader that this process opened or closed; or
None for the devices on USB."""


class _Watcher:
    """The state of one watch. One thread calls all methods but :meth:`stop`, :meth:`_post` and
    :meth:`_post_owner_change`."""

    def __init__(self) -> None:
        self._notices: Mailbox[Notice] = Mailbox()
        self._queued: set[Notice] = set()
        """The notices in the queue."""
        self._owner_changes: dict[Key, ReaderInfo] = {}
        """The readers that this process opened or closed, for the notices with their keys."""
        self._readers: dict[Key, _WatchedReader] = {}
        """The readers that are present."""
        self._events: deque[Event] = deque()
        """The events to yield next."""
        self._ends: list[Callable[[], None]] = []
        """Functions that end a registration."""
        self._lists_devices = False
        """libusb may report no hot-plug events: the devices are listed regularly."""
        self._listed: set[Key] = set()
        """The readers that were on USB at the last look."""
        self._is_stopped = False
        """:meth:`stop` was called."""
        self._process = -1

    def start(self) -> None:
        """Register for everything that may happen, and open the readers that are present."""
        from ccid.transport.hotplug import on_hotplug
        from ccid.transport.stale_list import why_deaf

        self._process = os.getpid()
        self._ends.append(opened.listen(self._post_owner_change))
        end = on_hotplug(lambda: self._post(None))
        if end is not None:
            self._ends.append(end)
        # on_hotplug has loaded libusb, whose exit handler then runs after this one
        atexit.register(self.end)
        why = "libusb does not tell who comes and goes" if end is None else why_deaf()
        if why:
            logger.info("%s: devices are listed each second", why)
            self._lists_devices = True
        self._compare(list_readers())
        for reader in opened.there():
            self._owner_changed(reader.info)

    def stop(self) -> None:
        """End the iteration of :meth:`events` soon. Any thread may call this."""
        self._is_stopped = True
        self._notices.put(None)

    def end(self) -> None:
        """End all registrations, and give up all readers. A second call does what the first could
        not. Readers that are slow to close are closed at the same time, and the wait for them is
        limited to :data:`PATIENCE_S`."""
        atexit.unregister(self.end)
        for end in self._ends:
            end()
        tasks = [
            CloseTask(one.opening) for one in self._readers.values() if one.opening is not None
        ]
        for task in tasks:
            task.begin()
        until = time.monotonic() + PATIENCE_S
        for task in tasks:
            task.done.wait(max(0.0, until - time.monotonic()))

    def events(self, timeout: float | None) -> Generator[Event, None, None]:
        """Yield the events, until none has come for ``timeout`` seconds."""
        last_event, now = time.monotonic(), time.monotonic()
        poll_at, compare_at = now + POLL_S, now + COMPARE_S
        while True:
            while self._events:
                yield self._events.popleft()
                last_event = time.monotonic()
                self._check_process()
            if self._is_stopped:
                return
            now = time.monotonic()
            times = [now + LONGEST_WAIT_S]
            if timeout is not None:
                times.append(last_event + timeout)
            if any(one.polled_reader is not None for one in self._readers.values()):
                times.append(poll_at)
            if self._lists_devices:
                times.append(compare_at)
            times += [one.retry_at for one in self._readers.values() if one.retry_at is not None]
            try:
                notice = self._notices.get(timeout=max(0.0, min(times) - now))
            except queue.Empty:
                now = time.monotonic()
            else:
                if self._is_stopped:
                    return
                self._queued.discard(notice)  # what happens from now on needs a new notice
                self._handle(notice)
                continue
            if now >= poll_at:
                poll_at = now + POLL_S
                for one in list(self._readers.values()):
                    self._poll(one)
            for one in list(self._readers.values()):
                if one.retry_at is not None and now >= one.retry_at:
                    self._reopen(one)
            if self._lists_devices and now >= compare_at:
                compare_at = now + COMPARE_S
                self._list_devices()
            if timeout is not None and now >= last_event + timeout and not self._events:
                return

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise ReaderForked(
                f"this watch began in process {self._process}, and this is its fork {os.getpid()}: "
                f"nothing is told here. Begin another"
            )

    # Notices, from any thread ---------------------------------------------------------------------

    def _post(self, notice: Notice) -> None:
        """Put a notice into the queue, unless the same notice is there."""
        if notice not in self._queued:
            try:
                self._queued.add(notice)
            finally:  # a signal handler may raise between the two: then no notice would come again
                self._notices.put(notice)

    def _post_owner_change(self, info: ReaderInfo) -> None:
        """This process opened or closed a reader."""
        self._owner_changes[key_of(info)] = info
        self._post(key_of(info))

    # Notices, taken from the queue ----------------------------------------------------------------

    def _handle(self, notice: Notice) -> None:
        if notice is None:
            self._list_devices()
        elif isinstance(notice, _WatchedReader):
            self._report(notice)
        else:
            info = self._owner_changes.pop(notice, None)
            if info is not None:  # else it came while an earlier notice was taken, and is handled
                self._owner_changed(info)

    def _list_devices(self) -> None:
        try:
            self._compare(list_readers())
        except CcidError as error:
            logger.info("the devices cannot be listed: %s", error)

    def _compare(self, infos: list[ReaderInfo]) -> None:
        """Compare the readers on USB with those that were present before."""
        keys = {key_of(info) for info in infos}
        # Where the devices are listed once a second, most lists tell of nothing that came or went.
        has_changed, self._listed = not self._lists_devices or keys != self._listed, keys
        away: set[str] = set()
        """Where readers that are open here are awaited: what comes there is not opened here."""
        for one in list(self._readers.values()):
            self._follow(one)
        for key, one in list(self._readers.items()):
            if key not in keys and not one.info.path.startswith("virtual:"):
                if one.reader is not None and one.reader.is_away:
                    away.add(one.info.path)
                    one.is_awaited = True
                elif key_of(one.info) not in keys:
                    self._reader_left(one)
            elif one.is_refused and has_changed:
                self._reopen(one)
        self._readers_arrived(
            [i for i in infos if key_of(i) not in self._readers and i.path not in away]
        )

    def _follow(self, one: _WatchedReader) -> None:
        """Note the new address of a reader that left USB and came back while an application has it
        open, if it has one."""
        reader, before = one.reader, key_of(one.info)
        if reader is None or reader.is_lent or key_of(reader.info) == before:
            return
        if self._readers.get(before) is one:
            del self._readers[before]
        other = self._readers.get(key_of(reader.info))
        if other is not None:  # listed before it was open again
            self._reader_left(other)
        one.info = reader.info
        self._readers[key_of(one.info)] = one

    def _readers_arrived(self, infos: list[ReaderInfo]) -> None:
        arrived = [_WatchedReader(info) for info in infos]
        for one in arrived:
            self._readers[key_of(one.info)] = one
            self._open(one)
        self._wait_for(arrived)

    def _wait_for(self, opening: list[_WatchedReader]) -> None:
        """Give the tasks that open these readers a moment, then report the readers."""
        until = time.monotonic() + PATIENCE_S
        for one in opening:
            assert one.opening is not None
            one.opening.done.wait(max(0.0, until - time.monotonic()))
            if not (one.is_reported or one.opening.is_gone):  # present, even if not open yet
                one.is_reported = True
                self._events.append(Event(EventKind.READER_ARRIVED, one.info))
            self._report(one)

    def _reader_left(self, one: _WatchedReader) -> None:
        if self._readers.get(key_of(one.info)) is not one:
            return
        del self._readers[key_of(one.info)]
        self._give_up(one)
        for slot in sorted(one.full_slots):
            self._events.append(Event(EventKind.CARD_LEFT, one.info, slot))
        if one.is_reported:
            self._events.append(Event(EventKind.READER_LEFT, one.info))
            self._post(None)  # the next device may have the same address already

    def _owner_changed(self, info: ReaderInfo) -> None:
        """This process opened or closed the reader ``info``."""
        reader = opened.readers.get(key_of(info))
        for moved in list(self._readers.values()):
            if moved.reader is not None and moved.reader is reader:
                self._follow(moved)
        one = self._readers.get(key_of(info))
        if one is None:
            if reader is not None and reader.transport.dead is None:
                self._readers_arrived([info])
        elif one.opening is not None and one.reader is None and not one.opening.done.is_set():
            one.owner_changed = True  # perhaps the task itself opened it: see _report()
        elif one.opening is not None and one.opening.cannot_listen and reader is None:
            pass  # the task closed the reader for that reason: another task would fail as well
        elif one.reader is None or one.reader is not reader:
            self._reopen(one)

    # One reader -----------------------------------------------------------------------------------

    def _reopen(self, one: _WatchedReader) -> None:
        self._give_up(one)
        self._open(one)
        self._wait_for([one])

    def _open(self, one: _WatchedReader) -> None:
        """Begin a task that opens the reader and listens to it."""
        one.arrivals.clear()  # each Reader object counts anew
        one.retry_at = None
        one.opening = OpenTask(one.info, lambda: self._post(one))
        one.opening.begin()

    def _try_later(self, one: _WatchedReader) -> None:
        """Note when to open a reader anew that could not be opened."""
        if one.retry_at is None and one.opening is not None and one.opening.has_failed:
            pause_s = min(RETRY_S * 2 ** min(one.failures, 16), LONGEST_RETRY_S)
            one.retry_at, one.failures = time.monotonic() + pause_s, one.failures + 1

    def _give_up(self, one: _WatchedReader) -> None:
        if one.opening is not None:
            one.opening.abandon()
        one.opening = None

    def _poll(self, one: _WatchedReader) -> None:
        """Ask for the slots of a reader without notifications, unless a task does so already."""
        reader = one.polled_reader
        is_asking = one.polling is not None and not one.polling.done.is_set()
        if reader is not None and not is_asking:
            one.polling = StatusTask(reader, lambda: self._post(one))
            one.polling.begin()

    def _report(self, one: _WatchedReader) -> None:
        """Make the events of everything that happened to the reader since the last report."""
        reader = one.reader
        if one.opening is None or self._readers.get(key_of(one.info)) is not one:
            return
        self._follow(one)
        if one.is_awaited and reader is not None and not reader.is_away:
            one.is_awaited = False
            self._post(None)  # what was listed meanwhile at its place
        if one.opening.is_gone or (reader and isinstance(reader.transport.dead, ReaderRemoved)):
            self._reader_left(one)
            return
        if one.owner_changed and one.opening.done.is_set():
            one.owner_changed, opening = False, one.opening
            self._owner_changed(one.info)
            if one.opening is not opening:
                return  # opened anew, and reported then
        if reader is None:
            self._try_later(one)
            return
        one.failures = 0
        for slot in reader.slots:
            state = reader.cards[slot.index]
            if state.presence is not Presence.UNKNOWN:
                self._report_slot(one, slot.index, state.is_present, state.arrivals)

    def _report_slot(self, one: _WatchedReader, slot: int, is_present: bool, arrivals: int) -> None:
        """Make the events of one slot.

        Args:
            one: The reader.
            slot: bSlot.
            is_present: A card is in the slot now.
            arrivals: How many cards have come into the slot since the reader was opened.
        """
        new_arrivals = arrivals - one.arrivals.get(slot, arrivals)
        one.arrivals[slot] = arrivals
        if new_arrivals:
            self._report_left(one, slot)
        if new_arrivals or is_present:
            self._report_arrived(one, slot)
        if not is_present:
            self._report_left(one, slot)

    def _report_arrived(self, one: _WatchedReader, slot: int) -> None:
        """Report a card that came, if none is reported in the slot."""
        if slot not in one.full_slots:
            one.full_slots.add(slot)
            self._events.append(Event(EventKind.CARD_ARRIVED, one.info, slot))

    def _report_left(self, one: _WatchedReader, slot: int) -> None:
        """Report that the card of the slot left, if one is reported."""
        if slot in one.full_slots:
            one.full_slots.discard(slot)
            self._events.append(Event(EventKind.CARD_LEFT, one.info, slot))
