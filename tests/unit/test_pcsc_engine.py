"""The engine of the resource manager and a slot's driver with fake readers: no thread runs, and
the time is passed in."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

import ccid
from ccid.link.card_state import Power
from ccid.pcsc.manager import engine as engine_module
from ccid.pcsc.manager import slot_driver as slot_driver_module
from ccid.pcsc.manager.engine import (
    CLOSE_S,
    LINGER_S,
    POLL_S,
    Engine,
    Missed,
    Plugged,
    Settings,
    random_number,
)
from ccid.pcsc.manager.pcsc_call import Action, Call, DoneByCaller, Job, Outcome
from ccid.pcsc.manager.plugged_reader import PluggedReader, ReaderOpened, SlotStirred
from ccid.pcsc.manager.slot_driver import ABORT_S, JobDone, SlotDriver
from ccid.pcsc.numbers.ifd_numbers import Code
from tests.unit.fake_pcsc import FakeSlot


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Gate:
    """A lock that nobody has, or another for ever; notes how long somebody waited."""

    def __init__(self, is_held: bool = False) -> None:
        self.is_held = is_held
        self.waits: list[float] = []

    def acquire(self, timeout: float) -> bool:
        self.waits.append(timeout)
        return not self.is_held

    def release(self) -> None:
        assert not self.is_held

    def locked(self) -> bool:
        return self.is_held

    def __enter__(self) -> None:
        assert not self.is_held

    def __exit__(self, *_: object) -> None: ...


class FakeDriver:
    """Does a job at once, unless jobs are held."""

    def __init__(self, post: Any, slot: FakeSlot) -> None:
        self.post, self.slot = post, slot
        self.gate = Gate()
        self.caller: object = None
        self.came: bytes | Outcome = b"\x90\x00"
        self.sent: list[tuple[int, bytes]] = []
        self.held: list[tuple[Call, Job]] | None = None

    def begin(self, call: Call, job: Job) -> None:
        if self.held is not None:
            self.held.append((call, job))
            return
        self.post(JobDone(call, job, self.slot.do(job)))

    def end_turn(self, call: Call) -> None: ...

    def abort_caller(self, handle: object) -> None: ...

    def transmit(self, handle: object, kind: int, apdu: bytes, arrivals: int) -> bytes | Outcome:
        self.sent.append((kind, apdu))
        return self.came


@dataclass(eq=False)
class Plug:
    """What the fake readers are made of."""

    path: str
    slot: FakeSlot = field(default_factory=FakeSlot)
    is_polled: bool = False


class FakeReader:
    """A reader that is open at once."""

    def __init__(self, infos: list[Plug], post: Any, escape: bool) -> None:
        (info,) = self.infos = tuple(infos)
        self.key = self.device = self.base = info.path
        self.keys = [info.path]
        self.post = post
        self.drivers = [FakeDriver(post, info.slot)]
        self.is_polled = info.is_polled
        self.is_gone = self.is_closed = self.is_again = False
        self.state: Any = None

    def begin_opening(self) -> None:
        self.post(ReaderOpened(cast(PluggedReader, self)))

    def begin_closing(self) -> object:
        self.is_closed = True
        return SimpleNamespace(join=self.join)

    def join(self, timeout: float) -> None:
        joined.append(timeout)
        CLOCK.now += 2.0


CLOCK = Clock()
joined: list[float] = []


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    CLOCK.now = 1000.0
    joined.clear()
    monkeypatch.setattr(engine_module, "time", CLOCK)
    monkeypatch.setattr(engine_module, "PluggedReader", FakeReader)
    monkeypatch.setattr(engine_module, "grouped", lambda infos: [[info] for info in infos])


def begun(*plugs: Plug) -> tuple[Engine, int]:
    """An engine with these readers, and a context."""
    engine = Engine(Settings(virtual=cast(Any, plugs), usb=False), lambda: None)
    return engine, engine_result(engine, engine.functions.establish, 2).number


def engine_result(engine: Engine, function: Any, *arguments: Any) -> Any:
    call = Call(function, arguments)
    engine.begin(call)
    engine.run()
    assert call.code == 0, call.code
    return call.result


def connected(engine: Engine, context: int, protocols: int = 2) -> int:
    (view,) = (view for view in engine.core.resources.views if view is not None)
    number: int = engine_result(engine, engine.functions.connect, context, view.name, 2, protocols)[
        0
    ]
    return number


def test_numbers_are_of_31_bits_and_not_0(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [b"\0\0\0\0", b"\0\0\0\x80", b"\xff\xff\xff\xff"]
    monkeypatch.setattr(os, "urandom", lambda size: given.pop(0)[:size])
    assert random_number() == 0x7FFF_FFFF
    assert given == []


def test_a_message_is_there_until_it_is_handled() -> None:
    engine, _ = begun()
    assert not engine.has_messages
    engine.post(Plugged(()))
    assert engine.has_messages
    engine.run()
    assert not engine.has_messages


def test_a_reader_that_does_not_tell_is_asked_twice_a_second() -> None:
    asked, other = FakeSlot(None), FakeSlot(None)
    engine, _ = begun(Plug("asked", asked, is_polled=True), Plug("other", other))
    assert engine._poll_at == CLOCK.now + POLL_S == 1000.5
    assert len(asked.log) == len(other.log) == 1
    CLOCK.now += POLL_S - 0.01
    engine.run()
    assert len(asked.log) == 1
    CLOCK.now += 0.01
    engine.run()
    assert engine._poll_at == CLOCK.now + POLL_S
    assert (len(asked.log), len(other.log)) == (2, 1)
    (slot,) = (slot for slot in engine.core.resources.slots if slot and slot.key == "asked")
    slot.turn = Call(engine.functions.status)
    CLOCK.now += POLL_S
    engine.run()
    assert len(asked.log) == 2, "somebody is at the reader: it will be seen"
    slot.turn = None
    CLOCK.now += POLL_S
    engine.run()
    assert asked.log == [(Action.LOOK, 0)] * 3


def test_readers_are_kept_a_while_after_the_last_context() -> None:
    engine, context = begun(Plug("one"))
    (reader,) = engine._readers.values()
    engine_result(engine, engine.functions.release, context)
    CLOCK.now += LINGER_S - 0.5
    engine.run()
    assert not reader.is_closed
    engine_result(engine, engine.functions.establish, 2)
    CLOCK.now += LINGER_S * 2
    engine.run()
    assert not reader.is_closed, "one came in time"
    for number in list(engine.core.resources.contexts):
        engine_result(engine, engine.functions.release, number)
    CLOCK.now += LINGER_S
    engine.run()
    assert reader.is_closed
    assert engine._readers == {}


def test_the_end_waits_for_all_readers_together() -> None:
    engine, _ = begun(Plug("one"), Plug("two"), Plug("three"))
    engine.end()
    assert joined == [3.0, 1.0, 0.0]
    assert CLOSE_S == 3.0


def test_the_core_hears_of_an_exchange_past_it_only_where_the_reader_is_gone() -> None:
    engine, context = begun(Plug("one"))
    number = connected(engine, context)
    (driver,) = cast("list[FakeDriver]", list(engine._drivers.values()))
    for code in Code:
        driver.came = Outcome(code)
        done = engine.transmit_now(number, 2, b"\0\0\0\0")
        assert isinstance(done, DoneByCaller)
        assert (done.job.argument, done.outcome) == (1, driver.came)
        assert engine.has_messages is (code is Code.NO_SUCH_DEVICE)
        if engine.has_messages:
            missed = engine._inbox.get_nowait()
            assert isinstance(missed, Missed)
            assert missed.slot is done.job.slot
    assert driver.sent == [(1, b"\0\0\0\0")] * len(Code)


def test_whose_handle_may_go_past_the_core() -> None:
    engine, context = begun(Plug("one"))
    own = engine.core.resources.context(context)
    another = engine_result(engine, engine.functions.establish, 2)
    number = connected(engine, context, protocols=1)
    (driver,) = cast("list[FakeDriver]", list(engine._drivers.values()))
    for whose, may in ((None, True), (own, True), (another, False)):
        assert engine.may_transmit_now(number, 1, whose) is may
        assert engine.transmit_now(number, 1, b"\0\0\0\0", whose) == (
            (b"\x90\x00", 0) if may else None
        )
    assert not engine.may_transmit_now(number + 1, 1)
    assert engine.transmit_now(number + 1, 1, b"\0\0\0\0") is None
    driver.gate.is_held = True
    assert not engine.may_transmit_now(number, 1)
    assert engine.transmit_now(number, 1, b"\0\0\0\0") is None


def test_a_released_context_ends_only_what_is_done_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = begun(Plug("one"), Plug("two"), Plug("three"), Plug("four"))
    ended: list[object] = []
    monkeypatch.setattr(engine_module, "_in_thread", lambda _, handle: ended.append(handle))
    handles = [SimpleNamespace(context=SimpleNamespace(number=n)) for n in (1, 2, 3)]
    for driver, handle in zip(engine._drivers.values(), handles, strict=False):
        driver.caller = cast(Any, handle)
    engine.end_now(2)
    assert ended == [handles[1]]


@pytest.mark.parametrize("code", [Code.SUCCESS, Code.COMMUNICATION_ERROR, Code.NO_SUCH_DEVICE])
def test_a_reader_that_left_is_given_back_where_a_job_says_so(code: Code) -> None:
    """Otherwise it is when the reader tells."""
    engine, _ = begun(Plug("one"))
    (reader,) = cast("list[FakeReader]", list(engine._readers.values()))
    (driver,) = reader.drivers
    driver.held = []
    engine.post(SlotStirred(cast(PluggedReader, reader), 0))
    engine.run()
    ((call, job),) = driver.held
    reader.is_gone = True
    engine.post(JobDone(call, job, Outcome(code)))
    engine.run()
    assert reader.is_closed is (code is Code.NO_SUCH_DEVICE)
    engine.post(SlotStirred(cast(PluggedReader, reader), 0))
    engine.run()
    assert reader.is_closed


# The driver of a slot ---------------------------------------------------------------------------


class Handler:
    """A handler with one slot, whose commands cannot be cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.does_cancel = False
        self.asked = 0
        self.presence = Code.ICC_PRESENT
        state = SimpleNamespace(power=Power.OFF, is_present=True, arrivals=1)
        self._channel = SimpleNamespace(
            slot=SimpleNamespace(cancel=self._cancel, index=0),
            presence=self._presence,
            reader=SimpleNamespace(cards=[state]),
            owes_absence=False,
        )

    def channel(self, lun: int) -> object:
        return self._channel

    def is_gone(self, lun: int) -> bool:
        return False

    def _cancel(self) -> bool:
        self.cancelled += 1
        return self.does_cancel

    def _presence(self, hold: bool) -> tuple[Code, bytes]:
        self.asked += 1
        return self.presence, b""


