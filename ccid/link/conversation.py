"""What all conversations with a reader have in common: turns, limits, and cancellation.

A thread holds the turn of a slot while its commands to that slot follow each other. An operation is
what an application sees as one thing (an APDU, a power-up). It may take many commands: their time
counts together, and :meth:`Conversation.cancel` ends them together, also between two commands.

:mod:`ccid.link.locks` says what a signal may do while a lock is held.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from ccid.codes import IccStatus
from ccid.errors import (
    CardRemoved,
    CardReset,
    CcidError,
    CommandCancelled,
    TransportTimeout,
)
from ccid.ground.signal_safe_locks import new_rlock
from ccid.link.card_state import Fate, Power, Session
from ccid.link.locks import (
    QUIET_S,
    SLICE_MS,
    Lock,
    Quiet,
    Shut,
    giving_back,
    nothing_meanwhile,
    run,
    take,
)
from ccid.link.reader_cards import Cards
from ccid.transport import ReaderInfo, Returns, Transport, nothing_to_end

R = TypeVar("R")

CONTROL_TIMEOUT_MS = 3000
"""Longest time of one control transfer."""
WAKING_S = 10.0
"""How long the first commands to a reader may take in all."""
FAREWELL_S = 4.0
"""How long the last commands to a reader may take in all."""
MAX_COMMAND_S = 30 * 60.0
"""An operation may take so long in all, time extensions included: a card may compute a key for
minutes."""
NOTICE_S = 0.3
"""How late a notification may be: the host polls a reader for one every 255 ms at least."""
NOTICE_TRIES = 10
"""How many times that wait is begun again after other USB events ended it."""
TO_SETTLE = frozenset((Power.DOUBTFUL, Power.LOST, Power.REMOVED))
"""States of a slot whose card gets no command before its fate is known."""
FATES = {
    Fate.REMOVED: (CardRemoved, "the card was taken out of slot {slot}"),
    Fate.RESET: (
        CardReset,
        "another holder reset the card in slot {slot}, or took its power; connect again",
    ),
    Fate.LOST_POWER: (
        CardReset,
        "the card in slot {slot} lost its power (a reset of the reader, or sleep); connect again",
    ),
}
"""The error for what ended a session, and its words."""
UNCLEAR = (
    "the card in slot {slot} lost its power: it was exchanged, or the reader was reset. This "
    "reader has no notifications to tell which. Connect again"
)

T = TypeVar("T")


def seconds(value: Any, what: str) -> float:
    """``value``, a time, as a number of seconds.

    Raises:
        TypeError: It is no number. ValueError: It is negative, or not a number (NaN).
    """
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{what} is a number of seconds, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{what} is a number of seconds, not {type(value).__name__}") from None
    if not number >= 0:
        raise ValueError(f"{what}: {number} s is no time")
    return number


class Ended:
    """Replaces the transport of a closed reader, for a thread that still has its turn.

    Every call raises ``reason``.
    """

    def __init__(self, inner: Transport, reason: CcidError) -> None:
        self.out, self.inp, self.packet_size = inner.out, inner.inp, inner.packet_size
        self.dead: CcidError | None = reason

    def _refuse(self, *_: object) -> NoReturn:
        assert self.dead is not None
        raise copy.copy(self.dead)

    exchange = expect = wait = send = receive = take_events = control = _refuse

    def listen(self, tell: Callable[[bytes], None]) -> None:
        """No notification comes any more."""

    def attend(self) -> Callable[[], None]:
        """No notification comes any more."""
        return nothing_to_end

    def close(self) -> None:
        """The reader closes its transport itself."""

    def when_dead(self, tell: Callable[[CcidError], None]) -> None:
        assert self.dead is not None
        tell(self.dead)

    def on_reset(self, tell: Callable[[ReaderInfo], None], returns: Returns | None = None) -> None:
        """It is reset no more."""

    def is_away(self) -> bool:
        return False


@dataclass(slots=True)
class Operation:
    """What an application sees as one thing.

    Attributes:
        first: Number of its first command.
        began: Time of its begin, on the monotonic clock.
        until: Time at which it has taken too long; None for never.
        hears: :meth:`Conversation.cancel` ends it.
    """

    first: int
    began: float
    until: float | None
    hears: bool = True


class Conversation:
    """A conversation with one reader, whatever its messages look like.

    Args:
        transport: The open interface. The conversation does not close it.
        name: The reader's name, for errors.
        interface: bInterfaceNumber.
        lock: The lock of all commands; given where several interfaces must take turns.
        max_command_s: Most seconds an operation may take with all extensions; None, or infinity,
            for no limit. More than 0.
        cards: States of the cards of this reader.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        name: str,
        interface: int = 0,
        lock: Any = None,
        max_command_s: float | None = MAX_COMMAND_S,
        cards: Cards | None = None,
    ) -> None:
        self.transport = transport
        self.cards = cards or Cards()
        self.name = name
        self.interface = interface
        if max_command_s is not None:
            max_command_s = seconds(max_command_s, "max_command_s")
            if max_command_s == 0:
                raise ValueError("max_command_s: 0 s is no time for a command")
        self.max_command_s = max_command_s if max_command_s != math.inf else None
        self.latest: float | None = None
        """Time (monotonic clock) at which every operation that begins now ends at the latest."""
        self.lock: Lock = lock or new_rlock()
        self._locks = [self.lock]
        self.count = -1
        """Number of the last command. bSeq, where there is one, is its low byte."""
        self.busy_slot = -1
        """Slot of the command under way; -1 while none is."""
        self.stale = 0
        """Replies dropped: no command waited for them any more."""
        self.deadlines: dict[int, float] = {}
        """By slot: time (monotonic clock) until which the last awaited reply may come. A
        supervisor of this process tells by it a long wait from a hang."""
        self.make_ready: Callable[[], None] | None = None
        """What the reader is to be told before a card gets power, after it was reset; None if there
        is nothing."""
        self._operations: dict[int, Operation] = {}
        self._cancelled: dict[int, int] = {}
        transport.when_dead(self._shut)

    def _shut(self, reason: CcidError) -> None:
        self.lock = Shut(reason)

    def turn(self, slot: int) -> Lock:
        """The lock to hold while commands to ``slot`` follow each other, with no other between."""
        return self.lock

    def check(self) -> None:
        """Raise the reason if no command can be sent any more."""
        lock = self.lock
        if isinstance(lock, Shut):
            lock.acquire()

    def quiet(
        self, meanwhile: Callable[[], object] = nothing_meanwhile, idle_s: float = QUIET_S
    ) -> Quiet:
        """A context in which no command is under way, even on a reader that is gone. Entering
        gives False if a thread does not end its turn within :data:`~ccid.link.locks.QUIET_S`.

        Args:
            meanwhile: Called every :data:`~ccid.link.locks.SLICE_MS` while entering waits.
            idle_s: Seconds to wait for a thread that keeps its turn and has no command under way.
        """
        return Quiet(self._locks, meanwhile, self.is_busy, idle_s)

    def is_busy(self) -> bool:
        """Whether a command or an operation is under way. A turn that is held is neither."""
        return self.busy_slot >= 0 or bool(self._operations)

    def every_turn(self, action: Callable[[], R]) -> R:
        """Do ``action`` in the turns of all slots: no APDU is under way, and none is half done.

        Deadlock avoidance: block on at most one lock, and hold none while blocking.

        Raises:
            What ``action`` raises; the reason why no command can be sent any more, if so.
        """
        taken: list[Lock] = []
        back, again = giving_back(taken), giving_back(taken)
        try:
            try:
                self._take_all(taken)
                return action()
            finally:
                run(back)
        finally:  # a debugger's hook may raise where no signal's handler can
            run(again)

    def _take_all(self, taken: list[Lock]) -> None:
        """Acquire all turns, noted in ``taken``."""
        first, is_complete = 0, False
        while not is_complete:
            self.check()
            locks, is_complete = self._locks[first:] + self._locks[:first], True
            for i, lock in enumerate(locks):
                if not take(lock, taken, timeout_s=0.0 if i else SLICE_MS / 1000):
                    run(giving_back(taken))
                    taken.clear()
                    first, is_complete = (first + i) % len(locks), False
                    break
        self.check()  # the reader may have gone meanwhile

    def end(self, reason: CcidError) -> None:
        """Send no more commands. Every thread that tries, or has one under way, gets ``reason``."""
        self.transport = Ended(self.transport, reason)
        self._shut(reason)

    # Operations -------------------------------------------------------------------------------

    def perform(
        self,
        slot: int,
        work: Callable[[], T],
        limit_s: float | None = None,
        session: Session | None = None,
    ) -> T:
        """Hold the turn of ``slot`` and do ``work``: all its commands are one operation.

        Args:
            slot: bSlot.
            work: Sends the commands; its result is returned.
            limit_s: Most seconds it may take with all extensions. Without it, an operation within
                another is part of the outer one.
            session: The power-up that the commands are for, if they are for one.

        Raises:
            CardRemoved, CardReset: That session is over. And what ``work`` raises.
        """
        with self.turn(slot):
            if session is not None and session.signs:
                self.look(slot, session)
            outer = self._operations.get(slot)
            if outer is not None and limit_s is None:
                return work()
            self._operations[slot] = self._operation_of(self.count + 1, limit_s)
            try:
                return work()
            finally:
                if outer is None:
                    self.busy_slot = -1
                    del self._operations[slot]
                    self._cancelled.pop(slot, None)  # the next one may begin at the same number
                else:
                    self._operations[slot] = outer

    @contextmanager
    def operation(self, slot: int, session: Session | None = None) -> Iterator[None]:
        """Hold the turn of ``slot``; all commands meanwhile are one operation. Where a signal may
        come, :meth:`perform` is better: a generator that a signal interrupts is closed only when
        Python collects it.

        Args:
            slot: bSlot.
            session: The power-up that the commands are for, if they are for one.

        Raises:
            CardRemoved, CardReset: That session is over.
        """
        with self.turn(slot):
            if session is not None and session.signs:
                self.look(slot, session)
            if slot in self._operations:
                yield
                return
            self._operations[slot] = self._operation_of(self.count + 1)
            try:
                yield
            finally:
                self.busy_slot = -1
                del self._operations[slot]
                self._cancelled.pop(slot, None)

    def _operation_of(self, first: int, limit_s: float | None = None) -> Operation:
        began = time.monotonic()
        limits = [limit for limit in (self.max_command_s, limit_s) if limit is not None]
        ends = [began + min(limits)] if limits else []
        if self.latest is not None:
            ends.append(self.latest)
        return Operation(first, began, min(ends, default=None))

    def _current(self, slot: int, count: int) -> Operation:
        """The operation that command ``count`` is part of: where none is noted, one of its own."""
        return self._operations.get(slot) or self._operation_of(count)

    def proceed(self, slot: int) -> None:
        """Check, between two commands of an operation, that it may go on.

        Raises:
            CommandCancelled: :meth:`cancel` was called meanwhile.
            TransportTimeout: It has taken too long.
        """
        operation = self._operations.get(slot)
        if operation is None:
            return
        if self._is_cancelled(slot, operation):
            raise self._cancellation(slot, self.count)
        if operation.until is not None and time.monotonic() >= operation.until:
            raise self._timeout(slot, self.count, time.monotonic() - operation.began)

    def _timeout(self, slot: int, count: int, waited_s: float) -> TransportTimeout:
        return TransportTimeout(
            f"{self.name}: slot {slot} did not answer command {count & 0xFF} "
            f"within {waited_s:.1f} s",
            reader=self.name,
            slot=slot,
            bSeq=count & 0xFF,
        )

    def was_reset(self) -> None:
        """The reader was reset: it works on nothing, and all cards lost their power."""
        self.cards.were_reset()

    # What happened to a card ------------------------------------------------------------------

    def powering(self, slot: int) -> None:
        """The card in ``slot`` is about to be powered; earlier notifications do not count."""
        self.transport.take_events()
        make_ready, self.make_ready = self.make_ready, None
        if make_ready is not None:
            try:
                make_ready()
            except BaseException:
                self.make_ready = make_ready
                raise
        self.cards.powering(slot)

    def fate(self, slot: int, session: Session) -> Fate | None:
        """What ended ``session``; None while it goes on. A slot in doubt is asked for its status
        (USB CCID rev 1.1, 6.1.3). A card that lost its power may have been exchanged, so this
        first waits :data:`NOTICE_S` for a notification that says so."""
        self.transport.take_events()
        if session.signs and session.fate is None:
            self._ask(slot)
        if session.fate is Fate.LOST_POWER and self.cards.notifies and not session.is_settled:
            until = time.monotonic() + NOTICE_S
            for _ in range(NOTICE_TRIES):  # other USB events end a wait early
                left_ms = int((until - time.monotonic()) * 1000)
                if left_ms <= 0 or session.fate is not Fate.LOST_POWER:
                    break
                self.transport.take_events(left_ms)
            session.is_settled = True
        return session.fate

    def look(self, slot: int, session: Session | None = None) -> None:
        """Raise the error for what ended ``session``, if something did. Without a session, that of
        the card in ``slot`` that was powered last.

        Raises:
            CardRemoved, CardReset: The session is over.
        """
        if session is None:
            card = self.cards[slot]
            if card.power is Power.ON:  # nearly always; to look it up in a set takes longer
                return
            session = card.session
            if card.power not in TO_SETTLE or session is None:
                return
        fate = self.fate(slot, session)
        if fate is not None:
            raise self.card_gone(slot, fate)

    def was_removed(self, slot: int) -> bool:
        """The card powered in ``slot`` was taken out, even if a card is there again. True until
        the new one is powered, or :meth:`Cards.told` was called."""
        self.transport.take_events()
        card = self.cards[slot]
        if card.power in TO_SETTLE and card.session is not None:
            self.fate(slot, card.session)
        return card.power is Power.REMOVED

    def _ask(self, slot: int) -> None:
        """Update :attr:`cards` with the status of ``slot``. Here the card is part of its reader,
        and always active."""
        self.cards.saw(slot, IccStatus.ACTIVE)

    def card_gone(self, slot: int, fate: Fate, **fields: Any) -> CcidError:
        """The error for a card whose session met ``fate``; of its reader, if that is gone too."""
        if self.transport.dead is not None:
            return copy.copy(self.transport.dead)
        kind, words = FATES[fate]
        if fate is Fate.REMOVED and not self.cards.notifies and self.cards[slot].is_present:
            words = UNCLEAR
        text = f"{self.name}: {words.format(slot=slot)}"
        return kind(text, reader=self.name, slot=slot, **fields)

    def card_removed(self, slot: int, **fields: Any) -> CcidError:
        """The error for a card that was taken out."""
        return self.card_gone(slot, Fate.REMOVED, **fields)

    # Cancellation -----------------------------------------------------------------------------

    def cancel(self, slot: int) -> bool:
        """End the operation that another thread has under way on ``slot``.

        Returns:
            False if there is none. The other thread gets :class:`CommandCancelled`.
        """
        lock = self.turn(slot)
        if isinstance(lock, Shut):
            lock.acquire()
        if not self._is_under_way(slot) or lock._is_owned():
            return False
        self._cancel_operation(slot)
        return True

    def _is_under_way(self, slot: int) -> bool:
        """A command or an operation is under way on ``slot``. A turn that is held is neither."""
        return self.busy_slot == slot or slot in self._operations

    def _cancel_operation(self, slot: int) -> None:
        """Note that the operation under way on ``slot`` is cancelled, even before its first
        command."""
        operation = self._operations.get(slot)
        first = -1 if operation is None else operation.first
        self._cancelled[slot] = max(self.count, first)

    def _is_cancelled(self, slot: int, operation: Operation) -> bool:
        """True, the first time, if :meth:`cancel` was called for this operation."""
        if not operation.hears:
            return False
        count = self._cancelled.pop(slot, None)
        return count is not None and count >= operation.first

    def _cancellation(self, slot: int, count: int, how: str = "") -> CommandCancelled:
        return CommandCancelled(
            f"{self.name}: command {count & 0xFF} of slot {slot} was cancelled{how}",
            reader=self.name,
            slot=slot,
            bSeq=count & 0xFF,
        )
