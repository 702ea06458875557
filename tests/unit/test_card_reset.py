"""A card that was reset, or lost its power, gives CardReset: not CardRemoved, and not for ever."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.codec.messages import (
    Command,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_SetParameters,
    RDR_to_PC_DataBlock,
    RDR_to_PC_Parameters,
    RDR_to_PC_SlotStatus,
)
from ccid.codes import ExchangeLevel, Features, IccStatus, InterfaceProtocol, Protocol
from ccid.pcsc.ifd import IFDHandler
from ccid.pcsc.ifd_numbers import Action, Code
from ccid.virtual import EchoCard, make_descriptor
from tests.unit.scripted import ScriptedTransport, reply

PATTERN = bytes.fromhex("0010000004")
ANSWER = bytes.fromhex("00010203 9000")
ATR = bytes.fromhex("3BFD1300008131FE158073C021C057597562694B657940")
CAME, LEFT = b"\x50\x03", b"\x50\x02"
LEVELS = tuple(ExchangeLevel)
BOTH = pytest.mark.parametrize("level", LEVELS)


class Script:
    """A reader that takes the card's power away when a test says so.

    Attributes:
        bStatus, bError: Of the reply to a block then; None for a good one.
        told: The notification right after that reply.
    """

    def __init__(self, *, notifies: bool = True) -> None:
        self.bStatus: int | None = None
        self.bError = 0xFE
        self.told: bytes | None = None
        self.transport = ScriptedTransport(self.answer)
        self.transport.paced = False
        descriptor = make_descriptor(
            ExchangeLevel.EXTENDED_APDU,
            dwMaxCCIDMessageLength=3072,
            dwFeatures=0x000400FE & ~Features.AUTO_ACTIVATION,
            dwProtocols=2,
        )
        virtual = ccid.VirtualReader(descriptor=descriptor, interrupt=notifies)
        self.info = dataclasses.replace(virtual.info, connect=lambda info: self.transport)

    def answer(self, command: Command) -> bytes:
        match command:
            case PC_to_RDR_GetSlotStatus() | PC_to_RDR_IccPowerOff():
                return reply(command, RDR_to_PC_SlotStatus, bStatus=IccStatus.INACTIVE)
            case PC_to_RDR_IccPowerOn():
                self.bStatus = None
                return reply(command, RDR_to_PC_DataBlock, abData=ATR)
            case PC_to_RDR_SetParameters():
                structure = command.abProtocolDataStructure
                return reply(
                    command,
                    RDR_to_PC_Parameters,
                    bProtocolNum=command.bProtocolNum,
                    abProtocolDataStructure=structure,
                )
        if self.bStatus is None:
            return reply(command, RDR_to_PC_DataBlock, abData=b"\x90\x00")
        if self.told is not None:
            self.transport.events.append(self.told)
        return reply(command, RDR_to_PC_DataBlock, bStatus=self.bStatus, bError=self.bError)


@pytest.mark.parametrize("bError", [0xFE, 0xFB, 0xF3, 0xFD, 0xE0, 0x00, 0x05])
def test_the_reader_was_reset_under_us(bError: int) -> None:
    """bmICCStatus 1: the card is present and has no power (USB CCID rev 1.1, 6.2.6)."""
    script = Script()
    with ccid.open_reader(script.info) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        assert card.transmit(PATTERN) == b"\x90\x00"
        script.bStatus, script.bError = 0x41, bError
        with pytest.raises(errors.CardReset, match="lost its power") as raised:
            card.transmit(PATTERN)
        assert (raised.value.slot, raised.value.bStatus, raised.value.bError) == (0, 0x41, bError)
        sent = len(script.transport.commands)
        with pytest.raises(errors.CardReset):
            card.transmit(PATTERN)
        assert len(script.transport.commands) == sent, "the second time nothing is sent"
        assert slot.card is None
        with slot.connect() as again:
            assert again.transmit(PATTERN) == b"\x90\x00"


def test_a_status_word_that_is_missing_tells_the_same() -> None:
    script = Script()
    with ccid.open_reader(script.info) as reader:
        card = reader.slots[0].connect()
        script.bStatus, script.bError = 0x01, 0
        with pytest.raises(errors.CardReset):
            card.transmit(PATTERN)


@pytest.mark.parametrize("told", [CAME, LEFT])
def test_a_notification_that_comes_a_moment_later_tells_of_an_exchange(told: bytes) -> None:
    script = Script()
    with ccid.open_reader(script.info) as reader:
        script.transport.events.append(CAME)
        card = reader.slots[0].connect()
        script.bStatus, script.told = 0x41, told
        with pytest.raises(errors.CardRemoved):
            card.transmit(PATTERN)


def test_a_reader_without_notifications_cannot_tell_which() -> None:
    """The error must not let an application take another card for its own."""
    script = Script(notifies=False)
    with ccid.open_reader(script.info) as reader:
        card = reader.slots[0].connect()
        script.bStatus = 0x41
        with pytest.raises(errors.CardRemoved, match="no notifications to tell which"):
            card.transmit(PATTERN)


def test_absent_is_removed() -> None:
    script = Script()
    with ccid.open_reader(script.info) as reader:
        card = reader.slots[0].connect()
        script.bStatus = 0x42
        with pytest.raises(errors.CardRemoved, match="taken out"):
            card.transmit(PATTERN)
        assert reader.slots[0].card is None


@pytest.mark.parametrize("bError", [0xFE, 0xFB, 0xFD])
def test_a_mute_card_that_has_power_is_no_reset(bError: int) -> None:
    script = Script()
    with ccid.open_reader(script.info) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        script.bStatus, script.bError = 0x40, bError
        with pytest.raises((errors.CardMute, errors.CommandFailed)):
            card.transmit(PATTERN)
        assert slot.card is card
        script.bStatus = None
        assert card.transmit(PATTERN) == b"\x90\x00"


def test_a_status_tells_of_it_too() -> None:
    """GetSlotStatus says "inactive", although no command took the power."""
    script = Script()
    with ccid.open_reader(script.info) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        assert slot.status() is IccStatus.INACTIVE
        with pytest.raises(errors.CardReset):
            card.transmit(PATTERN)


class Doing:
    """An exchange that does what a test says."""

    def __init__(self, do: Callable[[Any], bytes]) -> None:
        self.do = do

    def transmit(self, apdu: Any) -> bytes:
        return self.do(apdu)


def test_a_card_that_leaves_with_its_reader() -> None:
    """The reader was unplugged: its last notification says that the slot is empty."""
    script = Script()
    with ccid.open_reader(script.info) as reader:
        card = reader.slots[0].connect()

        def absent(apdu: Any) -> bytes:
            script.transport.removed()
            raise errors.CardAbsent("no card", bStatus=0x42, bError=0xFE)

        card._exchange = Doing(absent)
        with pytest.raises(errors.ReaderRemoved):
            card.transmit(PATTERN)


@pytest.mark.parametrize("bError", [0xFE, 0xFB, 0xF3, 0x00, 0x05])
@pytest.mark.parametrize("status", [IccStatus.INACTIVE, IccStatus.ABSENT])
def test_a_refused_status_tells_of_the_card(status: IccStatus, bError: int) -> None:
    script = Script()
    with ccid.open_reader(script.info) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        usual = script.transport.answer

        def refuse(command: Command) -> Any:
            if isinstance(command, PC_to_RDR_GetSlotStatus):
                bStatus = 0x40 | status
                return reply(command, RDR_to_PC_SlotStatus, bStatus=bStatus, bError=bError)
            return usual(command)

        script.transport.answer = refuse
        assert slot.status() is status
        kind = errors.CardRemoved if status is IccStatus.ABSENT else errors.CardReset
        with pytest.raises(kind):
            card.transmit(PATTERN)
        script.transport.answer = usual
        with slot.connect() as again:
            assert again.transmit(PATTERN) == b"\x90\x00"


# Another holder ---------------------------------------------------------------------------------


def virtual(level: ExchangeLevel, **more: Any) -> ccid.VirtualReader:
    return ccid.VirtualReader(EchoCard(), descriptor=make_descriptor(level), **more)


def powered_off(slot: ccid.Slot) -> None:
    slot.commands.power_off()


def powered_anew(slot: ccid.Slot) -> None:
    slot.commands.power_off()
    slot.commands.power_on()


def reset(slot: ccid.Slot) -> None:
    slot.commands.power_on()


OTHERS = (powered_off, powered_anew, reset)


@pytest.mark.parametrize("by", OTHERS)
@BOTH
def test_by_another_holder(level: ExchangeLevel, by: Callable[[ccid.Slot], None]) -> None:
    one = virtual(level)
    with ccid.open_reader(one) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        assert card.transmit(PATTERN) == ANSWER
        by(slot)
        before = one.port.transfers.copy()
        for _ in range(2):
            with pytest.raises(errors.CardReset, match="another holder"):
                card.transmit(PATTERN)
        assert not one.port.transfers - before, "it is sent nothing"
        with slot.connect() as again:
            assert again.transmit(PATTERN) == ANSWER


@pytest.mark.parametrize("by", OTHERS)
@pytest.mark.parametrize("use", ["exclusive", "reset", "connect"])
def test_whatever_it_is_used_for(use: str, by: Callable[[ccid.Slot], None]) -> None:
    with ccid.open_reader(virtual(ExchangeLevel.TPDU)) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        by(slot)
        if use == "connect":
            slot.connect().disconnect()
            return
        with pytest.raises(errors.CardReset):
            card.reset() if use == "reset" else card.exclusive().__enter__()
        assert slot.card is None


def test_a_card_that_was_reset_leaves_the_other_holder_its_power() -> None:
    with ccid.open_reader(virtual(ExchangeLevel.TPDU)) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        slot.commands.power_on()
        card.disconnect()
        assert slot.status() is IccStatus.ACTIVE


@pytest.mark.parametrize("protocol", [Protocol.T0, Protocol.T1])
@BOTH
def test_a_thread_that_waits_while_its_own_card_is_reset_goes_on(
    level: ExchangeLevel, protocol: Protocol
) -> None:
    """The same object reset the card: the APDU uses the new agreement."""
    with ccid.open_reader(virtual(level)) as reader, ThreadPoolExecutor(1) as pool:
        (slot,) = reader.slots
        card = slot.connect(protocol)
        began = threading.Event()
        told = card._exchange.transmit

        def wait(apdu: Any) -> bytes:
            began.set()
            return told(apdu)

        with slot.turn():
            card._exchange = Doing(wait)
            waiting = pool.submit(card.transmit, PATTERN)
            assert began.wait(5)
            card.reset()
        answer = waiting.result(5)
        assert answer in (ANSWER, b"\x61\x04")


# A reset that fails -----------------------------------------------------------------------------


class Stop(BaseException):
    """An exception like Ctrl-C."""


@contextmanager
def failing(slot: ccid.Slot, monkeypatch: pytest.MonkeyPatch, error: Any) -> Iterator[None]:
    def agree(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("ccid.session.activation.Activation.agree", agree)
        yield


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        errors.CardMute("mute", bStatus=0x41, bError=0xFE),
        errors.CommandFailed("failed", bStatus=0x40, bError=0xFB),
        errors.MalformedAtr("odd"),
        errors.TransportTimeout("late"),
        errors.ProtocolError("lost"),
        errors.CommandCancelled("cancelled"),
        Stop(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_reset_that_fails_ends_the_card(
    error: BaseException, cold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ccid.open_reader(virtual(ExchangeLevel.TPDU)) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        with failing(slot, monkeypatch, error), pytest.raises(type(error)) as raised:
            card.reset(cold=cold)
        assert raised.value is error
        for use in (lambda: card.transmit(PATTERN), card.reset, card.exclusive):
            with pytest.raises(errors.CardReset, match="did not succeed"):
                use()
        assert slot.status() is IccStatus.INACTIVE
        card.disconnect()
        with slot.connect() as again:
            assert again.transmit(PATTERN) == ANSWER


def test_a_card_exchanged_in_the_middle_of_a_reset_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exchange happens before the power comes back: the new card is not taken for the old
    card."""
    one = virtual(ExchangeLevel.TPDU)
    with ccid.open_reader(one) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        powering = reader.pipe.powering

        def exchanged(slot: int) -> None:
            one.insert(EchoCard())
            powering(slot)

        with monkeypatch.context() as patched, pytest.raises(errors.CardRemoved):
            patched.setattr(reader.pipe, "powering", exchanged)
            card.reset()
        with pytest.raises(errors.CardRemoved):
            card.transmit(PATTERN)
        assert slot.status() is IccStatus.INACTIVE


