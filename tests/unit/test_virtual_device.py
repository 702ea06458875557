"""The virtual device: USB 2.0 chapter 9 and the reader's side of USB CCID rev 1.1."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid import open_reader
from ccid.codec.descriptors import ClassControl, parse_configuration, smart_card_interfaces
from ccid.codec.messages import (
    Command,
    PC_to_RDR_Abort,
    PC_to_RDR_Escape,
    PC_to_RDR_GetParameters,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccClock,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_Mechanical,
    PC_to_RDR_ResetParameters,
    PC_to_RDR_Secure,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_T0APDU,
    PC_to_RDR_XfrBlock,
    ProtocolDataT0,
    ProtocolDataT1,
    RDR_to_PC_DataBlock,
    RDR_to_PC_DataRateAndClockFrequency,
    RDR_to_PC_Escape,
    RDR_to_PC_Parameters,
    RDR_to_PC_SlotStatus,
)
from ccid.codes import Chain, CommandStatus, ExchangeLevel, Features, IccStatus, Level, SlotError
from ccid.virtual import EchoCard, VirtualReader, faults, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.usb_device import InPipe, Request, Stall, UsbDevice
from ccid.virtual.virtual_reader import AUTOMATIC
from tests.unit.each import each
from tests.unit.virtual_bench import Bench, bench, failed, powered, xfr

# The IN pipe: transfers made of packets -------------------------------------------------------


def pulls(pipe: InPipe, size: int) -> list[tuple[bytes, bool]]:
    found = []
    while (one := pipe.pull(size, 0.0)) is not None:
        found.append(one)
    return found


@pytest.mark.parametrize(
    ("message", "size", "transfers"),
    [
        (10, 64, [(10, True)]),
        (64, 64, [(64, True), (0, True)]),
        (64, 128, [(64, True)]),
        (65, 64, [(64, True), (1, True)]),
        (128, 64, [(64, True), (64, True), (0, True)]),
        (128, 128, [(128, True), (0, True)]),
        (128, 192, [(128, True)]),
        (200, 512, [(200, True)]),
    ],
)
def test_transfers_end_where_packets_do(
    message: int, size: int, transfers: list[tuple[int, bool]]
) -> None:
    pipe = InPipe(64)
    pipe.push(bytes(message), 0.0)
    assert [(len(part), over) for part, over in pulls(pipe, size)] == transfers


def test_without_the_empty_packet_a_transfer_stays_open() -> None:
    pipe = InPipe(64)
    pipe.ends_full_packets = False
    pipe.push(bytes(64), 0.0)
    assert pipe.pull(128, 0.0) == (bytes(64), False)
    assert pipe.pull(64, 0.0) is None


@given(st.lists(st.integers(0, 300), max_size=6), st.sampled_from([64, 128, 512]))
def test_no_byte_is_lost(sizes: list[int], size: int) -> None:
    pipe = InPipe(64)
    messages = [bytes([i]) * n for i, n in enumerate(sizes)]
    for message in messages:
        pipe.push(message, 0.0)
    assert b"".join(part for part, _ in pulls(pipe, size)) == b"".join(messages)


def test_messages_wait_for_their_time() -> None:
    pipe = InPipe(64)
    pipe.push(b"later", 2.0)
    pipe.push(b"sooner", 1.0)
    assert pipe.next_due() == 1.0
    assert pipe.pull(64, 0.5) is None
    assert pipe.pull(64, 1.0) == (b"sooner", True)
    assert pipe.pull(64, 1.5) is None
    assert pipe.pull(64, 2.0) == (b"later", True)


# Faults ---------------------------------------------------------------------------------------


FAULTS = [
    faults.silence(times=None),
    faults.cut_short(0, times=None),
    faults.cut_short(3, times=None),
    faults.cut_short(7, times=None),
    faults.doubled(times=None),
    faults.wrong_sequence(times=None),
    faults.wrong_slot(times=None),
    faults.wrong_type(times=None),
    faults.reserved_status(times=None),
    faults.lying_length(5, times=None),
    faults.late(0.1, times=None),
    faults.preceded_by(b"", times=None),
    faults.time_extensions(2, times=None),
    faults.failing(0xFE, times=None),
    faults.refused_as_unknown(times=None),
    faults.stall_in(times=None),
]


@pytest.mark.parametrize("first", range(len(FAULTS)))
@each(second=range(len(FAULTS)))
def test_faults_may_come_together(first: int, second: int) -> None:
    made = bench()
    made.function.faults += [FAULTS[first], FAULTS[second]]
    made.send(PC_to_RDR_IccPowerOn())


def test_what_was_said_shows_no_data() -> None:
    assert "1234" not in repr(faults.Said(b"1234", 0.0))


def test_more_cards_than_slots() -> None:
    with pytest.raises(ValueError, match="3 cards, and 1 slots"):
        VirtualReader([EchoCard() for _ in range(3)])
    with pytest.raises(ValueError, match="2 cards, and 1 slots"):
        VirtualReader([EchoCard(), EchoCard()], bInterfaceProtocol=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_what_its_parent_has_closed() -> None:
    virtual = VirtualReader(EchoCard())
    reader = open_reader(virtual)
    go, ready = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.read(go, 1)
            open_reader(virtual).close()
            status = 0
        finally:
            os._exit(status)
    reader.close()
    os.write(ready, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(go)
    os.close(ready)


# Chapter 9 ------------------------------------------------------------------------------------


@pytest.fixture
def device() -> UsbDevice:
    return VirtualReader(EchoCard()).device


def get(device: UsbDevice, wValue: int, wLength: int = 255) -> bytes:
    return device.control(ClassControl(0x80, Request.GET_DESCRIPTOR, wValue, 0, wLength), b"", 0)


def test_descriptors(device: UsbDevice) -> None:
    assert get(device, 0x0100) == device.descriptor.build()
    assert get(device, 0x0200) == device.raw_configuration
    assert get(device, 0x0200, 9) == device.raw_configuration[:9]
    assert len(smart_card_interfaces(parse_configuration(get(device, 0x0200)))) == 1
    assert get(device, 0x0300) == bytes.fromhex("04030904")
    assert get(device, 0x0302)[2:].decode("utf-16-le") == "Virtual Reader"


@pytest.mark.parametrize("wValue", [0x0600, 0x0201, 0x0309, 0x2100])
def test_descriptors_it_has_not(device: UsbDevice, wValue: int) -> None:
    with pytest.raises(Stall):
        get(device, wValue)


def test_configuring(device: UsbDevice) -> None:
    ask = ClassControl(0x80, Request.GET_CONFIGURATION, 0, 0, 1)
    device.reset(0)
    assert device.control(ask, b"", 0) == b"\0"
    device.control(ClassControl(0x00, Request.SET_CONFIGURATION, 1, 0), b"", 0)
    assert device.control(ask, b"", 0) == b"\1"


def transfer(device: UsbDevice, endpoint: int) -> None:
    if endpoint & 0x80:
        device.submit_in(endpoint, 64, 0)
    else:
        device.submit_out(endpoint, bytes(10), 0)


def test_halting(device: UsbDevice) -> None:
    for endpoint in (0x01, 0x82):
        ask = ClassControl(0x82, Request.GET_STATUS, 0, endpoint, 2)
        assert device.control(ask, b"", 0) == b"\0\0"
        device.control(ClassControl(0x02, Request.SET_FEATURE, 0, endpoint), b"", 0)
        assert device.control(ask, b"", 0) == b"\1\0"
        with pytest.raises(Stall):
            transfer(device, endpoint)
        device.control(ClassControl(0x02, Request.CLEAR_FEATURE, 0, endpoint), b"", 0)
        assert device.control(ask, b"", 0) == b"\0\0"


@pytest.mark.parametrize(
    "request_",
    [
        ClassControl(0x81, Request.GET_INTERFACE, 0, 0, 1),
        ClassControl(0x01, Request.SET_INTERFACE, 0, 0),
        ClassControl(0x80, Request.GET_STATUS, 0, 0, 2),
        ClassControl(0x00, Request.SET_ADDRESS, 5, 0),
    ],
)
def test_requests_it_takes(device: UsbDevice, request_: ClassControl) -> None:
    assert len(device.control(request_, b"", 0)) == request_.wLength


@pytest.mark.parametrize(
    "request_",
    [
        ClassControl(0x01, Request.SET_INTERFACE, 1, 0),
        ClassControl(0xA1, 0x77, 0, 0, 4),
        ClassControl(0xA1, 0x03, 0, 9, 4),
        ClassControl(0xC0, 0x03, 0, 0, 4),
        ClassControl(0x80, 0x77, 0, 0, 4),
    ],
)
def test_requests_it_refuses(device: UsbDevice, request_: ClassControl) -> None:
    with pytest.raises(Stall):
        device.control(request_, b"", 0)


def test_unknown_endpoints(device: UsbDevice) -> None:
    with pytest.raises(Stall):
        device.submit_in(0x8F, 64, 0)
    with pytest.raises(Stall):
        device.submit_out(0x0F, b"", 0)


# The CCID function ----------------------------------------------------------------------------


def test_power() -> None:
    b = bench()
    assert b.ask(PC_to_RDR_GetSlotStatus(bSeq=1)).icc_status is IccStatus.INACTIVE
    reply = b.ask(PC_to_RDR_IccPowerOn(bSeq=2))
    assert isinstance(reply, RDR_to_PC_DataBlock)
    assert (reply.abData, reply.icc_status) == (EchoCard.atr, IccStatus.ACTIVE)
    assert b.ask(PC_to_RDR_IccPowerOff(bSeq=3)).icc_status is IccStatus.INACTIVE


def test_a_block_for_a_card_without_power() -> None:
    b = bench()
    reply = b.ask(PC_to_RDR_XfrBlock(abData=bytes(4)))
    assert failed(reply, SlotError.ICC_MUTE)
    assert reply.icc_status is IccStatus.INACTIVE


@pytest.mark.parametrize("select", [1, 2, 3, 4])
def test_voltages(select: int) -> None:
    features = (AUTOMATIC & ~Features.AUTO_VOLTAGE) | ExchangeLevel.SHORT_APDU
    b = bench(bVoltageSupport=0x05, dwFeatures=features)
    reply = b.ask(PC_to_RDR_IccPowerOn(bPowerSelect=select))
    assert failed(reply, 7) is (select not in (1, 3))
    assert failed(b.ask(PC_to_RDR_IccPowerOn(bPowerSelect=0)), 7)


def test_parameters() -> None:
    b = bench()
    b.ask(PC_to_RDR_IccPowerOn())
    structure = ProtocolDataT1(bIFSC=99)
    told = b.ask(PC_to_RDR_SetParameters(bProtocolNum=1, abProtocolDataStructure=structure))
    asked = b.ask(PC_to_RDR_GetParameters())
    for reply in (told, asked):
        assert isinstance(reply, RDR_to_PC_Parameters)
        assert (reply.bProtocolNum, reply.abProtocolDataStructure) == (1, structure)
    reset = b.ask(PC_to_RDR_ResetParameters())
    assert isinstance(reset, RDR_to_PC_Parameters)
    assert reset.abProtocolDataStructure == ProtocolDataT1()


@pytest.mark.parametrize(
    ("command", "bError"),
    [
        (PC_to_RDR_SetParameters(bProtocolNum=0x80, abProtocolDataStructure=b""), 7),
        (PC_to_RDR_SetParameters(bProtocolNum=0, abProtocolDataStructure=b"12"), 1),
        (PC_to_RDR_Escape(abData=b"x"), SlotError.CMD_NOT_SUPPORTED),
        (PC_to_RDR_Secure(), SlotError.CMD_NOT_SUPPORTED),
        (PC_to_RDR_Mechanical(bFunction=2), SlotError.CMD_NOT_SUPPORTED),
        (PC_to_RDR_IccClock(), SlotError.CMD_NOT_SUPPORTED),
        (PC_to_RDR_SetDataRateAndClockFrequency(), SlotError.CMD_NOT_SUPPORTED),
        (PC_to_RDR_Abort(), SlotError.CMD_NOT_SUPPORTED),
        (PC_to_RDR_GetSlotStatus(bSlot=1), 5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Command) else None,
)
def test_what_it_refuses(command: Command, bError: int) -> None:
    assert failed(bench().ask(command), bError)


def test_a_command_nobody_knows() -> None:
    b = bench()
    b.function.bulk_out(bytes.fromhex("77 00000000 00 09 000000"), 0)
    reply = b.reply()
    assert isinstance(reply, RDR_to_PC_SlotStatus)
    assert failed(reply, SlotError.CMD_NOT_SUPPORTED)
    assert reply.bSeq == 9


def test_a_protocol_that_the_reader_has_not_is_refused() -> None:
    b = bench(ExchangeLevel.TPDU, dwProtocols=0x01)
    b.ask(PC_to_RDR_IccPowerOn())
    command = PC_to_RDR_SetParameters(bProtocolNum=1, abProtocolDataStructure=ProtocolDataT1())
    assert failed(b.ask(command), 7)
    assert not failed(b.ask(PC_to_RDR_SetParameters(abProtocolDataStructure=ProtocolDataT0())), 7)


def test_what_descriptors_promise() -> None:
    features = AUTOMATIC | ExchangeLevel.SHORT_APDU | Features.CLOCK_STOP
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, dwFeatures=features, dwMechanical=2)
    b = Bench(CcidFunction(descriptor, [EchoCard()], escape=lambda d: d * 2, data_rates=[9600]))
    stopped = b.ask(PC_to_RDR_IccClock(bClockCommand=1))
    assert isinstance(stopped, RDR_to_PC_SlotStatus)
    assert stopped.bClockStatus == 1
    escaped = b.ask(PC_to_RDR_Escape(abData=b"ab"))
    assert isinstance(escaped, RDR_to_PC_Escape)
    assert escaped.abData == b"abab"
    assert b.ask(PC_to_RDR_Mechanical(bFunction=2)).command_status is CommandStatus.PROCESSED
    assert b.ask(PC_to_RDR_T0APDU()).command_status is CommandStatus.PROCESSED
    rate = b.ask(PC_to_RDR_SetDataRateAndClockFrequency(dwClockFrequency=4000, dwDataRate=9600))
    assert isinstance(rate, RDR_to_PC_DataRateAndClockFrequency)
    assert (rate.dwClockFrequency, rate.dwDataRate) == (4000, 9600)


# Blocks ---------------------------------------------------------------------------------------


def test_a_chain_of_command_and_response() -> None:
    b = powered(ExchangeLevel.EXTENDED_APDU, dwMaxCCIDMessageLength=10 + 6)
    assert xfr(b, bytes.fromhex("0030 0000 0000"), Level.BEGINS).bChainParameter == 0x10
    assert xfr(b, bytes.fromhex("0A 3031323334"), Level.CONTINUES).bChainParameter == 0x10
    first = xfr(b, bytes.fromhex("3536373839 00"), Level.CONTINUES)
    assert (first.abData, first.bChainParameter) == (b"", Chain.COMMAND_EXPECTED)
    parts = [xfr(b, b"\x00", Level.ENDS)]
    while parts[-1].bChainParameter not in (Chain.WHOLE, Chain.ENDS):
        parts.append(xfr(b, b"", Level.CONTINUE_RESPONSE))
    assert [p.bChainParameter for p in parts] == [Chain.BEGINS, Chain.ENDS]
    assert b"".join(p.abData for p in parts) == b"0123456789\x90\x00"


@pytest.mark.parametrize("level", [Level.CONTINUES, Level.ENDS, Level.CONTINUE_RESPONSE, 0x0077])
def test_a_chain_that_has_not_begun(level: int) -> None:
    assert failed(xfr(powered(ExchangeLevel.EXTENDED_APDU), b"abcd", level), 8)


def test_a_chain_that_begins_anew() -> None:
    b = powered(ExchangeLevel.EXTENDED_APDU)
    xfr(b, b"abcd", Level.BEGINS)
    assert failed(xfr(b, b"abcd", Level.BEGINS), 8)
    assert xfr(b, bytes.fromhex("00A40400")).abData == b"\x90\x00", "the slot is in order again"


def test_short_apdu_level_has_no_chains() -> None:
    assert failed(xfr(powered(), bytes(4), Level.BEGINS), 8)
    assert failed(xfr(powered(), bytes(262)), 1)


def test_commands_cut_into_transfers() -> None:
    b = powered(ExchangeLevel.EXTENDED_APDU)
    wire = PC_to_RDR_XfrBlock(abData=bytes.fromhex("00200000 000100") + bytes(256)).build()
    for start in range(0, len(wire), 64):
        b.function.bulk_out(wire[start : start + 64], 0)
    reply = b.reply()
    assert isinstance(reply, RDR_to_PC_DataBlock)
    assert reply.abData == b"\x90\x00"


def test_an_empty_packet_behind_full_ones_is_no_command() -> None:
    b = powered()
    b.send(PC_to_RDR_XfrBlock(abData=bytes.fromhex("0020000031") + bytes(49)))
    b.function.bulk_out(b"", 0)
    reply = b.reply()
    assert reply is not None
    assert not reply.bError
    assert b.reply() is None


@pytest.mark.parametrize("wire", ["6F", "6F 01000000 00 00 00 00"])
def test_no_header_stalls(wire: str) -> None:
    with pytest.raises(Stall):
        bench().function.bulk_out(bytes.fromhex(wire), 0)


@pytest.mark.parametrize(
    "wire",
    [
        "6F 01000000 00 00 00 0000",
        "6F 00000000 00 00 00 0000 FF",
        "6F FFFFFFFF 00 00 00 0000",
    ],
)
def test_a_wrong_length_is_named(wire: str) -> None:
    b = bench()
    b.function.bulk_out(bytes.fromhex(wire), 0)
    reply = b.reply()
    assert reply is not None
    assert failed(reply, 1)


@given(st.binary(max_size=90))
def test_noise_breaks_nothing(data: bytes) -> None:
    b = bench()
    for wire in (data, b"\x6f" + data):
        try:
            b.function.bulk_out(wire, 0)
        except Stall:
            continue
        finally:
            b.function.reset(0)
    assert b.ask(PC_to_RDR_GetSlotStatus()).icc_status is IccStatus.INACTIVE


# Time -----------------------------------------------------------------------------------------

SLOW = bytes.fromhex("005003E8")
"""The card takes a second."""


def test_a_slow_card_and_time_extensions() -> None:
    b = powered()
    b.send(PC_to_RDR_XfrBlock(bSeq=7, abData=SLOW))
    assert b.reply() is None
    said = []
    for tick in range(1, 12):
        b.now = tick / 10
        while (reply := b.reply()) is not None:
            said.append((tick, reply.command_status))
    asked = CommandStatus.TIME_EXTENSION
    assert said == [(4, asked), (8, asked), (10, CommandStatus.PROCESSED)]


def test_a_busy_slot() -> None:
    b = powered()
    b.send(PC_to_RDR_XfrBlock(bSeq=7, abData=SLOW))
    assert failed(b.ask(PC_to_RDR_GetSlotStatus(bSeq=8)), SlotError.CMD_SLOT_BUSY)
    b.now = 1.0
    while (reply := b.reply()) is not None:
        last = reply
    assert (last.bSeq, last.command_status) == (7, CommandStatus.PROCESSED)
    assert not failed(b.ask(PC_to_RDR_GetSlotStatus(bSeq=9)), SlotError.CMD_SLOT_BUSY)


@pytest.mark.parametrize(("busy", "refused"), [(1, True), (2, False)])
def test_busy_slots(busy: int, refused: bool) -> None:
    b = bench(slots=2, bMaxCCIDBusySlots=busy)
    for slot in (0, 1):
        b.ask(PC_to_RDR_IccPowerOn(bSlot=slot))
    b.send(PC_to_RDR_XfrBlock(bSlot=0, abData=SLOW))
    other = b.ask(PC_to_RDR_GetSlotStatus(bSlot=1, bSeq=1))
    assert failed(other, SlotError.CMD_SLOT_BUSY) is refused


def abort(b: Bench, bSeq: int) -> None:
    b.function.control(ClassControl.abort(0, 0, bSeq), b"", b.now)


def test_the_abort_pair() -> None:
    b = powered()
    b.send(PC_to_RDR_XfrBlock(bSeq=7, abData=SLOW))
    abort(b, 8)
    aborted = b.reply()
    assert aborted is not None
    assert failed(aborted, SlotError.CMD_ABORTED)
    assert aborted.bSeq == 7
    assert failed(b.ask(PC_to_RDR_GetSlotStatus(bSeq=9)), SlotError.CMD_ABORTED)
    assert failed(b.ask(PC_to_RDR_Abort(bSeq=10)), SlotError.CMD_ABORTED), "another number"
    done = b.ask(PC_to_RDR_Abort(bSeq=8))
    assert isinstance(done, RDR_to_PC_SlotStatus)
    assert done.command_status is CommandStatus.PROCESSED
    b.now = 5.0
    assert b.reply() is None, "nothing comes of it any more"
    assert xfr(b, bytes.fromhex("00A40400")).abData == b"\x90\x00"


def test_abort_of_a_slot_it_has_not() -> None:
    with pytest.raises(Stall):
        bench().function.control(ClassControl.abort(0, 5, 1), b"", 0)


# Cards come and go ----------------------------------------------------------------------------


def test_notifications() -> None:
    b = bench(slots=2)
    assert b.events() == []
    b.function.put(1, None, 0)
    (event,) = b.events()
    assert [tuple(s) for s in event.slots(2)] == [(0, True, False), (1, False, True)]
    b.function.put(1, EchoCard(), 0)
    (event,) = b.events()
    assert [tuple(s) for s in event.slots(2)] == [(0, True, False), (1, True, True)]


def test_a_reset_reader_tells_of_its_cards() -> None:
    b = bench(slots=2)
    b.function.put(0, None, 0)
    b.events()
    b.function.reset(0)
    (event,) = b.events()
    assert [tuple(s) for s in event.slots(2)] == [(0, False, False), (1, True, True)]


def test_a_card_taken_out_while_it_thinks() -> None:
    b = powered()
    b.send(PC_to_RDR_XfrBlock(bSeq=7, abData=SLOW))
    b.function.put(0, None, 0.1)
    reply = b.reply()
    b.now = 0.1
    reply = reply or b.reply()
    assert reply is not None
    assert failed(reply, SlotError.ICC_MUTE)
    assert reply.icc_status is IccStatus.ABSENT
    b.now = 5.0
    assert b.reply() is None


def test_a_reader_that_then_says_nothing() -> None:
    b = powered()
    b.function.answers_removal = False
    b.send(PC_to_RDR_XfrBlock(bSeq=7, abData=SLOW))
    b.function.put(0, None, 0.1)
    b.now = 5.0
    assert b.reply() is None


def test_automatic_activation() -> None:
    features = AUTOMATIC | Features.AUTO_ACTIVATION | ExchangeLevel.SHORT_APDU
    b = bench(dwFeatures=features)
    assert b.ask(PC_to_RDR_GetSlotStatus()).icc_status is IccStatus.ACTIVE
    b.function.put(0, None, 0)
    b.function.put(0, EchoCard(), 0)
    assert b.ask(PC_to_RDR_GetSlotStatus()).icc_status is IccStatus.ACTIVE


def test_repeated_numbers_are_ignored_where_a_reader_does_so() -> None:
    b = bench(slots=2)
    b.function.ignores_repeats = True
    b.ask(PC_to_RDR_GetSlotStatus(bSeq=1))
    b.send(PC_to_RDR_GetSlotStatus(bSlot=1, bSeq=1))
    assert b.reply() is None
    b.ask(PC_to_RDR_GetSlotStatus(bSlot=1, bSeq=2))


def test_lists() -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU)
    function = CcidFunction(descriptor, data_rates=[9600, 10752], clock_frequencies=[4000])
    rates = function.control(ClassControl.get_data_rates(0, 2), b"", 0)
    assert rates == bytes.fromhex("80250000 002a0000")
    assert function.control(ClassControl.get_clock_frequencies(0, 1), b"", 0)[:2] == b"\xa0\x0f"
    with pytest.raises(Stall):
        bench().function.control(ClassControl.get_data_rates(0, 2), b"", 0)
