"""Control codes of PC/SC part 10, and PIN pads: a reader whose keys a script presses."""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.codec.messages import (
    PC_to_RDR_Secure,
    PC_to_RDR_XfrBlock,
    PinModification,
    PinVerification,
    RDR_to_PC_DataBlock,
)
from ccid.codes import CommandStatus, ExchangeLevel, SlotError
from ccid.device.control import ControlCode, control
from ccid.iso7816.error_detection import LRC
from ccid.known.quirks import Quirks
from ccid.pcsc.ifd import Action, Code, IFDHandler
from ccid.pin import pad_structures as pin
from ccid.session.exchange.pin_entry import CANCELLED_SW, TIMEOUT_SW
from ccid.trace.log import TRAFFIC
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.exchange_levels import addressed
from ccid.virtual.virtual_slot import VirtualSlot

PIN = b"1234"


def parse_verify(data: bytes) -> PinVerification:
    """Parse as for a reader without quirks."""
    structure = pin.verification(data, Quirks()).structure
    assert isinstance(structure, PinVerification)
    return structure


def parse_modify(data: bytes) -> PinModification:
    """Parse as for a reader without quirks."""
    structure = pin.modification(data, Quirks()).structure
    assert isinstance(structure, PinModification)
    return structure


VERIFY_APDU = bytes.fromhex("0020008108") + b"\xff" * 8
MODIFY_APDU = bytes.fromhex("0024008110") + b"\xff" * 16
OK = b"\x90\x00"


def verify_structure(apdu: bytes = VERIFY_APDU, **fields: int) -> bytes:
    """PIN_VERIFY_STRUCTURE, field by field."""
    value = {
        "bTimerOut": 30, "bTimerOut2": 7, "bmFormatString": 0x82, "bmPINBlockString": 0x04,
        "bmPINLengthFormat": 0x00, "wPINMaxExtraDigit": 0x0408, "bEntryValidationCondition": 2,
        "bNumberMessage": 1, "wLangId": 0x0409, "bMsgIndex": 5, **fields,
    }  # fmt: skip
    head = struct.pack("<BBBBBHBBHB", *list(value.values())[:10])
    length = fields.get("ulDataLength", len(apdu))
    return head + bytes.fromhex("A1A2A3") + struct.pack("<I", length) + apdu


def modify_structure(apdu: bytes = MODIFY_APDU, messages: int = 3, length: int = -1) -> bytes:
    """PIN_MODIFY_STRUCTURE."""
    head = struct.pack(
        "<BBBBBBBHBBBHBBB", 30, 7, 0x82, 4, 0, 1, 2, 0x0408, 1, 2, messages, 0x0409, 11, 12, 13
    )
    size = len(apdu) if length < 0 else length
    return head + bytes.fromhex("A1A2A3") + struct.pack("<I", size) + apdu


class PinPad(CcidFunction):
    """A reader with a PIN pad. ``presses`` lists what the person does, one entry after the other: a
    PIN, or the bError of a missing entry."""

    presses: list[bytes | SlotError]
    secured: list[bytes]

    def bulk_out(self, data: bytes, now: float) -> None:
        if data[:1] != bytes([PC_to_RDR_Secure.bMessageType]):
            super().bulk_out(data, now)
            return
        self.secured.append(data)
        done = self.presses.pop(0)
        body, bStatus, bError = b"", 0, 0
        if isinstance(done, SlotError):
            bStatus, bError = CommandStatus.FAILED << 6, done
        else:
            body = self._exchange(data, done)
        head = struct.pack("<BIBBBBB", 0x80, len(body), data[5], data[6], bStatus, bError, 0)
        self._say(head + body, now)
        self.on_change()

    def _exchange(self, data: bytes, pin: bytes) -> bytes:
        prologue, apdu = data[22:25], data[25:] if data[10] == 0 else data[28:]
        sw = OK if pin == PIN else b"\x63\xc2"
        if not self.is_blockwise:
            return sw
        assert prologue[2] == len(apdu)
        block = bytes((0, prologue[1] & 0x40, 2)) + sw
        return block + LRC[0](block)

    is_blockwise = False


