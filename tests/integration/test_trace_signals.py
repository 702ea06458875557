"""A signal handler raises while a trace begins or ends, at each bytecode."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.codes import ExchangeLevel
from ccid.errors import ReaderClosed
from ccid.link.locks import Quiet
from ccid.trace import PcapngSink
from ccid.virtual import EchoCard, make_descriptor
from tests.interruptions import Places, interrupt_everywhere

FILES = ("link/conversation.py", "link/locks.py", "device/tracing.py")


def at_every_bytecode(
    work: Callable[[], object], check: Callable[[], object], again: bool = False
) -> int:
    """Interrupt ``work`` at each bytecode in FILES; returns the number of bytecodes."""
    return interrupt_everywhere(work, check, FILES, Places.BYTECODES, again)


def held(locks: list[Any]) -> list[int]:
    """Numbers of those ``locks`` that another thread cannot acquire."""
    found: list[int] = []

    def look() -> None:
        for i, lock in enumerate(locks):
            if lock.acquire(blocking=False):
                lock.release()
            else:
                found.append(i)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found


@pytest.fixture(params=[1, 3], ids=["one slot", "three slots at once"])
def reader(request: pytest.FixtureRequest) -> Any:
    count = request.param
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, count, bMaxCCIDBusySlots=count)
    virtual = ccid.VirtualReader([EchoCard() for _ in range(count)], descriptor=descriptor)
    with ccid.open_reader(virtual) as opened:
        yield opened


def put_in_order(reader: ccid.Reader) -> None:
    """End the traces that an interruption left, so that the next run is like the first."""
    for left in tuple(reader.traces):
        left.stop()
    assert reader.traces == []
    assert reader.tap is None


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_no_turn_stays_held(reader: ccid.Reader, again: bool) -> None:
    card = reader.slots[0].connect()

    def traced() -> None:
        with reader.trace(io.BytesIO()):
            pass

    def check() -> None:
        assert held(reader.pipe._locks) == []
        put_in_order(reader)

    assert at_every_bytecode(traced, check, again) > 250
    assert card.transmit(bytes.fromhex("00A40400")) == b"\x90\x00"


def test_a_turn_that_was_held_before_stays_held(reader: ccid.Reader) -> None:
    locks = reader.pipe._locks
    with reader.slots[0].connect().exclusive():
        before = held(locks)

        def traced() -> None:
            with reader.trace(io.BytesIO()):
                pass

        def check() -> None:
            assert held(locks) == before
            put_in_order(reader)

        assert before
        at_every_bytecode(traced, check)
    assert held(locks) == []


def test_no_file_stays_open(tmp_path: Path) -> None:
    files: list[io.BytesIO] = []

    class File(PcapngSink):
        def __init__(self) -> None:
            files.append(io.BytesIO())
            super().__init__(files[-1])

        def end(self) -> None:
            files[-1].close()

    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        running = reader.trace(File())

        def stopped() -> None:
            nonlocal running
            running.stop()

        def check() -> None:
            nonlocal running
            running.stop()
            assert files[-1].closed
            assert reader.tap is None
            running = reader.trace(File())

        assert at_every_bytecode(stopped, check) > 100


def test_quiet_holds_nothing_when_it_was_interrupted(reader: ccid.Reader) -> None:
    locks = reader.pipe._locks

    def quiet() -> None:
        with ExitStack() as stack:
            one = reader.pipe.quiet()
            stack.push(one)
            stack.push(one)
            assert one.__enter__()

    def check() -> None:
        assert held(locks) == []

    assert at_every_bytecode(quiet, check) > 50
    with reader.pipe.quiet() as is_quiet:
        assert is_quiet
        assert held(locks) == list(range(len(locks)))
    assert held(locks) == []


def test_quiet_that_was_not_entered_gives_nothing_back() -> None:
    lock = threading.RLock()
    with lock:
        Quiet([lock], bool).__exit__()
        assert held([lock]) == [0]
        with Quiet([lock], bool) as is_quiet:
            assert is_quiet
        assert held([lock]) == [0], "it is another's to give back"
    assert held([lock]) == []


def test_every_turn_gives_them_back_whatever_happens(reader: ccid.Reader) -> None:
    locks = reader.pipe._locks
    assert reader.pipe.every_turn(lambda: held(locks)) == list(range(len(locks)))
    with pytest.raises(ZeroDivisionError):
        reader.pipe.every_turn(lambda: 1 / 0)
    assert held(locks) == []
    reader.close()
    with pytest.raises(ReaderClosed):
        reader.pipe.every_turn(bool)
