"""Readers and cards that come and go, with virtual readers and a hot-plug that a test plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ccid
from ccid import watching
from ccid.errors import ReaderBusy
from ccid.opened import opened
from ccid.transport import ReaderInfo, asynchronous
from ccid.virtual.cards import FileSystemCard


class Bus:
    """What is plugged in, and who is told."""

    def __init__(self) -> None:
        self.infos: list[ReaderInfo] = []
        self.tell: Callable[[], None] | None = None

    def on_hotplug(self, tell: Callable[[], None]) -> Callable[[], None]:
        self.tell = tell
        return self.unhook

    def unhook(self) -> None:
        self.tell = None

    def plug(self, *infos: ReaderInfo) -> None:
        self.infos = list(infos)
        if self.tell is not None:
            self.tell()


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    made = Bus()
    monkeypatch.setattr(watching, "list_readers", lambda: list(made.infos))
    monkeypatch.setattr(asynchronous, "on_hotplug", made.on_hotplug)
    return made


@pytest.fixture
def events(bus: Bus) -> Iterator[Any]:
    made: Any = ccid.watch(10)
    yield made
    made.close()
    assert bus.tell is None


def heard(events: Iterator[ccid.Event], count: int) -> list[str]:
    """The next events, in short."""
    told = []
    for _ in range(count):
        event = next(events)
        told.append(event.kind.value + ("" if event.slot is None else f" {event.slot}"))
    return told


def test_there_at_the_start_then_card_out_and_in(bus: Bus, events: Any) -> None:
    virtual = ccid.VirtualReader()
    bus.plug(virtual.info)
    assert heard(events, 2) == ["reader arrived", "card arrived 0"]
    virtual.remove()
    assert heard(events, 1) == ["card left 0"]
    virtual.insert(FileSystemCard())
    assert heard(events, 1) == ["card arrived 0"]


def test_pulled_out_and_plugged_in(bus: Bus, events: Any) -> None:
    virtual, other = ccid.VirtualReader(), ccid.VirtualReader(card=None)
    bus.plug(virtual.info)
    heard(events, 2)
    virtual.unplug()
    assert heard(events, 2) == ["card left 0", "reader left"]
    bus.plug(other.info)
    assert heard(events, 1) == ["reader arrived"]


def test_an_application_goes_first_and_is_shared(bus: Bus, events: Any) -> None:
    virtual = ccid.VirtualReader()
    bus.plug(virtual.info)
    heard(events, 2)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.remove()
        assert heard(events, 1) == ["card left 0"]
        del card
    virtual.insert(FileSystemCard())
    assert heard(events, 1) == ["card arrived 0"]
    events.close()
    assert not opened.readers
    ccid.open_reader(virtual).close()  # nothing holds it


def test_one_that_another_process_holds(bus: Bus, events: Any) -> None:
    virtual = ccid.VirtualReader()

    def busy(_: ReaderInfo) -> Any:
        raise ReaderBusy("held", holder="pcscd", cure="", reader="x")

    from dataclasses import replace

    bus.plug(replace(virtual.info, path="usb:1-1:1.0", connect=busy))
    assert heard(events, 1) == ["reader arrived"]
    bus.plug()
    assert heard(events, 1) == ["reader left"]


def test_a_virtual_reader_of_this_process(bus: Bus, events: Any) -> None:
    with ccid.open_reader(ccid.VirtualReader()):
        assert heard(events, 2) == ["reader arrived", "card arrived 0"]


def test_it_ends_when_nothing_happens(bus: Bus) -> None:
    assert list(ccid.watch(0)) == []
