"""What several threads do at the same time. Where no GIL makes them take turns, each of these goes
wrong sooner. The tests that make one certain order of two threads fail on any Python, those that
have threads run into each other on a free-threaded one."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ccid
from ccid.codec.messages import MESSAGE_HEADER
from ccid.codes import ExchangeLevel
from ccid.device.open_readers import opened
from ccid.link.reader_cards import Cards
from ccid.link.shared_pipe import SharedPipe
from ccid.link.wiping import COPIED, wipe
from ccid.virtual import EchoCard, make_descriptor

THREADS = 4
AtOnce = Callable[[Callable[[int], object]], None]
BLOCKED_S = 0.1
"""A thread that has not ended by then waits for another one."""


@pytest.fixture
def at_once() -> Iterator[AtOnce]:
    """Has several threads do something at the same time, each with its number; raises what one of
    them raised."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors: list[BaseException] = []

    def run(work: Callable[[int], object]) -> None:
        begin = threading.Barrier(THREADS)

        def do(number: int) -> None:
            try:
                begin.wait()
                work(number)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=do, args=(n,), daemon=True) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        if errors:
            raise errors[0]

    yield run
    sys.setswitchinterval(interval)


def test_threads_wipe_their_buffers(at_once: AtOnce) -> None:
    """Each has its own: what is written into them is not shared either."""

    def work(number: int) -> None:
        for size in (24, COPIED + 1):
            memory = bytearray(b"\xa5" * 2 * size)
            buffer = memoryview(memory)
            for _ in range(20_000):
                wipe(buffer, size)
            assert memory.count(0) == size - MESSAGE_HEADER

    at_once(work)


def test_no_module_has_a_memoryview_for_all_threads() -> None:
    """Free-threaded CPython loses count of the slices that threads make of the same one, and
    refuses it from then on (issue 127716 of CPython)."""
    names = [one.name for one in pkgutil.walk_packages(ccid.__path__, "ccid.")]
    assert "ccid.link.wiping" in names
    for name in names:
        if not name.endswith("__main__"):
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue  # of an optional package, or of another system
            found = [key for key, value in vars(module).items() if type(value) is memoryview]
            assert not found, (name, found)


# Copies of what other threads change -------------------------------------------------------------


def shared_pipe() -> tuple[ccid.Reader, SharedPipe]:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, THREADS, bMaxCCIDBusySlots=THREADS)
    virtual = ccid.VirtualReader([EchoCard() for _ in range(THREADS)], descriptor=descriptor)
    reader = ccid.open_reader(virtual)
    assert isinstance(reader.pipe, SharedPipe)
    return reader, reader.pipe


def test_slots_that_work_at_the_same_time(at_once: AtOnce) -> None:
    reader, pipe = shared_pipe()
    with reader:

        def work(slot: int) -> None:
            for _ in range(2000):
                pipe._under_way[slot] = 1
                pipe._queued.add(slot)
                pipe._knock(pipe._queued)
                pipe._knock(pipe._under_way)
                pipe._queued.discard(slot)
                pipe._under_way.pop(slot, None)

        at_once(work)


def test_a_reader_is_reset_as_its_slots_are_used_first(at_once: AtOnce) -> None:
    def work(number: int) -> None:
        for cards in many:
            for slot in range(4):
                cards[slot * THREADS + number]
            cards.were_reset()

    many = [Cards() for _ in range(200)]
    at_once(work)


def test_the_open_readers_are_listed_while_others_come(at_once: AtOnce) -> None:
    reader, _ = shared_pipe()
    with reader:

        def work(number: int) -> None:
            for count in range(400):
                key = (f"virtual:{number}", 0, count % 3)
                opened.readers[key] = reader
                assert reader in opened.there()
                del opened.readers[key]

        at_once(work)


def test_readers_that_are_opened_and_closed_at_once_are_counted(at_once: AtOnce) -> None:
    reader, _ = shared_pipe()
    with reader:
        before = dict(opened._application_counts)

        def work(_: int) -> None:
            for _ in range(300):
                with opened.opening(reader.info):
                    pass
                opened._count_down((reader.info.path, reader.info.bus, reader.info.address))

        at_once(work)
        assert opened._application_counts == before


# Notifications -----------------------------------------------------------------------------------


def test_two_threads_take_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """One has taken the first off the device, and another comes for the second."""
    virtual = ccid.VirtualReader(EchoCard())
    told: list[bool] = []
    others: list[threading.Thread] = []
    poll = virtual.port.poll

    def slow(*arguments: Any) -> bytes | None:
        message = poll(*arguments)
        if message is not None and not others:
            virtual.functions[0].notice_s = 0.0
            others.append(threading.Thread(target=virtual.insert, args=(EchoCard(),)))
            others[0].start()
            others[0].join(BLOCKED_S)
        return message

    with ccid.open_reader(virtual) as reader:
        reader.transport.take_events()
        reader.cards.listen(lambda _: told.append(reader.cards[0].is_present))
        virtual.functions[0].notice_s = 0.01  # so that it is not taken off as the card is removed
        monkeypatch.setattr(virtual.port, "poll", slow)
        virtual.remove()
        reader.transport.take_events(5000)
        others[0].join()
        reader.transport.take_events()
    assert told == [False, True]


def test_a_reader_is_reset_while_a_notification_is_told() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    others: list[threading.Thread] = []
    with ccid.open_reader(virtual) as reader:
        reader.transport.take_events()

        def tell(_: int) -> None:
            if not others:
                others.append(threading.Thread(target=virtual.reset))
                others[0].start()
                others[0].join(BLOCKED_S)

        end = reader.cards.listen(tell)
        virtual.remove()
        reader.transport.take_events()
        others[0].join()
        end()
        virtual.insert(EchoCard())
        assert reader.slots[0].connect().transmit(b"\0\0\0\0\1a\0")
