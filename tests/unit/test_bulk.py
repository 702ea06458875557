"""Command and reply as two transfers that libusb has at once: time, failures, signals, threads."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.codec.descriptors import ClassControl
from ccid.codes import ExchangeLevel
from ccid.link.shared_pipe import SharedPipe
from ccid.transport import asynchronous, bulk, libusb, linux, usb
from ccid.transport.libusb import Status
from ccid.virtual import EchoCard, make_descriptor
from tests.interruptions import Places, interrupt_everywhere
from tests.unit.fake_events import GONE, STALLED, FakeEvents
from tests.unit.fake_usb import FakeBackend, FakeDevice, use_backend
from tests.unit.test_asynchronous import until
from tests.unit.test_descriptors import QEMU
from tests.unit.test_shared_pipe import delay
from tests.unit.usb_over_port import over_usb

pytestmark = pytest.mark.usefixtures("any_context")

OUT, IN = 0x03, 0x82
FILES = ("transport/bulk.py",)
FIRST = bytes.fromhex("81000000000000000000")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEvents:
    made = FakeEvents()
    monkeypatch.setattr(asynchronous, "calls", made.calls)
    monkeypatch.setattr(asynchronous, "context", lambda: 1)
    return made


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, fake: FakeEvents, tmp_path: Path) -> FakeBackend:
    made, node = FakeBackend(FakeDevice(QEMU)), tmp_path / "node"
    node.touch()
    use_backend(monkeypatch, made)
    monkeypatch.setattr(linux, "attribute", lambda *_: None)
    monkeypatch.setattr(linux, "node", lambda *_: node)
    monkeypatch.setattr(usb, "GONE_S", 0.01)
    return made


def opened() -> Any:
    info = ccid.list_readers()[0]
    return info.connect(info)


@pytest.fixture
def transport(backend: FakeBackend, fake: FakeEvents) -> Iterator[Any]:
    """One that has had its first reply."""
    made = opened()
    fake.bulk.script = [(0, b""), (0, FIRST)]
    assert exchange(made, b"first") == FIRST
    fake.bulk.calls = 0
    fake.bulk.sent.clear()
    yield made
    fake.can_cancel = True
    made.close()


def exchange(made: Any, data: bytes, write_ms: int = 5000, wait_ms: int = 5000) -> bytes:
    """Send ``data``; the reply, or what of it came."""
    made.out[: len(data)] = data
    got = made.exchange(len(data), 64, write_ms, wait_ms)
    return bytes(made.inp[:got])


# Together -------------------------------------------------------------------------------------


def test_both_are_submitted_before_any_event_is_handled(transport: Any, fake: FakeEvents) -> None:
    seen: list[tuple[int, bool]] = []
    fake.rounds.append(lambda: seen.append((len(fake.bulk.sent), fake.waits(IN))))
    fake.bulk.script = [(0, b""), (0, b"reply")]
    assert exchange(transport, b"command") == b"reply"
    assert seen == [(1, True)]
    assert fake.bulk.sent == [b"command"]
    assert fake.bulk.calls == 2


def test_a_slow_card_is_waited_for_and_nothing_is_cancelled(
    transport: Any, fake: FakeEvents
) -> None:
    fake.bulk.script = [(0, b""), (Status.TIMEOUT, b"")]
    assert exchange(transport, b"command", wait_ms=5) == b""
    for _ in range(3):
        assert transport.wait(64, 5) == 0
    fake.ends(IN, b"reply")
    assert transport.wait(64, 5000) == 5
    assert bytes(transport.inp[:5]) == b"reply"
    assert fake.bulk.cancelled == []
    assert fake.bulk.calls == 2


def test_a_late_reply_is_found_by_the_next_exchange(transport: Any, fake: FakeEvents) -> None:
    fake.bulk.script = [(0, b""), (Status.TIMEOUT, b"")]
    assert exchange(transport, b"one", wait_ms=5) == b""
    fake.ends(IN, b"late")
    assert exchange(transport, b"two") == b"late"
    fake.bulk.script = [(0, b"in time")]
    assert transport.wait(64, 5000) == 7
    assert fake.bulk.sent == [b"one", b"two"]
    assert fake.bulk.cancelled == []


def test_a_reply_that_comes_before_the_command_is_gone(transport: Any, fake: FakeEvents) -> None:
    """An answer to something earlier: the command is waited for all the same."""
    fake.bulk.script = [(Status.TIMEOUT, b"")]
    fake.rounds = [
        lambda: fake.ends(IN, b"late"),
        lambda: fake.ends(OUT),
    ]
    assert exchange(transport, b"command") == b"late"
    assert not fake.waits(OUT)


def test_an_empty_packet(transport: Any, fake: FakeEvents) -> None:
    fake.bulk.script = [(0, b""), (0, b""), (0, b"reply")]
    assert exchange(transport, b"command") == b""
    assert transport.wait(64, 5000) == 5


def test_a_message_that_fills_its_last_packet_and_has_no_end(
    transport: Any, fake: FakeEvents
) -> None:
    """It is seen when the last wait is over."""
    fake.bulk.script = [(0, b""), (Status.TIMEOUT, bytes(64))]
    transport.out[:1] = b"c"
    assert transport.exchange(1, 128, 5000, 5) == 0
    assert transport.wait(128, 5) == 0
    assert transport.receive(0, 128, 5) == 64
    assert fake.bulk.cancelled == [IN]
    with pytest.raises(errors.TransportTimeout):
        fake.bulk.script = [(Status.TIMEOUT, b"")]
        transport.receive(0, 128, 5)


def test_the_rest_of_a_message_goes_behind_its_begin(transport: Any, fake: FakeEvents) -> None:
    fake.bulk.script = [(0, b""), (0, b"12345678"), (0, b"rest")]
    assert exchange(transport, b"command") == b"12345678"
    assert transport.receive(8, 64, 5000) == 4
    assert bytes(transport.inp[:12]) == b"12345678rest"
    fake.bulk.script = [(0, b""), (0, b"next")]
    assert exchange(transport, b"command") == b"next"


# Time-outs ------------------------------------------------------------------------------------


def test_a_command_that_nobody_takes(transport: Any, fake: FakeEvents) -> None:
    fake.bulk.script = [(Status.TIMEOUT, b"")]
    with pytest.raises(errors.TransportTimeout):
        exchange(transport, b"command", write_ms=20)
    assert fake.bulk.cancelled == [OUT]
    assert fake.waits(IN)
    fake.bulk.script = [(0, b""), (0, b"reply")]
    assert exchange(transport, b"next") == b"reply"
    assert fake.bulk.cancelled == [OUT]
    assert fake.bulk.calls == 3, "the reply was not submitted again"


def test_a_command_that_is_taken_as_it_is_cancelled(transport: Any, fake: FakeEvents) -> None:
    fake.bulk.cancel_status = Status.SUCCESS
    fake.bulk.script = [(Status.TIMEOUT, b""), (0, b"reply")]
    assert exchange(transport, b"command", write_ms=20) == b"reply"


def test_a_reply_that_comes_as_it_is_cancelled(transport: Any, fake: FakeEvents) -> None:
    fake.bulk.cancel_status = Status.SUCCESS
    fake.bulk.script = [(0, b""), (Status.TIMEOUT, b"reply")]
    assert exchange(transport, b"command", wait_ms=5) == b""
    assert transport.receive(0, 64, 5) == 5


def test_a_transfer_that_does_not_end(
    transport: Any, fake: FakeEvents, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "END_S", 0.05)
    monkeypatch.setattr(bulk, "_lost", [])
    fake.can_cancel = False
    fake.bulk.script = [(Status.TIMEOUT, b"")]
    for _ in range(2):
        with pytest.raises(errors.TransportError, match="does not end"):
            exchange(transport, b"command", write_ms=20)
    assert fake.bulk.sent == [b"command"], "the buffer is in use"
    transport.close()
    assert "close_device" not in backend.calls
    assert len(bulk._lost) == 2


# Failures -------------------------------------------------------------------------------------


def test_a_halt_of_the_command(transport: Any, fake: FakeEvents, backend: FakeBackend) -> None:
    fake.bulk.script = [(Status.PIPE, b"")]
    with pytest.raises(errors.TransportStall):
        exchange(transport, b"command")
    assert backend.calls[-1] == "clear_halt 03"
    fake.bulk.script = [(0, b""), (0, b"reply")]
    assert exchange(transport, b"next") == b"reply"


def test_a_halt_of_the_reply(transport: Any, fake: FakeEvents, backend: FakeBackend) -> None:
    fake.bulk.script = [(0, b""), (Status.PIPE, b"")]
    with pytest.raises(errors.TransportStall):
        exchange(transport, b"command")
    assert backend.calls[-1] == "clear_halt 82"
    fake.bulk.script = [(0, b""), (0, b"reply")]
    assert exchange(transport, b"next") == b"reply"


def test_a_reply_that_failed_with_its_command_fails_no_other(
    transport: Any, fake: FakeEvents
) -> None:
    fake.bulk.script = [(Status.TIMEOUT, b"")]
    fake.rounds = [lambda: fake.ends(IN, status=STALLED), lambda: fake.ends(OUT, status=STALLED)]
    with pytest.raises(errors.TransportStall, match="0x03"):
        exchange(transport, b"command")
    fake.bulk.script = [(0, b""), (0, b"reply")]
    assert exchange(transport, b"next") == b"reply"


@pytest.mark.parametrize("code", [Status.NO_DEVICE, -42])
def test_a_command_that_cannot_be_submitted(transport: Any, fake: FakeEvents, code: int) -> None:
    fake.bulk.script = [(code, b"")]
    with pytest.raises(errors.CcidError):
        exchange(transport, b"command")
    assert (transport.dead is not None) is (code == Status.NO_DEVICE)


def test_the_device_is_unplugged_between_the_two(
    transport: Any, fake: FakeEvents, backend: FakeBackend
) -> None:
    fake.bulk.script = [(0, b""), (Status.TIMEOUT, b"")]
    assert exchange(transport, b"command", wait_ms=5) == b""
    fake.ends(IN, status=GONE)
    with pytest.raises(errors.ReaderRemoved):
        transport.wait(64, 5000)
    before = fake.bulk.calls
    for call in (lambda: exchange(transport, b"x"), lambda: transport.wait(64, 5)):
        with pytest.raises(errors.ReaderRemoved):
            call()
    assert fake.bulk.calls == before
    transport.close()
    assert backend.calls[-1] == "close_device"


def test_the_device_is_unplugged_with_both_under_way(transport: Any, fake: FakeEvents) -> None:
    fake.bulk.script = [(Status.TIMEOUT, b"")]

    def unplug() -> None:
        fake.ends(OUT, status=GONE)
        fake.ends(IN, status=GONE)

    fake.rounds = [unplug]
    with pytest.raises(errors.ReaderRemoved):
        exchange(transport, b"command")


# Cancelled between the two --------------------------------------------------------------------


def test_a_command_is_cancelled_while_its_reply_is_waited_for(
    backend: FakeBackend, fake: FakeEvents
) -> None:
    """The ABORT pair goes out, its reply comes by the transfer that waits, and nothing is lost."""
    silent = threading.Event()

    def answer(message: bytes) -> bytes:
        if message[0] == 0x6F and not silent.is_set():
            silent.set()
            fake.bulk.answer = later
            return late  # dropped: an answer to something else
        kind = {0x6F: 0x80, 0x62: 0x80}.get(message[0], 0x81)
        data = b"\x3b\x00" if message[0] == 0x62 else b"\x90\x00" if kind == 0x80 else b""
        size = len(data).to_bytes(4, "little")
        return bytes((kind,)) + size + message[5:7] + bytes(3) + data

    def later(message: bytes) -> bytes:
        return answer(message)

    late = bytes.fromhex("81 00000000 00 F0 00 00 00")
    fake.bulk.answer = answer
    with ccid.open_reader() as reader, ThreadPoolExecutor(1) as pool:
        card = reader.slots[0].connect()
        waiting = pool.submit(card.transmit, bytes(5))
        until(silent.is_set)
        until(lambda: reader.slots[0].cancel())
        with pytest.raises(errors.CommandCancelled):
            waiting.result(10)
        assert fake.bulk.sent[-1][0] == 0x72
        assert card.transmit(bytes(5)) == b"\x90\x00"
    assert fake.bulk.cancelled == []


# Signals --------------------------------------------------------------------------------------


def test_a_signal_anywhere_leaves_the_next_exchange_alone(transport: Any, fake: FakeEvents) -> None:
    """Every command goes out once, and whole; and its reply is found, behind an old one."""
    fake.bulk.answer = lambda command: b"to " + command
    number = 0

    def do() -> None:
        nonlocal number
        number += 1
        assert exchange(transport, b"do %d" % number) == b"to do %d" % number

    def then() -> None:
        attempt = exchange(transport, b"then")
        for _ in range(3):
            if attempt == b"to then":
                break
            attempt = bytes(transport.inp[: transport.wait(64, 5000)])
        assert attempt == b"to then"
        assert not transport._attendants.under_way
        assert fake.bulk.cancelled == []

    assert interrupt_everywhere(do, then, FILES, Places.AFTER_CALLS) > 10
    for k in range(1, number + 1):
        assert fake.bulk.sent.count(b"do %d" % k) <= 1


@pytest.mark.parametrize("what", ["send", "wait", "receive", "slow"])
def test_a_signal_anywhere_in_the_long_way(transport: Any, fake: FakeEvents, what: str) -> None:
    fake.bulk.answer = lambda command: b"to " + command

    def do() -> None:
        transport.out[:2] = b"do"
        match what:
            case "slow":
                transport._is_waking = True
                transport.exchange(2, 64, 5000, 5000)
            case "send":
                transport.send(2, 5000)
            case "wait":
                fake._replies.append(b"said")
                transport.wait(64, 5000)
            case "receive":
                fake._replies.append(b"said")
                transport.receive(0, 64, 5000)

    def then() -> None:
        came = exchange(transport, b"then")
        for _ in range(4):
            if came == b"to then":
                break
            came = bytes(transport.inp[: transport.wait(64, 5000)])
        assert came == b"to then"
        assert not transport._attendants.under_way
        assert OUT not in fake.bulk.cancelled

    assert interrupt_everywhere(do, then, FILES, Places.AFTER_CALLS) > 5


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_a_signal_lets_a_command_go_out_whole(
    transport: Any, fake: FakeEvents, rounds: int
) -> None:
    """Else the reader would take the next command for its rest."""
    fake.bulk.script, fake.bulk.idle = [(Status.TIMEOUT, b"")], lambda: None

    def interrupt() -> None:
        raise KeyboardInterrupt

    fake.rounds = [*[lambda: None] * rounds, interrupt, lambda: fake.ends(OUT)]
    with pytest.raises(KeyboardInterrupt):
        exchange(transport, b"command")
    assert fake.bulk.cancelled == []
    fake.ends(IN, b"late")
    fake.bulk.script = [(0, b"")]
    assert exchange(transport, b"next") == b"late"
    fake.bulk.script = [(0, b"reply")]
    assert transport.wait(64, 5000) == 5
    assert fake.bulk.sent == [b"command", b"next"]


# Threads --------------------------------------------------------------------------------------


def test_closing_while_a_thread_waits(
    transport: Any, fake: FakeEvents, backend: FakeBackend
) -> None:
    fake.bulk.script = [(0, b""), (Status.TIMEOUT, b"")]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exchange, transport, b"command", 5000, 60_000)
        until(lambda: fake.waits(IN))
        transport.close()
        with pytest.raises(errors.ReaderClosed):
            waiting.result(10)
    assert backend.calls[-1] == "close_device"
    assert fake.bulk.cancelled == [IN]


def test_the_memory_of_the_transfers_is_freed(backend: FakeBackend, fake: FakeEvents) -> None:
    made = opened()
    made.close()
    assert fake.freed == 0, "another thread may still look at them"
    del made
    gc.collect()
    assert fake.freed == 2


def test_the_event_thread_stays_out_of_a_slow_exchange(
    transport: Any, fake: FakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asynchronous, "BUSY_S", 0.2)  # a busy machine begins the exchange late
    attendants = transport._attendants
    transport.listen(lambda _: None)
    end = transport.attend()
    try:
        until(lambda: attendants.thread is not None and attendants.thread.is_inside)
        fake.bulk.script = [(0, b""), (Status.TIMEOUT, b"")]
        with ThreadPoolExecutor(1) as pool:
            transport.take_events()
            waiting = pool.submit(exchange, transport, b"command")
            until(lambda: attendants.under_way)
            until(lambda: attendants.thread is not None and not attendants.thread.is_inside)
            seen, stop = set(), time.monotonic() + 3 * asynchronous.BUSY_S
            while time.monotonic() < stop:
                assert attendants.thread is not None
                seen.add(attendants.thread.is_inside)
            assert seen == {False}
            fake.ends(IN, b"reply")
            assert waiting.result(10) == b"reply"
        until(lambda: attendants.thread is not None and attendants.thread.is_inside)
    finally:
        end()


def test_a_request_keeps_the_event_thread_out(transport: Any, backend: FakeBackend) -> None:
    seen: list[bool] = []
    under_way = transport._attendants.under_way
    backend.on_control = lambda *_: seen.append(bool(under_way)) or b"1234"  # type: ignore[func-returns-value]
    transport.control(ClassControl.get_data_rates(0, 1), 100)
    assert seen == [True]
    assert not transport._attendants.under_way


def test_no_look_for_notifications_right_after_a_transfer(
    transport: Any, fake: FakeEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes] = []
    transport.listen(told.append)
    monkeypatch.setattr(usb, "FRESH_S", 60.0)
    fake.bulk.script = [(0, b""), (0, b"reply")]
    exchange(transport, b"command")
    rounds: list[int] = []
    fake.rounds = [lambda: rounds.append(1)]
    transport.take_events()
    assert rounds == []
    fake.bulk.script = [(0, b""), (0, b"reply")]
    fake.comes(b"\x50\x03")
    exchange(transport, b"command")
    transport.take_events()
    assert told == [b"\x50\x03"], "what came with a transfer is told"
    monkeypatch.setattr(usb, "FRESH_S", 0.0)
    fake.rounds = [lambda: rounds.append(2)]
    transport.take_events()
    assert rounds == [1, 2] or rounds == [2]


def test_a_reply_that_is_expected_waits_before_the_command_goes_out(
    transport: Any, fake: FakeEvents
) -> None:
    transport.expect(64)
    assert fake.waits(IN)
    transport.expect(64)
    assert fake.bulk.calls == 1, "it waits already"
    fake.bulk.script = [(0, b""), (0, b"reply")]
    transport.out[:7] = b"command"
    transport.send(7, 5000)
    assert transport.wait(64, 5000) == 5
    assert bytes(transport.inp[:5]) == b"reply"
    assert fake.bulk.calls == 2
    assert fake.bulk.cancelled == []


def test_slots_that_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread reads for all, by the transfer that waits; the others send meanwhile."""
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, 3, bMaxCCIDBusySlots=3)
    virtual = ccid.VirtualReader([EchoCard() for _ in range(3)], descriptor=descriptor)
    info = over_usb(virtual, monkeypatch)
    with ccid.open_reader(info) as reader, ThreadPoolExecutor(3) as pool:
        assert isinstance(reader.pipe, SharedPipe)
        cards = [slot.connect() for slot in reader.slots]

        def talk(card: ccid.Card) -> set[bytes]:
            return {card.transmit(bytes.fromhex("0010000004")) for _ in range(20)}

        assert list(pool.map(talk, cards)) == [{bytes.fromhex("000102039000")}] * 3
        slow = pool.submit(cards[1].transmit, delay(60000))
        until(lambda: reader.slots[1].cancel())
        with pytest.raises(errors.CommandCancelled):
            slow.result(10)
        assert talk(cards[1]) == {bytes.fromhex("000102039000")}


# ctypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "pointer_size", "is_declared"),
    [("linux", 8, False), ("darwin", 8, False), ("win32", 8, False), ("win32", 4, True)],
)
def test_types_are_declared_where_the_calling_convention_needs_them(
    monkeypatch: pytest.MonkeyPatch, platform: str, pointer_size: int, is_declared: bool
) -> None:
    declared: list[tuple[Any, ...]] = []

    def function(name: str, result: Any, *arguments: Any) -> Callable[..., int]:
        declared.append(arguments)
        return lambda *_: 0

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(libusb, "function", function)
    monkeypatch.setattr(ctypes, "sizeof", lambda _: pointer_size)
    libusb.plain("libusb_submit_transfer", ctypes.c_void_p)
    assert declared == [(ctypes.c_void_p,) if is_declared else ()]


def test_a_declared_function_takes_the_same_pointers() -> None:
    """As on 32-bit Windows."""
    number = ctypes.c_int(7)
    copy = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(
        ctypes.memmove(0, 0, 0) or ctypes._memmove_addr  # type: ignore[attr-defined]
    )
    room = ctypes.c_int()
    copy(libusb.at(ctypes.addressof(room)), ctypes.byref(number), ctypes.sizeof(number))
    assert room.value == 7


@pytest.mark.parametrize("code", [Status.BUSY, Status.IO, Status.INTERRUPTED])
def test_a_round_that_fails_at_once_is_no_busy_loop(
    fake: FakeEvents, monkeypatch: pytest.MonkeyPatch, code: Status
) -> None:
    """As one within a callback of libusb. A signal only ends the round."""
    calls, slept = fake.calls()._replace(handle_events=lambda *_: code), list[float]()
    monkeypatch.setattr(asynchronous, "calls", lambda: calls)
    monkeypatch.setattr("time.sleep", slept.append)
    asynchronous.EventHandler().handle(5.0)
    asynchronous.EventHandler().handle(0)
    assert slept == ([] if code == Status.INTERRUPTED else [asynchronous.NUDGE_S])


def test_seconds_as_libusb_takes_them() -> None:
    made = asynchronous.Timeval.of(1.25)._obj
    assert (made.tv_sec, made.tv_usec) == (1, 250_000)
    none = asynchronous.Timeval.of(-3.0)._obj
    assert (none.tv_sec, none.tv_usec) == (0, 0)
