"""Contexts of libusb: a reader that is opened while another is open has one of its own."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

import ccid
from ccid import errors
from ccid.transport import asynchronous, contexts, hotplug, linux
from ccid.transport.asynchronous import Transfer
from ccid.transport.libusb import Status
from tests.interruptions import Places, interrupt_everywhere
from tests.unit.fake_contexts import FIRST, ContextBackend, FurtherContexts, ManyEvents
from tests.unit.fake_events import GONE, address_of
from tests.unit.fake_usb import FakeDevice, use_backend
from tests.unit.test_asynchronous import ABSENT, PRESENT, until
from tests.unit.test_descriptors import QEMU

IN = 0x82
SECOND, THIRD = FIRST + 1, FIRST + 2


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ContextBackend:
    """Three readers."""
    node = tmp_path / "node"
    node.touch()
    made = ContextBackend(*(FakeDevice(QEMU, ports=(n,), address=n) for n in (1, 2, 3)))
    use_backend(monkeypatch, made)
    monkeypatch.setattr(linux, "attribute", lambda *_: None)
    monkeypatch.setattr(linux, "node", lambda *_: node)
    return made


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, backend: ContextBackend) -> ManyEvents:
    made = ManyEvents(FIRST, SECOND, THIRD)
    made.patch(monkeypatch)
    for one in made.of.values():
        one.bulk.answer = lambda command: b"to " + command
    return made


@pytest.fixture
def opened(events: ManyEvents) -> Iterator[list[Any]]:
    """All readers, open."""
    made: list[Any] = [info.connect(info) for info in ccid.list_readers()]
    for one in made:
        exchange(one)  # the first may be sent twice
    events.handled.clear()
    yield made
    for one in made:
        one.close()


def where(transport: Any) -> int:
    """Address of the context that a reader uses."""
    address: int = transport._context.attendants.context()
    return address


def exchange(transport: Any, command: bytes = b"do") -> bytes:
    transport.out[: len(command)] = command
    return bytes(transport.inp[: transport.exchange(len(command), 64, 5000, 5000)])


def test_one_reader_after_the_other_uses_the_context_that_finds_devices(
    events: ManyEvents, further: FurtherContexts
) -> None:
    for info in ccid.list_readers():
        made = info.connect(info)
        assert where(made) == FIRST
        made.close()
    assert further.made == []


def test_each_reader_has_a_context(opened: list[Any]) -> None:
    assert [where(one) for one in opened] == [FIRST, SECOND, THIRD]
    assert len({one._attendants for one in opened}) == 3


def test_an_exchange_handles_the_events_of_its_reader_alone(
    opened: list[Any], events: ManyEvents
) -> None:
    for one in opened:
        assert exchange(one) == b"to do"
        assert set(events.handled) == {where(one)}
        events.handled.clear()


def test_notifications_while_another_reader_has_an_exchange(
    opened: list[Any], events: ManyEvents
) -> None:
    """The event thread of one reader stays out of libusb, the others' do not."""
    busy, idle, told = opened[1], opened[2], dict[int, list[bytes]]()
    for one in (busy, idle):
        one.listen(told.setdefault(where(one), []).append)
    ends = [one.attend() for one in (busy, idle)]
    slow = events.of[where(busy)]
    slow.bulk.answer, slow.bulk.script = None, [(0, b""), (Status.TIMEOUT, b"")]
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(exchange, busy)
            until(lambda: busy._attendants.under_way)
            assert not idle._attendants.under_way
            events.of[where(idle)].comes(PRESENT)
            until(lambda: told[where(idle)] == [PRESENT])
            slow.comes(ABSENT)
            until(lambda: told[where(busy)] == [ABSENT])
            assert not waiting.done()
            slow.ends(IN, b"reply")
            assert waiting.result(10) == b"reply"
    finally:
        for end in ends:
            end()


def test_hotplug_while_readers_are_open(opened: list[Any], events: ManyEvents) -> None:
    told = list[int]()
    end = hotplug.on_hotplug(lambda: told.append(1))
    assert end is not None
    try:
        events.of[FIRST].plug()
        until(lambda: told)
        assert exchange(opened[0]) == exchange(opened[1]) == b"to do"
    finally:
        end()


def test_a_context_is_used_again(events: ManyEvents, further: FurtherContexts, full: bool) -> None:
    infos, before = ccid.list_readers(), threading.active_count()
    for _ in range(1000 if full else 50):
        made = [info.connect(info) for info in infos]
        for one in made:
            one.listen(lambda _: None)
        made[1].attend()
        for one in made:
            one.close()
    assert further.made == [SECOND, THIRD]
    assert threading.active_count() == before
    assert contexts.first.is_free
    assert all(one.is_free for one in contexts._further)


def test_a_reader_that_is_open_keeps_its_context(opened: list[Any]) -> None:
    opened[0].close()
    again = opened[0].info.connect(opened[0].info)
    assert where(again) == FIRST
    assert [where(one) for one in opened[1:]] == [SECOND, THIRD]
    again.close()


