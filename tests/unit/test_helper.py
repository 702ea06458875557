"""The helper without ``plug.c``; tests/integration/test_plug.py tests both together."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Self

import pytest

import ccid
from ccid.pcsc.ifd import Code, IFDHandler
from ccid.pcsc.ifd.handler import Find
from ccid.pcsc.plug import helper as module
from ccid.pcsc.plug.frames import (
    ALIVE,
    CONNECTION,
    EVENT_CHANGE,
    EVENT_GONE,
    REPLY,
    REQUEST,
    Operation,
)
from ccid.pcsc.plug.helper import Channel, Helper
from tests.unit.open_descriptors import descriptors

pytestmark = pytest.mark.usefixtures("collected")

SLOT = 0x0001_0000


def test_an_event_while_another_channel_is_closed() -> None:
    """A thread removes its channel from the list while another thread iterates over the list."""
    one, other = socket.socketpair()
    with one, other:
        helper: Any = Helper(one, "")
        told = []

        class Closing:
            @property
            def lun(self) -> int:
                helper.channels.remove(self)
                return 1

        class Open:
            lun = 2

            def tell(self, is_gone: bool) -> None:
                told.append(self.lun)

        helper.channels[:] = [Closing(), Open()]
        helper._on_event(2)
        assert told == [2]


def test_the_import_of_the_driver_is_not_the_readers_time() -> None:
    """On a starved machine the first request takes longer than any request after it."""
    one, other = socket.socketpair()
    with one, other:
        helper: Any = Helper(one, "")

        class Opening:
            since = 1000.0

        class Handler:
            @staticmethod
            def patient_until() -> float:
                return 0.0

        began, opening = Opening.since, Opening()
        assert helper.is_well(opening, began + module.IMPORT_S - 1)
        assert not helper.is_well(opening, began + module.IMPORT_S)
        helper._handler, helper._imported = Handler, began + 60
        assert helper.is_well(opening, began + 60 + module.GRACE_S - 1)
        assert not helper.is_well(opening, began + 60 + module.GRACE_S)
        opening.since = began + 100  # the next request has the ordinary time
        assert not helper.is_well(opening, began + 100 + module.GRACE_S)


# A helper at work, in this process ------------------------------------------------------------


class Plug:
    """The plug's end of a helper that serves in a thread."""

    def __init__(self, find: Find) -> None:
        self.control, theirs = socket.socketpair()
        self.helper = Helper(theirs, "")
        self.handler = IFDHandler(self.helper._on_event, find=find)
        self.helper._handler = self.handler
        self._ends: list[socket.socket] = [self.control, theirs]
        self._thread = threading.Thread(target=self.helper.serve, daemon=True)
        self._thread.start()

    def join(self, lun: int, count: int = 2) -> tuple[socket.socket, socket.socket]:
        """The plug's sockets of a new channel; ``count`` sockets are passed to the helper."""
        pairs = [socket.socketpair(socket.AF_UNIX, kind)
                 for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM)]  # fmt: skip
        ours = [pair[0] for pair in pairs]
        fds = [pair[1].fileno() for pair in pairs][:count]
        if fds:
            socket.send_fds(self.control, [CONNECTION.pack(lun)], fds)
        else:
            self.control.send(CONNECTION.pack(lun))
        for request, theirs in pairs:
            theirs.close()
            request.settimeout(10)
            self._ends.append(request)
        return ours[0], ours[1]

    def leave(self, lun: int) -> None:
        """Close the sockets of the channel that was joined last, and wait for its thread."""
        (thread,) = (one for one in self.helper.channels if one.lun == lun)
        for one in (self._ends.pop(), self._ends.pop()):
            one.close()
        thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.control.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        threads = list(self.helper.channels)
        for one in self._ends:
            one.close()
        for thread in threads:
            thread.join(5)
        self.handler.close()
        self.helper.has_reader = False  # its heart beats on for a while, and would settle others


