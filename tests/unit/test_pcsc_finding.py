"""Readers on USB as the resource manager finds them: those that come, go, or are another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

import ccid
from ccid.errors import ReaderBusy, UsbUnavailable
from ccid.pcsc.manager import PNP_READER, Manager, ReaderState, ScardCode, ScardError, reader_finder
from ccid.transport import ReaderInfo, Transport, hotplug
from tests.unit.test_asynchronous import until


class Bus:
    """Devices on USB; they are virtual ones, under other paths."""

    def __init__(self) -> None:
        self.infos: list[ReaderInfo] = []
        self.tell: Callable[[], None] | None = None
        self.listed = 0
        self.tells = True

    def list_readers(self) -> list[ReaderInfo]:
        self.listed += 1
        return list(self.infos)

    def on_hotplug(self, tell: Callable[[], None]) -> Callable[[], None] | None:
        if not self.tells:
            return None
        self.tell = tell
        return self.end

    def end(self) -> None:
        self.tell = None

    def plug(self, reader: ccid.VirtualReader, place: str) -> ReaderInfo:
        """A device comes."""
        info = replace(reader.info, path=f"usb:{place}:1.0", serial=None)
        self.infos.append(info)
        if self.tell is not None:
            self.tell()
        return info

    def unplug(self, info: ReaderInfo) -> None:
        """It leaves."""
        self.infos.remove(info)
        if self.tell is not None:
            self.tell()


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    made = Bus()
    monkeypatch.setattr(reader_finder, "list_readers", made.list_readers)
    monkeypatch.setattr(hotplug, "on_hotplug", made.on_hotplug)
    return made


@pytest.fixture
def manager(bus: Bus) -> Iterator[Manager]:
    made = Manager()
    yield made
    made.close()


def names(manager: Manager, context: int) -> list[str]:
    try:
        return manager.list_readers(context)
    except ScardError as error:
        if error.code is not ScardCode.E_NO_READERS_AVAILABLE:
            raise
        return []


def wait_for(manager: Manager, context: int, count: int) -> list[str]:
    """Wait until there are so many readers."""
    until, known = time.monotonic() + 10, 0
    while len(found := names(manager, context)) != count:
        assert time.monotonic() < until, found
        states = [ReaderState(PNP_READER, known << 16)]
        known = manager.get_status_change(context, 500, states)[1][0].event >> 16
    return found


def test_the_first_list_has_those_that_are_there(bus: Bus, manager: Manager) -> None:
    for place in ("1-1", "1-2", "1-3"):
        bus.plug(ccid.VirtualReader(), place)
    assert bus.listed == 0  # nobody needs them
    assert names(manager, manager.establish()) == [
        f"Virtual Reader 0{number} 00" for number in range(3)
    ]


def test_readers_that_come_and_go(bus: Bus, manager: Manager) -> None:
    context = manager.establish()
    assert names(manager, context) == []
    info = bus.plug(ccid.VirtualReader(), "1-1")
    assert wait_for(manager, context, 1) == ["Virtual Reader 00 00"]
    other = bus.plug(ccid.VirtualReader(), "1-2")
    wait_for(manager, context, 2)
    bus.unplug(info)
    assert wait_for(manager, context, 1) == ["Virtual Reader 01 00"]
    bus.unplug(other)
    wait_for(manager, context, 0)


def test_names_are_those_of_pcscd_whatever_else_is_plugged_in(bus: Bus, manager: Manager) -> None:
    """What tells equal readers apart in a list for people is no part of them: pcscd's names have
    the interface and the serial number once."""
    for serial in ("A1", "A2"):
        info = bus.plug(ccid.VirtualReader(), f"1-{serial}")
        told_apart = f"{info.name} ({serial})"
        bus.infos[-1] = replace(info, name=told_apart, serial=serial, interface_name="Pad")
    assert names(manager, manager.establish()) == [
        "Virtual Reader [Pad] (A1) 00 00",
        "Virtual Reader [Pad] (A2) 01 00",
    ]


def test_where_libusb_does_not_tell(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_finder, "COMPARE_S", 0.02)
    bus.tells = False
    manager = Manager()
    context = manager.establish()
    assert names(manager, context) == []
    bus.plug(ccid.VirtualReader(), "1-1")
    wait_for(manager, context, 1)
    manager.close()


def test_a_reader_that_another_has_is_tried_again(bus: Bus, manager: Manager) -> None:
    reader = ccid.VirtualReader()
    info = bus.plug(reader, "1-1")

    def busy(info: ReaderInfo) -> Transport:
        raise ReaderBusy("another program has it", holder="another")

    bus.infos = [replace(info, connect=busy)]
    context = manager.establish()
    assert names(manager, context) == []
    bus.infos = [info]
    other = manager.establish()  # a program that begins may be why it was given back
    wait_for(manager, other, 1)


def test_a_reader_given_back_while_it_was_tried_is_tried_again(bus: Bus, manager: Manager) -> None:
    info = bus.plug(ccid.VirtualReader(), "1-1")
    takes_long, trying, go_on = threading.Event(), threading.Event(), threading.Event()

    def busy(info: ReaderInfo) -> Transport:
        if takes_long.is_set():
            trying.set()
            assert go_on.wait(10)
        raise ReaderBusy("another program has it", holder="another")

    bus.infos = [replace(info, connect=busy)]
    assert names(manager, manager.establish()) == []
    takes_long.set()
    context = manager.establish()
    assert trying.wait(10)
    bus.infos = [info]
    listed = bus.listed
    until(lambda: bus.tell)
    assert bus.tell is not None
    bus.tell()
    until(lambda: bus.listed > listed and not manager._engine.has_messages)
    go_on.set()
    wait_for(manager, context, 1)


def test_only_those_that_are_named(bus: Bus) -> None:
    bus.plug(ccid.VirtualReader(name="One"), "1-1")
    bus.plug(ccid.VirtualReader(name="Two"), "1-2")
    for word, name in (("two", "Two 00 00"), ("usb:1-1:1.0", "One 00 00")):
        manager = Manager(names=[word])
        assert names(manager, manager.establish()) == [name]
        manager.close()


def test_without_usb(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> list[ReaderInfo]:
        raise UsbUnavailable("libusb cannot be loaded")

    monkeypatch.setattr(reader_finder, "list_readers", unavailable)
    manager = Manager([ccid.VirtualReader()])
    assert len(names(manager, manager.establish())) == 1
    manager.close()
