"""Readers whose slots work at the same time: bMaxCCIDBusySlots > 1."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty
from typing import Any, cast

import pytest

import ccid
from ccid.codec.messages import PC_to_RDR_XfrBlock
from ccid.codes import ExchangeLevel
from ccid.errors import (
    CommandCancelled,
    MalformedMessage,
    ReaderClosed,
    ReaderRemoved,
    TransportStall,
    TransportTimeout,
)
from ccid.iso7816.apdu import CommandApdu
from ccid.iso7816.timing import Timing
from ccid.link import conversation as conversation_module
from ccid.link import pipe as pipe_module
from ccid.link import shared_pipe as shared_pipe_module
from ccid.link.conversation import Operation
from ccid.link.locks import SLICE_MS
from ccid.link.raw_commands import RawCommand, UnderWay
from ccid.link.shared_pipe import SharedPipe
from ccid.transport.separate_transfers import SeparateTransfers
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.faults import silence
from tests.unit.scripted import ScriptedTransport

SLOTS = 4


def reader_of(busy: int = SLOTS) -> ccid.VirtualReader:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, SLOTS, bMaxCCIDBusySlots=busy)
    return ccid.VirtualReader([EchoCard() for _ in range(SLOTS)], descriptor=descriptor)


def delay(ms: int) -> bytes:
    return bytes((0, 0x50, ms >> 8, ms & 0xFF))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def echo(slot: int, i: int) -> bytes:
    return CommandApdu(0, 0x30, data=b"%d %d" % (slot, i), ne=256).build()


def test_each_slot_gets_its_own_answers() -> None:
    with ccid.open_reader(reader_of()) as reader:
        assert isinstance(reader.pipe, SharedPipe)
        cards = [slot.connect() for slot in reader.slots]

        def talk(n: int) -> list[bytes]:
            return [cards[n].transmit(echo(n, i)) for i in range(200)]

        with ThreadPoolExecutor(SLOTS) as pool:
            for n, answers in enumerate(pool.map(talk, range(SLOTS))):
                assert answers == [b"%d %d\x90\x00" % (n, i) for i in range(200)]
        assert reader.pipe.stale == 0


def test_slots_do_not_wait_for_each_other() -> None:
    with ccid.open_reader(reader_of()) as reader:
        cards = [slot.connect() for slot in reader.slots]
        with ThreadPoolExecutor(SLOTS) as pool:
            began = time.monotonic()
            list(pool.map(lambda card: card.transmit(delay(400)), cards))
            took = time.monotonic() - began
        assert took < 1.2, "4 × 0.4 s one after the other would be 1.6 s"


def test_no_more_commands_than_the_reader_takes_at_once() -> None:
    virtual = reader_of(busy=2)
    with ccid.open_reader(virtual) as reader:
        cards = [slot.connect() for slot in reader.slots]
        with ThreadPoolExecutor(SLOTS) as pool:
            answers = list(pool.map(lambda card: card.transmit(delay(150)), cards))
        assert answers == [b"\x90\x00"] * SLOTS, "none was told that the slot is busy"


def test_one_slow_slot_leaves_the_others_alone() -> None:
    with ccid.open_reader(reader_of()) as reader:
        cards = [slot.connect() for slot in reader.slots]
        slow = threading.Thread(target=cards[0].transmit, args=(delay(600),))
        slow.start()
        done = 0
        while slow.is_alive():
            assert cards[1].transmit(echo(1, done)) == b"1 %d\x90\x00" % done
            done += 1
        slow.join()
        assert done > 20


def test_cancel_hits_the_slot_it_is_called_on() -> None:
    with ccid.open_reader(reader_of()) as reader:
        cards = [slot.connect() for slot in reader.slots]
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(cards[0].transmit, delay(60000))
            second = pool.submit(cards[1].transmit, delay(1200))
            while not reader.slots[0].cancel():
                time.sleep(0.01)
            assert isinstance(first.exception(10), CommandCancelled)
            assert second.result(10) == b"\x90\x00"
        assert reader.slots[2].cancel() is False
        assert cards[0].transmit(echo(0, 1)) == b"0 1\x90\x00"


def test_cancel_before_the_first_command_of_an_operation() -> None:
    with ccid.open_reader(reader_of()) as reader:
        slot = reader.slots[1]
        with reader.pipe.operation(1):
            assert slot.cancel()
            with pytest.raises(CommandCancelled):
                slot.status()
        assert slot.cancel() is False
        slot.status()


def test_cancel_after_there_was_room_and_before_the_command_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cancel() calls cancelled is cancelled."""
    with ccid.open_reader(reader_of()) as reader:
        pipe = reader.pipe
        assert isinstance(pipe, SharedPipe)
        card, slot = reader.slots[1].connect(), reader.slots[1]
        told: list[bool] = []
        with monkeypatch.context() as patch:
            patch.setattr(pipe, "_expect", lambda: told.append(slot.cancel()))
            with pytest.raises(CommandCancelled):
                card.transmit(delay(500))
        assert told == [True]
        assert card.transmit(echo(1, 1)) == b"1 1\x90\x00"


