"""Reader, Slot and Card on virtual readers."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest

import ccid
from ccid import errors
from ccid.codec.messages import (
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_SetParameters,
    PC_to_RDR_XfrBlock,
)
from ccid.codes import ExchangeLevel, Features, IccStatus, Protocol, SlotError, VoltageSupport
from ccid.device import find
from ccid.device.open_readers import opened
from ccid.iso7816.apdu import CommandApdu
from ccid.known.quirks import Quirks
from ccid.link import locks
from ccid.virtual import EchoCard, faults, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.virtual_reader import AUTOMATIC

LEVELS = (ExchangeLevel.TPDU, ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU)
PATTERN = bytes.fromhex("0010000004")
T0_ONLY = bytes.fromhex("3B00")
T1_ONLY = bytes.fromhex("3B808101" + "00")
T1_SPECIFIC = bytes.fromhex("3B9011110191")


def echo(data: bytes) -> bytes:
    return CommandApdu(0, 0x30, data=data, ne=256).build()


# A conversation -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_a_conversation(level: ExchangeLevel) -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard(), level=level)) as reader:
        (slot,) = reader.slots
        assert slot.status() is IccStatus.INACTIVE
        with slot.connect() as card:
            assert slot.status() is IccStatus.ACTIVE
            assert card.atr.raw == EchoCard.atr
            assert card.transmit(PATTERN) == bytes.fromhex("00010203 9000")
            assert card.transmit(bytes.fromhex("00A40400")) == b"\x90\x00"
        assert slot.status() is IccStatus.INACTIVE


def test_status_words_come_up_as_they_are_at_tpdu_level() -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard(), level=ExchangeLevel.TPDU)) as reader:
        with reader.slots[0].connect(Protocol.T0) as card:
            assert card.protocol is Protocol.T0
            assert card.transmit(bytes.fromhex("0030000003 010203")) == b"\x61\x03"
            assert card.transmit(bytes.fromhex("00C0000000")) == b"\x6c\x03"
            assert card.transmit(bytes.fromhex("00C0000003")) == b"\x01\x02\x03\x90\x00"


@pytest.mark.parametrize("message_length", [65, 271, 1034, 65556])
@pytest.mark.parametrize("nc", [1, 200, 255, 256, 5000, 65535])
def test_extended_apdus_both_ways(message_length: int, nc: int) -> None:
    descriptor = make_descriptor(ExchangeLevel.EXTENDED_APDU, dwMaxCCIDMessageLength=message_length)
    data = bytes(i * 7 & 0xFF for i in range(nc))
    apdu = CommandApdu(0, 0x30, data=data, ne=65536, extended=True).build()
    with ccid.open_reader(ccid.VirtualReader(EchoCard(), descriptor=descriptor)) as reader:
        with reader.slots[0].connect() as card:
            assert card.transmit(apdu) == data + b"\x90\x00"


def test_the_longest_apdu_and_the_longest_answer() -> None:
    virtual = ccid.VirtualReader(EchoCard(), level=ExchangeLevel.EXTENDED_APDU)
    apdu = CommandApdu(0, 0x30, data=bytes(65535), ne=65536, extended=True).build()
    assert len(apdu) == 65544
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.transmit(apdu) == bytes(65535) + b"\x90\x00"
        longest = card.transmit(bytes.fromhex("00100000000000"))
        assert len(longest) == 65538
        with pytest.raises(errors.InvalidApdu):
            card.transmit(apdu + b"\x00")


@pytest.mark.parametrize("apdu", [b"", b"\x00", b"\x00\xa4\x04"])
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_what_is_no_apdu(level: ExchangeLevel, apdu: bytes) -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard(), level=level)) as reader:
        with reader.slots[0].connect() as card:
            with pytest.raises(errors.InvalidApdu):
                card.transmit(apdu)
            assert card.transmit(PATTERN) == bytes.fromhex("00010203 9000")


def test_too_long_for_a_short_apdu_reader() -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        with reader.slots[0].connect() as card:
            with pytest.raises(errors.UnsupportedByReader, match="dwMaxCCIDMessageLength"):
                card.transmit(bytes(262))


def test_buffers_of_other_kinds() -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        with reader.slots[0].connect() as card:
            for kind in (bytearray, memoryview):
                assert card.transmit(kind(PATTERN)) == bytes.fromhex("00010203 9000")


@pytest.mark.parametrize("level", LEVELS[1:], ids=lambda level: level.name)
def test_one_transfer_each_way(level: ExchangeLevel) -> None:
    virtual = ccid.VirtualReader(EchoCard(), level=level)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.port.transfers.clear()
        for _ in range(10):
            card.transmit(PATTERN)
        assert virtual.port.transfers == {0x01: 10, 0x82: 10}


def test_a_full_packet_with_no_empty_one_behind_it() -> None:
    """The message has 64 bytes, and the reader does not end the transfer: no byte is lost."""
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.functions[0].bulk_in.ends_full_packets = False
        assert len(card.transmit(bytes.fromhex("0010000034"))) == 54
        assert card.transmit(PATTERN) == bytes.fromhex("00010203 9000")
        assert reader.pipe.stale == 0


@pytest.mark.parametrize("size", [51, 52, 53, 116, 244, 250])
def test_stray_empty_packets(size: int) -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.faults.append(faults.preceded_by(b"", on=PC_to_RDR_XfrBlock, times=None))
        for _ in range(3):
            assert len(card.transmit(bytes((0, 0x10, 0, 0, size)))) == size + 2


# Connecting -----------------------------------------------------------------------------------


def test_no_card() -> None:
    with ccid.open_reader(ccid.VirtualReader(None)) as reader:
        assert reader.slots[0].status() is IccStatus.ABSENT
        with pytest.raises(errors.CardAbsent):
            reader.slots[0].connect()


def test_a_mute_card() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    virtual.functions[0].slots[0].mute = True
    with ccid.open_reader(virtual) as reader:
        with pytest.raises(errors.CardMute):
            reader.slots[0].connect()
        virtual.functions[0].slots[0].mute = False
        reader.slots[0].connect().disconnect()


def test_an_answer_that_is_no_atr() -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard(bytes(5)))) as reader:
        with pytest.raises(errors.MalformedAtr):
            reader.slots[0].connect()
        assert reader.slots[0].status() is IccStatus.INACTIVE


def test_one_card_a_slot() -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        card = reader.slots[0].connect()
        with pytest.raises(errors.SlotInUse):
            reader.slots[0].connect()
        card.disconnect()
        card.disconnect()
        with pytest.raises(errors.CardDisconnected):
            card.transmit(PATTERN)
        with reader.slots[0].connect() as other:
            assert other.transmit(PATTERN)[-2:] == b"\x90\x00"


def manual(level: ExchangeLevel = ExchangeLevel.SHORT_APDU, **fields: Any) -> Any:
    """A reader that leaves the choice of voltage to the host."""
    features = (AUTOMATIC & ~Features.AUTO_VOLTAGE) | level
    return make_descriptor(level, dwFeatures=features, **fields)


def power_ons(virtual: ccid.VirtualReader) -> list[int]:
    """bPowerSelect of every power-on from now on."""
    seen: list[int] = []

    def note(_function: CcidFunction, command: bytes, said: list[Any]) -> list[Any]:
        seen.append(command[7])
        return said

    virtual.faults.append(faults.Fault(note, on=PC_to_RDR_IccPowerOn, times=None))
    return seen


@pytest.mark.parametrize(
    ("reader_has", "card_wants", "tried"),
    [
        (0x07, VoltageSupport.V5_0, [1]),
        (0x07, VoltageSupport.V1_8, [1, 3]),
        (0x07, VoltageSupport.V3_0, [1, 3, 2]),
        (0x06, VoltageSupport.V3_0, [3, 2]),
        (0x01, VoltageSupport.V5_0, [1]),
        (0x00, VoltageSupport.V5_0, [1]),
    ],
)
def test_voltages_are_tried_among_those_the_reader_has(
    reader_has: int, card_wants: VoltageSupport, tried: list[int]
) -> None:
    card = EchoCard()
    card.voltages = card_wants
    descriptor = manual(bVoltageSupport=reader_has)
    virtual = ccid.VirtualReader(card, descriptor=descriptor)
    if not reader_has:
        virtual.functions[0].descriptor = manual(bVoltageSupport=1)
    seen = power_ons(virtual)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect():
        assert seen == tried


def test_a_card_of_a_voltage_the_reader_has_not() -> None:
    card = EchoCard()
    card.voltages = VoltageSupport.V1_8
    virtual = ccid.VirtualReader(card, descriptor=manual(bVoltageSupport=3))
    seen = power_ons(virtual)
    with ccid.open_reader(virtual) as reader:
        with pytest.raises(errors.CardMute):
            reader.slots[0].connect()
    assert seen == [1, 2, 1], "the first once more"


@pytest.mark.parametrize("feature", [Features.AUTO_VOLTAGE, Features.AUTO_ACTIVATION])
def test_automatic_voltage_is_left_to_the_reader(feature: Features) -> None:
    features = feature | Features.AUTO_VOLTAGE | Features.AUTO_PPS | ExchangeLevel.SHORT_APDU
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, dwFeatures=features)
    virtual = ccid.VirtualReader(EchoCard(), descriptor=descriptor)
    seen = power_ons(virtual)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect():
        assert seen == [0]


@pytest.mark.parametrize(
    ("atr", "dwProtocols", "wanted", "protocol"),
    [
        (EchoCard.atr, 3, None, Protocol.T1),
        (EchoCard.atr, 3, Protocol.T0, Protocol.T0),
        (EchoCard.atr, 1, None, Protocol.T0),
        (EchoCard.atr, 2, None, Protocol.T1),
        (T0_ONLY, 3, None, Protocol.T0),
        (T1_ONLY, 3, None, Protocol.T1),
        (T1_SPECIFIC, 3, None, Protocol.T1),
    ],
)
def test_choice_of_protocol(
    atr: bytes, dwProtocols: int, wanted: Protocol | None, protocol: Protocol
) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, dwProtocols=dwProtocols)
    with ccid.open_reader(ccid.VirtualReader(EchoCard(atr), descriptor=descriptor)) as reader:
        with reader.slots[0].connect(wanted) as card:
            assert card.protocol is protocol


@pytest.mark.parametrize(
    ("atr", "dwProtocols", "wanted"),
    [(T0_ONLY, 2, None), (T1_ONLY, 1, None), (T0_ONLY, 3, Protocol.T1)],
)
def test_no_protocol_in_common(atr: bytes, dwProtocols: int, wanted: Protocol | None) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, dwProtocols=dwProtocols)
    with ccid.open_reader(ccid.VirtualReader(EchoCard(atr), descriptor=descriptor)) as reader:
        with pytest.raises(errors.UnsupportedByReader):
            reader.slots[0].connect(wanted)


def test_refused_parameters_fall_back_to_the_cards_default() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    refused = SlotError.ICC_PROTOCOL_NOT_SUPPORTED
    tries = len((0x96, 0x95, 0x94, 0x11))
    virtual.faults.append(faults.failing(refused, on=PC_to_RDR_SetParameters, times=tries))
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.protocol is Protocol.T0
        assert card.fidi == 0x96


def test_parameters_that_cannot_be_changed_are_left() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    virtual.faults.append(faults.failing(0x0B, on=PC_to_RDR_SetParameters))
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.protocol is Protocol.T1


def test_what_the_reader_is_told_of_the_card() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        told = virtual.functions[0].slots[0].parameters[Protocol.T1]
        assert told.build().hex() == "96100045 00fe00".replace(" ", "")
        assert card.fidi == 0x96


@pytest.mark.parametrize(
    ("most", "fidi"), [(10752, 0x11), (62500, 0x94), (115200, 0x94), (249998, 0x95), (250000, 0x96)]
)
def test_rates_beyond_the_readers_are_stepped_down(most: int, fidi: int) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, dwMaxDataRate=most)
    with ccid.open_reader(ccid.VirtualReader(EchoCard(), descriptor=descriptor)) as reader:
        with reader.slots[0].connect() as card:
            assert card.fidi == fidi


@pytest.mark.parametrize(
    ("rates", "fidi"), [([10752, 250000], 0x96), ([10752, 125000], 0x95), ([10752], 0x11)]
)
def test_rates_come_from_the_readers_list(rates: list[int], fidi: int) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bNumDataRatesSupported=len(rates))
    virtual = ccid.VirtualReader(EchoCard(), descriptor=descriptor, data_rates=rates)
    with ccid.open_reader(virtual) as reader:
        assert reader.data_rates == rates
        with reader.slots[0].connect() as card:
            assert card.fidi == fidi


def test_a_list_announced_and_not_given() -> None:
    descriptor = make_descriptor(
        ExchangeLevel.SHORT_APDU, bNumDataRatesSupported=5, bNumClockSupported=2
    )
    with ccid.open_reader(ccid.VirtualReader(EchoCard(), descriptor=descriptor)) as reader:
        assert reader.data_rates == []
        assert reader.clock_frequencies == []


def test_clock_frequencies() -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bNumClockSupported=2)
    virtual = ccid.VirtualReader(None, descriptor=descriptor, clock_frequencies=[4000, 8000])
    with ccid.open_reader(virtual) as reader:
        assert reader.clock_frequencies == [4000, 8000]


# Reset ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cold", [False, True])
def test_reset(cold: bool) -> None:
    card = EchoCard()
    virtual = ccid.VirtualReader(card)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as connected:
        resets = card.resets
        assert connected.reset(cold=cold).raw == EchoCard.atr
        assert card.resets == resets + 1
        assert connected.transmit(PATTERN)[-2:] == b"\x90\x00"


# Cards that are taken out ---------------------------------------------------------------------


def test_a_card_taken_out_is_removed() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        virtual.remove()
        with pytest.raises(errors.CardRemoved) as raised:
            card.transmit(PATTERN)
        assert raised.value.slot == 0
        assert reader.slots[0].card is None


def test_a_card_taken_out_and_back_is_removed_still() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        virtual.insert(virtual.remove() or EchoCard())
        for _ in range(2):
            with pytest.raises(errors.CardRemoved):
                card.transmit(PATTERN)
        with pytest.raises(errors.CardRemoved):
            card.reset()
        card.disconnect()
        with reader.slots[0].connect() as other:
            assert other.transmit(PATTERN)[-2:] == b"\x90\x00"


def test_a_card_taken_out_while_it_thinks() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(card.transmit, bytes.fromhex("0038003C"))
            time.sleep(0.1)
            virtual.remove()
            assert isinstance(waiting.exception(5), errors.CardRemoved)


@pytest.mark.parametrize("bError", [SlotError.XFR_PARITY_ERROR, SlotError.HW_ERROR, 0x05, 0xA5])
def test_other_failures_are_failures(bError: int) -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        virtual.faults.append(faults.failing(bError, on=PC_to_RDR_XfrBlock))
        with pytest.raises(errors.CommandFailed) as raised:
            card.transmit(PATTERN)
        assert raised.value.bError == bError
        assert card.transmit(PATTERN)[-2:] == b"\x90\x00"


# Readers that are unplugged -------------------------------------------------------------------


def test_unplugged_in_the_middle() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        virtual.faults.append(faults.unplugged(on=PC_to_RDR_XfrBlock))
        with pytest.raises(errors.ReaderRemoved):
            card.transmit(PATTERN)
        for call in (
            reader.slots[0].status,
            reader.slots[0].cancel,
            lambda: card.transmit(PATTERN),
        ):
            with pytest.raises(errors.ReaderRemoved):
                call()
        card.disconnect()


def test_closed_means_closed() -> None:
    reader = ccid.open_reader(ccid.VirtualReader(EchoCard()))
    card = reader.slots[0].connect()
    reader.close()
    reader.close()
    with pytest.raises(errors.ReaderClosed):
        reader.slots[0].status()
    with pytest.raises((errors.ReaderClosed, errors.CardDisconnected)):
        card.transmit(PATTERN)
    card.disconnect()


def test_close_powers_the_card_off() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    reader = ccid.open_reader(virtual)
    reader.slots[0].connect()
    assert virtual.functions[0].slots[0].powered
    reader.close()
    assert not virtual.functions[0].slots[0].powered


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_close_powers_off_a_card_that_is_not_connected(protocol: int) -> None:
    """One that got power step by step; a CCID, and ICCD devices of both versions."""
    virtual = ccid.VirtualReader(EchoCard(), bInterfaceProtocol=protocol)
    with ccid.open_reader(virtual) as reader:
        reader.slots[0].activation().power_up()
        assert virtual.functions[0].slots[0].powered
    assert not virtual.functions[0].slots[0].powered


def test_close_powers_off_where_that_was_cancelled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """close() of another thread cancels what is under way, the power-off of disconnect() too."""
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        card = reader.slots[0].connect()
        with monkeypatch.context() as patch:
            cancelled = errors.CommandCancelled("script: cancelled")
            patch.setattr(reader.pipe, "proceed", Mock(side_effect=cancelled))
            with pytest.raises(errors.CommandCancelled):
                card.disconnect()
        assert virtual.functions[0].slots[0].powered
    assert not virtual.functions[0].slots[0].powered


def test_close_ends_what_another_thread_waits_for() -> None:
    reader = ccid.open_reader(ccid.VirtualReader(EchoCard()))
    card = reader.slots[0].connect()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(card.transmit, bytes.fromhex("0038003C"))
        time.sleep(0.1)
        began = time.monotonic()
        reader.close()
        assert time.monotonic() - began < 5
        assert isinstance(waiting.exception(5), errors.CommandCancelled)


def test_a_reader_is_opened_once() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual):
        with pytest.raises(errors.ReaderBusy) as raised:
            ccid.open_reader(virtual)
        assert raised.value.holder
    ccid.open_reader(virtual).close()


def test_a_forgotten_reader_warns_and_is_closed() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    reader = ccid.open_reader(virtual)
    with pytest.warns(ResourceWarning, match="never closed"):
        reader.__del__()
    ccid.open_reader(virtual).close()


@pytest.mark.usefixtures("collects_little")
def test_a_forgotten_reader_is_collected_while_another_is_opened() -> None:
    """The garbage collector runs at any time, also while a reader is being closed."""
    reader: ccid.Reader | None = ccid.open_reader(ccid.VirtualReader(EchoCard()))
    assert reader is not None
    gc.collect()
    kept = [reader]
    reader = None

    def collect() -> None:
        with opened._guard, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept.clear()
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


def test_what_an_earlier_user_left_is_dropped() -> None:
    """A reply with number 0 and another type than the reply to the first command."""
    virtual = ccid.VirtualReader(EchoCard())
    stale = bytes.fromhex("80 02000000 00 00 00 00 00 6A82")
    virtual.faults.append(faults.preceded_by(stale, on=PC_to_RDR_GetSlotStatus))
    with ccid.open_reader(virtual) as reader:
        assert reader.pipe.stale == 1


@pytest.mark.parametrize(
    "fault", [faults.silence, faults.stall_in, lambda on: faults.cut_short(3, on=on)]
)
def test_a_reader_that_stumbles_at_first_gets_a_second_chance(fault: Any) -> None:
    virtual = ccid.VirtualReader(EchoCard())
    virtual.faults.append(fault(on=PC_to_RDR_GetSlotStatus))
    with ccid.open_reader(virtual) as reader:
        assert reader.slots[0].status() is IccStatus.INACTIVE


def test_a_reader_that_ignores_repeated_numbers() -> None:
    virtual = ccid.VirtualReader([EchoCard(), EchoCard()], slots=2)
    virtual.functions[0].ignores_repeats = True
    with ccid.open_reader(virtual) as reader:
        for _ in range(300):
            for slot in reader.slots:
                assert slot.status() is IccStatus.INACTIVE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_to_open_its_own() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                said = []
                slot = reader.slots[0]
                for call in (lambda: card.transmit(PATTERN), slot.status, slot.cancel):
                    try:
                        call()
                        said.append("nothing")
                    except errors.ReaderForked:
                        said.append("forked")
                reader.close()
                os.write(send, " ".join(said).encode())
            finally:
                os._exit(0)
        os.close(send)
        assert os.read(receive, 100) == b"forked forked forked"
        os.close(receive)
        os.waitpid(child, 0)
        assert card.transmit(PATTERN)[-2:] == b"\x90\x00", "the parent goes on undisturbed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_a_thread_holds_the_lock_does_not_hang() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(card.transmit, bytes.fromhex("00500320"))
            time.sleep(0.1)
            child = os.fork()
            if child == 0:
                try:
                    card.transmit(PATTERN)
                except errors.ReaderForked:
                    os._exit(7)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert slow.result(5) == b"\x90\x00"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("held", ["turn", "port"])
def test_a_child_forked_while_a_thread_uses_the_reader_opens_its_own(
    held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Quirks("taker of turns", "supported", interfaces_take_turns=True)
    monkeypatch.setattr("ccid.transport.lookup", lambda *_, **__: known)
    virtual, holds, done = two_interfaces(), threading.Event(), threading.Event()
    with ccid.open_reader(virtual) as reader:
        lock: Any = virtual.port.changed if held == "port" else reader.pipe.turn(0)

        def hold() -> None:
            with lock:
                holds.set()
                done.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        assert holds.wait(5)
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(5)
                ccid.open_reader(virtual).close()
                os._exit(7)
            finally:
                os._exit(1)
        ended = os.waitpid(child, 0)[1]
        done.set()
        thread.join(5)
        assert os.WIFEXITED(ended), "it hung"
        assert os.waitstatus_to_exitcode(ended) == 7


# Threads --------------------------------------------------------------------------------------


def test_one_apdu_is_atomic() -> None:
    virtual = ccid.VirtualReader(EchoCard(), level=ExchangeLevel.EXTENDED_APDU)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:

        def talk(n: int) -> bool:
            data = bytes([n]) * 3000
            apdu = CommandApdu(0, 0x30, data=data, ne=65536, extended=True).build()
            return all(card.transmit(apdu) == data + b"\x90\x00" for _ in range(10))

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(talk, range(6)))


def test_exclusive_keeps_others_out() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        order: list[str] = []
        started = threading.Event()

        def other() -> None:
            started.set()
            card.transmit(PATTERN)
            order.append("other")

        with card.exclusive():
            thread = threading.Thread(target=other)
            thread.start()
            assert started.wait(5)
            for i in range(5):
                card.transmit(PATTERN)
                order.append(f"mine {i}")
                time.sleep(0.01)
        thread.join(5)
        assert order == [*(f"mine {i}" for i in range(5)), "other"]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_cancel(level: ExchangeLevel) -> None:
    virtual = ccid.VirtualReader(EchoCard(), level=level)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert reader.slots[0].cancel() is False
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(card.transmit, bytes.fromhex("0038003C"))
            while not reader.slots[0].cancel():
                time.sleep(0.01)
            assert isinstance(waiting.exception(5), errors.CommandCancelled)
        assert card.transmit(PATTERN)[-2:] == b"\x90\x00"


def test_what_is_no_reader() -> None:
    for which in (5, object(), b"name"):
        with pytest.raises(errors.ReaderNotFound, match="is no reader"):
            ccid.open_reader(which)  # type: ignore[arg-type]


def test_without_a_reader_the_error_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "list_readers", list)
    with pytest.raises(errors.ReaderNotFound, match=r"ccid-probe doctor.*ccid\.VirtualReader\(\)"):
        ccid.open_reader()


@pytest.mark.parametrize("busy", [1, 2])
def test_a_thread_that_keeps_its_turn_does_not_keep_the_reader(
    monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    """It computes, or sleeps, between two APDUs. Its card is powered off all the same."""
    monkeypatch.setattr(locks, "IDLE_S", 0.1)
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, 2, bMaxCCIDBusySlots=busy)
    virtual = ccid.VirtualReader([EchoCard(), EchoCard()], descriptor=descriptor)
    reader = ccid.open_reader(virtual)
    reader.slots[1].connect()
    card, held, closed = reader.slots[0].connect(), threading.Event(), threading.Event()

    def hold() -> bytes:
        with card.exclusive():
            held.set()
            assert closed.wait(10)
            return card.transmit(PATTERN)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert held.wait(10)
        began = time.monotonic()
        reader.close()
        assert time.monotonic() - began < locks.QUIET_S / 2
        assert [slot.powered for slot in virtual.functions[0].slots] == [False, False]
        ccid.open_reader(virtual).close()
        closed.set()
        assert isinstance(holding.exception(10), errors.ReaderClosed)


def test_closing_waits_for_another_interface_that_takes_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No command is sent while the other interface works on one."""
    monkeypatch.setattr(locks, "IDLE_S", 0.0)
    known = Quirks("taker of turns", "supported", interfaces_take_turns=True)
    monkeypatch.setattr("ccid.transport.lookup", lambda *_, **__: known)
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU)
    virtual = ccid.VirtualReader(
        functions=[CcidFunction(descriptor, [EchoCard()]) for _ in range(2)]
    )
    with ccid.open_reader(virtual.infos[0]) as one, ThreadPoolExecutor(1) as pool:
        card, two = one.slots[0].connect(), ccid.open_reader(virtual.infos[1])
        two.slots[0].connect()
        waiting = pool.submit(card.transmit, bytes.fromhex("005002BC"))  # 0.7 s
        while one.pipe.busy_slot != 0:
            time.sleep(0.01)
        two.close()
        assert waiting.done()
        assert waiting.result() == bytes.fromhex("9000")
        assert not virtual.functions[1].slots[0].powered