def ask(request: socket.socket, operation: int, data: bytes = b"", room: int = 300) -> bytes:
    """The data of the reply to a request, which must succeed."""
    code, answer = told(request, operation, data, room)
    assert code == 0
    return answer


def told(
    request: socket.socket, operation: int, data: bytes = b"", room: int = 300
) -> tuple[int, bytes]:
    request.send(REQUEST.pack(operation, 0, room, len(data)) + data)
    while (answer := request.recv(1 << 17)) == ALIVE:
        pass
    _, code, length = REPLY.unpack_from(answer)
    assert len(answer) == REPLY.size + length
    return code, answer[REPLY.size :]


@pytest.fixture(autouse=True)
def _collecting() -> Iterator[None]:
    """Undo the changes of a helper to the garbage collector."""
    yield
    gc.unfreeze()
    gc.enable()


@pytest.fixture
def virtual() -> ccid.VirtualReader:
    return ccid.VirtualReader()


@pytest.fixture
def plug(virtual: ccid.VirtualReader) -> Iterator[Plug]:
    with Plug(lambda name, taken: virtual.info) as made:
        yield made


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_channel_that_is_joined_again_gets_the_reader(plug: Plug) -> None:
    """The end of the old channel does not close the reader of the new channel."""
    old, _ = plug.join(SLOT)
    ask(old, Operation.OPEN, b"virtual:")
    new, _ = plug.join(SLOT)
    assert told(new, Operation.OPEN, b"virtual:")[0] == Code.COMMUNICATION_ERROR
    old.shutdown(socket.SHUT_RDWR)
    until(lambda: len(plug.helper.channels) == 1)
    ask(new, Operation.OPEN, b"virtual:")
    third, _ = plug.join(SLOT)
    assert told(third, Operation.OPEN, b"virtual:")[0] == Code.COMMUNICATION_ERROR
    third.shutdown(socket.SHUT_RDWR)
    until(lambda: len(plug.helper.channels) == 1)
    assert told(new, Operation.PRESENCE)[0] == Code.ICC_PRESENT
    ask(new, Operation.CLOSE)
    assert told(new, Operation.PRESENCE)[0] == Code.COMMUNICATION_ERROR


