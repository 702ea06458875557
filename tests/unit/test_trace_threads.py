"""Traces that begin, run and end while several threads talk to cards."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import ccid
from ccid.codes import ExchangeLevel
from ccid.trace.pcapng import PcapngSink
from ccid.trace.tap import Sink, Transfer
from ccid.transport import ReaderInfo
from ccid.virtual import EchoCard, make_descriptor

PIN = b"13579086"
VERIFY = bytes.fromhex("0020000108") + PIN
LONG_VERIFY = bytes.fromhex("0020000180") + PIN * 16
ECHO = bytes.fromhex("0010000002")


@contextmanager
def waiting(card: ccid.Card, apdu: bytes) -> Iterator[Callable[[], bytes]]:
    """A context in which another thread waits for its turn to send ``apdu``; gives the response."""
    entered = threading.Event()

    def run() -> bytes:
        entered.set()
        return card.transmit(apdu)

    with ThreadPoolExecutor(1) as pool:
        with card.exclusive():
            sent = pool.submit(run)
            assert entered.wait(10)
            with pytest.raises(TimeoutError):
                sent.result(0.2)
            yield lambda: sent.result(10)
        sent.result(10)


def test_two_threads_with_a_pin_each() -> None:
    file = io.BytesIO()
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        card = reader.slots[0].connect()
        with reader.trace(file), ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: card.transmit(VERIFY), range(300)))
    assert len(set(answers)) == 1
    assert PIN not in file.getvalue()
    assert file.getvalue().count(VERIFY[:5]) == 300


@pytest.mark.parametrize("room", [20, 30, 271])
@pytest.mark.parametrize("apdu", [VERIFY, LONG_VERIFY], ids=["short", "long"])
def test_a_trace_begins_while_a_pin_waits_for_its_turn(room: int, apdu: bytes) -> None:
    descriptor = make_descriptor(ExchangeLevel.EXTENDED_APDU, 1, dwMaxCCIDMessageLength=room)
    file = io.BytesIO()
    virtual = ccid.VirtualReader(EchoCard(), descriptor=descriptor)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        with waiting(card, apdu):
            trace = reader.trace(file)
        trace.stop()
    assert b"\x00\x20\x00\x01" in file.getvalue()
    assert not any(PIN[i : i + 3] in file.getvalue() for i in range(6))


@pytest.mark.parametrize("level", ExchangeLevel)
def test_at_every_level(level: ExchangeLevel) -> None:
    file = io.BytesIO()
    virtual = ccid.VirtualReader(EchoCard(), level=level)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        with waiting(card, VERIFY):
            trace = reader.trace(file)
        trace.stop()
    assert not any(PIN[i : i + 3] in file.getvalue() for i in range(6))


def test_traces_of_a_reader_whose_slots_work_at_the_same_time() -> None:
    descriptor = make_descriptor(
        ExchangeLevel.EXTENDED_APDU, 2, bMaxCCIDBusySlots=2, dwMaxCCIDMessageLength=30
    )
    virtual = ccid.VirtualReader([EchoCard(), EchoCard()], descriptor=descriptor)
    done, files = threading.Event(), [io.BytesIO() for _ in range(20)]

    def talk(card: ccid.Card) -> int:
        count = 0
        while not done.is_set():
            card.transmit(LONG_VERIFY)
            count += 1
            done.wait(0.002)  # a lock is no queue: a thread that never pauses keeps the others out
        return count

    with ccid.open_reader(virtual) as reader, ThreadPoolExecutor(2) as pool:
        talks = [pool.submit(talk, slot.connect()) for slot in reader.slots]
        for file in files:
            with reader.trace(file):
                done.wait(0.01)
        done.set()
        assert all(one.result(10) for one in talks)
    assert any(b"\x00\x20\x00\x01" in file.getvalue() for file in files)
    assert not any(PIN[:3] in file.getvalue() for file in files)


def test_a_trace_ends_while_an_apdu_waits_for_its_turn(tmp_path: Path) -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        card = reader.slots[0].connect()
        trace = reader.trace(tmp_path / "trace.pcapng")
        with waiting(card, ECHO) as got:
            trace.stop()
        assert got() == b"\0\1\x90\0"


def test_traces_come_and_go_while_others_talk(tmp_path: Path) -> None:
    done = threading.Event()

    def talk() -> int:
        count = 0
        while not done.is_set():
            assert card.transmit(ECHO) == b"\0\1\x90\0"
            count += 1
            done.wait(0.001)
        return count

    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        card = reader.slots[0].connect()
        with ThreadPoolExecutor(3) as pool:
            talks = [pool.submit(talk) for _ in range(3)]
            try:
                for _ in range(50):
                    with reader.trace(tmp_path / "trace.pcapng"):
                        done.wait(0.003)
            finally:
                done.set()
            assert all(one.result(10) for one in talks)
        assert reader.tap is None
        assert reader.traces == []


def test_traces_begun_at_once_are_all_there() -> None:
    class Ear(Sink):
        def __init__(self) -> None:
            self.heard = 0

        def begin(self, info: ReaderInfo) -> None:
            pass

        def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
            self.heard += 1

        def end(self) -> None:
            pass

    ears = [Ear() for _ in range(20)]
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        card = reader.slots[0].connect()
        with ThreadPoolExecutor(4) as pool:
            traces = list(pool.map(reader.trace, ears))
        card.transmit(ECHO)
        assert [ear.heard for ear in ears] == [2] * 20
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda trace: trace.stop(), traces))
        assert reader.tap is None


def test_a_forgotten_reader_is_collected_while_another_is_traced_into_the_same_file() -> None:
    """The garbage collector closes the reader in any thread."""
    kept: list[ccid.Reader] = []

    class File(io.BytesIO):
        def write(self, data: object) -> int:
            if kept:
                kept.pop().close()
            return super().write(data)  # type: ignore[arg-type]

    file = File()
    sink = PcapngSink(file, keep_open=True)
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        forgotten = ccid.open_reader(ccid.VirtualReader(EchoCard()))
        forgotten.slots[0].connect()
        for one in reader, forgotten:
            one.trace(sink)
        kept.append(forgotten)
        thread = threading.Thread(target=reader.slots[0].status, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
    assert not kept
