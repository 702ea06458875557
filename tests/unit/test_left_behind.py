"""A reader that an earlier process left in the middle: busy, between the halves of ABORT, or
refusing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import ccid
from ccid.codec.descriptors import ClassControl
from ccid.codec.messages import (
    Command,
    PC_to_RDR_Abort,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_XfrBlock,
)
from ccid.codes import ClassRequest, ExchangeLevel, IccStatus, SlotError
from ccid.errors import CcidError, CommandFailed, SlotBusy, TransportStall, TransportTimeout
from ccid.link import pipe as pipe_module
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.faults import Fault, Said, failing, silence, stall_in
from ccid.virtual.virtual_transport import VirtualTransport

APDU = bytes.fromhex("0010000004")
ANSWER = bytes.fromhex("000102039000")
A_MINUTE = bytes.fromhex("0038003C")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_module, "ABORT_S", 0.2)
    monkeypatch.setattr("ccid.link.slot_commands.SlotCommands.status_timeout_s", 0.2)


def reader_of(slots: int = 1, busy: int = 1) -> ccid.VirtualReader:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, slots, bMaxCCIDBusySlots=busy)
    return ccid.VirtualReader([EchoCard() for _ in range(slots)], descriptor=descriptor)


class Dying:
    """A process that sends commands to a reader and dies."""

    def __init__(self, virtual: ccid.VirtualReader) -> None:
        self.transport, self.count = VirtualTransport(virtual.port, virtual.info), 0

    def send(self, cls: type[Command], slot: int = 0, **fields: object) -> None:
        message = cls(bSlot=slot, bSeq=self.count & 0xFF, **fields).build()
        self.count += 1
        self.transport.out[: len(message)] = message
        self.transport.send(len(message), 1000)

    def leaves_busy(self, slot: int = 0) -> None:
        self.send(PC_to_RDR_IccPowerOn, slot)
        self.transport.receive(0, 512, 1000)
        self.send(PC_to_RDR_XfrBlock, slot, abData=A_MINUTE)

    def leaves_half_aborted(self, slot: int = 0) -> None:
        self.transport.control(ClassControl.abort(0, slot, 77), 1000)


def knows_no_abort(virtual: ccid.VirtualReader, monkeypatch: pytest.MonkeyPatch) -> None:
    control = virtual.port.control

    def refuse(request: ClassControl, data: bytes = b"") -> bytes:
        if request.bRequest == ClassRequest.ABORT and request.bmRequestType == 0x21:
            from ccid.virtual.usb_device import Stall

            raise Stall
        return control(request, data)

    monkeypatch.setattr(virtual.port, "control", refuse)


@pytest.mark.parametrize("leaves", [Dying.leaves_busy, Dying.leaves_half_aborted])
@pytest.mark.parametrize("busy", [1, 2])
@pytest.mark.parametrize("slot", [0, 1])
def test_the_next_one_ends_it(leaves: Callable[[Dying, int], None], busy: int, slot: int) -> None:
    virtual = reader_of(2, busy)
    dying = Dying(virtual)
    leaves(dying, slot)
    dying.transport.close()
    began = time.monotonic()
    with ccid.open_reader(virtual) as reader:
        for one in reader.slots:
            assert one.connect().transmit(APDU) == ANSWER
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("slots", "busy"), [(1, 1), (2, 1), (2, 2)])
def test_the_pair_is_sent_once(slots: int, busy: int) -> None:
    virtual = reader_of(slots, busy)
    dying = Dying(virtual)
    dying.leaves_half_aborted()
    dying.transport.close()
    heard: list[int] = []

    def listen(_: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        heard.append(command[0])
        return said

    virtual.faults.append(Fault(listen, times=None))
    with ccid.open_reader(virtual) as reader:
        reader.slots[0].status()
    abort, ask = PC_to_RDR_Abort.bMessageType, PC_to_RDR_GetSlotStatus.bMessageType
    assert heard[:4] == [ask, abort, ask, ask]


def test_a_reader_without_abort_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    virtual = reader_of()
    knows_no_abort(virtual, monkeypatch)
    dying = Dying(virtual)
    dying.send(PC_to_RDR_IccPowerOn)
    dying.transport.receive(0, 512, 1000)
    dying.send(PC_to_RDR_XfrBlock, abData=bytes.fromhex("00500064"))  # 0.1 s
    dying.transport.close()
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.transmit(APDU) == ANSWER


def test_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    virtual = reader_of()
    knows_no_abort(virtual, monkeypatch)
    dying = Dying(virtual)
    dying.leaves_busy()
    dying.transport.close()
    began = time.monotonic()
    with pytest.raises(SlotBusy) as raised:
        ccid.open_reader(virtual)
    assert raised.value.bError == SlotError.CMD_SLOT_BUSY
    assert time.monotonic() - began < 5


def test_a_slot_that_has_answered_is_not_aborted() -> None:
    """A slot that is busy by itself says so in its replies."""
    virtual = reader_of()
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.faults.append(failing(SlotError.CMD_SLOT_BUSY, on=PC_to_RDR_XfrBlock))
        with pytest.raises(SlotBusy):
            card.transmit(APDU)
        assert card.transmit(APDU) == ANSWER


def test_closing_ends_what_was_given_up() -> None:
    virtual = reader_of()
    function = virtual.functions[0]
    assert isinstance(function, CcidFunction)
    with ccid.open_reader(virtual, max_command_s=0.3) as reader:
        card = reader.slots[0].connect()
        with pytest.raises(TransportTimeout):
            card.transmit(A_MINUTE)
        reader.slots[0].card = None  # as when connect() itself is given up
        assert reader.slots[0].commands.is_given_up
    assert function.slots[0].busy_until is None
    assert not function.slots[0].powered


def test_an_abort_that_broke_off_is_done_again() -> None:
    virtual = reader_of()
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.faults.append(silence(on=PC_to_RDR_Abort))
        send = reader.transport.send

        def fail(length: int, timeout_ms: int) -> None:
            raise TransportStall("script: halted")

        reader.transport.send = fail  # type: ignore[method-assign]
        with pytest.raises(TransportStall):
            reader.slots[0].commands.abort()
        reader.transport.send = send  # type: ignore[method-assign]
        virtual.faults.clear()
        assert card.transmit(APDU) == ANSWER


# A status that is refused until the card was powered off ----------------------------------------


def until_off(refusal: Fault) -> Fault:
    """The reader refuses PC_to_RDR_GetSlotStatus until PC_to_RDR_IccPowerOff came."""
    was_off = False

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal was_off
        was_off |= command[0] == PC_to_RDR_IccPowerOff.bMessageType
        asks = command[0] == PC_to_RDR_GetSlotStatus.bMessageType
        return refusal.bend(function, command, said) if asks and not was_off else said

    return Fault(bend, times=None)


@pytest.mark.parametrize(
    "refusal",
    [
        failing(SlotError.HW_ERROR),
        failing(SlotError.CMD_NOT_SUPPORTED),
        failing(0, IccStatus.RFU),
        stall_in(),
        silence(),
    ],
)
@pytest.mark.parametrize("slots", [1, 2])
def test_power_off_is_tried_once(refusal: Fault, slots: int) -> None:
    virtual = reader_of(slots)
    virtual.faults.append(until_off(refusal))
    with ccid.open_reader(virtual) as reader:
        assert reader.slots[0].status() is IccStatus.INACTIVE


@pytest.mark.parametrize(
    ("refusal", "error"),
    [(failing(SlotError.HW_ERROR, times=None), CommandFailed), (silence(times=None), CcidError)],
)
def test_one_that_refuses_still_is_not_opened(refusal: Fault, error: type[CcidError]) -> None:
    virtual = reader_of()
    refusal.on = PC_to_RDR_GetSlotStatus
    virtual.faults.append(refusal)
    with pytest.raises(error):
        ccid.open_reader(virtual)


@pytest.mark.parametrize("busy", [1, 2])
def test_a_slot_that_was_given_up_keeps_no_other_from_working(busy: int) -> None:
    virtual = reader_of(3, busy)
    with ccid.open_reader(virtual, max_command_s=0.3) as reader:
        cards = [slot.connect() for slot in reader.slots]
        for card in cards[1 : 1 + busy]:
            with pytest.raises(TransportTimeout):
                card.transmit(A_MINUTE)
        assert cards[0].transmit(APDU) == ANSWER


def test_all_slots_were_left_busy() -> None:
    virtual = reader_of(3, 3)
    dying = Dying(virtual)
    for slot in range(3):
        dying.leaves_busy(slot)
    dying.transport.close()
    virtual.port.device.functions[0].descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, 3)  # type: ignore[attr-defined]
    with ccid.open_reader(virtual) as reader:
        for one in reader.slots:
            assert one.connect().transmit(APDU) == ANSWER
