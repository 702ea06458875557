"""The edge of the resource manager: the core, its drivers, and the readers that come and go.

Theory of operation. One thread runs the engine: the service's own, or that of
:class:`ccid.pcsc.manager.Manager`. All others (drivers of slots, libusb's events, the finder of
readers, clients of the same process) only post messages, and wake that thread. So the core needs no
lock, and no signal interrupts it in the middle of something.

Readers are claimed when the first context is established, and given back when the last one has been
released for a while.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ccid.device.open_readers import Key, key_of
from ccid.errors import CcidError
from ccid.ground.mailbox import Mailbox
from ccid.pcsc.ifd import Code
from ccid.pcsc.manager.card_calls import may_transmit_now
from ccid.pcsc.manager.core import Core
from ccid.pcsc.manager.functions import Functions
from ccid.pcsc.manager.pcsc_call import Action, Call, DoneByCaller, Job, Outcome
from ccid.pcsc.manager.pcsc_state import Context, Handle, Slot
from ccid.pcsc.manager.plugged_reader import (
    PluggedReader,
    ReaderGivenBack,
    ReaderOpened,
    ReaderRefused,
    SlotStirred,
    grouped,
)
from ccid.pcsc.manager.reader_finder import ReaderFinder, ReadersFound
from ccid.pcsc.manager.resources import GRACE_S
from ccid.pcsc.manager.scard_codes import DEFAULT_SLOTS, MAX_EXTENDED, Proto
from ccid.pcsc.manager.slot_driver import JobDone, SlotDriver
from ccid.transport import ReaderInfo

logger = logging.getLogger("ccid.pcsc")

T1 = Proto.T1
"""Each APDU asks for it: a member of an enumeration is found slowly."""
LINGER_S = 10.0
"""Readers are kept so long after the last context was released."""
POLL_S = 0.5
"""How often a slot that does not tell is asked whether it has a card."""
LONGEST_WAIT_S = 3600.0
"""After this a wait looks at the clock."""
CLOSE_S = 3.0
"""How long the end waits for cards to be powered off."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine is told.

    Attributes:
        virtual: Interfaces of virtual readers (``VirtualReader.infos``), to be had always.
        usb: Readers on USB are to be had.
        names: Of those only these: names or parts of them, ids, paths; empty for all.
        max_slots: So many readers there may be, each slot counted.
        escape: Applications may send Escape commands.
        grace_s: So long a card keeps its power that nobody needs.
        linger_s: So long readers are kept after the last context was released.
    """

    virtual: tuple[ReaderInfo, ...] = ()
    usb: bool = True
    names: tuple[str, ...] = ()
    max_slots: int = DEFAULT_SLOTS
    escape: bool = True
    grace_s: float = GRACE_S
    linger_s: float = LINGER_S


@dataclass(frozen=True, slots=True, eq=False)
class Abandoned:
    """A message: nobody waits for a call any more."""

    call: Call


@dataclass(frozen=True, slots=True, eq=False)
class Plugged:
    """A message: there are more virtual readers."""

    infos: tuple[ReaderInfo, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Missed:
    """A message: a caller's own thread found a slot's reader gone, or was interrupted there."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Ended:
    """A message: power off and give back all there is, for good."""


def random_number() -> int:
    """A random number from 1 to 2³¹-1, as handles and contexts have."""
    number = 0
    while not number:
        number = int.from_bytes(os.urandom(4), "little") & 0x7FFF_FFFF
    return number


