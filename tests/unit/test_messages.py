"""The codec: USB CCID rev 1.1, chapter 6."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.codec import messages
from ccid.codec.messages import (
    COMMANDS,
    REPLIES,
    Message,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_Secure,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_XfrBlock,
    PinModification,
    PinVerification,
    ProtocolDataT0,
    ProtocolDataT1,
    RDR_to_PC_DataBlock,
    RDR_to_PC_HardwareError,
    RDR_to_PC_NotifySlotChange,
    RDR_to_PC_Parameters,
    RDR_to_PC_SlotStatus,
    SlotChange,
    parse_command,
    parse_event,
    parse_reply,
)
from ccid.codec.messages.headers import reply_header, xfr_block_header
from ccid.codes import CommandStatus, IccStatus, PinOperation, SlotError, slot_error_text
from ccid.errors import MalformedMessage

ALL = [*COMMANDS.values(), *REPLIES.values()]
BYTE = st.integers(0, 0xFF)
WIDTH = {"dw": 4, "w": 2, "b": 1}

# The numbers of the specification, written a second time: tables 6.1-1, 6.2-1 and 6.3-1.
NUMBERS = {
    "PC_to_RDR_SetParameters": 0x61,
    "PC_to_RDR_IccPowerOn": 0x62,
    "PC_to_RDR_IccPowerOff": 0x63,
    "PC_to_RDR_GetSlotStatus": 0x65,
    "PC_to_RDR_Secure": 0x69,
    "PC_to_RDR_T0APDU": 0x6A,
    "PC_to_RDR_Escape": 0x6B,
    "PC_to_RDR_GetParameters": 0x6C,
    "PC_to_RDR_ResetParameters": 0x6D,
    "PC_to_RDR_IccClock": 0x6E,
    "PC_to_RDR_XfrBlock": 0x6F,
    "PC_to_RDR_Mechanical": 0x71,
    "PC_to_RDR_Abort": 0x72,
    "PC_to_RDR_SetDataRateAndClockFrequency": 0x73,
    "RDR_to_PC_DataBlock": 0x80,
    "RDR_to_PC_SlotStatus": 0x81,
    "RDR_to_PC_Parameters": 0x82,
    "RDR_to_PC_Escape": 0x83,
    "RDR_to_PC_DataRateAndClockFrequency": 0x84,
}


def numbers(cls: type) -> dict[str, Any]:
    """Strategies for the numeric fields of a declaration, by the width that the prefix names."""
    found = {}
    for field in dataclasses.fields(cls):
        prefix = "dw" if field.name.startswith("dw") else field.name[0]
        if field.name.startswith(("b", "w", "dw")):
            found[field.name] = st.integers(0, 256 ** WIDTH[prefix] - 1)
    return found


@st.composite
def any_message(draw: st.DrawFn) -> Message:
    """Any message with any fields that fit together."""
    cls: Any = draw(st.sampled_from(ALL))
    values = {name: draw(s) for name, s in numbers(cls).items()}
    for field in dataclasses.fields(cls):
        if field.name == "abData":
            values["abData"] = draw(st.binary(max_size=300))
        elif field.name == "abRFU":
            size = len(cls().abRFU)
            values["abRFU"] = draw(st.binary(min_size=size, max_size=size))
        elif field.name == "abProtocolDataStructure":
            t0, t1 = numbers(ProtocolDataT0), numbers(ProtocolDataT1)
            values["bProtocolNum"], values[field.name] = draw(
                st.one_of(
                    st.tuples(st.just(0), st.builds(ProtocolDataT0, **t0)),
                    st.tuples(st.just(1), st.builds(ProtocolDataT1, **t1)),
                    st.tuples(st.integers(2, 255), st.binary(max_size=9)),
                    st.tuples(st.integers(0, 1), st.binary(max_size=4)),
                )
            )
        elif field.name == "abPINDataStructure":
            values["bPINOperation"], values[field.name] = draw(
                st.one_of(
                    st.tuples(st.just(0), pin_verification()),
                    st.tuples(st.just(1), pin_modification()),
                    st.tuples(st.integers(2, 255), st.binary(max_size=30)),
                )
            )
    made: Message = cls(**values)
    return made


@st.composite
def pin_verification(draw: st.DrawFn) -> PinVerification:
    values = {name: draw(s) for name, s in numbers(PinVerification).items()}
    values |= {"bTeoPrologue": draw(st.binary(min_size=3, max_size=3))}
    return PinVerification(**values, abPINApdu=draw(st.binary(max_size=20)))


@st.composite
def pin_modification(draw: st.DrawFn) -> PinModification:
    values = {name: draw(s) for name, s in numbers(PinModification).items()}
    values |= {"bTeoPrologue": draw(st.binary(min_size=3, max_size=3))}
    if values["bNumberMessage"] == 0:
        values["bMsgIndex2"] = None
    if values["bNumberMessage"] < 3:
        values["bMsgIndex3"] = None
    return PinModification(**values, abPINApdu=draw(st.binary(max_size=20)))


def test_every_message_of_the_specification_is_there() -> None:
    assert {cls.__name__: cls.bMessageType for cls in ALL} == NUMBERS


@given(any_message())
def test_parse_undoes_build(message: Message) -> None:
    wire = message.build()
    parse = parse_command if message.bMessageType in COMMANDS else parse_reply
    assert parse(wire) == message
    assert int.from_bytes(wire[1:5], "little") == len(wire) - 10


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (PC_to_RDR_IccPowerOn(bSlot=1, bSeq=2, bPowerSelect=3), "62 00000000 01 02 03 0000"),
        (
            PC_to_RDR_XfrBlock(bSeq=5, bBWI=7, wLevelParameter=0x0102, abData=b"\xab\xcd"),
            "6F 02000000 00 05 07 0201 ABCD",
        ),
        (
            PC_to_RDR_SetParameters(
                bProtocolNum=1, abProtocolDataStructure=ProtocolDataT1(bIFSC=0xFE)
            ),
            "61 07000000 00 00 01 0000 11 10 00 4D 00 FE 00",
        ),
        (
            PC_to_RDR_SetParameters(abProtocolDataStructure=ProtocolDataT0(bmFindexDindex=0x95)),
            "61 05000000 00 00 00 0000 95 00 00 0A 00",
        ),
        (
            PC_to_RDR_SetDataRateAndClockFrequency(dwClockFrequency=4000, dwDataRate=10752),
            "73 08000000 00 00 000000 A00F0000 002A0000",
        ),
        (RDR_to_PC_SlotStatus(bSeq=9, bStatus=2, bClockStatus=3), "81 00000000 00 09 02 00 03"),
        (
            RDR_to_PC_DataBlock(bSeq=9, bStatus=0x41, bError=0xFE, bChainParameter=0x10),
            "80 00000000 00 09 41 FE 10",
        ),
        (
            RDR_to_PC_Parameters(bProtocolNum=0, abProtocolDataStructure=ProtocolDataT0()),
            "82 05000000 00 00 00 00 00 11 00 00 0A 00",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else None,
)  # fmt: skip
def test_bytes_on_the_wire(message: Message, wire: str) -> None:
    assert message.build() == bytes.fromhex(wire)


def test_pin_verification_on_the_wire() -> None:
    """Byte offsets of table 6.1-23."""
    structure = PinVerification(
        bTimeOut=30,
        bmFormatString=0x82,
        bmPINBlockString=0x08,
        bmPINLengthFormat=0x00,
        wPINMaxExtraDigit=0x0408,
        bEntryValidationCondition=2,
        bNumberMessage=1,
        wLangId=0x0409,
        bMsgIndex=0,
        abPINApdu=bytes.fromhex("00200001083FFFFFFFFFFFFFFF"),
    )
    message = PC_to_RDR_Secure(
        bSeq=1, bPINOperation=PinOperation.VERIFICATION, abPINDataStructure=structure
    )
    assert message.build().hex() == (
        "691c0000000001000000001e8208000804020109040000000000200001083fffffffffffffff"
    )


@pytest.mark.parametrize(("number", "indices"), [(0, 1), (1, 2), (2, 2), (3, 3), (0xFF, 3)])
def test_pin_modification_has_as_many_message_indices_as_it_says(number: int, indices: int) -> None:
    structure = PinModification(
        bmFormatString=0,
        bmPINBlockString=0,
        bmPINLengthFormat=0,
        bInsertionOffsetOld=0,
        bInsertionOffsetNew=0,
        wPINMaxExtraDigit=0,
        bConfirmPIN=0,
        bEntryValidationCondition=0,
        bNumberMessage=number,
        wLangId=0,
        bMsgIndex2=7 if indices > 1 else None,
        bMsgIndex3=8 if indices > 2 else None,
    )
    assert len(structure.build()) == 16 + indices
    assert PinModification.parse(structure.build()) == structure


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ("", "bMessageType"),
        ("90 00000000 00 00 00 00 00", "bMessageType"),
        ("6F 00000000 00 00 00 00 00", "bMessageType"),
        ("80", "dwLength"),
        ("80 000000", "dwLength"),
        ("80 00000000", "bSlot"),
        ("80 00000000 00", "bSeq"),
        ("80 00000000 00 00", "bStatus"),
        ("80 00000000 00 00 00", "bError"),
        ("80 00000000 00 00 00 00", "bChainParameter"),
        ("80 01000000 00 00 00 00 00", "dwLength"),
        ("80 00000000 00 00 00 00 00 FF", "dwLength"),
        ("80 FFFFFFFF 00 00 00 00 00 FF", "dwLength"),
        ("84 04000000 00 00 00 00 00 01020304", "dwDataRate"),
    ],
)
def test_malformed_replies_name_the_field(wire: str, field: str) -> None:
    with pytest.raises(MalformedMessage) as raised:
        parse_reply(bytes.fromhex(wire))
    assert raised.value.field == field


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for parse in (parse_command, parse_reply, parse_event):
        try:
            message = parse(data)
        except MalformedMessage:
            continue
        assert message.build()[:1] == data[:1]


def test_bytes_too_many_are_dw_lengths_fault() -> None:
    wrong = bytes.fromhex("84 09000000 00 00 00 00 00 010203040506070809")
    with pytest.raises(MalformedMessage, match="1 bytes too many") as raised:
        parse_reply(wrong)
    assert raised.value.field == "dwLength"


@pytest.mark.parametrize(
    "message",
    [
        RDR_to_PC_HardwareError(bSlot=400),
        RDR_to_PC_HardwareError(bHardwareErrorCode=-1),
        PC_to_RDR_XfrBlock(abData=5),  # type: ignore[arg-type]
    ],
)
def test_values_that_do_not_fit_are_errors_of_ours(message: Any) -> None:
    with pytest.raises(MalformedMessage, match="cannot build"):
        message.build()


def test_a_value_too_large_names_the_field() -> None:
    with pytest.raises(MalformedMessage) as raised:
        PC_to_RDR_XfrBlock(bSlot=256).build()
    assert raised.value.field == "bSlot"


def test_a_structure_of_the_wrong_protocol_is_refused() -> None:
    with pytest.raises(MalformedMessage) as raised:
        PC_to_RDR_SetParameters(bProtocolNum=1, abProtocolDataStructure=ProtocolDataT0()).build()
    assert raised.value.field == "abProtocolDataStructure"


def test_a_truncated_pin_structure_names_its_field() -> None:
    with pytest.raises(MalformedMessage) as raised:
        parse_command(bytes.fromhex("69 03000000 00 00 00 0000 00 1E 82"))
    assert raised.value.field == "bmPINBlockString"


def test_parameters_of_an_unexpected_length_stay_bytes() -> None:
    reply = parse_reply(bytes.fromhex("82 07000000 00 00 00 00 00 11 00 00 0A 00 00 00"))
    assert isinstance(reply, RDR_to_PC_Parameters)
    assert reply.abProtocolDataStructure == bytes.fromhex("1100000A000000")


# The fast path --------------------------------------------------------------------------------


@given(st.integers(0, 0xFFFFFFFF), BYTE, BYTE, BYTE, st.integers(0, 0xFFFF))
def test_the_fast_command_header_is_the_declared_one(
    dwLength: int, bSlot: int, bSeq: int, bBWI: int, level: int
) -> None:
    fields = {
        "bMessageType": 0x6F,
        "dwLength": dwLength,
        "bSlot": bSlot,
        "bSeq": bSeq,
        "bBWI": bBWI,
        "wLevelParameter": level,
    }
    assert xfr_block_header.pack(*fields.values()) == PC_to_RDR_XfrBlock.header.build(fields)


@given(st.binary(min_size=10, max_size=10))
def test_the_fast_reply_header_is_the_declared_one(data: bytes) -> None:
    declared = RDR_to_PC_DataBlock.header.parse(data)
    names = [n.name for n in RDR_to_PC_DataBlock.header.subcons]
    assert reply_header.unpack(data) == tuple(declared[name] for name in names)


# Status ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bStatus", "icc", "command"),
    [
        (0x00, IccStatus.ACTIVE, CommandStatus.PROCESSED),
        (0x41, IccStatus.INACTIVE, CommandStatus.FAILED),
        (0x82, IccStatus.ABSENT, CommandStatus.TIME_EXTENSION),
        (0xC3, IccStatus.RFU, CommandStatus.RFU),
    ],
)
def test_status_bits(bStatus: int, icc: IccStatus, command: CommandStatus) -> None:
    reply = RDR_to_PC_SlotStatus(bStatus=bStatus)
    assert (reply.icc_status, reply.command_status) == (icc, command)


@pytest.mark.parametrize(
    ("bError", "text"),
    [
        (SlotError.ICC_MUTE, "ICC_MUTE"),
        (SlotError.CMD_NOT_SUPPORTED, "CMD_NOT_SUPPORTED"),
        (5, "byte 5"),
        (127, "byte 127"),
        (0x80, "reserved"),
        (0xC0, "reader's own"),
        (0x81, "reader's own"),
        (0xC1, "reserved"),
    ],
)
def test_errors_in_words(bError: int, text: str) -> None:
    assert text in slot_error_text(bError)
    assert text in RDR_to_PC_SlotStatus(bStatus=0x40, bError=bError).error_text
    assert RDR_to_PC_SlotStatus(bStatus=0x00, bError=bError).error_text == ""


# Events ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=28))
def test_slot_changes(states: list[tuple[bool, bool]]) -> None:
    event = parse_event(RDR_to_PC_NotifySlotChange.of(states).build())
    assert isinstance(event, RDR_to_PC_NotifySlotChange)
    assert event.slots(len(states)) == [SlotChange(i, *s) for i, s in enumerate(states)]


def test_slot_change_on_the_wire() -> None:
    """6.3.1: slot 0 in the low bits, bit 0 present, bit 1 changed."""
    event = RDR_to_PC_NotifySlotChange.of([(True, True), (False, False), (False, True)])
    assert event.build() == bytes.fromhex("50 23")
    assert len(event.slots(8)) == 4


def test_hardware_error() -> None:
    event = RDR_to_PC_HardwareError(bSlot=1, bSeq=2, bHardwareErrorCode=1)
    assert event.build() == bytes.fromhex("51 01 02 01")
    assert parse_event(event.build()) == event


@pytest.mark.parametrize(
    ("wire", "field"), [("", "bMessageType"), ("52", "bMessageType"), ("51 00", "bSeq")]
)
def test_malformed_events(wire: str, field: str) -> None:
    with pytest.raises(MalformedMessage) as raised:
        parse_event(bytes.fromhex(wire))
    assert raised.value.field == field


# Secrets --------------------------------------------------------------------------------------

PIN = b"\x31\x32\x33\x34\x35\x36\x37\x38"


@pytest.mark.parametrize(
    "message",
    [
        PC_to_RDR_XfrBlock(abData=bytes.fromhex("0020000108") + PIN),
        RDR_to_PC_DataBlock(abData=PIN),
        messages.PC_to_RDR_Escape(abData=PIN),
    ],
    ids=lambda m: type(m).__name__,
)
def test_repr_shows_no_data(message: Message) -> None:
    assert "31323334" not in repr(message).lower()
    assert "1234" not in repr(message)
    assert "bytes>" in repr(message)


def test_everything_public_is_documented() -> None:
    for name in messages.__all__:
        value = getattr(messages, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