def test_one_apdu_is_atomic_with_all_of_its_response() -> None:
    descriptor = make_descriptor(
        ExchangeLevel.EXTENDED_APDU, 2, bMaxCCIDBusySlots=2, dwMaxCCIDMessageLength=74
    )
    virtual = ccid.VirtualReader([EchoCard(), EchoCard()], descriptor=descriptor)
    with ccid.open_reader(virtual) as reader:
        assert isinstance(reader.pipe, SharedPipe)
        card = reader.slots[0].connect()

        def talk(start: int) -> set[bytes]:
            return {card.transmit(bytes((0, 0x10, start, 0, 0))) for _ in range(100)}

        with ThreadPoolExecutor(3) as pool:
            for start, answers in enumerate(pool.map(talk, range(3))):
                assert answers == {bytes(start + i & 0xFF for i in range(256)) + b"\x90\x00"}


def test_an_answer_that_never_comes_costs_only_its_slot() -> None:
    virtual = reader_of()
    with ccid.open_reader(virtual) as reader:
        cards = [slot.connect() for slot in reader.slots]
        cards[0].agreement.timing = Timing(0, 0, 0, 0, 0, 0)
        virtual.faults.append(silence(on=PC_to_RDR_XfrBlock))
        with pytest.raises(TransportTimeout):
            cards[0].transmit(echo(0, 0))
        assert cards[1].transmit(echo(1, 0)) == b"1 0\x90\x00"
        assert cards[0].transmit(echo(0, 1)) == b"0 1\x90\x00"


class OneSlotIsOdd(SeparateTransfers):
    """Between a pipe and its transport: what comes for slot 1 is bent, or fails."""

    def __init__(self, inner: Any, bend: Callable[[bytes], bytes | Exception]) -> None:
        self.inner, self.bend = inner, bend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send(self, length: int, timeout_ms: int, /) -> None:
        self.inner.send(length, timeout_ms)

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        got = int(self.inner.receive(offset, size, timeout_ms))
        if got <= 10 or self.inner.inp[5] != 1:
            return got
        came = self.bend(bytes(self.inner.inp[:got]))
        if isinstance(came, Exception):
            raise came
        self.inner.inp[: len(came)] = came
        return len(came)


@pytest.mark.parametrize(
    "bend", [lambda m: m[:-1], lambda m: m[:9], lambda m: m[:7] + b"\xc0" + m[8:]]
)
def test_a_malformed_reply_is_its_own_slots(bend: Callable[[bytes], bytes]) -> None:
    """Slot 0 reads for all, and its answer comes last."""
    with ccid.open_reader(reader_of()) as reader, ThreadPoolExecutor(2) as pool:
        cards = [slot.connect() for slot in reader.slots]
        reader.pipe.transport = cast(Any, OneSlotIsOdd(reader.transport, bend))
        for _ in range(3):
            first = pool.submit(cards[0].transmit, delay(300))
            time.sleep(0.05)
            second = pool.submit(cards[1].transmit, delay(100))
            assert isinstance(second.exception(10), MalformedMessage)
            assert first.result(10) == b"\x90\x00"