def test_a_forgotten_reader_leaves_its_context(events: ManyEvents) -> None:
    infos = ccid.list_readers()
    kept, lost = (info.connect(info) for info in infos[:2])
    assert where(lost) == SECOND
    del lost
    gc.collect()
    made = infos[2].connect(infos[2])
    assert where(made) == SECOND
    for one in (kept, made):
        one.close()


def test_a_reader_that_cannot_be_opened_leaves_its_context(
    events: ManyEvents, backend: ContextBackend, further: FurtherContexts
) -> None:
    infos = ccid.list_readers()
    one = infos[0].connect(infos[0])
    backend.fail["claim_interface"] = Status.BUSY
    with pytest.raises(errors.ReaderBusy):
        infos[1].connect(infos[1])
    assert further.made == [SECOND]
    assert all(context.is_free for context in contexts._further)
    one.close()


def test_opening_is_interrupted_anywhere(events: ManyEvents, further: FurtherContexts) -> None:
    """No context stays in use."""
    infos = ccid.list_readers()
    first = infos[0].connect(infos[0])

    def open_one() -> None:
        contexts._further.clear()
        further.made.clear()
        try:
            made = infos[1].connect(infos[1])
        except BaseException as error:  # whose traceback would hold the reader
            raise error.with_traceback(None) from None
        try:
            made.close()
        finally:
            made.close()  # as an application does that was interrupted

    def then() -> None:
        made = infos[1].connect(infos[1])
        assert where(made) == SECOND + len(further.made) - 1
        made.close()
        assert all(context.is_free for context in contexts._further)

    files = ("transport/contexts.py",)
    assert interrupt_everywhere(open_one, then, files, Places.AFTER_CALLS) > 10
    first.close()


def test_events_of_a_context_that_nobody_uses_do_not_pile_up(
    opened: list[Any], events: ManyEvents
) -> None:
    """libusb notes in each context which devices come and go."""
    opened[1].close()
    events.of[SECOND].plug()
    opened[0].close()
    opened[0].info.connect(opened[0].info).close()
    assert events.of[SECOND]._plugged == 0


def test_a_device_that_a_further_context_does_not_list(
    events: ManyEvents, further: FurtherContexts
) -> None:
    """The context that found it does for both; and it is not tried with ever more contexts."""
    further.devices = [FakeDevice(QEMU, address=77)]
    infos = ccid.list_readers()
    made = [info.connect(info) for info in infos]
    assert [where(one) for one in made] == [FIRST] * 3
    assert further.made == [SECOND]
    for one in made:
        assert exchange(one) == b"to do"
        one.close()


def test_libusb_makes_no_further_context(events: ManyEvents, further: FurtherContexts) -> None:
    further.fails = True
    made = [info.connect(info) for info in ccid.list_readers()]
    assert [where(one) for one in made] == [FIRST] * 3
    for one in made:
        one.close()
    assert contexts.first.is_free


def test_the_others_go_on_when_a_reader_is_unplugged(
    opened: list[Any], events: ManyEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = events.of[SECOND]
    gone.bulk.answer, gone.bulk.script = None, [(0, b""), (Status.TIMEOUT, b"")]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exchange, opened[1])
        until(lambda: gone.waits(IN))
        assert exchange(opened[0]) == exchange(opened[2]) == b"to do"
        gone.ends(IN, status=GONE)
        with pytest.raises(errors.ReaderRemoved):
            waiting.result(10)
    assert exchange(opened[0]) == exchange(opened[2]) == b"to do"


def test_a_fork_has_contexts_of_its_own(opened: list[Any], further: FurtherContexts) -> None:
    """In a child; the parent's are neither used nor ended there."""
    parents = list(contexts._further)
    asynchronous._after_fork()
    contexts._after_fork()
    assert contexts.first.is_free
    assert contexts._further == []
    assert all(one.attendants.thread is None for one in parents)


def test_readers_with_a_further_context_submit_without_leaving_the_gil(
    monkeypatch: pytest.MonkeyPatch, events: ManyEvents
) -> None:
    calls, keeping = events.calls, list[int]()

    def submit(pointer: Any) -> int:
        address = address_of(pointer)
        keeping.append(Transfer.from_address(address).dev_handle)
        return calls().submit(pointer)

    monkeypatch.setattr(asynchronous, "calls", lambda: calls()._replace(submit_keeping_gil=submit))
    made: list[Any] = [info.connect(info) for info in ccid.list_readers()]
    for one in made:
        exchange(one)  # the first goes the long way
    assert keeping == []
    for one in made:
        assert exchange(one) == b"to do"
    assert keeping == [SECOND, SECOND, THIRD, THIRD]
    for one in made:
        one.close()


def test_the_real_functions_are_one() -> None:
    """libusb's, called in two ways."""
    calls = asynchronous.calls()
    kept, plain = (
        ctypes.cast(cast("Any", one), ctypes.c_void_p).value
        for one in (calls.submit_keeping_gil, calls.submit)
    )
    assert kept == plain
