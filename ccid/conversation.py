"""What all conversations with a reader have in common: turns, limits, and ending one early.

A turn is held by the thread whose commands follow each other on a slot. An operation is what an
application sees as one thing (an APDU, a power-up) and may take many commands: their time counts
together, and :meth:`Conversation.cancel` ends them together, between two of them as well.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from ccid.card_state import Fate, Power, Session
from ccid.cards import Cards
from ccid.errors import (
    CardRemoved,
    CardReset,
    CcidError,
    CommandCancelled,
    TransportTimeout,
)
from ccid.transport import Transport, nothing_to_end

SLICE_MS = 250
"""How long a wait goes on before it looks whether it is still wanted."""
QUIET_S = 10.0
"""How long closing waits for a command under way to end."""
MAX_COMMAND_S = 30 * 60.0
"""An operation may ask for more time up to this long in all: a card may compute a key for
minutes."""
NOTICE_S = 0.3
"""How late a notification may be: a reader is asked for one every quarter of a second at least."""
NOTICE_TRIES = 10
"""How many times that wait is begun again after other USB events ended it."""
TO_SETTLE = frozenset((Power.DOUBTFUL, Power.LOST, Power.REMOVED))
"""States of a slot whose card must not be sent a command as if nothing had happened."""
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


class Shut:
    """What takes the lock's place when no more can be said: whoever enters is told why.

    The path of every APDU enters the lock anyway, so it need not look at a flag. And a forked
    child must never wait for a lock that a thread of its parent holds.
    """

    def __init__(self, reason: CcidError) -> None:
        self.reason = reason

    def acquire(self, blocking: bool = True, timeout: float = -1) -> NoReturn:
        raise copy.copy(self.reason)

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        """Never reached: entering raises."""

    release = __exit__


class Ended:
    """What takes the transport's place when a thread has its turn still: it raises ``reason``."""

    def __init__(self, inner: Transport, reason: CcidError) -> None:
        self.out, self.inp, self.packet_size = inner.out, inner.inp, inner.packet_size
        self.dead: CcidError | None = reason

    def _refuse(self, *_: object) -> NoReturn:
        assert self.dead is not None
        raise copy.copy(self.dead)

    send = receive = take_events = control = _refuse

    def listen(self, tell: Callable[[bytes], None]) -> None:
        """There will be nothing."""

    def attend(self) -> Callable[[], None]:
        """There is nothing to wait for."""
        return nothing_to_end

    def close(self) -> None:
        """The transport is not this one's to close."""

    def when_dead(self, tell: Callable[[CcidError], None]) -> None:
        assert self.dead is not None
        tell(self.dead)


Lock = Any  # threading.RLock is a function before Python 3.13; or a Shut


@dataclass(slots=True)
class Operation:
    """What an application sees as one thing.

    Attributes:
        first: Number of its first command.
        began: When, on the monotonic clock.
        until: When it has taken too long; None for never.
    """

    first: int
    began: float
    until: float | None