def test_an_error_of_the_transport_is_told_to_all_who_wait() -> None:
    with ccid.open_reader(reader_of()) as reader, ThreadPoolExecutor(SLOTS) as pool:
        cards = [slot.connect() for slot in reader.slots]
        stall = TransportStall("script: halted")
        reader.pipe.transport = cast(Any, OneSlotIsOdd(reader.transport, lambda _: stall))
        waiting = [pool.submit(cards[n].transmit, delay(60000)) for n in (0, 2, 3)]
        time.sleep(0.1)
        waiting.append(pool.submit(cards[1].transmit, echo(1, 1)))
        assert [type(one.exception(10)) for one in waiting] == [TransportStall] * SLOTS


def holding_all(reader: ccid.Reader, pool: ThreadPoolExecutor, ms: int) -> list[Future[bytes]]:
    """Commands to slots 0 and 1 of a reader that works on two at the same time."""
    cards = [slot.connect() for slot in reader.slots]
    held = [pool.submit(card.transmit, delay(ms)) for card in cards[:2]]
    until = time.monotonic() + 10
    while len(cast(SharedPipe, reader.pipe)._under_way) < 2 and time.monotonic() < until:
        time.sleep(0.005)
    return held


def test_waiting_for_room_honours_the_time_out() -> None:
    virtual = reader_of(busy=2)
    with ccid.open_reader(virtual) as reader, ThreadPoolExecutor(2) as pool:
        holding_all(reader, pool, 60000)
        began = time.monotonic()
        with pytest.raises(TransportTimeout, match="nothing was sent"):
            reader.slots[2].commands.xfr_block(echo(2, 1), timeout_s=0.3)
        assert time.monotonic() - began < 5
        reader.close()


def test_waiting_for_room_is_cancelled_and_ended_by_close() -> None:
    virtual = reader_of(busy=2)
    with ccid.open_reader(virtual) as reader, ThreadPoolExecutor(4) as pool:
        holding_all(reader, pool, 60000)
        cards = [reader.slots[n].card for n in (2, 3)]
        one, other = (pool.submit(card.transmit, echo(2, 1)) for card in cards if card)
        while not reader.slots[2].cancel():
            time.sleep(0.005)
        assert isinstance(one.exception(5), CommandCancelled)
        while not reader.pipe._is_under_way(3):
            time.sleep(0.005)
        reader.close()
        ended = other.exception(5)  # those that hold the room end first: it may have got an answer
        assert (
            isinstance(ended, CommandCancelled | ReaderClosed) or other.result() == b"2 1\x90\x00"
        )


def test_room_goes_to_who_waits_at_once() -> None:
    virtual = reader_of(busy=2)
    with ccid.open_reader(virtual) as reader, ThreadPoolExecutor(3) as pool:
        held = holding_all(reader, pool, 300)
        card = reader.slots[2].card
        assert card is not None
        assert pool.submit(card.transmit, echo(2, 1)).result(5) == b"2 1\x90\x00"
        assert [one.result(5) for one in held] == [b"\x90\x00"] * 2


def test_nothing_is_under_way_after_a_send_that_failed() -> None:
    with ccid.open_reader(reader_of()) as reader:
        card = reader.slots[1].connect()

        def fail(length: int, timeout_ms: int) -> None:
            raise TransportTimeout("script: it takes nothing")

        send = reader.transport.send
        reader.transport.send = fail  # type: ignore[method-assign]
        with pytest.raises(TransportTimeout):
            card.transmit(echo(1, 1))
        reader.transport.send = send  # type: ignore[method-assign]
        assert reader.slots[1].cancel() is False
        assert card.transmit(echo(1, 2)) == b"1 2\x90\x00"


