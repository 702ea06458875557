"""What all conversations with a reader have in common: turns, limits, and ending one early.

A turn is held by the thread whose commands follow each other on a slot. An operation is what an
application sees as one thing (an APDU, a power-up) and may take many commands: their time counts
together, and :meth:`Conversation.cancel` ends them together, between two of them as well.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, NoReturn, TypeVar

from ccid.changes import Changes
from ccid.errors import CardRemoved, CcidError, CommandCancelled, TransportTimeout
from ccid.transport import Transport, nothing_to_end

R = TypeVar("R")

SLICE_MS = 250
"""How long a wait goes on before it looks whether it is still wanted."""
QUIET_S = 10.0
"""How long closing waits for a command under way to end."""
MAX_COMMAND_S = 30 * 60.0
"""An operation may ask for more time up to this long in all: a card may compute a key for
minutes."""


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


def take(lock: Lock, taken: list[Lock], timeout_s: float) -> bool:
    """Acquire a lock, noted in ``taken`` before: between acquiring and noting, what a signal's
    handler raises could come, and nobody would know that the lock is held. False if it takes more
    than ``timeout_s``. One that this thread holds already is left alone: it is another's to give
    back."""
    if lock._is_owned():
        return True
    taken.append(lock)
    acquired: bool = lock.acquire(timeout=timeout_s)
    return acquired


def giving_back(taken: list[Lock]) -> Iterator[None]:
    """What releases those of ``taken`` that this thread holds when it is given to :data:`run`.

    All of that happens in C. So it is one step, and where it is the first thing that a ``finally``
    does, no handler of a signal runs before or within it, as often as it may be called.
    """
    return map(RELEASE, filter(IS_OWNED, taken))


RELEASE, IS_OWNED = methodcaller("release"), methodcaller("_is_owned")
run = deque[None](maxlen=0).extend


class Quiet:
    """Locks held, as :meth:`Conversation.quiet` says. It may be left without having been entered,
    and more than once: an ``ExitStack`` on which it was pushed before, twice, gives the locks back
    even if a signal's handler raises as the first begins to."""

    def __init__(self, locks: list[Lock], meanwhile: Callable[[], object]) -> None:
        self._locks = locks
        self._meanwhile = meanwhile
        self._taken: list[Lock] = []

    def __enter__(self) -> bool:
        back, again = giving_back(self._taken), giving_back(self._taken)
        try:
            try:
                return self._take()
            except BaseException:
                run(back)
                raise
        except BaseException:
            run(again)
            raise

    def _take(self) -> bool:
        until, quiet = time.monotonic() + QUIET_S, True
        for lock in self._locks:
            while not take(lock, self._taken, SLICE_MS / 1000):
                self._meanwhile()
                if time.monotonic() > until:
                    quiet = False
                    break
        return quiet

    def __exit__(self, *_: object) -> None:
        run(giving_back(self._taken))


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
        changes: What the reader's notifications meant.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        name: str,
        interface: int = 0,
        lock: Any = None,
        max_command_s: float | None = MAX_COMMAND_S,
        changes: Changes | None = None,
    ) -> None:
        self.transport = transport
        self.changes = changes or Changes(auto_activating=False)
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

    def check(self) -> None:
        """Raise why no more can be said, if that is so."""
        lock = self.lock
        if isinstance(lock, Shut):
            lock.acquire()

    def quiet(self, meanwhile: Callable[[], object] = bool) -> Quiet:
        """Hold this to have no command under way, even on a reader that is gone. It gives False
        if a thread does not let go of its turn in time: that is waited for no longer.

        Args:
            meanwhile: Called again and again while it waits.
        """
        return Quiet(self._locks, meanwhile)

    def every_turn(self, action: Callable[[], R]) -> R:
        """Do ``action`` in the turns of all slots: no APDU is under way, and none is half done.

        Of several turns, no more than one is waited for, and none held meanwhile: so nobody
        waits for somebody who waits for him.

        Raises:
            What ``action`` does; and why no more can be said, if that is so.
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
        """Take all turns, and note in ``taken`` which they are."""
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
        self.check()  # what was taken may be a turn of a reader that is gone

    def end(self, reason: CcidError) -> None:
        """Say no more: whoever tries, or is about something, is told ``reason``."""
        self.transport = Ended(self.transport, reason)
        self._shut(reason)

    # Operations -------------------------------------------------------------------------------

    @contextmanager
    def operation(self, slot: int) -> Iterator[None]:
        """Hold the turn of ``slot``; all commands meanwhile are one operation."""
        with self.turn(slot):
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

    # Cards that are gone ----------------------------------------------------------------------

    def powering(self, slot: int) -> None:
        """The card in ``slot`` is about to be powered; whatever came before does not count."""
        self.transport.take_events()
        self.changes.powering(slot)

    def was_removed(self, slot: int) -> bool:
        """The reader said that the card powered in ``slot`` was taken out, even if there is one
        again. True until that is powered, or :meth:`Changes.forget` was called."""
        self.transport.take_events()
        certain = self.changes.moved.get(slot)
        if certain is False and self._still_active(slot):
            self.changes.dismiss(slot)
            return False
        return certain is not None

    def _still_active(self, slot: int) -> bool:
        """The card in ``slot`` has power: then it is the one that was given it."""
        return True

    def card_removed(self, slot: int, **fields: Any) -> CcidError:
        """The error for a card that was taken out; with its reader, if that is gone too."""
        if self.transport.dead is not None:
            return copy.copy(self.transport.dead)
        return CardRemoved(
            f"{self.name}: the card was taken out of slot {slot}",
            reader=self.name,
            slot=slot,
            **fields,
        )

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
