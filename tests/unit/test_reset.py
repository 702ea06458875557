"""A reader that is reset, or leaves USB and comes back, while it is open: over a fake of libusb,
and virtual readers in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.codes import IccStatus
from ccid.device.open_readers import key_of, opened
from ccid.device.watching import stoppable_watch
from ccid.link import conversation
from ccid.link.card_state import Presence
from ccid.transport import asynchronous, discovery, linux, recovery, usb
from ccid.transport.libusb import Status
from ccid.virtual import EchoCard
from ccid.virtual.virtual_transport import VirtualTransport
from tests.unit.fake_events import GONE, STALLED
from tests.unit.fake_usb import use_backend
from tests.unit.usb_over_port import PortBackend, PortEvents

pytestmark = pytest.mark.usefixtures("any_context")

APDU = bytes.fromhex("0010000002")
ANSWER = bytes.fromhex("00019000")
A_MINUTE = bytes.fromhex("0038003C")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


class OverUsb:
    """A virtual reader behind a fake libusb.

    Attributes:
        loses: What is lost with the next transfer, once: ``out``, ``in`` or ``submit``; and how.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nodes: Path, **reader: Any) -> None:
        self.virtual = ccid.VirtualReader(EchoCard(), **reader)
        self.events, self.backend = PortEvents(self.virtual), PortBackend(self.virtual)
        self.nodes, self.address = nodes, 2
        self.loses: tuple[str, int] | None = None
        self.is_gone = False
        monkeypatch.setattr(asynchronous, "calls", self.events.calls)
        monkeypatch.setattr(asynchronous, "context", lambda: 1)
        use_backend(monkeypatch, self.backend)
        monkeypatch.setattr(linux, "attribute", lambda *_: None)
        monkeypatch.setattr(usb, "FRESH_S", 0.0)
        monkeypatch.setattr(linux, "node", lambda bus, address: self.node(address))
        self._play, self._submit = self.events._play, self.events._submit_bulk
        monkeypatch.setattr(self.events, "_play", self._lossy_play)
        monkeypatch.setattr(self.events, "_submit_bulk", self._lossy_submit)
        self.node(2).touch()

    def node(self, address: int) -> Path:
        return self.nodes / str(address)

    @property
    def info(self) -> ccid.ReaderInfo:
        (info,) = discovery.discover().readers
        return info

    def reset(self) -> None:
        """As a program does that resets the device."""
        with self.events._happened:  # what the port says then is not for the transfers of before
            self.virtual.port.reset()
            self.events.lose()

    def leave(self) -> None:
        self.is_gone = True
        self.node(self.address).unlink()
        with self.events._happened:  # what the port says then is not for the transfers of before
            self.virtual.port.reset()
            self.events.lose()

    def come(self) -> None:
        self.address += 1
        self.is_gone = False
        (device,) = self.backend.devices
        device.address = self.address
        self.node(self.address).touch()

    def replug(self) -> None:
        self.leave()
        self.come()

    def _lossy_play(self, address: int) -> int:
        done = self._play(address)
        if self.loses is not None and self.loses[0] in ("out", "in"):
            where, status = self.loses
            is_in = self.events._is_in(address)
            if where == "out" and not is_in:
                self.loses = None
                self.virtual.port.reset()
                self.events._done[:] = [one for one in self.events._done if one[0] != address]
                self.events._done.append((address, status, b""))
                self.events.lose(status)
            elif where == "in" and not is_in:
                self.loses = None
                self.virtual.port.reset()
                self.events.rounds.append(lambda: self.events.lose(status))
        return done

    def _lossy_submit(self, address: int) -> int:
        if self.loses is not None and self.loses[0] == "submit":
            self.virtual.port.reset()
            _, status = self.loses
            self.loses = None
            return status
        return Status.NO_DEVICE if self.is_gone else self._submit(address)


class InProcess:
    """A virtual reader in this process."""

    def __init__(self) -> None:
        self.virtual = ccid.VirtualReader(EchoCard())
        self.reset, self.replug = self.virtual.reset, self.virtual.replug

    @property
    def info(self) -> ccid.ReaderInfo:
        return self.virtual.info


@pytest.fixture
def usb_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OverUsb:
    return OverUsb(monkeypatch, tmp_path)