def pad(
    *presses: bytes | SlotError, level: ExchangeLevel = ExchangeLevel.SHORT_APDU, **fields: Any
) -> tuple[ccid.VirtualReader, PinPad]:
    descriptor = make_descriptor(level, **{"bPINSupport": 3, "wLcdLayout": 0x0210, **fields})
    function = PinPad(descriptor, [EchoCard()])
    function.presses, function.secured = list(presses), []
    return ccid.VirtualReader(functions=[function]), function


def with_card(virtual: ccid.VirtualReader, code: int, requests: Sequence[bytes]) -> list[bytes]:
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect():
        return [reader.slots[0].control(code, data) for data in requests]


# Features and properties ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("support", "tags"),
    [(0, [0x12]), (1, [0x06, 0x0A, 0x12]), (2, [0x07, 0x0A, 0x12]), (3, [0x06, 0x07, 0x0A, 0x12])],
)
@pytest.mark.parametrize("escape", [False, True])
def test_features(support: int, tags: list[int], escape: bool) -> None:
    virtual, _ = pad(bPINSupport=support)
    with ccid.open_reader(virtual) as reader:
        for code in (0x42000D48, 0x00313520):
            answer = control(reader.slots[0], code, b"", escape=escape)
            found = [struct.unpack_from(">BBI", answer, i) for i in range(0, len(answer), 6)]
            assert [tag for tag, _, _ in found] == [*tags, *([0x13] if escape else [])]
            for tag, length, value in found:
                wanted = 0x42000001 if tag == 0x13 else 0x42330000 + tag
                assert (length, value) == (4, wanted)


@pytest.mark.parametrize(
    ("level", "protocols", "longest"),
    [
        (ExchangeLevel.CHARACTER, 3, 0x10000),
        (ExchangeLevel.CHARACTER, 1, 0),
        (ExchangeLevel.TPDU, 2, 0x10000),
        (ExchangeLevel.TPDU, 1, 0x10000),  # by ENVELOPE
        (ExchangeLevel.SHORT_APDU, 3, 0),
        (ExchangeLevel.EXTENDED_APDU, 1, 0x10000),
    ],
)
def test_how_long_an_apdu_may_be(level: ExchangeLevel, protocols: int, longest: int) -> None:
    """dwMaxAPDUDataSize is 0 where no extended APDU gets through."""
    descriptor = make_descriptor(level, dwProtocols=protocols)
    with ccid.open_reader(ccid.VirtualReader(descriptor=descriptor)) as reader:
        told = reader.slots[0].control(ControlCode.GET_TLV_PROPERTIES)
    assert told.endswith(b"\x0a\x04" + longest.to_bytes(4, "little"))


def test_properties() -> None:
    virtual, _ = pad()
    (answer,) = with_card(virtual, ControlCode.GET_TLV_PROPERTIES, [b""])
    assert answer.hex() == (
        "0102100204021000050202000301000901010b0209120c0201000a0400000000"
    )  # fmt: skip
    plain, _ = pad(wLcdLayout=0, level=ExchangeLevel.EXTENDED_APDU)
    (answer,) = with_card(plain, ControlCode.GET_TLV_PROPERTIES, [b""])
    assert answer.hex() == "010200000301000901010b0209120c0201000a0400000100"
    (answer,) = with_card(virtual, ControlCode.IFD_PIN_PROPERTIES, [b""])
    assert answer.hex() == "10020700"


def test_codes_that_there_are_not() -> None:
    virtual, _ = pad()
    with ccid.open_reader(virtual) as reader:
        for code in (0, 0x42000000, 0x42330001, 0x42330009, ControlCode.USB_PATH):
            with pytest.raises(errors.UnsupportedByReader):
                reader.slots[0].control(code)