# Disconnecting ----------------------------------------------------------------------------------


def test_a_power_off_that_fails_hides_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ccid.open_reader(virtual(ExchangeLevel.TPDU)) as reader:
        (slot,) = reader.slots

        def fail() -> None:
            raise errors.TransportTimeout("no answer to IccPowerOff")

        monkeypatch.setattr(slot.commands, "power_off", fail)
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(ZeroDivisionError),
            slot.connect() as card,
        ):
            raise ZeroDivisionError
        assert "no answer to IccPowerOff" in caplog.text
        assert slot.card is None
        with pytest.raises(errors.TransportTimeout), slot.connect():
            assert card is not None


# Through the IFD handler --------------------------------------------------------------------------


def test_a_card_that_lost_its_power_is_absent_once() -> None:
    """pcscd has no other code: its clients see a removal, and power the card up again."""
    script, told = Script(), list[int]()
    handler = IFDHandler(told.append, find=lambda name, taken: script.info)
    assert handler.create_channel_by_name(0, "virtual:") is Code.SUCCESS
    try:
        assert handler.power_icc(0, Action.POWER_UP)[0] is Code.SUCCESS
        assert handler.set_protocol_parameters(0, 2) is Code.SUCCESS
        assert handler.transmit_to_icc(0, 1, PATTERN) == (Code.SUCCESS, b"\x90\x00")
        script.bStatus = 0x41
        told.clear()
        assert handler.transmit_to_icc(0, 1, PATTERN) == (Code.COMMUNICATION_ERROR, b"")
        assert told == [0], "whoever tells all others is to ask"
        assert handler.icc_presence(0) is Code.ICC_NOT_PRESENT
        assert handler.icc_presence(0) is Code.ICC_PRESENT
        assert handler.power_icc(0, Action.POWER_UP)[0] is Code.SUCCESS
        assert handler.transmit_to_icc(0, 1, PATTERN) == (Code.SUCCESS, b"\x90\x00")
        assert handler.icc_presence(0) is Code.ICC_NOT_PRESENT, "the script says inactive"
    finally:
        handler.close()


def test_one_that_pcscd_powered_off_is_there() -> None:
    script = Script()
    handler = IFDHandler(find=lambda name, taken: script.info)
    handler.create_channel_by_name(0, "virtual:")
    try:
        assert handler.power_icc(0, Action.POWER_UP)[0] is Code.SUCCESS
        assert handler.power_icc(0, Action.POWER_DOWN)[0] is Code.SUCCESS
        assert handler.icc_presence(0) is Code.ICC_PRESENT
    finally:
        handler.close()


# ICCD -------------------------------------------------------------------------------------------


def test_the_card_of_an_iccd_device_is_never_exchanged() -> None:
    """An ICCD device has no notifications and needs none: a card without power was reset."""
    one = ccid.VirtualReader(EchoCard(), bInterfaceProtocol=InterfaceProtocol.ICCD_B)
    with ccid.open_reader(one) as reader:
        (slot,) = reader.slots
        card = slot.connect()
        with one.port.changed:
            one.functions[0].reset(0.0)
        with pytest.raises(errors.CardReset):
            card.transmit(PATTERN)
        with slot.connect() as again:
            assert again.transmit(PATTERN) == ANSWER