def test_closing_ends_all_that_wait_one_after_the_other() -> None:
    reader = ccid.open_reader(ccid.VirtualReader(EchoCard()))
    card = reader.slots[0].connect()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(card.transmit, bytes.fromhex("0038003C")) for _ in range(3)]
        while reader.pipe.busy_slot != 0:
            time.sleep(0.01)
        reader.close()
        for one in waiting:
            ended = (errors.CommandCancelled, errors.ReaderClosed, errors.CardDisconnected)
            assert isinstance(one.exception(10), ended)


# Several interfaces, escape, and choosing a reader --------------------------------------------


def two_interfaces() -> ccid.VirtualReader:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU)
    return ccid.VirtualReader(
        functions=[
            CcidFunction(descriptor, [EchoCard()]),
            CcidFunction(descriptor, [None]),
        ]
    )


def test_every_interface_is_a_reader() -> None:
    virtual = two_interfaces()
    assert [info.name for info in virtual.infos] == ["Virtual Reader [0]", "Virtual Reader [1]"]
    with ccid.open_reader(virtual.infos[0]) as one, ccid.open_reader(virtual.infos[1]) as two:
        assert one.slots[0].status() is IccStatus.INACTIVE
        assert two.slots[0].status() is IccStatus.ABSENT
        assert one.pipe.lock is not two.pipe.lock


