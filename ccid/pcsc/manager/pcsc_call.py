"""A call under way, and what it may wait for; pure data.

Theory of operation. Each function of PC/SC is a generator. It yields what it waits for: its turn at
a slot, the end of another's transaction, a change, or work that a driver does. It returns the
function's result, or raises :class:`ScardError`. So all waiting is data: the core
(:mod:`ccid.pcsc.manager.core`) holds the generators and goes on with them when what they wait for
has come. No thread waits inside, and a test needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from ccid.pcsc.manager.pcsc_state import Context, Handle, Slot
from ccid.pcsc.manager.scard_codes import ScardCode
from ccid.pcsc.numbers.ifd_numbers import Code


class Action(Enum):
    """What a driver does for a slot."""

    LOOK = auto()
    """Ask whether there is a card."""
    POWER_UP = auto()
    """Give the card power; reset it if it has power (a warm reset)."""
    POWER_CYCLE = auto()
    """Take its power and give it again."""
    POWER_DOWN = auto()
    PROTOCOL = auto()
    """Agree with the card on a protocol; ``argument`` is 1 for T=0, 2 for T=1."""
    TRANSMIT = auto()
    """Exchange ``data``; ``argument`` is 0 for T=0, 1 for T=1."""
    CONTROL = auto()
    """``argument`` is the control code."""
    GET = auto()
    """``argument`` is the attribute."""
    SET = auto()


class Loss(Enum):
    """How a card that had power lost it without a command."""

    REMOVED = auto()
    POWER = auto()


@dataclass(frozen=True, slots=True)
class CardSeen:
    """What a driver knows of the card in a slot.

    Attributes:
        is_present: There is one.
        arrivals: How many came.
        loss: What became of the one that had power, since this was told last.
        is_failed: The reader does not tell.
    """

    is_present: bool
    arrivals: int = 0
    loss: Loss | None = None
    is_failed: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """Work for a driver. Of each slot there is one at a time.

    Attributes:
        slot: Where.
        action: What.
        argument, data: For that.
    """

    slot: Slot
    action: Action
    argument: int = 0
    data: bytes = b""

    def __repr__(self) -> str:
        return f"Job({self.slot.name!r}, {self.action.name}, {len(self.data)} bytes)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Attributes:
        code: The driver's answer.
        data: Its data.
        seen: What it knows of the card by now; None if nothing.
    """

    code: Code
    data: bytes = b""
    seen: CardSeen | None = None

    def __repr__(self) -> str:
        return f"Outcome({self.code.name}, {len(self.data)} bytes, {self.seen})"


@dataclass(frozen=True, slots=True)
class DoneByCaller:
    """A job that a caller's own thread did, and of which there is more to tell than a response.

    Attributes:
        job: It.
        card: The number of the card that there was before.
        outcome: What came of it.
    """

    job: Job
    card: int
    outcome: Outcome


class LockRule(Enum):
    """Whose transaction a call waits for."""

    NOBODY = auto()
    OTHER_HANDLES = auto()
    OTHER_CONTEXTS = auto()


@dataclass(frozen=True, slots=True)
class Wait:
    """A call waits at a slot.

    Attributes:
        slot: Where.
        rule: Until whose transaction has ended.
        turn: Until it may talk to the reader, too: then nobody else does until the call ends.
        handle: Its handle.
        context: Its context.
        heeds_word: It need not wait once its handle has something to be told.
    """

    slot: Slot
    rule: LockRule = LockRule.NOBODY
    turn: bool = False
    handle: Handle | None = None
    context: Context | None = None
    heeds_word: bool = False

    @property
    def is_over(self) -> bool:
        """Nothing is left to wait for."""
        handle = self.handle
        if self.slot.is_gone or (handle is not None and handle.is_closed):
            return True
        if self.heeds_word and handle is not None and handle.word is not None:
            return True
        if self.is_newcomer and self.slot.exclusive is not None:
            return True  # there is nothing to hope for
        return not self.is_locked_out and not (self.turn and self.slot.turn is not None)

    @property
    def is_newcomer(self) -> bool:
        """It waits for a handle."""
        return self.context is not None and self.handle is None

    @property
    def is_locked_out(self) -> bool:
        """A transaction keeps it waiting."""
        holder = self.slot.holder
        if holder is None or holder is self.handle or self.rule is LockRule.NOBODY:
            return False
        return self.rule is LockRule.OTHER_HANDLES or holder.context is not self.context


@dataclass(frozen=True, slots=True)
class AnyChange:
    """A call waits until something changed that clients can see."""


Steps = Generator[Wait | Job | AnyChange, Any, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a function that waits for nothing.

    Attributes:
        value: It.
    """

    value: Any = None


class Call:
    """A function of PC/SC, under way.

    Args:
        function: One of :class:`ccid.pcsc.manager.functions.Functions`; it gets this call and
            ``arguments``.
        arguments: For it.
        context: Whose call it is, where that is known: then no other's handle will do.
        deadline: When (monotonic clock, s) it ends with ``late_code``, unless a driver is at
            work for it; None for never.
        late_code: How it ends then.
        refuses_own_lock: It ends with SCARD_E_SHARING_VIOLATION at once where a transaction of
            its own context would make it wait, and its deadline counts only while another
            context's does.

    Attributes:
        code: How it ended; None while it is under way.
        result: What it brought.
        steps: What is left to do.
        waits_for: What it waits for.
        turn: The slot at which it is its turn.
        is_abandoned: Nobody waits for its end any more.
    """

    def __init__(
        self,
        function: Callable[..., Steps | Done],
        arguments: tuple[Any, ...] = (),
        context: Context | None = None,
        *,
        deadline: float | None = None,
        late_code: ScardCode = ScardCode.E_TIMEOUT,
        refuses_own_lock: bool = False,
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.context = context
        self.deadline = deadline
        self.late_code = late_code
        self.refuses_own_lock = refuses_own_lock
        self.code: ScardCode | None = None
        self.result: Any = None
        self.steps: Steps | None = None
        self.waits_for: Wait | Job | AnyChange | None = None
        self.turn: Slot | None = None
        self.is_abandoned = False

    def finished(self) -> None:
        """It ended. Whoever waits for that says here what happens then; it must not wait."""