def test_escape() -> None:
    sent: list[bytes] = []
    virtual = ccid.VirtualReader(escape=lambda data: sent.append(data) or b"answer")  # type: ignore[func-returns-value]
    with ccid.open_reader(virtual) as reader:
        slot = reader.slots[0]
        assert slot.control(ControlCode.ESCAPE, b"\x01\x02") == b"answer"
        with pytest.raises(errors.AccessDenied):
            control(slot, ControlCode.ESCAPE, b"", escape=False)
        secoder = bytes.fromhex("2070000000")
        assert control(slot, ControlCode.MCT_READER_DIRECT, secoder, escape=False) == b"answer"
        for bad in ("", "20700000", "2075000000", "2170000000", "2070010000", "2070000001"):
            with pytest.raises(errors.MalformedMessage):
                slot.control(ControlCode.MCT_READER_DIRECT, bytes.fromhex(bad))
    assert sent == [b"\x01\x02", secoder]


# PIN entry ------------------------------------------------------------------------------------


def test_a_verification_on_the_wire() -> None:
    virtual, function = pad(PIN)
    assert with_card(virtual, ControlCode.VERIFY_PIN_DIRECT, [verify_structure()]) == [OK]
    (message,) = function.secured
    assert message[:1] == b"\x69"
    assert int.from_bytes(message[1:5], "little") == 15 + len(VERIFY_APDU)
    assert message[7:10] == bytes(3)
    assert message[10:25].hex() == "001e82040008040201090405a1a2a3"
    assert message[25:] == VERIFY_APDU


@pytest.mark.parametrize(
    ("messages", "indices"), [(0, "0b"), (1, "0b0c"), (2, "0b0c"), (3, "0b0c0d"), (0xFF, "0b0c0d")]
)
def test_a_modification_on_the_wire(messages: int, indices: str) -> None:
    virtual, function = pad(PIN)
    request = modify_structure(messages=messages)
    assert with_card(virtual, ControlCode.MODIFY_PIN_DIRECT, [request]) == [OK]
    (message,) = function.secured
    fields = "011e820400010208040102" + f"{messages:02x}" + "0904"
    assert message[10:].hex() == fields + indices + "a1a2a3" + MODIFY_APDU.hex()
    assert int.from_bytes(message[1:5], "little") == len(message) - 10


@pytest.mark.parametrize(
    "level", [ExchangeLevel.TPDU, ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU]
)
def test_what_people_do(level: ExchangeLevel) -> None:
    presses: list[bytes | SlotError] = [
        PIN,
        b"0000",
        SlotError.PIN_CANCELLED,
        SlotError.PIN_TIMEOUT,
        PIN,
    ]
    virtual, _ = pad(*presses, level=level, dwProtocols=1)
    answers = with_card(virtual, ControlCode.VERIFY_PIN_DIRECT, [verify_structure()] * 5)
    assert answers == [OK, b"\x63\xc2", CANCELLED_SW, TIMEOUT_SW, OK]


def test_in_python_without_a_control_code() -> None:
    virtual, _ = pad(PIN, SlotError.PIN_CANCELLED)
    structure = parse_verify(verify_structure())
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect():
        assert reader.slots[0].verify_pin(structure) == OK
        assert reader.slots[0].verify_pin(parse_modify(modify_structure())) == CANCELLED_SW


def test_a_reader_that_does_not_like_the_structure() -> None:
    virtual, _ = pad(SlotError(0xF4), SlotError.CMD_NOT_SUPPORTED)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect():
        with pytest.raises(errors.CommandFailed):
            reader.slots[0].control(ControlCode.VERIFY_PIN_DIRECT, verify_structure())
        with pytest.raises(errors.UnsupportedByReader):
            reader.slots[0].control(ControlCode.VERIFY_PIN_DIRECT, verify_structure())


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (parse_verify, b""),
        (parse_verify, verify_structure()[:22]),
        (parse_verify, verify_structure(b"\x00\x20\x00")),
        (parse_verify, verify_structure(ulDataLength=12)),
        (parse_verify, verify_structure(ulDataLength=0x0D000000)),
        (parse_modify, modify_structure()[:27]),
        (parse_modify, modify_structure(length=3)),
        (parse_modify, modify_structure(messages=4)),
        (parse_modify, modify_structure(messages=0xFE)),
    ],
)
def test_structures_that_are_refused(parse: Any, data: bytes) -> None:
    with pytest.raises(errors.MalformedMessage):
        parse(data)