class Engine:
    """The core, its drivers and its readers.

    Args:
        settings: Which readers, and so on.
        wake: Wakes the thread that runs this; called from any thread.
    """

    def __init__(self, settings: Settings, wake: Callable[[], None]) -> None:
        self.settings = settings
        self.core = Core(random_number, max_slots=settings.max_slots, grace_s=settings.grace_s)
        self.functions = Functions(self.core)
        self._wake = wake
        self._inbox: Mailbox[object] = Mailbox()
        self._readers: dict[Key, PluggedReader] = {}
        self._drivers: dict[Slot, SlotDriver] = {}
        self._at_work: dict[Call, SlotDriver] = {}
        self._finder: ReaderFinder | None = None
        self._virtual = list(settings.virtual)
        self._is_on = False
        self._is_ended = False
        self._has_refused = False
        self._off_at: float | None = None
        self._poll_at: float | None = None

    def post(self, message: object) -> None:
        """Take a message, from any thread."""
        self._inbox.put(message)
        self._wake()

    @property
    def has_messages(self) -> bool:
        """A message was posted that :meth:`run` has not handled."""
        return not self._inbox.empty()

    def may_transmit_now(self, number: int, protocol: int, context: Context | None = None) -> bool:
        """As it looks, :meth:`transmit_now` would exchange an APDU. From any thread."""
        handle = self.core.resources.handles.get(number)
        if handle is None or context not in (None, handle.context):
            return False
        driver = self._drivers.get(handle.slot)
        is_free = driver is not None and not driver.gate.locked()
        return is_free and may_transmit_now(handle, protocol)

    def transmit_now(
        self, number: int, protocol: int, apdu: bytes, context: Context | None = None
    ) -> tuple[bytes, int] | DoneByCaller | None:
        """Have the calling thread exchange an APDU by itself, if nobody else is at the slot: no
        other thread has to be woken for it. From any thread.

        What is asked here of slots and handles may change at the same moment. Then the exchange
        counts as one that came before the change: the gate keeps all jobs after the change waiting.

        Args:
            number: Of the handle.
            protocol: Of the send header.
            apdu: The command APDU.
            context: Whose handle it must be; None for anybody's.

        Returns:
            The response, and the protocol as drivers number it; or what came of it where there is
            more to tell. None where the call has to go the usual way: nothing was sent.
        """
        handle = self.core.resources.handles.get(number)
        if handle is None or len(apdu) > MAX_EXTENDED:
            return None
        slot = handle.slot
        driver = self._drivers.get(slot)
        if driver is None or driver.gate.locked():
            return None
        if context is not None and handle.context is not context:
            return None
        with driver.gate:
            driver.caller = handle  # before it is asked whether the handle is closed: end_now
            try:
                if not may_transmit_now(handle, protocol):
                    return None
                card, kind = slot.card_number, 1 if slot.protocol is T1 else 0
                came = driver.transmit(handle, kind, apdu, slot.arrivals)
            except BaseException:  # as Ctrl-C
                self.post(Missed(slot))
                raise
            finally:
                driver.caller = None
        if not isinstance(came, Outcome):
            return came, kind
        if came.code is Code.NO_SUCH_DEVICE:
            self.post(Missed(slot))
        return DoneByCaller(Job(slot, Action.TRANSMIT, kind, apdu), card, came)

    def end_now(self, context: int) -> None:
        """End what threads of callers are doing by themselves for a context, which was released
        before. From any thread."""
        for driver in list(self._drivers.values()):
            handle = driver.caller
            if handle is not None and handle.context.number == context:
                _in_thread(driver.abort_caller, handle)

    # What the thread that runs this calls ---------------------------------------------------------

    @staticmethod
    def now() -> float:
        """The time (monotonic clock, s)."""
        return time.monotonic()

    def begin(self, call: Call) -> None:
        """Begin a call; when it is over, its ``finished`` is called by :meth:`run`."""
        self.core.begin(call, time.monotonic())

    def run(self) -> float | None:
        """Do all that there is to do; returns when there will be more, if nothing wakes."""
        core = self.core
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                message = None
            if message is not None:
                self._handle(message)
            elif not self._is_need_met:  # first: who has a context may ask for the readers at once
                self._meet_need(time.monotonic())
            elif core.ended:
                self._finish(core.ended.popleft())
            elif core.jobs:
                call, job = core.jobs.popleft()
                self._give(call, job)
            elif core.aborts:
                self._abort(*core.aborts.popleft())
            else:
                now, due = time.monotonic(), self._next_time
                if due is None or due > now:
                    return due
                self._time_passed(now)

    def wait(self, due: float | None) -> None:
        """Wait for a message, and handle it.

        Args:
            due: Until when at most; None for ever.
        """
        wait_s = LONGEST_WAIT_S
        if due is not None:
            wait_s = min(wait_s, max(0.0, due - time.monotonic()))
        with suppress(queue.Empty):
            self._handle(self._inbox.get(timeout=wait_s))

    @property
    def is_ended(self) -> bool:
        """:meth:`end` was called."""
        return self._is_ended

    def end(self) -> None:
        """Power all cards off and give all readers back."""
        self._is_ended = True
        until = time.monotonic() + CLOSE_S
        for thread in self._give_back():
            thread.join(max(0.0, until - time.monotonic()))

    def _finish(self, call: Call) -> None:
        driver = self._at_work.pop(call, None)
        if driver is not None:
            driver.end_turn(call)
        call.finished()
        is_new = call.function == self.functions.establish
        if is_new and self._has_refused:  # whoever had a reader may have given it back
            self._has_refused = False
            self._open(self._virtual, is_again=True)
            if self._finder is not None:
                self._finder.look()

    # Time -----------------------------------------------------------------------------------------

    @property
    def _next_time(self) -> float | None:
        times = [t for t in (self.core.next_time, self._off_at, self._poll_at) if t is not None]
        return min(times, default=None)

    def _time_passed(self, now: float) -> None:
        self.core.time_passed(now)
        if self._off_at is not None and self._off_at <= now:
            self._off_at = None
            self._give_back()
        if self._poll_at is not None and self._poll_at <= now:
            self._poll_at = None
            self._poll(now)

    @property
    def _is_needed(self) -> bool:
        return bool(self.core.resources.contexts) and not self._is_ended

    @property
    def _is_need_met(self) -> bool:
        """Readers are claimed as long as there is a context, and a while longer."""
        if self._is_needed:
            return self._is_on and self._off_at is None
        return not self._is_on or self._off_at is not None

    def _meet_need(self, now: float) -> None:
        if not self._is_needed:
            self._off_at = now + self.settings.linger_s
            return
        self._off_at = None
        if not self._is_on:
            self._claim(now)

    # Readers --------------------------------------------------------------------------------------

    def _claim(self, now: float) -> None:
        self._is_on = True
        self.core.search_begins(now)
        self._open(self._virtual)
        if self.settings.usb:
            self._finder = ReaderFinder(self.post, self.settings.names)
            self._finder.begin()
        else:
            self.core.search_ends(now)

    def _give_back(self) -> list[threading.Thread]:
        self._is_on, self._off_at = False, None
        if self._finder is not None:
            self._finder.end()
            self._finder = None
        return [self._remove(reader) for reader in list(self._readers.values())]

    def _open(self, infos: Sequence[ReaderInfo], is_again: bool = False) -> None:
        """Take in those readers that are new. Their names follow from their order here, not from
        which of them is open first."""
        try:
            escape = self.settings.escape
            readers = [PluggedReader(group, self.post, escape) for group in grouped(infos)]
        except CcidError as error:  # the user's file of readers: it says how all of them are used
            logger.error("no reader is used: %s", error)
            return
        for reader in readers:
            if reader.key in self._readers:
                self._readers[reader.key].found_again = reader.infos
                continue
            state = self.core.resources.reader_came(reader.device, reader.base, reader.keys)
            if state is None:
                logger.error("%s: there is no room for more readers", reader.base)
                continue
            reader.state, reader.is_again = state, is_again
            self._readers[reader.key] = reader
            reader.begin_opening()

    def _plug(self, infos: Sequence[ReaderInfo]) -> None:
        self._virtual += infos
        if self._is_on:
            self._open(infos)

    def _remove(self, reader: PluggedReader) -> threading.Thread:
        if self._readers.get(reader.key) is reader:
            del self._readers[reader.key]
        for slot in reader.state.slots:
            self._drivers.pop(slot, None)
        self.core.reader_left(reader.state, time.monotonic())
        return reader.begin_closing()

    def _poll(self, now: float) -> None:
        for reader in self._readers.values():
            if reader.is_polled:
                self._poll_at = now + POLL_S
                for slot in reader.state.slots:
                    if slot.turn is None and not slot.queue:
                        self.core.look(slot, now)

    # Messages -------------------------------------------------------------------------------------

    def _handle(self, message: object) -> None:
        now = time.monotonic()
        match message:
            case Call():
                self.core.begin(message, now)
            case JobDone():
                self._job_done(message, now)
            case SlotStirred():
                self._stirred(message, now)
            case ReaderOpened():
                self._opened(message.reader, now)
            case ReaderRefused():
                self._refuse(message.reader, message.error, now)
            case ReaderGivenBack():
                self._given_back(message.reader)
            case ReadersFound():
                self._found(message.infos, now)
            case Missed():
                self._check_gone(message.slot)
                self.core.look(message.slot, now)
            case Abandoned():
                self.core.abandon(message.call, now)
            case Plugged():
                self._plug(message.infos)
            case Ended():
                self.end()

    def _job_done(self, done: JobDone, now: float) -> None:
        self.core.finished(done.call, done.job, done.outcome, now)
        if done.outcome.code is Code.NO_SUCH_DEVICE and not done.job.slot.is_gone:
            self._check_gone(done.job.slot)

    def _check_gone(self, slot: Slot) -> None:
        for reader in list(self._readers.values()):
            if reader.state is slot.reader and reader.is_gone:
                self._lost(reader)

    def _stirred(self, stirred: SlotStirred, now: float) -> None:
        reader = stirred.reader
        if reader.is_closed or self._readers.get(reader.key) is not reader:
            return
        if reader.is_gone:
            self._lost(reader)
        else:
            self.core.look(reader.state.slots[stirred.slot], now)

    def _lost(self, reader: PluggedReader) -> None:
        logger.info("%s left", reader.base)
        self._remove(reader)
        if self._finder is not None:
            self._finder.look()  # another may have its place already

    def _opened(self, reader: PluggedReader, now: float) -> None:
        if self._readers.get(reader.key) is not reader:
            reader.begin_closing()
            return
        slots = reader.state.slots
        logger.info("%s came", ", ".join(slot.name for slot in slots))
        self._drivers.update(zip(slots, reader.drivers, strict=True))
        self.core.reader_opened(reader.state, now)
        if reader.is_polled and self._poll_at is None:
            self._poll_at = now + POLL_S
        if reader.is_gone:
            self._lost(reader)

    def _refuse(self, reader: PluggedReader, error: CcidError, now: float) -> None:
        level = logging.INFO if reader.is_again else logging.WARNING
        logger.log(level, "%s cannot be used: %s", reader.base, error)
        if self._readers.get(reader.key) is reader:
            del self._readers[reader.key]
            self.core.reader_left(reader.state, now)
            self._has_refused = True
            self._open(reader.found_again, is_again=True)

    def _given_back(self, reader: PluggedReader) -> None:
        """It can be opened anew: a virtual reader may have been plugged in again, of which nobody
        tells."""
        if self._is_on and reader.infos[0] in self._virtual:
            self._open(reader.infos, is_again=True)

    def _found(self, infos: Sequence[ReaderInfo], now: float) -> None:
        if not self._is_on:
            return
        keys = {key_of(info) for info in infos}
        for reader in list(self._readers.values()):
            is_usb = not reader.infos[0].path.startswith("virtual:")
            if is_usb and reader.key not in keys:
                self._remove(reader)
        self._open(infos)
        self.core.search_ends(now)

    # Jobs -----------------------------------------------------------------------------------------

    def _give(self, call: Call, job: Job) -> None:
        driver = self._drivers.get(job.slot)
        if driver is None:
            self.core.finished(call, job, Outcome(Code.NO_SUCH_DEVICE), time.monotonic())
        else:
            self._at_work[call] = driver
            driver.begin(call, job)

    def _abort(self, call: Call, slot: Slot) -> None:
        driver = self._drivers.get(slot)
        if driver is not None:
            _in_thread(driver.abort, call)


def _in_thread(abort: Callable[[Any], None], whose: Call | Handle) -> None:
    threading.Thread(target=abort, args=(whose,), name="pcsc abort", daemon=True).start()