@pytest.fixture(params=["usb", "virtual"])
def lab(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("usb_reader") if request.param == "usb" else InProcess()


def refused(card: ccid.Card, apdu: bytes = APDU) -> None:
    """The card counts as reset, for every later call, too."""
    for one in (apdu, APDU):
        with pytest.raises(errors.CardReset):
            card.transmit(one)


def works_again(reader: ccid.Reader) -> None:
    until(lambda: not reader.is_away)
    assert reader.slots[0].status() in (IccStatus.INACTIVE, IccStatus.ACTIVE)
    with reader.slots[0].connect() as card:
        assert card.transmit(APDU) == ANSWER
        assert card.transmit(APDU) == ANSWER


@pytest.mark.parametrize("how", ["reset", "replug"])
def test_between_two_commands(lab: Any, how: str) -> None:
    with ccid.open_reader(lab.info) as reader:
        card = reader.slots[0].connect()
        assert card.transmit(APDU) == ANSWER
        getattr(lab, how)()
        refused(card)
        works_again(reader)
        assert key_of(reader.info) == key_of(lab.info)
        assert opened.readers[key_of(lab.info)] is reader
    assert key_of(lab.info) not in opened.readers
    assert opened._application_counts == {}


@pytest.mark.parametrize("how", ["reset", "replug"])
def test_while_the_card_computes(lab: Any, how: str) -> None:
    """The APDU is not waited for, nor sent again: the card may have executed it."""
    with ccid.open_reader(lab.info) as reader:
        card = reader.slots[0].connect()
        timer = threading.Timer(0.05, getattr(lab, how))
        timer.start()
        began = time.monotonic()
        refused(card, A_MINUTE)
        assert time.monotonic() - began < 10
        timer.join()
        works_again(reader)


def told_after(
    monkeypatch: pytest.MonkeyPatch, how: str, before: Callable[[VirtualTransport], object]
) -> None:
    """From now on ``before`` is done before the transport hears of a reset or a replug."""
    name = {"reset": "reset", "replug": "returned"}[how]
    tell = getattr(VirtualTransport, name)

    def late(transport: VirtualTransport, *arguments: Any) -> None:
        before(transport)
        tell(transport, *arguments)

    monkeypatch.setattr(VirtualTransport, name, late)


@pytest.mark.parametrize("how", ["reset", "replug"])
def test_the_thread_that_waits_for_a_reply_is_awake_first(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the reader has heard of the reset: its card counts as reset nevertheless."""
    virtual = ccid.VirtualReader(EchoCard())
    told_after(monkeypatch, how, lambda _: time.sleep(0.1))
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        timer = threading.Timer(0.02, getattr(virtual, how))
        timer.start()
        refused(card, A_MINUTE)
        timer.join()
        works_again(reader)


@pytest.mark.parametrize("how", ["reset", "replug"])
def test_a_notification_is_there_before_the_reset_is_told(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of after the reset: the card that it announces is the one that was there before."""
    virtual = ccid.VirtualReader(EchoCard())
    told_after(monkeypatch, how, lambda transport: transport.take_events(20))
    with ccid.open_reader(virtual) as reader:
        reader.transport.take_events(20)
        before = reader.cards[0].arrivals
        getattr(virtual, how)()
        reader.transport.take_events(20)
        assert reader.cards[0].arrivals == before
        assert reader.cards[0].presence is Presence.ANNOUNCED


def test_many_times(lab: Any) -> None:
    with ccid.open_reader(lab.info) as reader:
        for how in ("reset", "replug") * 3:
            card = reader.slots[0].connect()
            assert card.transmit(APDU) == ANSWER
            getattr(lab, how)()
            refused(card)


@pytest.mark.parametrize("how", ["reset", "replug"])
def test_without_a_card_that_is_connected(lab: Any, how: str) -> None:
    """GetSlotStatus is sent again."""
    with ccid.open_reader(lab.info) as reader:
        getattr(lab, how)()
        assert reader.slots[0].status() is IccStatus.INACTIVE
        getattr(lab, how)()
        works_again(reader)


LOSSES = [
    ("out", GONE),
    ("in", GONE),
    ("submit", Status.NO_DEVICE),
    ("submit", Status.NOT_FOUND),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_at_each_place_of_an_exchange(usb_reader: OverUsb, loss: tuple[str, int]) -> None:
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        assert card.transmit(APDU) == ANSWER
        usb_reader.loses = loss
        refused(card)
        assert usb_reader.loses is None
        works_again(reader)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("after", [0, 1])
def test_at_each_place_of_connecting(
    usb_reader: OverUsb, loss: tuple[str, int], after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application has said nothing to the card yet: it notices nothing."""
    with ccid.open_reader(usb_reader.info) as reader:
        slot, left = reader.slots[0], [after]
        power_on = slot.commands._power_on

        def loses(bPowerSelect: int) -> bytes:
            left[0] -= 1
            if left[0] < 0 and left[0] > -2:
                usb_reader.loses = loss
            return power_on(bPowerSelect)

        monkeypatch.setattr(slot.commands, "_power_on", loses)
        if after:
            slot.connect().disconnect()
        assert slot.connect().transmit(APDU) == ANSWER
        assert usb_reader.loses is None


def test_an_endpoint_that_is_halted_is_no_reset(
    usb_reader: OverUsb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the reader says next tells what it can: that its card has no power, or is another."""
    monkeypatch.setattr(conversation, "NOTICE_S", 0.0)
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        usb_reader.loses = ("out", STALLED)
        with pytest.raises(errors.TransportStall):
            card.transmit(APDU)
        assert not reader.is_away
        with pytest.raises((errors.CardReset, errors.CardRemoved)):
            card.transmit(APDU)
        works_again(reader)


@pytest.mark.parametrize("failure", [Status.NO_DEVICE, Status.NOT_FOUND])
def test_seen_at_the_notifications_alone(usb_reader: OverUsb, failure: Status) -> None:
    """NOT_FOUND, a lost claim, is that of arming the transfer."""
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        told: list[object] = []
        end = reader.listen(told.append)
        usb_reader.virtual.port.reset()
        if failure is Status.NOT_FOUND:
            usb_reader.events.submit_once.append(failure)
            usb_reader.events.comes(b"\x50\x01")
        else:
            usb_reader.events.comes(status=GONE)
        until(lambda: None in told)
        until(lambda: not reader.is_away)
        refused(card)
        works_again(reader)
        end()


def test_the_card_is_noticed_that_was_taken_out_meanwhile(lab: Any) -> None:
    with ccid.open_reader(lab.info) as reader:
        card = reader.slots[0].connect()
        lab.virtual.remove()
        lab.reset()
        with pytest.raises((errors.CardReset, errors.CardRemoved)):
            card.transmit(APDU)
        with pytest.raises(errors.CardAbsent):
            reader.slots[0].connect()


@pytest.mark.parametrize("interrupt", [True, False])
def test_it_is_a_reset_without_notifications_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interrupt: bool
) -> None:
    lab = OverUsb(monkeypatch, tmp_path, interrupt=interrupt)
    with ccid.open_reader(lab.info) as reader:
        card = reader.slots[0].connect()
        lab.loses = ("in", GONE)
        refused(card)
        works_again(reader)


def test_several_slots_that_work_at_the_same_time() -> None:
    descriptor = ccid.virtual.make_descriptor(ccid.ExchangeLevel.SHORT_APDU, 2, bMaxCCIDBusySlots=2)
    virtual = ccid.VirtualReader([EchoCard(), EchoCard()], descriptor=descriptor)
    with ccid.open_reader(virtual) as reader:
        cards = [slot.connect() for slot in reader.slots]
        ends: list[BaseException] = []

        def transmit(card: ccid.Card) -> None:
            try:
                card.transmit(A_MINUTE)
            except errors.CcidError as error:
                ends.append(error)

        threads = [threading.Thread(target=transmit, args=(card,)) for card in cards]
        for thread in threads:
            thread.start()
        until(lambda: virtual.port.transfers[2] >= 6 or reader.pipe.is_busy())
        time.sleep(0.05)
        virtual.reset()
        for thread in threads:
            thread.join(10)
        assert [type(end) for end in ends] == [errors.CardReset] * 2
        for slot in reader.slots:
            assert slot.connect().transmit(APDU) == ANSWER


def test_iccd() -> None:
    virtual = ccid.VirtualReader(EchoCard(), bInterfaceProtocol=2)
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        virtual.reset()
        refused(card)
        assert reader.slots[0].connect().transmit(APDU) == ANSWER


def test_the_first_commands_are_sent_again(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a card gets power: a reader forgets what it was switched to."""
    made: list[int] = []
    make_ready = ccid.Reader._make_ready

    def counted(reader: ccid.Reader) -> None:
        made.append(1)
        make_ready(reader)

    monkeypatch.setattr(ccid.Reader, "_make_ready", counted)
    with ccid.open_reader(lab.info) as reader:
        reader.slots[0].connect().disconnect()
        assert len(made) == 1
        lab.reset()
        for _ in range(2):
            reader.slots[0].connect().disconnect()
        assert len(made) == 2


# Where it ends ----------------------------------------------------------------------------------


def test_not_back_in_time(usb_reader: OverUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "RETURN_S", 0.05)
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        usb_reader.leave()
        with pytest.raises(errors.ReaderRemoved):
            card.transmit(APDU)
        usb_reader.come()
        with pytest.raises(errors.ReaderRemoved):
            reader.slots[0].status()
        assert not reader.is_away


@pytest.mark.parametrize("kind", ["usb", "virtual"])
def test_unless_it_is_to_be_opened_again(kind: str, usb_reader: OverUsb) -> None:
    lab: Any = usb_reader if kind == "usb" else InProcess()
    with ccid.open_reader(lab.info, reopen=False) as reader:
        card = reader.slots[0].connect()
        lab.reset()
        refused(card)
        card = reader.slots[0].connect()
        assert card.transmit(APDU) == ANSWER
        lab.replug()
        with pytest.raises(errors.ReaderRemoved):
            card.transmit(APDU)
        with ccid.open_reader(lab.info) as other:
            works_again(other)


def test_another_device_at_the_same_port(
    usb_reader: OverUsb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RETURN_S", 0.05)
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        (device,) = usb_reader.backend.devices
        device.descriptor = replace(device.descriptor, bcdDevice=0x4242)
        usb_reader.replug()
        with pytest.raises(errors.ReaderRemoved):
            card.transmit(APDU)


def test_lost_again_before_it_answered(usb_reader: OverUsb) -> None:
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        end = reader.listen(lambda _: None)
        usb_reader.events.comes(status=GONE)
        until(lambda: usb_reader.events.is_armed and not reader.is_away)
        usb_reader.events.comes(status=GONE)
        until(lambda: reader.transport.dead)
        with pytest.raises(errors.ReaderRemoved):
            card.transmit(APDU)
        end()


@pytest.mark.parametrize("status", [Status.BUSY, Status.ACCESS, Status.NO_DEVICE])
def test_it_cannot_be_claimed_again(
    usb_reader: OverUsb, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RETURN_S", 0.05)
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        usb_reader.backend.fail["claim_interface"] = status
        usb_reader.reset()
        with pytest.raises(errors.ReaderRemoved) as raised:
            card.transmit(APDU)
        assert ("reset" in str(raised.value)) == (status is not Status.NO_DEVICE)
    opens, closes = usb_reader.backend.opens, usb_reader.backend.calls.count("close_device")
    assert opens == closes


def test_it_is_waited_for(usb_reader: OverUsb) -> None:
    """As long as another program has it deauthorized, or udev has not set its mode."""
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        usb_reader.backend.fail["claim_interface"] = Status.NOT_FOUND
        usb_reader.reset()
        timer = threading.Timer(0.1, usb_reader.backend.fail.clear)
        timer.start()
        refused(card)
        works_again(reader)
        timer.join()


def test_noticed_right_before_the_card_gets_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread, which is done with it by then: the card that gets power is not the one
    that lost it."""
    virtual = ccid.VirtualReader(EchoCard())
    powering, resets = conversation.Conversation.powering, [virtual.reset]

    def reset_then(self: conversation.Conversation, slot: int) -> None:
        powering(self, slot)
        if resets:
            resets.pop()()

    with ccid.open_reader(virtual) as reader:
        monkeypatch.setattr(conversation.Conversation, "powering", reset_then)
        assert reader.slots[0].connect().transmit(APDU) == ANSWER
        assert not resets


def test_no_handle_is_left(usb_reader: OverUsb) -> None:
    with ccid.open_reader(usb_reader.info) as reader:
        for how in ("reset", "replug") * 2:
            reader.slots[0].connect().disconnect()
            getattr(usb_reader, how)()
        works_again(reader)
    calls = usb_reader.backend.calls
    assert usb_reader.backend.opens == calls.count("close_device") == 5
    assert calls.count("release_interface") >= 5


def test_closed_while_it_is_away(usb_reader: OverUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "RETURN_S", 60.0)
    reader = ccid.open_reader(usb_reader.info)
    card, ends = reader.slots[0].connect(), list[type]()

    def transmit() -> None:
        try:
            card.transmit(APDU)
        except errors.CcidError as error:
            ends.append(type(error))

    usb_reader.leave()
    thread = threading.Thread(target=transmit)
    thread.start()
    until(lambda: reader.is_away)
    began = time.monotonic()
    reader.close()
    thread.join(10)
    assert time.monotonic() - began < 10
    assert ends in ([errors.ReaderClosed], [errors.CommandCancelled])
    usb_reader.come()
    until(lambda: not any(t.name.startswith("ccid reset") for t in threading.enumerate()))
    assert usb_reader.backend.opens == usb_reader.backend.calls.count("close_device") == 1
    assert opened._application_counts == {}


def test_interrupted_while_it_is_away(usb_reader: OverUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the wait of the thread that waits, not the attempt to open the reader."""
    monkeypatch.setattr(recovery, "RETURN_S", 60.0)
    with ccid.open_reader(usb_reader.info) as reader:
        card = reader.slots[0].connect()
        usb_reader.leave()
        go_on, waits = recovery.Recovery.go_on, [0]

        def interrupted(self: recovery.Recovery) -> None:
            waits[0] += 1
            if waits[0] == 3:
                raise KeyboardInterrupt
            go_on(self)

        monkeypatch.setattr(recovery.Recovery, "go_on", interrupted)
        with pytest.raises(KeyboardInterrupt):
            card.transmit(APDU)
        assert reader.is_away
        usb_reader.come()
        refused(card)
        works_again(reader)


# Others who look --------------------------------------------------------------------------------


def test_a_watch_tells_nothing_of_a_reader_that_is_held_open() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        events = ccid.watch(2)
        first = [next(events), next(events)]
        assert [e.kind for e in first] == [
            ccid.EventKind.READER_ARRIVED,
            ccid.EventKind.CARD_ARRIVED,
        ]
        for how in (virtual.reset, virtual.replug, virtual.replug):
            how()
            works_again(reader)
        virtual.remove()
        left = next(events)
        assert (left.kind, left.reader) == (ccid.EventKind.CARD_LEFT, virtual.info)
        virtual.unplug()
        assert next(events) == ccid.Event(ccid.EventKind.READER_LEFT, virtual.info)
        events.close()


def test_a_watch_over_usb(usb_reader: OverUsb, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is gone, and another is there, while the reader is opened again."""
    monkeypatch.setattr(recovery, "RETURN_S", 60.0)
    told: list[ccid.Event] = []
    with ccid.open_reader(usb_reader.info) as reader:
        before = usb_reader.info
        events, stop = stoppable_watch(60)
        listed, list_readers = [0], discovery.discover

        def counted() -> discovery.Discovery:
            listed[0] += threading.current_thread() is thread
            return list_readers()

        monkeypatch.setattr(discovery, "discover", counted)
        thread = threading.Thread(target=lambda: told.extend(iter(events)), daemon=True)
        thread.start()
        until(lambda: len(told) == 2)
        (device,) = usb_reader.backend.devices
        usb_reader.backend.devices = ()
        usb_reader.leave()
        seen = listed[0]
        usb_reader.events.plug()
        until(lambda: listed[0] > seen)
        assert reader.is_away
        usb_reader.backend.devices = (device,)
        usb_reader.come()
        usb_reader.events.plug()
        until(lambda: not reader.is_away)
        works_again(reader)
        usb_reader.virtual.remove()
        until(lambda: len(told) > 2)
        assert [event.reader for event in told] == [before, before, usb_reader.info]
        assert told[2].kind is ccid.EventKind.CARD_LEFT
        usb_reader.backend.devices = ()
        monkeypatch.setattr(recovery, "RETURN_S", 0.05)
        usb_reader.leave()
        usb_reader.events.plug()
        until(lambda: len(told) > 3)
        assert told[3].kind is ccid.EventKind.READER_LEFT
        stop()
        thread.join(10)


def test_a_trace_goes_on(lab: Any) -> None:
    class Sink(ccid.trace.Sink):
        def __init__(self) -> None:
            self.addresses: list[int] = []

        def begin(self, reader: ccid.ReaderInfo) -> None:
            """Nothing is to be done."""

        def end(self) -> None:
            """Nothing is to be done."""

        def transfer(self, reader: ccid.ReaderInfo, transfer: object) -> None:
            self.addresses.append(reader.address)

    sink = Sink()
    with ccid.open_reader(lab.info) as reader, reader.trace(sink):
        before = reader.info.address
        reader.slots[0].connect().disconnect()
        lab.replug()
        works_again(reader)
        assert reader.info.address != before
    assert set(sink.addresses) == {before, lab.info.address}
    assert sink.addresses[-1] == lab.info.address