def test_the_collector_runs_when_the_first_response_is_out(
    virtual: ccid.VirtualReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes long, so the heart has it run, and no request waits for it."""
    beat = threading.Event()

    class Clock:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def sleep(_seconds: float) -> None:
            beat.wait(10)

    monkeypatch.setattr(module, "time", Clock)
    gc.disable()
    with Plug(lambda name, taken: virtual.info) as plug:
        request, _ = plug.join(SLOT)
        ask(request, Operation.OPEN, b"virtual:")
        assert told(request, Operation.PRESENCE)[0] == Code.ICC_PRESENT
        assert not gc.isenabled()
        assert gc.get_freeze_count() == 0
        beat.set()
        until(gc.isenabled)
        assert gc.get_freeze_count() > 0


@pytest.mark.parametrize(
    "frame",
    [
        b"a",
        REQUEST.pack(9, 0, 0, 0)[:-1],
        REQUEST.pack(9, 0, 0, 5) + b"four",
        REQUEST.pack(9, 0, 0, 3) + b"four",
        REQUEST.pack(7, 0, 0, 0xFFFF_FFFF),
        b"",
    ],
)
def test_a_broken_request_ends_its_channel_alone(plug: Plug, frame: bytes) -> None:
    bad, _ = plug.join(SLOT)
    good, _ = plug.join(SLOT + 0x10000)
    ask(good, Operation.OPEN, b"virtual:")
    bad.send(frame)
    assert bad.recv(100) == b""
    assert told(good, Operation.PRESENCE)[0] == Code.ICC_PRESENT


@pytest.mark.parametrize(
    ("operation", "data"),
    [(99, b""), (Operation.PROTOCOL, bytes(5)), (0, b"x"), (Operation.OPEN, b"\xff")],
)
def test_a_request_that_makes_no_sense_fails(plug: Plug, operation: int, data: bytes) -> None:
    request, _ = plug.join(SLOT)
    ask(request, Operation.OPEN, b"virtual:")
    assert told(request, operation, data) == (Code.COMMUNICATION_ERROR, b"")
    assert told(request, Operation.PRESENCE)[0] == Code.ICC_PRESENT


@pytest.mark.parametrize("count", [0, 1])
def test_a_channel_whose_sockets_do_not_come(
    plug: Plug, count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """No descriptor is free for the sockets: the channel fails, and other channels go on."""
    good, _ = plug.join(SLOT)
    ask(good, Operation.OPEN, b"virtual:")
    before = descriptors()
    bad, events = plug.join(SLOT + 1, count)
    assert bad.recv(100) == events.recv(100) == b""
    bad.close()
    events.close()
    said: list[str] = []

    def is_said() -> bool:
        said.append(capfd.readouterr().err)
        return f"{count} of 2 sockets came" in "".join(said)

    until(is_said)
    assert told(good, Operation.PRESENCE)[0] == Code.ICC_PRESENT
    assert descriptors() == before


def test_a_channel_without_a_free_thread(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    good, _ = plug.join(SLOT)
    ask(good, Operation.OPEN, b"virtual:")

    def start(channel: Channel) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Channel, "start", start)
        bad, _ = plug.join(SLOT + 1)
        assert bad.recv(100) == b""
    assert told(good, Operation.PRESENCE)[0] == Code.ICC_PRESENT
    again, _ = plug.join(SLOT + 1)
    assert told(again, Operation.PRESENCE)[0] == Code.COMMUNICATION_ERROR


def test_a_channel_without_free_memory(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(connection: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(module, "Requests", no_memory)
        bad, events = plug.join(SLOT)
        assert bad.recv(100) == events.recv(100) == b""
    until(lambda: not plug.helper.channels)
    again, _ = plug.join(SLOT)
    ask(again, Operation.OPEN, b"virtual:")


# The reader goes ------------------------------------------------------------------------------


def test_card_events_come_before_the_event_of_an_unplugged_reader(
    plug: Plug, virtual: ccid.VirtualReader
) -> None:
    request, events = plug.join(SLOT)
    assert ask(request, Operation.OPEN, b"virtual:") == b"\x01"
    virtual.remove()
    assert events.recv(1) == EVENT_CHANGE
    virtual.insert(ccid.virtual.EchoCard())
    assert events.recv(1) == EVENT_CHANGE
    virtual.unplug()
    while (said := events.recv(1)) == EVENT_CHANGE:
        pass
    assert said == EVENT_GONE
    assert plug.handler.is_gone(SLOT)


def test_an_unplugged_reader_ends_a_full_event_socket() -> None:
    """An event socket that is full is ended; the plug reads its events, then the end."""
    ours, events = socket.socketpair()
    with ours, events:
        channel = Channel(Helper(ours, ""), SLOT, ours, events)
        events.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                events.send(EVENT_CHANGE)
        channel.tell()
        channel.tell(True)
        said = b"".join(iter(lambda: ours.recv(1 << 16), b""))
        assert set(said) == set(EVENT_CHANGE)


def test_the_wait_for_pcscd_is_longer_while_nothing_shows_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PCSCD_END_S", 0.05)
    monkeypatch.setattr(module, "BUSY_END_S", 0.5)
    for refused, ends, least_s in ((module.GOES_ON, False, 0.05), (0, False, 0.5), (0, True, 0.1)):
        control, pcscd = socket.socketpair()
        with control, pcscd:
            seen: Any = SimpleNamespace(refused=refused)
            timer = threading.Timer(least_s, pcscd.shutdown, [socket.SHUT_RDWR])
            began = time.monotonic()
            if ends:
                timer.start()
            module.await_end_of_pcscd(control, seen)
            took_s = time.monotonic() - began
            timer.cancel()
            assert least_s <= took_s, (refused, ends)
            if refused or ends:
                assert took_s < 0.5, (refused, ends)
