"""The transport to a virtual reader, used by several threads."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.transport import ReaderInfo
from ccid.virtual.cards import FileSystemCard
from ccid.virtual.port import Unplugged
from ccid.virtual.usb_device import Stall
from ccid.virtual.virtual_transport import VirtualTransport
from tests.unit.test_asynchronous import until


def listening(reader: ccid.Reader, tell: Callable[[Any], None]) -> tuple[Any, threading.Thread]:
    """The function that ends listening, and the thread that listens."""
    before = threading.enumerate()
    leave = reader.listen(tell)
    (thread,) = set(threading.enumerate()) - set(before)
    return leave, thread


def test_one_of_two_who_listen_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """One leaves just when the thread of that listener is about to wait again, and the other is
    woken."""
    virtual = ccid.VirtualReader()
    with ccid.open_reader(virtual) as reader:
        told: list[Any] = []
        leave, first = listening(reader, told.append)
        also, _ = listening(reader, told.append)
        until(lambda: told)
        reached, released, due = threading.Event(), threading.Event(), virtual.device.next_due

        def next_due(*endpoint: int) -> float | None:
            if threading.current_thread() is first and not released.is_set():
                reached.set()
                released.wait(10)
            return due(*endpoint)

        monkeypatch.setattr(virtual.device, "next_due", next_due)
        virtual.remove()
        assert reached.wait(10)
        time.sleep(0.05)
        leaving = threading.Thread(target=leave, daemon=True)
        leaving.start()
        time.sleep(0.05)
        released.set()
        leaving.join(5)
        assert not leaving.is_alive()
        assert not first.is_alive()
        also()


def test_another_thread_takes_what_one_who_listens_is_about_to_wait_for() -> None:
    virtual = ccid.VirtualReader(None)
    virtual.functions[0].notice_s = 0.1
    with ccid.open_reader(virtual) as reader:
        told: list[Any] = []
        leave, thread = listening(reader, told.append)
        time.sleep(0.05)

        class Taken(list[Any]):
            """Another thread takes each item as soon as this thread has seen it."""

            def __len__(self) -> int:
                size, asks = super().__len__(), sys._getframe(1).f_code.co_name
                if size and asks == "next_due" and threading.current_thread() is thread:
                    other = threading.Thread(target=self.clear_in_turn)
                    other.start()
                    other.join(0.2)
                return size

            def clear_in_turn(self) -> None:
                with virtual.port.changed:
                    self.clear()

        pipe = virtual.functions[0].interrupt_in
        assert pipe is not None
        with virtual.port.changed:
            virtual.insert(FileSystemCard())
            pipe._queue = Taken(pipe._queue)
        time.sleep(0.3)
        pipe._queue = []
        virtual.remove()
        until(lambda: told)
        assert thread.is_alive()
        leave()


def test_unplugged_while_it_says_that_an_endpoint_is_halted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    virtual = ccid.VirtualReader()
    with ccid.open_reader(virtual) as reader:

        def fail(error: Exception) -> Callable[..., Any]:
            def failing(*_: object) -> Any:
                raise error

            return failing

        monkeypatch.setattr(virtual.functions[0], "bulk_out", fail(Stall()))
        monkeypatch.setattr(virtual.port, "control", fail(Unplugged()))
        with pytest.raises(errors.ReaderRemoved):
            reader.slots[0].status()


def test_two_threads_open_it() -> None:
    """One thread gets the reader, at whatever point the other thread is."""
    virtual, got = ccid.VirtualReader(), list[VirtualTransport]()

    class Slow:
        """The interface; another thread opens the reader while this thread looks up the
        endpoints."""

        def __getattr__(self, name: str) -> Any:
            if name == "bulk_out" and not got:
                got.append(VirtualTransport(virtual.port, virtual.info))
            return getattr(virtual.info.reader, name)

    info: ReaderInfo = replace(virtual.info, reader=Slow())  # type: ignore[arg-type]
    with pytest.raises(errors.ReaderBusy):
        VirtualTransport(virtual.port, info)
    got[0].close()
    VirtualTransport(virtual.port, virtual.info).close()


def test_one_interface_is_closed_while_another_is_opened() -> None:
    virtual = ccid.VirtualReader()
    others: list[Callable[[], None]] = []

    class Shared(list[Callable[[], None]]):
        """Another thread adds an item while this thread iterates."""

        def __iter__(self) -> Any:
            yield from list(super().__iter__())
            if not others:
                others.append(lambda: None)
                self.append(others[0])

    with ccid.open_reader(virtual):
        virtual.port.armed = Shared(virtual.port.armed)
    virtual.port.armed.append(lambda: None)
    assert len(virtual.port.armed) == 1 + len(others)


# Listeners ------------------------------------------------------------------------------------


def test_two_threads_begin_to_listen() -> None:
    virtual, told = ccid.VirtualReader(), [threading.Event(), threading.Event()]
    with ccid.open_reader(virtual) as reader:
        ends: list[Callable[[], None]] = []
        first = [True]

        class Listeners(list[Any]):
            """Another listener is added while this thread iterates."""

            def __iter__(self) -> Any:
                if first:
                    first.clear()
                    ends.append(reader.listen(lambda _: told[1].set()))
                yield from list(super().__iter__())

        reader._listeners = Listeners()
        ends.append(reader.listen(lambda _: told[0].set()))
        virtual.remove()
        until(told[0].is_set)
        time.sleep(0.05)
        told[1].clear()
        virtual.insert(FileSystemCard())
        until(told[1].is_set)
        for end in ends:
            end()


def test_the_same_function_listens_twice() -> None:
    virtual, told = ccid.VirtualReader(), threading.Event()
    with ccid.open_reader(virtual) as reader:

        def tell(_: object) -> None:
            told.set()

        one, other = reader.listen(tell), reader.listen(tell)
        one()
        one()
        told.clear()
        virtual.remove()
        until(told.is_set)
        other()


def test_one_who_fails_keeps_nobody_from_anything(caplog: pytest.LogCaptureFixture) -> None:
    virtual, told = ccid.VirtualReader(), threading.Event()
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:

        def fail(_: object) -> None:
            raise ValueError("a fault")

        ends = [reader.listen(fail), reader.listen(lambda _: told.set())]
        reader._notified(bytes([0x50, 0b01]))
        assert told.is_set()
        assert "a fault" in caplog.text
        assert card.transmit(bytes.fromhex("00A4000C023F00")) == b"\x90\x00"
        virtual.unplug()
        with pytest.raises(errors.ReaderRemoved):
            card.transmit(bytes.fromhex("00A4000C023F00"))
        for end in ends:
            end()
