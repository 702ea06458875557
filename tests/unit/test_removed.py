"""A card that was taken out gives CardRemoved: in short time, and never the answer of another
card."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.codec.messages import PC_to_RDR_GetSlotStatus, PC_to_RDR_IccPowerOff
from ccid.codec.messages.events import RDR_to_PC_NotifySlotChange
from ccid.codes import ExchangeLevel, Features, IccStatus
from ccid.device.slot import Slot
from ccid.device.verdict import judge
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual import Answer, EchoCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.faults import Fault, Said

PATTERN = bytes.fromhex("0010000004")
ANSWER = bytes.fromhex("00010203 9000")
THINK = bytes.fromhex("0038003C")
"""A command APDU for which the card computes a minute."""
LEVELS = tuple(ExchangeLevel)


def virtual(
    level: ExchangeLevel = ExchangeLevel.SHORT_APDU,
    auto_activating: bool = False,
    slots: int = 1,
    **more: Any,
) -> ccid.VirtualReader:
    descriptor = make_descriptor(level, slots)
    extra = Features.AUTO_ACTIVATION if auto_activating else 0
    fields = {"dwFeatures": descriptor.dwFeatures | extra, "bMaxCCIDBusySlots": slots}
    made = make_descriptor(level, slots, **fields)
    return ccid.VirtualReader([EchoCard() for _ in range(slots)], descriptor=made, **more)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual reader sends its notifications at once."""
    monkeypatch.setattr("ccid.link.conversation.NOTICE_S", 0.03)
    monkeypatch.setattr("ccid.link.pipe.SLICE_MS", 20)
    monkeypatch.setattr("ccid.link.pipe.LOST_S", 0.05)
    monkeypatch.setattr("ccid.link.pipe.REMOVED_S", 0.05)


class ThinkingCard(EchoCard):
    """A card that reports a command.

    Attributes:
        thinks: Set as soon as the card got THINK.
    """

    def __init__(self) -> None:
        super().__init__()
        self.thinks = threading.Event()

    def process(self, command: CommandApdu) -> Answer:
        if command.ins == THINK[1]:
            self.thinks.set()
        return super().process(command)


USES: dict[str, Callable[[ccid.Card], Any]] = {
    "transmit": lambda card: card.transmit(PATTERN),
    "exclusive": lambda card: card.exclusive().__enter__(),
    "reset": lambda card: card.reset(),
    "cold reset": lambda card: card.reset(cold=True),
}


@pytest.mark.parametrize("auto_activating", [False, True])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_exchanged_between_two_calls(
    use: Callable[[ccid.Card], Any], auto_activating: bool
) -> None:
    one = virtual(auto_activating=auto_activating)
    with ccid.open_reader(one) as reader:
        card = reader.slots[0].connect()
        assert card.transmit(PATTERN) == ANSWER
        one.insert(EchoCard())
        for _ in range(2):
            with pytest.raises(errors.CardRemoved):
                use(card)
        with reader.slots[0].connect() as again:
            assert again.transmit(PATTERN) == ANSWER


@pytest.mark.parametrize("level", LEVELS)
def test_the_card_that_came_is_sent_nothing(level: ExchangeLevel) -> None:
    """The new card might take the command for its own PIN, for example."""
    one = virtual(level, auto_activating=True)
    with ccid.open_reader(one) as reader:
        card = reader.slots[0].connect()
        before = one.port.transfers.copy()
        one.insert(EchoCard())
        with pytest.raises(errors.CardRemoved):
            card.transmit(PATTERN)
        assert one.port.transfers - before == {0x83: 1}, "the notification alone"


@pytest.mark.parametrize("auto_activating", [False, True])
def test_the_status_is_absent_once(auto_activating: bool) -> None:
    one = virtual(auto_activating=auto_activating)
    with ccid.open_reader(one) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        one.insert(EchoCard())
        assert slot.status() is IccStatus.ABSENT
        assert slot.status() is not IccStatus.ABSENT
        with pytest.raises(errors.CardRemoved):
            card.transmit(PATTERN)
        assert slot.card is None


