"""Readers and cards that come and go: virtual readers, and hot-plug events that a test sends."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

import ccid
from ccid.device import watching
from ccid.device.open_readers import key_of, opened
from ccid.errors import ReaderBusy, ReaderForked, TransportError
from ccid.transport import ReaderInfo, hotplug, stale_list
from ccid.virtual import faults
from ccid.virtual.cards import FileSystemCard
from ccid.virtual.virtual_transport import VirtualTransport
from tests.interruptions import Interrupter, Places, interrupted
from tests.unit.fake_events import FakeEvents
from tests.unit.test_asynchronous import fake, until  # noqa: F401

FILES = ("device/watching.py", "device/watch_tasks.py")
ON_HOTPLUG = hotplug.on_hotplug


class Bus:
    """The readers on USB, and the function that hears of changes."""

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
    monkeypatch.setattr(hotplug, "on_hotplug", made.on_hotplug)
    return made


@pytest.fixture
def events(bus: Bus) -> Iterator[Any]:
    made: Any = ccid.watch(10)
    yield made
    made.close()
    assert bus.tell is None


def heard(events: Iterator[ccid.Event], count: int) -> list[str]:
    """The next events, in a short form."""
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


def test_pulled_out_and_listed_for_a_moment_more(bus: Bus, events: Any) -> None:
    virtual, other = ccid.VirtualReader(), ccid.VirtualReader(card=None)
    bus.plug(virtual.info)
    heard(events, 2)
    virtual.unplug()
    assert heard(events, 2) == ["card left 0", "reader left"]
    bus.plug(virtual.info, other.info)
    event = next(events)
    assert (event.kind, event.reader) == (ccid.EventKind.READER_ARRIVED, other.info)


@pytest.mark.parametrize("interrupt", [False, True])
def test_gone_and_back_at_the_same_address(
    bus: Bus, events: Any, interrupt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two calls of next(). libusb reports the change before any transfer fails."""
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    virtual = ccid.VirtualReader(interrupt=interrupt)
    bus.plug(virtual.info)
    heard(events, 2)
    reader = opened.readers[key_of(virtual.info)]
    bus.plug(virtual.info)
    virtual.unplug()
    if interrupt:
        until(lambda: reader.transport.dead)
    else:
        reader.transport.removed()  # type: ignore[attr-defined]
    virtual.functions[0].is_unplugged = False
    assert heard(events, 4) == ["card left 0", "reader left", "reader arrived", "card arrived 0"]


def test_another_in_its_place_while_an_application_has_not_closed_it(bus: Bus, events: Any) -> None:
    virtual, other = ccid.VirtualReader(), ccid.VirtualReader()
    there = [virtual]
    info = replace(virtual.info, path="usb:1-1:1.0", connect=lambda to: there[0].info.connect(to))
    bus.plug(info)
    with ccid.open_reader(info) as reader:
        assert heard(events, 2) == ["reader arrived", "card arrived 0"]
        there[:] = [other]
        virtual.unplug()
        until(lambda: reader.transport.dead)
        assert heard(events, 2) == ["card left 0", "reader left"]
        assert heard(events, 2) == ["reader arrived", "card arrived 0"]
    other.remove()
    assert heard(events, 1) == ["card left 0"]
    with ccid.open_reader(info):
        other.insert(FileSystemCard())
        assert heard(events, 1) == ["card arrived 0"]


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
    ccid.open_reader(virtual).close()  # no watch holds the reader


@pytest.fixture
def held() -> list[bool]:
    """True in the first item: another process holds the reader."""
    return [True]


@pytest.fixture
def refusing(held: list[bool]) -> ReaderInfo:
    """A reader that another process may hold."""
    info = ccid.VirtualReader().info

    def connect(to: ReaderInfo) -> Any:
        if held[0]:
            raise ReaderBusy("held", holder="pcscd", cure="", reader="x")
        return info.connect(to)

    return replace(info, path="usb:1-1:1.0", connect=connect)


def test_one_that_another_process_holds(bus: Bus, events: Any, refusing: ReaderInfo) -> None:
    bus.plug(refusing)
    assert heard(events, 1) == ["reader arrived"]
    bus.plug()
    assert heard(events, 1) == ["reader left"]