def test_interfaces_that_must_take_turns_share_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Quirks("taker of turns", "supported", interfaces_take_turns=True)
    monkeypatch.setattr("ccid.transport.lookup", lambda *_, **__: known)
    virtual = two_interfaces()
    with ccid.open_reader(virtual.infos[0]) as one, ccid.open_reader(virtual.infos[1]) as two:
        assert one.pipe.lock is two.pipe.lock
        assert two.slots[0].status() is IccStatus.ABSENT


def test_escape() -> None:
    virtual = ccid.VirtualReader(EchoCard(), escape=lambda data: data[::-1])
    with ccid.open_reader(virtual) as reader:
        assert reader.slots[0].escape(b"abc") == b"cba"


def test_no_escape() -> None:
    with ccid.open_reader(ccid.VirtualReader(EchoCard())) as reader:
        with pytest.raises(errors.UnsupportedByReader):
            reader.slots[0].escape(b"abc")


def test_what_it_is() -> None:
    virtual = ccid.VirtualReader(EchoCard())
    with ccid.open_reader(virtual) as reader:
        assert reader.name == "Virtual Reader"
        assert reader.max_message_length == 271
        assert reader.descriptor.exchange_level is ExchangeLevel.SHORT_APDU
        assert reader.quirks.status == "unknown"
        assert "virtual:" in repr(reader)
        with reader.slots[0].connect() as card:
            assert "T=1" in repr(card)
            assert "Slot 0" in repr(card.slot)


def test_multiplexed_slots_take_turns_on_one_lock() -> None:
    virtual = ccid.VirtualReader([EchoCard(), None, EchoCard()], slots=3)
    with ccid.open_reader(virtual) as reader:
        assert [slot.status() for slot in reader.slots] == [
            IccStatus.INACTIVE,
            IccStatus.ABSENT,
            IccStatus.INACTIVE,
        ]
        cards = [reader.slots[i].connect() for i in (0, 2)]

        def talk(n: int) -> bool:
            return all(cards[n].transmit(echo(b"%d" % n)) == b"%d\x90\x00" % n for _ in range(100))

        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(talk, range(2)))
