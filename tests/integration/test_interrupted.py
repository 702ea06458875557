"""After Ctrl-C no lock is held and no interface is claimed: another thread, and the next call,
work."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import ccid
from ccid.codec.descriptors import ClassControl
from ccid.transport import asynchronous, hotplug, linux
from ccid.transport.asynchronous import Attendants
from ccid.virtual.usb_device import Request
from ccid.virtual.usbip_cable import Cable, is_attached
from ccid.virtual.virtual_transport import VirtualTransport
from tests.interruptions import Places, interrupt_everywhere
from tests.unit.fake_events import FakeEvents
from tests.unit.fake_usb import FakeBackend, FakeDevice, use_backend
from tests.unit.test_descriptors import QEMU

GET_STATUS = ClassControl(0x80, Request.GET_STATUS, 0, 0, 2)
INTERRUPT_IN = 0x83


def everywhere(work: Callable[[], object], check: Callable[[], object], *files: str) -> int:
    """Interrupt ``work`` behind each call in ``files``; returns the number of places."""
    return interrupt_everywhere(work, check, files, Places.AFTER_CALLS)


@pytest.fixture
def other() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Calls a function in another thread, and fails if that takes more than 10 s."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda do: pool.submit(do).result(10)


@pytest.mark.parametrize("what", ["control", "poll", "receive", "wait", "wake", "insert"])
def test_a_port(what: str, other: Callable[[Callable[[], Any]], Any]) -> None:
    virtual = ccid.VirtualReader(None)
    port = virtual.port

    def receive() -> None:
        with contextlib.suppress(TimeoutError):
            port.receive(INTERRUPT_IN, 64, 0.001)

    work: dict[str, Callable[[], object]] = {
        "control": lambda: port.control(GET_STATUS),
        "poll": lambda: port.poll(INTERRUPT_IN, 64),
        "receive": receive,
        "wait": lambda: port.wait(INTERRUPT_IN, 0.001),
        "wake": port.wake,
        "insert": lambda: virtual.functions[0].put(0, None, 0.0),
    }
    files = ("virtual/port.py", "threading.py")
    places = everywhere(work[what], lambda: other(lambda: port.control(GET_STATUS)), *files)
    assert places > 2


def test_opening_a_virtual_reader(other: Callable[[Callable[[], Any]], Any]) -> None:
    virtual = ccid.VirtualReader()

    def open_one() -> None:
        made = VirtualTransport(virtual.port, virtual.info)
        try:
            made.close()
        finally:
            made.close()  # as an application does that was interrupted

    files = ("virtual/virtual_transport.py", "transport/lifetime.py")
    assert everywhere(open_one, lambda: other(open_one), *files) > 10


def test_listening_to_a_virtual_reader() -> None:
    virtual = ccid.VirtualReader(None)
    before = threading.active_count()

    def listen() -> None:
        made = VirtualTransport(virtual.port, virtual.info)
        try:
            made.listen(lambda _: None)
            leave = made.attend()
            try:
                leave()
            finally:
                leave()
        finally:
            try:
                made.close()
            finally:
                made.close()

    def then() -> None:
        assert virtual.port.armed == []
        until = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < until:
            time.sleep(0.001)
        assert threading.active_count() == before

    assert everywhere(listen, then, "virtual/virtual_transport.py") > 20


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEvents:
    made = FakeEvents()
    monkeypatch.setattr(asynchronous, "calls", made.calls)
    monkeypatch.setattr(asynchronous, "context", lambda: 1)
    return made


def test_those_who_wait(fake: FakeEvents, other: Callable[[Callable[[], Any]], Any]) -> None:
    attendants = Attendants()

    def waiting() -> list[str]:
        """The names of the threads that wait for events. Other threads may clean up after earlier
        tests."""
        return [one.name for one in threading.enumerate() if one.name == "ccid events"]

    before = waiting()

    def attend() -> None:
        leave = attendants.add(bool)
        try:
            attendants.make_way()
            attendants.take()
            leave()
        finally:
            leave()

    def then() -> None:
        other(attend)
        until = time.monotonic() + 10
        while waiting() != before and time.monotonic() < until:
            time.sleep(0.001)
        assert waiting() == before

    assert everywhere(attend, then, "transport/asynchronous.py") > 20


def test_who_comes_and_goes(
    fake: FakeEvents, monkeypatch: pytest.MonkeyPatch, other: Callable[[Callable[[], Any]], Any]
) -> None:
    monkeypatch.setattr(asynchronous, "attendants", Attendants())

    def hear() -> None:
        end = hotplug.on_hotplug(lambda: None)
        assert end is not None
        try:
            end()
        finally:
            end()

    assert (
        everywhere(hear, lambda: other(hear), "transport/asynchronous.py", "transport/hotplug.py")
        > 20
    )
    asynchronous.attendants.end()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, fake: FakeEvents) -> FakeBackend:
    made = FakeBackend(FakeDevice(QEMU))
    use_backend(monkeypatch, made)
    monkeypatch.setattr(linux, "attribute", lambda *_: None)
    return made


def test_closing_a_reader_on_usb(backend: FakeBackend, fake: FakeEvents) -> None:
    info = ccid.list_readers()[0]
    made: Any = None

    def prepare() -> None:
        nonlocal made
        backend.calls.clear()
        made = info.connect(info)
        made.listen(lambda _: None)

    def then() -> None:
        made.close()  # as an application does that was interrupted
        assert backend.calls.count("close_device") == 1
        assert "release_interface" in backend.calls
        assert made.dead is not None
        with pytest.raises(ccid.errors.ReaderClosed):
            made.send(1, 1)
        prepare()

    prepare()
    files = ("transport/usb.py", "transport/bulk.py", "transport/lifetime.py")
    assert everywhere(lambda: made.close(), then, *files) > 10


def test_a_notification_is_told_although(backend: FakeBackend, fake: FakeEvents) -> None:
    info, told = ccid.list_readers()[0], list[bytes]()
    made: Any = info.connect(info)
    made.listen(told.append)

    def take() -> None:
        fake.comes(b"\x50\x03")
        made.take_events()

    def then() -> None:
        asynchronous.attendants.came = False
        with contextlib.suppress(KeyboardInterrupt):
            made.take_events()
        made.take_events()
        assert b"\x50\x03" in told
        told.clear()
        asynchronous.attendants.interrupted.clear()

    assert everywhere(take, then, "transport/usb.py") > 5
    made.close()


def test_a_signal_in_a_callback_of_libusb_is_raised_outside(
    backend: FakeBackend, fake: FakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, told = ccid.list_readers()[0], list[bytes]()
    made: Any = info.connect(info)
    made.listen(told.append)
    interrupt = made._interrupt

    class Inbox(list[bytes]):
        def append(self, _: bytes) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(interrupt, "inbox", Inbox())
    fake.comes(b"\x50\x03")
    with pytest.raises(KeyboardInterrupt):
        made.take_events()
    assert interrupt.is_armed
    assert fake.is_armed
    made.close()
    assert fake.freed == 1


def test_a_usbip_cable(other: Callable[[Callable[[], Any]], Any]) -> None:
    import socket

    virtual = ccid.VirtualReader()
    port, changed = virtual.port, virtual.functions[0].on_change

    def attach() -> None:
        ours, theirs = socket.socketpair()
        with contextlib.closing(ours), contextlib.closing(theirs):
            Cable(ours, port).close()

    def then() -> None:
        assert not is_attached(port)
        assert virtual.functions[0].on_change == changed
        other(lambda: port.control(GET_STATUS))

    assert everywhere(attach, then, "virtual/port.py") > 2