def driver_of(handler: Handler) -> SlotDriver:
    return SlotDriver(cast(Any, handler), 0, lambda _: None)


@pytest.mark.parametrize("by_caller", [False, True])
def test_for_how_long_a_job_is_ended_again_and_again(by_caller: bool) -> None:
    handler = Handler()
    driver = driver_of(handler)
    call = cast(Call, object())
    busy, gate = Gate(is_held=True), Gate(is_held=True)
    driver._busy, driver.gate = cast(Any, busy), cast(Any, gate)
    driver._current = call
    driver.caller = cast(Any, object()) if by_caller else None
    driver.abort(call)
    waited, other = (gate, busy) if by_caller else (busy, gate)
    assert handler.cancelled == 50
    assert sum(waited.waits) == pytest.approx(5.0)
    assert set(waited.waits) == {ABORT_S}
    assert other.waits == []


def test_what_a_caller_does_is_ended_again_until_it_is() -> None:
    handler = Handler()
    driver = driver_of(handler)
    handle = cast(Any, object())
    gate = Gate(is_held=True)
    driver.gate = cast(Any, gate)
    driver.caller = driver._current = handle
    driver.abort_caller(handle)
    assert handler.cancelled == len(gate.waits) == slot_driver_module.ABORT_TRIES
    handler.does_cancel = True
    driver.abort_caller(handle)
    assert handler.cancelled == slot_driver_module.ABORT_TRIES + 1
    driver.caller = None
    driver.abort_caller(handle)
    assert handler.cancelled == slot_driver_module.ABORT_TRIES + 1