def test_unplugged_while_all_wait() -> None:
    virtual = reader_of()
    with ccid.open_reader(virtual) as reader:
        cards = [slot.connect() for slot in reader.slots]
        with ThreadPoolExecutor(SLOTS) as pool:
            waiting = [pool.submit(card.transmit, delay(60000)) for card in cards]
            time.sleep(0.1)
            virtual.unplug()
            for one in waiting:
                assert isinstance(one.exception(5), ReaderRemoved)


def test_closed_while_all_wait() -> None:
    reader = ccid.open_reader(reader_of())
    cards = [slot.connect() for slot in reader.slots]
    with ThreadPoolExecutor(SLOTS) as pool:
        waiting = [pool.submit(card.transmit, delay(60000)) for card in cards]
        time.sleep(0.1)
        reader.close()
        for one in waiting:
            assert isinstance(one.exception(5), CommandCancelled | ReaderClosed)
    with pytest.raises(ReaderClosed):
        reader.slots[0].status()


# Both transfers at once -----------------------------------------------------------------------


class Watched:
    """Notes the calls of a transport, in their order."""

    def __init__(self, transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        for name in ("expect", "send", "wait", "receive"):
            self._note(transport, name, monkeypatch)

    def _note(self, transport: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        done = getattr(transport, name)

        def noted(*words: Any) -> Any:
            self.calls.append(name)
            return done(*words)

        monkeypatch.setattr(transport, name, noted)


def test_a_transfer_waits_for_the_reply_before_the_command_goes_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ccid.open_reader(reader_of()) as reader:
        card = reader.slots[0].connect()
        watched = Watched(reader.pipe.transport, monkeypatch)
        assert card.transmit(echo(0, 1)) == b"0 1\x90\x00"
        assert watched.calls[:3] == ["expect", "send", "wait"]


def test_where_another_thread_reads_nothing_more_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ccid.open_reader(reader_of()) as reader, ThreadPoolExecutor(1) as pool:
        cards = [slot.connect() for slot in reader.slots[:2]]
        slow = pool.submit(cards[0].transmit, delay(60000))
        pipe = cast(SharedPipe, reader.pipe)

        def is_read() -> bool:
            if pipe._reader.acquire(blocking=False):
                pipe._reader.release()
                return False
            return True

        until(is_read)
        watched = Watched(pipe.transport, monkeypatch)
        assert cards[1].transmit(echo(1, 1)) == b"1 1\x90\x00"
        assert "expect" not in watched.calls[: watched.calls.index("send")]
        until(lambda: reader.slots[0].cancel())
        with pytest.raises(CommandCancelled):
            slow.result(10)


def test_a_reader_that_is_gone_before_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    virtual = reader_of()
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        pipe = cast(SharedPipe, reader.pipe)

        def gone(_size: int) -> None:
            raise ReaderRemoved("gone")

        with monkeypatch.context() as patch:
            patch.setattr(pipe.transport, "expect", gone)
            with pytest.raises(ReaderRemoved):
                card.transmit(echo(0, 1))
        assert pipe._reader.acquire(blocking=False), "the lock is free again"
        pipe._reader.release()
        assert pipe._under_way == {}


# How long a thread waits --------------------------------------------------------------------------


class Stopped:
    """A clock that stands still."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Box:
    """A box in which nothing is, and that notes for how long somebody waited."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def get_nowait(self) -> None:
        raise Empty

    def get(self, timeout: float) -> None:
        assert len(self.waits) < 10, "it waits without end"
        self.waits.append(timeout)
        raise Empty


class HeldByAnother:
    """The lock of the thread that reads for all."""

    def acquire(self, blocking: bool) -> bool:
        return False

    def release(self) -> None:
        raise RuntimeError


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> SharedPipe:
    """A pipe without a reader, under a clock that stands still."""
    for module in (shared_pipe_module, pipe_module, conversation_module):
        monkeypatch.setattr(module, "time", Stopped())
    script = ScriptedTransport(lambda _: None)
    return SharedPipe(script, name="script", slot_count=SLOTS, busy_slots=2)


def command(slot: int, timeout_s: float) -> RawCommand:
    return RawCommand(slot, 0x65, bytes(3), b"", 0x81, timeout_s)


def test_who_finds_no_room_and_has_no_time_ends_at_once(alone: SharedPipe) -> None:
    """Even if more is under way than may be: that one is an ABORT."""
    for under_way in ({0: 1, 1: 2}, {0: 1, 1: 2, 3: 3}):
        box = Box()
        alone._boxes[2] = cast(Any, box)
        alone._under_way = dict(under_way)
        with pytest.raises(TransportTimeout, match="nothing was sent"):
            alone._wait_for_room(command(2, 0.0))
        assert box.waits == []
        assert alone._under_way == under_way


def test_who_finds_no_room_looks_again_after_a_slice(
    alone: SharedPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box()
    alone._boxes[2] = cast(Any, box)
    for left_s, wait_s in ((5.0, SLICE_MS / 1000), (0.001, 0.001)):
        alone._under_way = {0: 1, 1: 2}

        def get(timeout: float, wait_s: float = wait_s) -> None:
            assert timeout == pytest.approx(wait_s)
            alone._under_way.popitem()

        monkeypatch.setattr(box, "get", get)
        alone._wait_for_room(command(2, left_s))
        assert alone._under_way[2] == -1


def test_while_another_reads_a_thread_looks_again_after_a_slice(alone: SharedPipe) -> None:
    box = Box()
    alone._boxes[2] = cast(Any, box)
    alone._reader = cast(Any, HeldByAnother())
    sent = UnderWay(command(2, 5.0), 0, Operation(0, Stopped.now, None))
    for left_s in (5.0, 0.001, 0.0, -5.0):
        assert alone._next(sent, Stopped.now + left_s) is None
    assert box.waits == pytest.approx([SLICE_MS / 1000, 0.001, 0.0, 0.0])


def test_a_thread_is_woken_once(alone: SharedPipe) -> None:
    for _ in range(3):
        alone._knock({1, 3})
    assert [box.qsize() for box in alone._boxes] == [0, 1, 0, 1]


def test_the_rest_of_anothers_message_is_read_whatever_ends_here(
    alone: SharedPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reads for all drops no part of a message for another slot."""
    monkeypatch.setattr(alone, "abort", lambda slot: None)
    with alone.operation(1):
        assert alone.cancel(1)
        operation = alone._current(1, alone.count)
        sent = UnderWay(command(1, 5.0), alone.count, operation)
        for other in (0, 2, 3):
            alone.transport.inp[5] = other
            assert alone._left_ms(sent) == SLICE_MS
        alone.transport.inp[5] = 1
        with pytest.raises(CommandCancelled):
            alone._left_ms(sent)


@pytest.mark.parametrize(("under_way", "is_own"), [({2: 5}, True), ({1: 4, 2: 5}, False)])
def test_a_message_that_names_no_slot_is_for_the_only_command(
    alone: SharedPipe, monkeypatch: pytest.MonkeyPatch, under_way: dict[int, int], is_own: bool
) -> None:
    short = MalformedMessage("short")
    elsewhere = bytes((0x81, 0, 0, 0, 0, 3, 5, 0, 0, 0))
    sent = UnderWay(command(2, 5.0), 5, Operation(0, Stopped.now, None))
    alone._under_way = under_way
    for message, own in ((short, is_own), (elsewhere, False)):
        monkeypatch.setattr(alone, "_read", lambda *_, message=message: message)
        stale = alone.stale
        assert alone._read_for_all(sent, Stopped.now) is (message if own else None)
        assert alone.stale - stale == (0 if own else 1)