@pytest.mark.parametrize(("given", "sent"), [(0, 2), (1, 1), (7, 7), (8, 2), (255, 2)])
def test_a_validation_that_has_no_meaning(given: int, sent: int) -> None:
    parsed = parse_verify(verify_structure(bEntryValidationCondition=given))
    assert parsed.bEntryValidationCondition == sent


# T=1 at TPDU level ----------------------------------------------------------------------------


class Blockwise(PinPad):
    """A reader at TPDU level with T=1: the card answers blocks."""

    is_blockwise = True

    def _transfer(self, slot: VirtualSlot, message: bytes, now: float) -> tuple[bytes, float]:
        """S-blocks are confirmed; an I-block is answered by 9000."""
        command = PC_to_RDR_XfrBlock.parse(message)
        pcb = command.abData[1]
        if pcb >= 0xC0:
            block = bytes((0, pcb | 0x20)) + command.abData[2:-1]
        else:
            block = bytes((0, pcb & 0x40, 2)) + OK
        reply = RDR_to_PC_DataBlock(abData=block + LRC[0](block))
        return addressed(slot, command, reply).build(), now


def t1_pad(*presses: bytes | SlotError) -> tuple[ccid.VirtualReader, Blockwise]:
    descriptor = make_descriptor(ExchangeLevel.TPDU, bPINSupport=3)
    function = Blockwise(descriptor, [EchoCard()])
    function.presses, function.secured = list(presses), []
    return ccid.VirtualReader(functions=[function]), function


def test_the_prologue_is_the_hosts_at_tpdu_level() -> None:
    """N(S) alternates over PIN entries and APDUs alike. A PIN entry that ended without a PIN does
    not count."""
    virtual, function = t1_pad(PIN, SlotError.PIN_CANCELLED, b"9999", SlotError.PIN_TIMEOUT)
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.protocol is ccid.Protocol.T1

        def verify() -> bytes:
            return reader.slots[0].control(ControlCode.VERIFY_PIN_DIRECT, verify_structure())

        assert verify() == OK
        assert card.transmit(bytes.fromhex("00A40400")) == OK
        assert verify() == CANCELLED_SW
        assert verify() == b"\x63\xc2"
        assert verify() == TIMEOUT_SW
        assert card.transmit(bytes.fromhex("00A40400")) == OK
    prologues = [message[22:25].hex() for message in function.secured]
    assert prologues == ["00000d", "00000d", "00000d", "00400d"]


def test_a_pin_command_that_does_not_fit_into_a_block() -> None:
    virtual, function = t1_pad(PIN)
    long = verify_structure(bytes.fromhex("00200081FB") + bytes(0xFB))
    with ccid.open_reader(virtual) as reader, reader.slots[0].connect() as card:
        assert card.agreement.t1 is not None
        card.agreement.t1.ifsc = 32
        with pytest.raises(errors.UnsupportedByReader, match="one block"):
            reader.slots[0].control(ControlCode.VERIFY_PIN_DIRECT, long)
        assert function.secured == []


# Through the IFD handler ----------------------------------------------------------------------

LUN = 0


def handler(virtual: ccid.VirtualReader, **options: Any) -> IFDHandler:
    made = IFDHandler(find=lambda *_: virtual.info, **options)
    assert made.create_channel_by_name(LUN, "virtual:") is Code.SUCCESS
    assert made.power_icc(LUN, Action.POWER_UP)[0] is Code.SUCCESS
    assert made.set_protocol_parameters(LUN, 2) is Code.SUCCESS
    return made


