"""Readers and drivers for the resource manager's core, without threads or time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from ccid.pcsc.ifd_numbers import Code
from ccid.pcsc.manager.core import Core
from ccid.pcsc.manager.functions import Functions
from ccid.pcsc.manager.pcsc_call import Action, Call, CardSeen, Done, Job, Loss, Outcome, Steps
from ccid.pcsc.manager.pcsc_state import PcscReader, Slot
from ccid.pcsc.manager.scard_codes import ScardCode

ATR = bytes.fromhex("3B9B9680B1FE451FC78031F073F621E0830590004C")
"""T=0 and T=1."""
ATR_T0 = bytes.fromhex("3B00")


class FakeSlot:
    """A slot whose driver answers at once.

    Attributes:
        atr: Of the card; None without one.
        failing: Presence cannot be asked for.
        mute: The card does not answer.
        log: What was done, as (action, argument).
    """

    def __init__(self, atr: bytes | None = ATR) -> None:
        self.atr = atr
        self.arrivals = int(atr is not None)
        self.failing = self.mute = self.powered = False
        self.refused: set[int] = set()
        self.loss: Loss | None = None
        self.log: list[tuple[Action, int]] = []
        self.response = bytes.fromhex("9000")

    def take_out(self) -> None:
        """The card leaves."""
        if self.powered:
            self.loss = Loss.REMOVED
        self.atr, self.powered = None, False

    def put_in(self, atr: bytes = ATR) -> None:
        """A card comes."""
        self.atr = atr
        self.arrivals += 1

    def exchange(self) -> None:
        """Another card comes before anybody looked."""
        self.take_out()
        self.put_in()

    def lose_power(self) -> None:
        """The card is without power all of a sudden."""
        if self.powered:
            self.powered, self.loss = False, Loss.POWER

    @property
    def seen(self) -> CardSeen:
        """What the driver tells: a loss once."""
        loss, self.loss = self.loss, None
        return CardSeen(self.atr is not None, self.arrivals, loss, self.failing)

    def do(self, job: Job) -> Outcome:
        """Do a job."""
        self.log.append((job.action, job.argument))
        code, data = self._done(job)
        return Outcome(code, data, self.seen)

    def _done(self, job: Job) -> tuple[Code, bytes]:
        works = self.atr is not None and not self.mute
        match job.action:
            case Action.LOOK:
                return Code.SUCCESS, b""
            case Action.POWER_UP | Action.POWER_CYCLE:
                self.powered = works
                return (Code.SUCCESS, self.atr or b"") if works else (Code.ERROR_POWER_ACTION, b"")
            case Action.POWER_DOWN:
                self.powered = False
                return Code.SUCCESS, b""
            case Action.PROTOCOL:
                refused = job.argument in self.refused
                return (Code.NOT_SUPPORTED if refused else Code.SUCCESS), b""
            case Action.TRANSMIT if self.loss is Loss.REMOVED:
                return Code.ICC_NOT_PRESENT, b""
            case Action.TRANSMIT if not self.powered:
                return Code.COMMUNICATION_ERROR, b""
            case Action.TRANSMIT:
                return Code.SUCCESS, self.response
            case Action.CONTROL:
                return Code.SUCCESS, b"control"
            case Action.GET:
                return Code.SUCCESS, b"attribute"
        return Code.ERROR_TAG, b""


class World:
    """A core with fake readers. Drivers answer at once, unless :attr:`is_held`.

    Attributes:
        is_held: Jobs stay until :meth:`work`.
    """

    def __init__(self, *slots: FakeSlot, **how: Any) -> None:
        numbers = itertools.count(1)
        self.core = Core(lambda: next(numbers), **how)
        self.functions = Functions(self.core)
        self.now = 100.0
        self.is_held = False
        self._fakes: dict[Slot, FakeSlot] = {}
        self.readers: list[PcscReader] = []
        for slot in slots or (FakeSlot(),):
            self.plug(slot)

    def plug(self, *slots: FakeSlot, device: str = "", base: str = "Reader") -> PcscReader:
        """A reader comes."""
        device = device or f"device {len(self.readers)}"
        reader = self.core.resources.reader_came(device, base, range(len(slots)))
        assert reader is not None
        self._fakes.update(zip(reader.slots, slots, strict=True))
        self.readers.append(reader)
        self.core.reader_opened(reader, self.now)
        self._settle()
        return reader

    def unplug(self, reader: int = 0) -> None:
        """A reader leaves."""
        self.core.reader_left(self.readers[reader], self.now)
        self._settle()

    def look(self, slot: Slot | None = None) -> None:
        """A reader says that something happened."""
        self.core.look(slot or self.slot, self.now)
        self._settle()

    @property
    def slot(self) -> Slot:
        """The first slot of the first reader."""
        return self.readers[0].slots[0]

    @property
    def fake(self) -> FakeSlot:
        """Its driver."""
        return self._fakes[self.slot]

    def driver(self, slot: Slot) -> FakeSlot:
        """The driver of a slot."""
        return self._fakes[slot]

    def take_out(self) -> None:
        """Its card leaves."""
        self.fake.take_out()
        self.look()

    def put_in(self, atr: bytes = ATR) -> None:
        """A card comes into it."""
        self.fake.put_in(atr)
        self.look()

    def work(self) -> None:
        """Drivers do what they have to do."""
        while self.core.jobs:
            call, job = self.core.jobs.popleft()
            self.core.finished(call, job, self._fakes[job.slot].do(job), self.now)

    def _settle(self) -> None:
        if not self.is_held:
            self.work()
        while self.core.ended:
            self.core.ended.popleft().finished()

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        until = self.now + seconds
        while (due := self.core.next_time) is not None and due <= until:
            self.now = due
            self.core.time_passed(due)
            self._settle()
        self.now = until
        self.core.time_passed(until)
        self._settle()

    # Functions ------------------------------------------------------------------------------------

    def begin(
        self, function: Callable[..., Steps | Done], *arguments: Any, timeout: float | None = None
    ) -> Call:
        """Begin a call."""
        call = Call(function, arguments, deadline=None if timeout is None else self.now + timeout)
        self.core.begin(call, self.now)
        self._settle()
        return call

    def code(self, function: Callable[..., Steps | Done], *arguments: Any) -> ScardCode | None:
        """The code of a call; None if it waits."""
        return self.begin(function, *arguments).code

    def result(self, function: Callable[..., Steps | Done], *arguments: Any) -> Any:
        """The result of a call that succeeds."""
        call = self.begin(function, *arguments)
        assert call.code is ScardCode.S_SUCCESS, call.code
        return call.result

    def context(self) -> int:
        """Establish a context."""
        number: int = self.result(self.functions.establish, 2).number
        return number

    def connect(self, context: int, share: int = 2, protocols: int = 3) -> int:
        """Connect to the first slot."""
        number: int = self.result(
            self.functions.connect, context, self.slot.name, share, protocols
        )[0]
        return number
