"""The resource manager in this process, with virtual readers: threads, events, readers that go."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.device.open_readers import opened
from ccid.device.reader_link import make_conversation
from ccid.iso7816.apdu import CommandApdu
from ccid.pcsc.manager import (
    PNP_READER,
    Disposition,
    Manager,
    ReaderState,
    ScardCode,
    ScardError,
    StateBits,
    shared_manager,
)
from ccid.pcsc.manager.engine import Engine
from ccid.pcsc.manager.pcsc_call import Call
from ccid.virtual import FileSystemCard
from ccid.virtual.cards import Answer, Application
from ccid.virtual.models import make
from tests.unit.test_asynchronous import until

SELECT = bytes.fromhex("00A4000C023F00")
OK = bytes.fromhex("9000")
SLOW_S = 20.0


class SlowCard(Application):
    """Takes its time for INS 0E."""

    atr = bytes.fromhex("3B8001 81")

    def process(self, command: CommandApdu) -> Answer:
        return Answer(after_s=SLOW_S if command.ins == 0x0E else 0.0)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


Made = Callable[..., Manager]


@pytest.fixture
def made(pool: ThreadPoolExecutor) -> Iterator[Made]:
    """Makes managers, which are closed in the end: before the end of the pool, whose threads may
    wait for a manager for ever."""
    managers: list[Manager] = []

    def make(*readers: ccid.VirtualReader, grace_s: float = 5.0) -> Manager:
        manager = Manager(readers, usb=False, grace_s=grace_s)
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        manager.close()


def code(future: Future[object]) -> ScardCode:
    error = future.exception(10)
    assert isinstance(error, ScardError)
    return error.code


def test_an_apdu(made: Made) -> None:
    manager = made(ccid.VirtualReader())
    context = manager.establish()
    (name,) = manager.list_readers(context)
    handle, protocol = manager.connect(context, name)
    assert manager.transmit(handle, protocol, SELECT) == (OK, 1)
    status = manager.status(handle)
    assert (status.name, status.state, status.protocol) == (name, 0x34, 2)
    manager.disconnect(handle, Disposition.UNPOWER)
    with pytest.raises(ScardError) as caught:
        manager.disconnect(handle)
    assert caught.value.code is ScardCode.E_INVALID_HANDLE
    manager.release(context)
    assert not manager.is_valid(context)


def test_names_and_slots(made: Made) -> None:
    """Each slot is a reader; interfaces that are slots of one reader share its number."""
    manager = made(ccid.VirtualReader(slots=2), make("076b:5422"), ccid.VirtualReader())
    names = manager.list_readers(manager.establish())
    assert [name[-5:] for name in names] == ["00 00", "00 01", "01 00", "01 01", "02 00"]
    assert names[2].startswith("HID Global OMNIKEY 5422 Smartcard Reader (")


def test_one_more_reader(made: Made, pool: ThreadPoolExecutor) -> None:
    manager = made()
    reader = ccid.VirtualReader()
    context = manager.establish()
    change = pool.submit(manager.get_status_change, context, -1, [ReaderState(PNP_READER)])
    until(lambda: manager._engine.core._watchers)  # what came before is no change
    manager.plug(reader)
    assert change.result(10)[0] is ScardCode.S_SUCCESS
    assert len(manager.list_readers(context)) == 1


def test_without_readers(made: Made) -> None:
    manager = made()
    with pytest.raises(ScardError) as caught:
        manager.list_readers(manager.establish())
    assert caught.value.code is ScardCode.E_NO_READERS_AVAILABLE


def test_a_user_file_of_readers_that_is_missing(
    made: Made,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says so, and an application finds no reader; the manager goes on."""
    missing = tmp_path / "missing.toml"
    monkeypatch.setenv("CCID_READERS", str(missing))
    manager = made(ccid.VirtualReader())
    with pytest.raises(ScardError) as caught:
        manager.list_readers(manager.establish())
    assert caught.value.code is ScardCode.E_NO_READERS_AVAILABLE
    (record,) = (one for one in caplog.records if one.name == "ccid.pcsc")
    assert str(missing) in record.getMessage()
    assert record.exc_info is None
    monkeypatch.delenv("CCID_READERS")
    context = manager.establish()
    change = pool.submit(manager.get_status_change, context, -1, [ReaderState(PNP_READER)])
    manager.plug(ccid.VirtualReader())
    assert change.result(10)[0] is ScardCode.S_SUCCESS
    assert len(manager.list_readers(context)) == 1