class Conversation:
    """A conversation with one reader, whatever its messages look like.

    Args:
        transport: The open interface. The conversation does not close it.
        name: The reader's name, for errors.
        interface: bInterfaceNumber.
        lock: Who may talk; given where several interfaces must take turns.
        max_command_s: Most seconds an operation may take with all extensions; None for no limit.
        cards: What happened to the cards of this reader.
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
        self.max_command_s = max_command_s
        self.lock: Lock = lock or threading.RLock()
        self._locks = [self.lock]
        self.count = -1
        """Number of the last command; where there is a bSeq, its low byte is that."""
        self.busy_slot = -1
        """The slot it went to, while it is under way; else -1."""
        self.stale = 0
        """Replies dropped because nobody waited for them any more."""
        self.deadlines: dict[int, float] = {}
        """Until when (monotonic clock) the last reply that was waited for might have come, by
        slot: whoever watches over this process sees by it that a long wait is no hang."""
        self._operations: dict[int, Operation] = {}
        self._cancelled: dict[int, int] = {}
        transport.when_dead(self._shut)

    def _shut(self, reason: CcidError) -> None:
        self.lock = Shut(reason)

    def turn(self, slot: int) -> Lock:
        """The lock to hold to have commands to ``slot`` follow each other undisturbed."""
        return self.lock

    @contextmanager
    def quiet(self, meanwhile: Callable[[], object] = bool) -> Iterator[bool]:
        """Hold this to have no command under way, even on a reader that is gone. False if a
        thread does not let go of its turn in time: it is waited for no longer.

        Args:
            meanwhile: Called again and again while it waits.
        """
        with ExitStack() as stack:
            until, quiet = time.monotonic() + QUIET_S, True
            for lock in self._locks:
                while not lock.acquire(timeout=SLICE_MS / 1000):
                    meanwhile()
                    if time.monotonic() > until:
                        quiet = False
                        break
                else:
                    stack.callback(lock.release)
            yield quiet

    @contextmanager
    def every_turn(self) -> Iterator[None]:
        """Hold the turns of all slots: no APDU is under way, and none is half done.

        Of several turns, no more than one is waited for, and none held meanwhile: so nobody
        waits for somebody who waits for him.
        """
        first = 0
        while True:
            with ExitStack() as stack:
                locks = self._locks if not isinstance(self.lock, Shut) else [self.lock]
                locks = locks[first:] + locks[:first]
                for i, lock in enumerate(locks):
                    if not lock.acquire(blocking=i == 0):
                        first = (first + i) % len(locks)
                        break
                    stack.callback(lock.release)
                else:
                    yield
                    return

    def end(self, reason: CcidError) -> None:
        """Say no more: whoever tries, or is about something, is told ``reason``."""
        self.transport = Ended(self.transport, reason)
        self._shut(reason)

    # Operations -------------------------------------------------------------------------------

    @contextmanager
    def operation(self, slot: int, session: Session | None = None) -> Iterator[None]:
        """Hold the turn of ``slot``; all commands meanwhile are one operation.

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
                del self._operations[slot]
                self.busy_slot = -1

    def _operation_of(self, first: int) -> Operation:
        began = time.monotonic()
        limit = self.max_command_s
        return Operation(first, began, None if limit is None else began + limit)

    def _current(self, slot: int, count: int) -> Operation:
        """The operation that command ``count`` is part of: perhaps that command alone."""
        return self._operations.get(slot) or self._operation_of(count)

    def proceed(self, slot: int) -> None:
        """To be called between the commands of an operation.

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

    # What happened to a card ------------------------------------------------------------------

    def powering(self, slot: int) -> None:
        """The card in ``slot`` is about to be powered; whatever came before does not count."""
        self.transport.take_events()
        self.cards.powering(slot)

    def fate(self, slot: int, session: Session) -> Fate | None:
        """What ended ``session``; None while it goes on. A slot in doubt is asked for its status
        (USB CCID rev 1.1, 6.1.3). A card that lost its power may have been exchanged: that is
        told only after the time in which a notification would have come."""
        self.transport.take_events()
        if session.signs and session.fate is None:
            self._ask(slot)
        if session.fate is Fate.LOST_POWER and self.cards.notifies and not session.is_settled:
            until = time.monotonic() + NOTICE_S
            for _ in range(NOTICE_TRIES):  # what else lets libusb handle events ends a wait, too
                left_ms = int((until - time.monotonic()) * 1000)
                if left_ms <= 0 or session.fate is not Fate.LOST_POWER:
                    break
                self.transport.take_events(left_ms)
            session.is_settled = True
        return session.fate

    def look(self, slot: int, session: Session | None = None) -> None:
        """Raise what ended ``session``, if something did; without one, what became of the card
        in ``slot`` that was powered last.

        Raises:
            CardRemoved, CardReset: The session is over.
        """
        if session is None:
            card = self.cards[slot]
            session = card.session
            if card.power not in TO_SETTLE or session is None:
                return
        fate = self.fate(slot, session)
        if fate is not None:
            raise self.card_gone(slot, fate)

    def was_removed(self, slot: int) -> bool:
        """The card powered in ``slot`` was taken out, even if there is one again. True until that
        is powered, or :meth:`Cards.told` was called."""
        self.transport.take_events()
        card = self.cards[slot]
        if card.power in TO_SETTLE and card.session is not None:
            self.fate(slot, card.session)
        return card.power is Power.REMOVED

    def _ask(self, slot: int) -> None:
        """Ask the reader for the status of ``slot``, so that :attr:`cards` know it."""

    def card_gone(self, slot: int, fate: Fate, **fields: Any) -> CcidError:
        """The error for a card whose session met ``fate``; for its reader, if that is gone too."""
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

    # Ending one early -------------------------------------------------------------------------

    def cancel(self, slot: int) -> bool:
        """End the operation that another thread has under way on ``slot``.

        Returns:
            False if there is none. The other thread gets :class:`CommandCancelled`.
        """
        if self.lock.acquire(blocking=False):
            self.lock.release()
            return False
        if self.busy_slot != slot and slot not in self._operations:
            return False  # some thread holds its turn, and does nothing with it here
        self._cancel_operation(slot)
        return True

    def _cancel_operation(self, slot: int) -> None:
        """Have what is under way on ``slot`` cancelled, if it has sent no command yet, too."""
        operation = self._operations.get(slot)
        first = -1 if operation is None else operation.first
        self._cancelled[slot] = max(self.count, first)

    def _is_cancelled(self, slot: int, operation: Operation) -> bool:
        """True, once, if :meth:`cancel` was called for this operation."""
        count = self._cancelled.pop(slot, None)
        return count is not None and count >= operation.first

    def _cancellation(self, slot: int, count: int, how: str = "") -> CommandCancelled:
        return CommandCancelled(
            f"{self.name}: command {count & 0xFF} of slot {slot} was cancelled{how}",
            reader=self.name,
            slot=slot,
            bSeq=count & 0xFF,
        )