def test_it_is_tried_again_when_something_is_plugged_in(
    bus: Bus, events: Any, refusing: ReaderInfo, held: list[bool]
) -> None:
    bus.plug(refusing)
    heard(events, 1)
    bus.plug(refusing)
    held[0] = False
    bus.plug(refusing)
    assert heard(events, 1) == ["card arrived 0"]


def test_it_is_tried_again_where_devices_are_listed_once_a_second(
    bus: Bus,
    events: Any,
    refusing: ReaderInfo,
    held: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list that tells of a device that came: most lists tell of none."""
    monkeypatch.setattr(stale_list, "why_deaf", lambda: "no udev runs here")
    bus.plug(refusing)
    heard(events, 1)
    held[0] = False
    bus.plug(refusing, ccid.VirtualReader(None).info)
    assert sorted(heard(events, 2)) == ["card arrived 0", "reader arrived"]


def test_it_is_tried_again_when_an_application_could_open_it(
    bus: Bus, events: Any, refusing: ReaderInfo, held: list[bool]
) -> None:
    bus.plug(refusing)
    heard(events, 1)
    with pytest.raises(ReaderBusy):
        ccid.open_reader(refusing)
    held[0] = False
    ccid.open_reader(refusing).close()
    assert heard(events, 1) == ["card arrived 0"]


def test_one_that_does_not_answer_at_first_is_tried_again(
    bus: Bus, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its firmware still starts, say. No device comes or goes, and no program opens it."""
    monkeypatch.setattr(watching, "RETRY_S", 0.02)
    monkeypatch.setattr(watching, "LONGEST_RETRY_S", 0.05)
    virtual, tried = ccid.VirtualReader(), list[float]()

    def connect(to: ReaderInfo) -> Any:
        tried.append(time.monotonic())
        if len(tried) <= 4:
            raise TransportError("script: no answer")
        return virtual.info.connect(to)

    bus.plug(replace(virtual.info, path="usb:1-1:1.0", connect=connect))
    assert heard(events, 2) == ["reader arrived", "card arrived 0"]
    pauses = [later - sooner for sooner, later in pairwise(tried)]
    least = (0.02, 0.04, 0.05, 0.05)
    assert all(pause >= at_least for pause, at_least in zip(pauses, least, strict=True))
    virtual.remove()
    assert heard(events, 1) == ["card left 0"]
    virtual.unplug()
    assert heard(events, 1) == ["reader left"]


def test_a_reader_that_never_answers_is_not_tried_all_the_time(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RETRY_S", 0.01)
    tried: list[object] = []

    def connect(to: ReaderInfo) -> Any:
        tried.append(to)
        raise TransportError("script: no answer")

    bus.plug(replace(ccid.VirtualReader().info, path="usb:1-1:1.0", connect=connect))
    assert [event.kind for event in ccid.watch(0.2)] == [ccid.EventKind.READER_ARRIVED]
    assert 2 <= len(tried) <= 6, "after 10, 30, 70, 150 ms"


def test_it_takes_the_reader_back(bus: Bus, events: Any) -> None:
    virtual = ccid.VirtualReader()
    bus.plug(virtual.info)
    heard(events, 2)
    with ccid.open_reader(virtual) as reader:
        assert opened.readers[key_of(virtual.info)] is reader
        card = virtual.remove()
        assert heard(events, 1) == ["card left 0"]
    assert not opened.readers
    assert card is not None
    virtual.insert(card)
    assert heard(events, 1) == ["card arrived 0"]
    assert opened.readers[key_of(virtual.info)].is_lent
    virtual.remove()
    assert heard(events, 1) == ["card left 0"]


def test_several_slots(bus: Bus, events: Any) -> None:
    virtual = ccid.VirtualReader([FileSystemCard(), None, FileSystemCard()], slots=3)
    bus.plug(virtual.info)
    assert heard(events, 3) == ["reader arrived", "card arrived 0", "card arrived 2"]
    virtual.insert(FileSystemCard(), slot=1)
    virtual.remove(slot=2)
    assert heard(events, 2) == ["card arrived 1", "card left 2"]
    virtual.unplug()
    assert heard(events, 3) == ["card left 0", "card left 1", "reader left"]


def test_another_card_by_the_time_the_reader_says_so(
    bus: Bus, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card is there, and another card than before; but the first notification is of the earlier
    state. The test makes all notifications, and the reader is not polled."""
    monkeypatch.setattr(watching, "POLL_S", 1000)
    virtual = ccid.VirtualReader([FileSystemCard(), None], slots=2, interrupt=False)
    bus.plug(virtual.info)
    heard(events, 2)
    reader = opened.readers[key_of(virtual.info)]
    reader._notified(bytes([0x50, 0b0011]))
    reader._notified(bytes([0x50, 0b1101]))
    assert heard(events, 1) == ["card arrived 1"]
    reader._notified(bytes([0x50, 0b0111]))
    assert heard(events, 2) == ["card left 0", "card arrived 0"]


def test_a_card_seen_before_the_reader_says_that_it_came(
    bus: Bus, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application has the reader open. The watch begins when the card is in the slot, and not
    reported."""
    monkeypatch.setattr(watching, "POLL_S", 1000)
    virtual = ccid.VirtualReader([None, None], slots=2, interrupt=False)
    with ccid.open_reader(virtual) as reader:
        reader._notified(bytes([0x50, 0b1010]))
        virtual.insert(FileSystemCard())
        assert heard(events, 2) == ["reader arrived", "card arrived 0"]
        reader._notified(bytes([0x50, 0b0011]))
        reader._notified(bytes([0x50, 0b1101]))
        assert heard(events, 1) == ["card arrived 1"]
        reader._notified(bytes([0x50, 0b0111]))
        assert heard(events, 2) == ["card left 0", "card arrived 0"], "another one"


def test_a_reader_that_does_not_tell_is_asked(
    bus: Bus, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    virtual = ccid.VirtualReader([FileSystemCard(), None], slots=2, interrupt=False)
    bus.plug(virtual.info)
    assert heard(events, 2) == ["reader arrived", "card arrived 0"]
    virtual.insert(FileSystemCard(), slot=1)
    assert heard(events, 1) == ["card arrived 1"]
    virtual.remove()
    assert heard(events, 1) == ["card left 0"]
    virtual.unplug()
    assert heard(events, 2) == ["card left 1", "reader left"]


def test_devices_are_listed_where_libusb_does_not_tell(
    bus: Bus, events: Any, refusing: ReaderInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hotplug, "on_hotplug", lambda _: None)
    monkeypatch.setattr(watching, "COMPARE_S", 0.01)
    bus.infos = [ccid.VirtualReader(None).info]
    assert heard(events, 1) == ["reader arrived"]
    bus.infos.append(refusing)
    assert heard(events, 1) == ["reader arrived"]
    bus.infos.remove(refusing)
    assert heard(events, 1) == ["reader left"]


def test_libusb_tells(
    bus: Bus,
    fake: FakeEvents,  # noqa: F811
    events: Any,
    refusing: ReaderInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hotplug, "on_hotplug", ON_HOTPLUG)
    bus.infos = [ccid.VirtualReader(None).info]
    assert heard(events, 1) == ["reader arrived"]
    bus.infos.append(refusing)
    fake.plug()
    assert heard(events, 1) == ["reader arrived"]
    bus.infos.remove(refusing)
    fake.plug()
    assert heard(events, 1) == ["reader left"]
    events.close()
    assert not fake.hears_hotplug


def test_a_virtual_reader_of_this_process(bus: Bus, events: Any) -> None:
    with ccid.open_reader(ccid.VirtualReader()):
        assert heard(events, 2) == ["reader arrived", "card arrived 0"]


def test_it_ends_when_nothing_happens(bus: Bus) -> None:
    assert list(ccid.watch(0)) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_waits_for_nothing(bus: Bus, events: Any) -> None:
    virtual = ccid.VirtualReader()
    bus.plug(virtual.info)
    assert heard(events, 2) == ["reader arrived", "card arrived 0"]
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(5)
            next(events)
        except ReaderForked:
            os._exit(7)
        finally:
            os._exit(1)
    ended = os.waitpid(child, 0)[1]
    assert os.WIFEXITED(ended), "it hung"
    assert os.waitstatus_to_exitcode(ended) == 7
    virtual.remove()
    assert heard(events, 1) == ["card left 0"]


@pytest.mark.parametrize("seconds", [float("inf"), 1e12, 10**400])
def test_any_time(bus: Bus, seconds: float) -> None:
    events = ccid.watch(seconds)
    with ccid.open_reader(ccid.VirtualReader()):
        assert heard(events, 2) == ["reader arrived", "card arrived 0"]
    events.close()


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_reader_that_is_busy_holds_nobody_up(
    bus: Bus, interrupt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of the application has the turn, for minutes perhaps."""
    monkeypatch.setattr(watching, "POLL_S", 0.05)
    busy, other = ccid.VirtualReader(interrupt=interrupt), ccid.VirtualReader()
    with ccid.open_reader(busy) as reader, ThreadPoolExecutor(1) as pool:
        turn = reader.slots[0].turn()
        pool.submit(turn.__enter__).result()
        try:
            bus.plug(busy.info, other.info)
            began = time.monotonic()
            events = ccid.watch(1)
            assert heard(events, 4) == ["reader arrived", "card arrived 0"] * 2
            other.remove()
            assert heard(events, 1) == ["card left 0"]
            assert time.monotonic() - began < 3
            assert list(events) == []
        finally:
            pool.submit(turn.__exit__, None, None, None).result()


def test_its_cards_are_told_of_when_its_turn_comes(bus: Bus, events: Any) -> None:
    busy = ccid.VirtualReader([FileSystemCard(), FileSystemCard()], slots=2)
    with ccid.open_reader(busy) as reader, ThreadPoolExecutor(1) as pool:
        turn = reader.slots[0].turn()
        pool.submit(turn.__enter__).result()
        bus.plug(busy.info)
        assert heard(events, 2) == ["reader arrived", "card arrived 0"], "it was asked for that"
        pool.submit(turn.__exit__, None, None, None).result()
        assert heard(events, 1) == ["card arrived 1"]


def test_a_reader_that_does_not_answer_holds_nobody_up(bus: Bus, events: Any) -> None:
    mute, other = ccid.VirtualReader(), ccid.VirtualReader()
    mute.faults.append(faults.silence(times=None))
    began = time.monotonic()
    bus.plug(mute.info, other.info)
    told = [next(events) for _ in range(3)]
    assert time.monotonic() - began < 2, "opening it takes several seconds"
    assert {(event.kind.value, event.reader.path) for event in told} == {
        ("reader arrived", mute.info.path),
        ("reader arrived", other.info.path),
        ("card arrived", other.info.path),
    }


def test_readers_that_answer_no_more_do_not_hold_up_the_end(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reader takes seconds to close, so they are closed at the same time."""
    monkeypatch.setattr(watching, "POLL_S", 0.02)
    virtuals = [ccid.VirtualReader(interrupt=False) for _ in range(3)]
    bus.plug(*(virtual.info for virtual in virtuals))
    events = ccid.watch(0.2)
    heard(events, 6)
    for virtual in virtuals:
        virtual.faults.append(faults.silence(times=None))
    began = time.monotonic()
    assert list(events) == []
    assert time.monotonic() - began < 2, "one takes four seconds"
    for virtual in virtuals:
        virtual.unplug()


def test_one_that_cannot_be_listened_to_is_given_back(
    bus: Bus, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread is left to listen. The watch does not try again and again."""
    virtual, opens = ccid.VirtualReader(), list[VirtualTransport]()

    def attend(_: object) -> None:
        raise TransportError("no thread")

    def connect(info: ReaderInfo) -> VirtualTransport:
        opens.append(VirtualTransport(virtual.port, info))
        return opens[-1]

    monkeypatch.setattr(VirtualTransport, "attend", attend)
    info = replace(virtual.info, connect=connect)
    bus.plug(info)
    assert heard(events, 1) == ["reader arrived"]
    other = ccid.VirtualReader(None)
    bus.plug(virtual.info, replace(other.info, path="usb:1-9:1.0"))
    assert heard(events, 1) == ["reader arrived"]
    assert opened._lent.get(key_of(info)) is None
    assert [transport.dead is None for transport in opens] == [False]


@pytest.mark.parametrize("place", range(4))
def test_a_notice_that_is_interrupted_is_not_the_last(bus: Bus, events: Any, place: int) -> None:
    virtual = ccid.VirtualReader()
    bus.plug(virtual.info)
    heard(events, 2)
    watcher = events.gi_frame.f_locals["watcher"]
    (notice,) = watcher._readers.values()
    assert notice.opening.done.wait(10)
    with suppress(queue.Empty):
        while True:
            watcher._queued.discard(before := watcher._notices.get(timeout=0.02))
            watcher._handle(before)
    with suppress(KeyboardInterrupt):
        Interrupter(FILES, place, Places.AFTER_CALLS).run(lambda: watcher._post(notice))
    virtual.remove()
    assert heard(events, 1) == ["card left 0"]


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_watch_that_is_interrupted_leaves_nothing(bus: Bus, interrupt: bool) -> None:
    """At any point, its end included: no listener is left, and the reader can be opened."""
    virtual, done = ccid.VirtualReader(interrupt=interrupt), 0
    info = replace(virtual.info, path="usb:1-1:1.0")
    bus.plug(info)
    for error in interrupted(lambda: list(ccid.watch(0)), FILES):
        done += error is None
        assert bus.tell is None
        assert opened._listeners == ()
        until(lambda: not opened._lent)  # a thread that opened the reader meanwhile closes it
        ccid.open_reader(info).close()
    assert done == 1


def test_a_reader_that_is_opened_slowly(
    bus: Bus, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is reported before it is open. Meanwhile the watch hears that it opened the reader
    itself."""
    monkeypatch.setattr(watching, "PATIENCE_S", 0.01)
    slow = ccid.VirtualReader()

    def connect(to: ReaderInfo) -> Any:
        time.sleep(0.05)
        return slow.info.connect(to)

    bus.plug(replace(slow.info, path="usb:1-1:1.0", connect=connect))
    assert heard(events, 2) == ["reader arrived", "card arrived 0"]


def test_an_application_opens_one_that_is_being_opened(bus: Bus, events: Any) -> None:
    """The application waits for the watch, and then gets the reader; the watch goes on with that
    reader."""
    slow, began = ccid.VirtualReader(), threading.Event()

    def connect(to: ReaderInfo) -> Any:
        began.set()
        time.sleep(0.1)
        return slow.info.connect(to)

    info = replace(slow.info, path="usb:1-1:1.0", connect=connect)

    def plug() -> ccid.Reader:
        began.wait(5)
        return ccid.open_reader(info)

    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(plug)
        bus.plug(info)
        assert heard(events, 2) == ["reader arrived", "card arrived 0"]
        with opening.result(5):
            slow.remove()
            assert heard(events, 1) == ["card left 0"]


def test_however_much_happens_there_is_one_notice(bus: Bus, events: Any) -> None:
    virtual = ccid.VirtualReader()
    bus.plug(virtual.info)
    heard(events, 2)
    watcher = events.gi_frame.f_locals["watcher"]
    reader = opened.readers[key_of(virtual.info)]
    for _ in range(100):
        reader._notified(bytes([0x50, 0b10]))
        reader._notified(bytes([0x50, 0b11]))
        bus.plug(virtual.info)
    assert watcher._notices.qsize() <= 3, "of the reader, of who has it, of the bus"
    assert heard(events, 2) == ["card left 0", "card arrived 0"]


def test_a_card_that_came_and_went_between_two_events(bus: Bus, events: Any) -> None:
    virtual = ccid.VirtualReader(None)
    bus.plug(virtual.info)
    heard(events, 1)
    reader = opened.readers[key_of(virtual.info)]
    reader._notified(bytes([0x50, 0b11]))
    reader._notified(bytes([0x50, 0b10]))
    assert heard(events, 2) == ["card arrived 0", "card left 0"]


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_no_negative_time(bus: Bus, seconds: float) -> None:
    with pytest.raises(ValueError, match="a time of"):
        ccid.watch(seconds)


def test_python_ends_with_a_watch_still_there() -> None:
    """With a listener as well. All that libusb must end, ends before libusb."""
    code = """
import ccid, threading
from ccid.transport import hotplug
events = ccid.watch()
reader = ccid.open_reader(ccid.VirtualReader())
reader.listen(lambda slots: None)
print([next(events).kind.name for _ in range(2)], flush=True)
threading.Thread(target=list, args=[events], daemon=True).start()
other = ccid.watch()
print(next(other).kind.name, flush=True)
hotplug.on_hotplug(print)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = "['READER_ARRIVED', 'CARD_ARRIVED']\nREADER_ARRIVED\n"
    assert (done.returncode, done.stdout) == (0, said), done.stderr


def test_opened_and_closed_while_the_notice_of_that_is_taken(bus: Bus) -> None:
    """The second notice finds nothing new."""
    info = ccid.VirtualReader().info
    watcher = watching._Watcher()
    watcher._post_owner_change(info)
    notice = watcher._notices.get_nowait()
    watcher._queued.discard(notice)
    watcher._post_owner_change(info)
    watcher._handle(notice)
    watcher._handle(watcher._notices.get_nowait())