def test_closed_while_a_reader_is_being_opened(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader does not stay open, and no thread of its slots stays."""
    begun, goes_on = threading.Event(), threading.Event()

    def slow(*words: Any) -> Any:
        begun.set()
        goes_on.wait(10)
        return make_conversation(*words)

    monkeypatch.setattr("ccid.device.reader.make_conversation", slow)
    virtual = ccid.VirtualReader()
    manager = Manager([virtual], usb=False)
    manager.establish()
    assert begun.wait(10)
    closing = pool.submit(manager.close)
    time.sleep(0.05)
    goes_on.set()
    closing.result(10)
    limit = time.monotonic() + 10
    paths = [virtual.info.path]
    while time.monotonic() < limit and (
        any(one.info.path in paths for one in opened.readers.values())
        or any(paths[0] in thread.name for thread in threading.enumerate())
    ):
        time.sleep(0.005)
    assert [one for one in opened.readers.values() if one.info.path in paths] == []
    with ccid.open_reader(virtual) as reader:
        assert reader.slots[0].status()


def test_a_reader_that_goes(made: Made, pool: ThreadPoolExecutor) -> None:
    reader = ccid.VirtualReader()
    manager = made(reader)
    context, other = manager.establish(), manager.establish()
    (name,) = manager.list_readers(context)
    handle, protocol = manager.connect(context, name)
    manager.begin(handle)
    waits = pool.submit(manager.connect, other, name)
    change = pool.submit(manager.get_status_change, other, -1, [ReaderState(PNP_READER)])
    reader.unplug()
    assert code(waits) is ScardCode.E_UNKNOWN_READER  # type: ignore[arg-type]
    result, states = change.result(10)
    assert result is ScardCode.S_SUCCESS
    assert states[0].event & StateBits.CHANGED
    with pytest.raises(ScardError) as caught:
        manager.transmit(handle, protocol, SELECT)
    assert caught.value.code is ScardCode.E_INVALID_VALUE
    manager.disconnect(handle)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_reader_that_comes_back(
    made: Made, at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """By its name of before; what was connected stays dead. One that came later than it was looked
    for is found when a program establishes a context."""
    reader = ccid.VirtualReader()
    manager = made(reader)
    context = manager.establish()
    (name,) = manager.list_readers(context)
    handle, protocol = manager.connect(context, name)
    counted = reader_events(manager, context)

    def has_counted(more: int) -> None:
        until = time.monotonic() + 10
        while reader_events(manager, context) != counted + more:
            assert time.monotonic() < until
            time.sleep(0.005)

    if not at_once:
        reader.unplug()
        has_counted(1)
    reader.replug()
    if not at_once:
        context = manager.establish()
    has_counted(2)
    assert manager.list_readers(context) == [name]
    with pytest.raises(ScardError) as caught:
        manager.transmit(handle, protocol, SELECT)
    assert caught.value.code is ScardCode.E_INVALID_VALUE
    handle, protocol = manager.connect(context, name)
    assert manager.transmit(handle, protocol, SELECT)[0] == b"\x90\x00"
    assert caplog.text == ""


def reader_events(manager: Manager, context: int) -> int:
    """How many readers came or went."""
    return manager.get_status_change(context, 0, [ReaderState(PNP_READER)])[1][0].event >> 16


def test_a_card_that_is_exchanged_is_told_as_removed(made: Made) -> None:
    reader = ccid.VirtualReader()
    manager = made(reader)
    context = manager.establish()
    (name,) = manager.list_readers(context)
    handle, protocol = manager.connect(context, name)
    reader.remove()
    reader.insert(FileSystemCard())
    for _ in range(2):
        with pytest.raises(ScardError) as caught:
            manager.transmit(handle, protocol, SELECT)
        assert caught.value.code in (ScardCode.W_REMOVED_CARD, ScardCode.E_NO_SMARTCARD)
    assert caught.value.code is ScardCode.W_REMOVED_CARD
    protocol = manager.reconnect(handle)
    assert manager.transmit(handle, protocol, SELECT)[0] == OK


def test_a_card_that_nobody_needs_loses_its_power(made: Made) -> None:
    reader = ccid.VirtualReader()
    manager = made(reader, grace_s=0.1)
    context = manager.establish()
    (name,) = manager.list_readers(context)
    slot = reader.functions[0].slots[0]
    until = time.monotonic() + 10
    while slot.icc_status is not ccid.IccStatus.INACTIVE:
        assert time.monotonic() < until
        time.sleep(0.01)
    state = manager.get_status_change(context, 0, [ReaderState(name)])[1][0]
    assert state.event & StateBits.PRESENT
    assert state.atr
    handle, protocol = manager.connect(context, name)
    time.sleep(0.3)
    assert manager.transmit(handle, protocol, SELECT)[0] == OK


def test_calls_on_one_context_do_not_wait_for_each_other(
    made: Made, pool: ThreadPoolExecutor
) -> None:
    manager = made(ccid.VirtualReader())
    context = manager.establish()
    names = manager.list_readers(context)
    states = [ReaderState(names[0], StateBits.PRESENT)]
    change = pool.submit(manager.get_status_change, context, -1, states)
    assert manager.list_readers(context) == names
    while not manager._engine.core._watchers:
        time.sleep(0.001)
    manager.cancel(context)
    result, told = change.result(10)
    assert result is ScardCode.E_CANCELLED
    assert told[0].event == StateBits.PRESENT


def test_a_slow_card_keeps_nobody_else(made: Made, pool: ThreadPoolExecutor) -> None:
    manager = made(ccid.VirtualReader(SlowCard()), ccid.VirtualReader())
    context = manager.establish()
    slow, quick = manager.list_readers(context)
    card, protocol = manager.connect(context, slow)
    other, its = manager.connect(manager.establish(), quick)
    pool.submit(manager.transmit, card, protocol, bytes.fromhex("000E0000"))
    begun = time.monotonic()
    for _ in range(20):
        assert manager.transmit(other, its, SELECT)[0] == OK
    assert manager.status(card)
    assert time.monotonic() - begun < SLOW_S / 2
    # the client goes: what the card does for nobody is ended, and the next one has the card
    manager.release(context)
    again = manager.establish()
    handle, protocol = manager.connect(again, slow)
    assert manager.transmit(handle, protocol, SELECT)[0] == OK
    assert time.monotonic() - begun < SLOW_S / 2


def test_who_waits_may_be_interrupted(made: Made, pool: ThreadPoolExecutor) -> None:
    manager = made(ccid.VirtualReader())
    one, other = manager.establish(), manager.establish()
    (name,) = manager.list_readers(one)
    handle, _ = manager.connect(one, name)
    second, _ = manager.connect(other, name)
    manager.begin(handle)
    with pytest.raises(ScardError) as caught:
        manager.begin(second, timeout=0.05)
    assert caught.value.code is ScardCode.E_TIMEOUT
    waits = pool.submit(manager.begin, second)
    manager.release(other)
    assert code(waits) in (ScardCode.E_CANCELLED, ScardCode.E_INVALID_HANDLE)  # type: ignore[arg-type]


def test_many_threads(made: Made, pool: ThreadPoolExecutor) -> None:
    manager = made(ccid.VirtualReader())

    def work() -> int:
        done = 0
        for _ in range(10):
            context = manager.establish()
            handle, protocol = manager.connect(context, manager.list_readers(context)[0])
            manager.begin(handle)
            done += manager.transmit(handle, protocol, SELECT)[0] == OK
            manager.end(handle)
            manager.disconnect(handle)
            manager.release(context)
        return done

    assert [one.result(60) for one in [pool.submit(work) for _ in range(8)]] == [10] * 8
    assert not manager._engine.core.resources.handles


def test_a_fork_has_a_manager_of_its_own(made: Made) -> None:
    """The parent's numbers mean nothing there, and nothing hangs."""
    manager = made(ccid.VirtualReader())
    context = manager.establish()
    before = shared_manager()
    pid = os.fork()
    if not pid:
        try:
            manager.list_readers(context)
        except ScardError as error:
            is_other = shared_manager() is not before
            os._exit(0 if error.code is ScardCode.E_INVALID_HANDLE and is_other else 2)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert manager.list_readers(context)
    before.close()


def test_readers_are_given_back_when_nobody_needs_them(made: Made) -> None:
    reader = ccid.VirtualReader()
    manager = made(reader)
    object.__setattr__(manager._engine.settings, "linger_s", 0.05)
    context = manager.establish()
    names = manager.list_readers(context)
    manager.release(context)
    until = time.monotonic() + 10
    opened: ccid.Reader | None = None
    while opened is None:
        assert time.monotonic() < until
        try:
            opened = ccid.open_reader(reader)
        except ccid.CcidError:
            time.sleep(0.01)
    opened.close()
    assert manager.list_readers(manager.establish()) == names  # by the same name as before


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    manager = Manager([ccid.VirtualReader()], usb=False)
    manager.list_readers(manager.establish())
    manager.close()
    manager.close()
    until = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_job_that_waits_for_another_caller_is_dropped_when_nobody_waits_for_it(
    made: Made, pool: ThreadPoolExecutor
) -> None:
    """Its context was released: the command is not sent after that."""
    manager = made(ccid.VirtualReader(SlowCard()))
    context, other = manager.establish(), manager.establish()
    (name,) = manager.list_readers(context)
    handle, protocol = manager.connect(context, name)
    left, _ = manager.connect(other, name)
    (driver,) = manager._engine._drivers.values()
    with driver.gate:  # as a caller's own thread has it
        slow = pool.submit(manager.transmit, handle, protocol, bytes.fromhex("000E0000"))
        until(lambda: driver._given is not None)
        manager.release(context)
        until(lambda: driver._dropped is not None)
    begun = time.monotonic()
    assert manager.transmit(left, protocol, SELECT)[0] == OK
    assert isinstance(slow.exception(10), ScardError)
    assert time.monotonic() - begun < SLOW_S / 2


def test_who_has_a_context_may_ask_for_the_readers_at_once(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager looks for them before it hears the next call."""
    finish = Engine._finish

    def slow(self: Engine, call: Call) -> None:
        finish(self, call)
        if call.function == self.functions.establish:
            until(lambda: self.has_messages)  # the other thread asks for the readers

    monkeypatch.setattr(Engine, "_finish", slow)
    manager = made(ccid.VirtualReader())
    assert manager.list_readers(manager.establish())


def test_closed_just_before_a_call_is_posted(made: Made, pool: ThreadPoolExecutor) -> None:
    """It is told that nobody does it, as is one that waits."""
    manager = made(ccid.VirtualReader())
    context = manager.establish()
    (name,) = manager.list_readers(context)
    post = manager._engine.post

    def late(message: object) -> None:
        manager.close()
        manager._thread.join(10)
        post(message)

    manager._engine.post = lambda message: (  # type: ignore[method-assign]
        post(message) if not isinstance(message, Call) else late(message)
    )
    assert code(pool.submit(manager.connect, context, name)) is ScardCode.E_NO_SERVICE


def test_closed_while_a_call_waits_for_a_change(made: Made, pool: ThreadPoolExecutor) -> None:
    manager = made()
    context = manager.establish()
    change = pool.submit(manager.get_status_change, context, -1, [ReaderState(PNP_READER)])
    until(lambda: manager._calls)
    manager.close()
    assert code(change) is ScardCode.E_NO_SERVICE  # type: ignore[arg-type]