def test_a_job_that_is_dropped_touches_nothing() -> None:
    handler = Handler()
    driver = driver_of(handler)
    call, job = cast(Call, object()), Job(cast(Any, None), Action.LOOK)
    driver._given = call
    driver.abort(call)
    outcome = driver._do_for(call, job)
    assert outcome.code is Code.COMMUNICATION_ERROR
    assert outcome.seen is not None
    assert handler.asked == 0
    assert driver._do_for(call, job).code is Code.SUCCESS
    assert handler.asked == 1


def test_when_a_reader_does_not_tell() -> None:
    handler = Handler()
    driver = driver_of(handler)
    for code in Code:
        handler.presence = code
        seen = driver._do(Job(cast(Any, None), Action.LOOK)).seen
        assert seen is not None
        assert seen.is_failed is (code is Code.COMMUNICATION_ERROR)


def test_what_a_reader_is_known_by_when_it_comes_back() -> None:
    """Its serial number, wherever it is; or else its place."""
    info = ccid.VirtualReader().info

    def device(serial: str | None, path: str) -> object:
        made = PluggedReader([replace(info, serial=serial, path=path)], lambda _: None, True)
        return made.device

    assert device("0123", "usb:1") == device("0123", "usb:2")
    assert device("0123", "usb:1") != device("4567", "usb:1")
    assert device(None, "usb:1") == device(None, "usb:1") != device(None, "usb:2")