def test_two_threads_meet_the_removal_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that sends a command sees the removal while another asks for the status or closes
    the reader."""
    one = virtual()
    reader = ccid.open_reader(one)
    (slot,) = reader.slots
    card = slot.connect()
    asks = reader.pipe.was_removed

    def was_removed(index: int) -> bool:
        card.removed()
        return asks(index)

    one.insert(EchoCard())
    with monkeypatch.context() as patched:
        patched.setattr(reader.pipe, "was_removed", was_removed)
        assert slot.status() is IccStatus.ABSENT
    seen = [slot.connect()]
    forgotten = property(lambda _: seen.pop() if seen else None, lambda *_: None)
    monkeypatch.setattr(Slot, "card", forgotten, raising=False)
    reader.close()


def test_without_notifications_the_power_tells() -> None:
    one = virtual(interrupt=False)
    with ccid.open_reader(one) as reader:
        card = reader.slots[0].connect()
        one.insert(EchoCard())
        with pytest.raises(errors.CardRemoved):
            card.transmit(PATTERN)


def test_who_cannot_tell_says_so() -> None:
    """Without notifications, on a reader that gives power to the new card, nothing shows the
    exchange."""
    reasons = judge(virtual(auto_activating=True, interrupt=False).info).reasons
    (reason,) = (r for r in reasons if r.field == "bNumEndpoints")
    assert "exchanged in between is not noticed" in reason.text
    reasons = judge(virtual(interrupt=False).info).reasons
    (reason,) = (r for r in reasons if r.field == "bNumEndpoints")
    assert "exchanged" not in reason.text


def test_a_reader_that_cries_wolf() -> None:
    """The reader reports a new card, and the card that the host powered still has its power."""
    one = virtual()
    with ccid.open_reader(one) as reader, reader.slots[0].connect() as card:
        assert card.transmit(PATTERN) == ANSWER
        said = RDR_to_PC_NotifySlotChange.of([(True, True)]).build()
        assert one.functions[0].interrupt_in is not None
        for _ in range(2):
            one.functions[0].interrupt_in.push(said, 0.0)
            assert card.transmit(PATTERN) == ANSWER


def test_another_slot_is_another_card() -> None:
    one = virtual(slots=2)
    with ccid.open_reader(one) as reader:
        cards = [slot.connect() for slot in reader.slots]
        one.insert(EchoCard(), 1)
        assert cards[0].transmit(PATTERN) == ANSWER
        with pytest.raises(errors.CardRemoved):
            cards[1].transmit(PATTERN)
        assert cards[0].transmit(PATTERN) == ANSWER


def test_a_card_that_was_disconnected_is_missed_by_nobody() -> None:
    one = virtual()
    with ccid.open_reader(one) as reader:
        (slot,) = reader.slots
        slot.connect().disconnect()
        one.insert(EchoCard())
        assert slot.status() is IccStatus.INACTIVE
        with slot.connect() as card:
            assert card.transmit(PATTERN) == ANSWER


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("back", [False, True], ids=["out", "out and in"])
@pytest.mark.parametrize("level", LEVELS)
def test_taken_out_while_it_thinks(level: ExchangeLevel, slots: int, back: bool) -> None:
    """The reader never answers; without the removal the host would wait for a minute."""
    one = virtual(level, slots=slots, answers_removal=False)
    thinking = ThinkingCard()
    one.insert(thinking)
    with ccid.open_reader(one) as reader, ThreadPoolExecutor(1) as pool:
        card = reader.slots[0].connect()

        def move() -> None:
            assert thinking.thinks.wait(10)
            one.remove()
            if back:
                one.insert(EchoCard())

        moved = pool.submit(move)
        began = time.monotonic()
        with pytest.raises(errors.CardRemoved) as raised:
            card.transmit(THINK)
        assert time.monotonic() - began < 20
        assert raised.value.slot == 0
        moved.result()
        if not back:
            one.insert(EchoCard())
        with reader.slots[0].connect() as again:
            assert again.transmit(PATTERN) == ANSWER
        if slots == 2:
            with reader.slots[1].connect() as other:
                assert other.transmit(PATTERN) == ANSWER


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("known", [False, True])
def test_a_reply_that_a_moving_card_swallowed(slots: int, known: bool) -> None:
    """QEMU's reader drops all pending replies when a card comes or goes."""
    one, asked = virtual(slots=slots), list[bytes]()

    def swallow(_: CcidFunction, command: bytes, __: list[Said]) -> list[Said]:
        asked.append(command)
        one.insert(EchoCard())
        return []

    with ccid.open_reader(one) as reader:
        (slot, *_) = reader.slots
        if known:
            slot.connect()
        one.functions[0].faults += [
            Fault(swallow, on=PC_to_RDR_GetSlotStatus),
            Fault(swallow, on=PC_to_RDR_IccPowerOff),
        ]
        assert slot.commands.slot_status().icc is IccStatus.INACTIVE
        assert slot.commands.power_off().icc is IccStatus.INACTIVE
    assert [command[0] for command in asked[:2]] == [
        PC_to_RDR_GetSlotStatus.bMessageType,
        PC_to_RDR_IccPowerOff.bMessageType,
    ]


def test_the_status_of_a_slot_is_asked_for_whatever_was_notified() -> None:
    """Only commands to a card are refused."""
    one = virtual()
    with ccid.open_reader(one) as reader:
        (slot,) = reader.slots
        slot.connect()
        one.remove()
        reader.transport.take_events()
        assert slot.commands.slot_status().icc is IccStatus.ABSENT