def test_codes_of_the_handler() -> None:
    cancelled = SlotError.PIN_CANCELLED
    virtual, _ = pad(PIN, cancelled, cancelled, SlotError.CMD_NOT_SUPPORTED)
    made = handler(virtual)
    ask = made.control
    verify = ControlCode.VERIFY_PIN_DIRECT
    short = (Code.ERROR_INSUFFICIENT_BUFFER, b"")
    try:
        assert ask(LUN, ControlCode.GET_FEATURE_REQUEST, b"", 35) == short
        assert ask(LUN, ControlCode.GET_FEATURE_REQUEST, b"", 36)[0] is Code.SUCCESS
        assert ask(LUN, ControlCode.IFD_PIN_PROPERTIES, b"", 3) == short
        assert ask(LUN, ControlCode.IFD_PIN_PROPERTIES, b"", 4)[0] is Code.SUCCESS
        assert ask(LUN, ControlCode.GET_TLV_PROPERTIES, b"", 5) == short
        assert ask(LUN, verify, verify_structure(), 10) == (Code.SUCCESS, OK)
        assert ask(LUN, verify, verify_structure(), 2) == (Code.SUCCESS, CANCELLED_SW)
        assert ask(LUN, verify, verify_structure(), 1) == short
        assert ask(LUN, verify, verify_structure(), 10) == (Code.COMMUNICATION_ERROR, b"")
        assert ask(LUN, verify, b"\x00", 10) == (Code.NOT_SUPPORTED, b"")
        bad = (Code.COMMUNICATION_ERROR, b"")
        assert ask(LUN, ControlCode.MCT_READER_DIRECT, b"\x00", 10) == bad
        assert ask(LUN, ControlCode.ESCAPE, b"\x02", 10) == bad
        assert ask(LUN, ControlCode.USB_PATH, b"", 100) == bad
        assert ask(LUN, 0x42330001, b"", 100) == (Code.ERROR_NOT_SUPPORTED, b"")
    finally:
        made.close()


def test_escape_is_an_option() -> None:
    virtual = ccid.VirtualReader(EchoCard(), escape=lambda data: data[::-1])
    made = handler(virtual, escape=True)
    assert made.control(LUN, ControlCode.ESCAPE, b"\x01\x02", 2) == (Code.SUCCESS, b"\x02\x01")
    short = (Code.ERROR_INSUFFICIENT_BUFFER, b"")
    assert made.control(LUN, ControlCode.ESCAPE, b"\x01\x02", 1) == short
    made.close()


# Secrets --------------------------------------------------------------------------------------


def test_what_surrounds_a_pin_is_in_no_log_trace_or_repr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marker = bytes.fromhex("DEADBEEFCAFE")
    apdu = bytes.fromhex("0020008106") + marker
    virtual, _ = pad(PIN, SlotError(0xF4))
    caplog.set_level(TRAFFIC, "ccid.traffic")
    logging.getLogger("ccid.traffic").setLevel(TRAFFIC)
    trace = tmp_path / "trace.pcapng"
    try:
        with ccid.open_reader(virtual) as reader, reader.slots[0].connect():
            with reader.trace(str(trace)):
                slot = reader.slots[0]
                assert slot.control(ControlCode.VERIFY_PIN_DIRECT, verify_structure(apdu)) == OK
                with pytest.raises(errors.CommandFailed) as failed:
                    slot.control(ControlCode.VERIFY_PIN_DIRECT, verify_structure(apdu))
    finally:
        logging.getLogger("ccid.traffic").setLevel(logging.NOTSET)
    texts = [caplog.text, str(failed.value), repr(failed.value), repr(parse_verify(
        verify_structure(apdu)))]  # fmt: skip
    for text in texts:
        assert "deadbeef" not in text.lower().replace(" ", "")
    assert trace.stat().st_size > 500
    assert marker not in trace.read_bytes()


def test_the_structures_are_those_of_the_messages() -> None:
    assert isinstance(parse_verify(verify_structure()), PinVerification)
    assert isinstance(parse_modify(modify_structure()), PinModification)
