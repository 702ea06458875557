"""Quirks of control codes and PIN pads, end to end."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

import ccid
from ccid import Slot
from ccid.codec.messages import PC_to_RDR_Escape, PinModification, PinVerification
from ccid.codec.messages.structures import PinModificationAllIndexes
from ccid.codes import ExchangeLevel, IccStatus, SlotError
from ccid.device.control import ControlCode, Feature, control
from ccid.errors import AccessDenied, CardReset, MalformedMessage, UnsupportedByReader
from ccid.pin import pad_structures as pin
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.faults import failing
from tests.unit.quirk_bench import Table, covers
from tests.unit.test_control import PIN, PinPad, modify_structure, verify_structure

IDS = "08e6:3478"


def reader() -> tuple[ccid.VirtualReader, list[bytes]]:
    """A reader whose Escape ``02`` returns its firmware version; the reader records all Escapes."""
    heard: list[bytes] = []

    def escape(data: bytes) -> bytes:
        heard.append(data)
        return b"GemTwRC7-V2.12" if data == b"\x02" else bytes(len(data))

    virtual = ccid.VirtualReader(EchoCard(), vendor_id=0x08E6, product_id=0x3478, escape=escape)
    return virtual, heard


def properties(data: bytes) -> dict[int, bytes]:
    found, offset = {}, 0
    while offset < len(data):
        tag, size = data[offset : offset + 2]
        found[tag] = data[offset + 2 : offset + 2 + size]
        offset += 2 + size
    return found


def told(virtual: ccid.VirtualReader) -> dict[int, bytes]:
    with ccid.open_reader(virtual) as opened:
        return properties(control(opened.slots[0], ControlCode.GET_TLV_PROPERTIES, b""))


@covers("firmware-escape")
def test_the_firmware_is_asked_for(table: Table) -> None:
    virtual, _ = reader()
    table.without(IDS)
    assert 0x08 not in told(virtual)
    table.only(IDS, 'firmware-escape = "02"')
    assert told(virtual)[0x08] == b"GemTwRC7-V2.12"


@covers("escapes-allowed")
def test_a_harmless_escape_needs_no_permission(table: Table) -> None:
    virtual, heard = reader()

    def ask(data: bytes) -> bytes:
        with ccid.open_reader(virtual) as opened:
            return control(opened.slots[0], ControlCode.ESCAPE, data, escape=False)

    table.without(IDS)
    with pytest.raises(AccessDenied):
        ask(b"\x02")
    table.only(IDS, 'escapes-allowed = ["02"]')
    assert ask(b"\x02") == b"GemTwRC7-V2.12"
    with pytest.raises(AccessDenied):
        ask(b"\x03")
    assert heard == [b"\x02"]


@covers("mct-reader-direct")
def test_mct_reader_direct_is_offered(table: Table) -> None:
    virtual, _ = reader()

    def offered() -> list[int]:
        with ccid.open_reader(virtual) as opened:
            found = control(opened.slots[0], ControlCode.GET_FEATURE_REQUEST, b"")
        return [tag for tag, _, _ in struct.iter_unpack(">BBI", found)]

    table.without(IDS)
    assert Feature.MCT_READER_DIRECT not in offered()
    table.only(IDS, "mct-reader-direct = true")
    assert Feature.MCT_READER_DIRECT in offered()


class Fussy(PinPad):
    """A PIN pad that accepts a verification only with one message."""

    def _exchange(self, data: bytes, pin: bytes) -> bytes:
        return super()._exchange(data, pin) if data[18] == 1 else b"\x6b\x80"


def test_a_pin_pad_gets_what_it_takes(table: Table) -> None:
    """PC_to_RDR_Secure carries the structure that :mod:`ccid.pin.pad_structures` makes."""
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bPINSupport=3)

    def verify() -> bytes:
        function = Fussy(descriptor, [EchoCard()])
        function.presses, function.secured = [PIN], []
        virtual = ccid.VirtualReader(functions=[function], vendor_id=0x08E6, product_id=0x3478)
        with ccid.open_reader(virtual) as opened, opened.slots[0].connect():
            request = verify_structure(bNumberMessage=3)
            return opened.slots[0].control(ControlCode.VERIFY_PIN_DIRECT, request)

    table.without(IDS)
    assert verify() == b"\x6b\x80"
    table.only(IDS, "pin-verify-bNumberMessage = 1")
    assert verify() == b"\x90\x00"


def test_a_reader_that_refuses_to_tell_its_firmware(table: Table) -> None:
    virtual = ccid.VirtualReader(EchoCard(), vendor_id=0x08E6, product_id=0x3478)
    table.only(IDS, 'firmware-escape = "02"')
    assert 0x08 not in told(virtual)
    with ccid.open_reader(virtual) as opened, pytest.raises(UnsupportedByReader):
        opened.slots[0].escape(b"\x02")


class HeldKey(PinPad):
    """The Enter key that began the entry is still held down, and ends the entry."""

    released_at = 0.0

    def bulk_out(self, data: bytes, now: float) -> None:
        if data[:1] == b"\x69" and now < self.released_at:
            self.presses[0] = SlotError.PIN_TIMEOUT
        super().bulk_out(data, now)


def test_a_key_that_is_still_down(table: Table) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bPINSupport=3)

    def verify() -> bytes:
        function = HeldKey(descriptor, [EchoCard()])
        function.presses, function.secured = [PIN], []
        virtual = ccid.VirtualReader(functions=[function], vendor_id=0x08E6, product_id=0x3478)
        with ccid.open_reader(virtual) as opened, opened.slots[0].connect():
            function.released_at = virtual.port.now() + 0.15
            return opened.slots[0].control(ControlCode.VERIFY_PIN_DIRECT, verify_structure())

    table.without(IDS)
    assert verify() == b"\x64\x00"
    table.only(IDS, "pin-delay-s = 0.25")
    assert verify() == b"\x90\x00"


class AppendsOnRequest(PinPad):
    """A PIN pad that adds a PIN to a bare header only after an Escape."""

    appends = False

    def _exchange(self, data: bytes, pin: bytes) -> bytes:
        return super()._exchange(data, pin) if self.appends else b"\x6b\x80"


def test_a_pin_behind_a_bare_header(table: Table) -> None:
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bPINSupport=3)

    def verify() -> bytes:
        function = AppendsOnRequest(descriptor, [EchoCard()])

        def escape(data: bytes) -> bytes:
            function.appends = data == b"\x80\x02\x00"
            return b"\0"

        function.escape = escape
        function.presses, function.secured = [PIN], []
        virtual = ccid.VirtualReader(functions=[function], vendor_id=0x08E6, product_id=0x3478)
        request = verify_structure(bytes.fromhex("00200081"), bmPINBlockString=0)
        with ccid.open_reader(virtual) as opened, opened.slots[0].connect():
            return opened.slots[0].control(ControlCode.VERIFY_PIN_DIRECT, request)

    table.without(IDS)
    assert verify() == b"\x6b\x80"
    table.only(IDS, 'pin-case1-escape = "80 02 00"')
    assert verify() == b"\x90\x00"


def test_a_reset_under_us_before_the_pin_is_told_as_one(table: Table) -> None:
    """The Escape before PC_to_RDR_Secure shows the reset. bmICCStatus 1: the card is present, and
    has no power."""
    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bPINSupport=3)
    function = AppendsOnRequest(descriptor, [EchoCard()], escape=lambda _: b"\0")
    virtual = ccid.VirtualReader(functions=[function], vendor_id=0x08E6, product_id=0x3478)
    request = verify_structure(bytes.fromhex("00200081"), bmPINBlockString=0)
    table.only(IDS, 'pin-case1-escape = "80 02 00"')
    with ccid.open_reader(virtual) as opened, opened.slots[0].connect():
        (slot,) = opened.slots
        fault = failing(SlotError.ICC_MUTE, IccStatus.INACTIVE, on=PC_to_RDR_Escape)
        virtual.faults.append(fault)
        with pytest.raises(CardReset):
            slot.control(ControlCode.VERIFY_PIN_DIRECT, request)
        assert slot.card is None


def test_what_is_told_of_a_pin_pad(table: Table) -> None:
    virtual, _ = reader()
    table.without(IDS)
    assert not told(virtual).keys() & {0x02, 0x06, 0x07}
    table.only(IDS, "pin-sizes = [4, 8]", "pin-validation-reported = 2")
    found = told(virtual)
    assert (found[0x06], found[0x07], found[0x02]) == (b"\x04", b"\x08", b"\x02")


# Python structures and control codes ----------------------------------------------------------

VERIFY_QUIRKS = (
    "pin-verify-bNumberMessage = 1",
    "pin-bEntryValidationCondition = 2",
    "pin-swap-extra-digit = true",
    'pin-case1-escape = "80 02 00"',
)


@pytest.mark.parametrize("quirks", [(one,) for one in VERIFY_QUIRKS] + [VERIFY_QUIRKS, ()])
@pytest.mark.parametrize(
    "apdu", [bytes.fromhex("00200081"), bytes.fromhex("0020008108") + bytes(8)]
)
def test_a_verification_in_python_is_what_a_control_code_asks_for(
    table: Table, quirks: tuple[str, ...], apdu: bytes
) -> None:
    data = verify_structure(apdu, bmPINBlockString=0, bNumberMessage=3, bEntryValidationCondition=7)
    said = pin.PinVerifyStructure.parse(data)
    structure = PinVerification(
        bTimeOut=said.bTimerOut,
        bmFormatString=said.bmFormatString,
        bmPINBlockString=said.bmPINBlockString,
        bmPINLengthFormat=said.bmPINLengthFormat,
        wPINMaxExtraDigit=said.wPINMaxExtraDigit,
        bEntryValidationCondition=said.bEntryValidationCondition,
        bNumberMessage=said.bNumberMessage,
        wLangId=said.wLangId,
        bMsgIndex=said.bMsgIndex,
        bTeoPrologue=said.bTeoPrologue,
        abPINApdu=said.abData,
    )
    table.only(IDS, *quirks)
    (coded, first), (direct, second) = (
        secured(lambda slot: slot.control(ControlCode.VERIFY_PIN_DIRECT, data)),
        secured(lambda slot: slot.verify_pin(structure)),
    )
    assert direct == coded
    assert second == first
    assert bool(second) is ("80 02 00" in "".join(quirks) and len(apdu) == 4)


MODIFY_QUIRKS = (
    "pin-modify-bNumberMessage = 3",
    "pin-modify-bNumberMessage-for-0 = 255",
    "pin-modify-all-indexes = true",
    "pin-modify-zero-indexes = true",
    "pin-bEntryValidationCondition = 1",
)


@pytest.mark.parametrize("quirks", [(one,) for one in MODIFY_QUIRKS] + [()])
@pytest.mark.parametrize("messages", [0, 1, 2, 3, 0xFF])
def test_a_modification_in_python_is_what_a_control_code_asks_for(
    table: Table, quirks: tuple[str, ...], messages: int
) -> None:
    data = modify_structure(messages=messages)
    said = pin.PinModifyStructure.parse(data)
    structure = PinModificationAllIndexes(
        bTimeOut=said.bTimerOut,
        bmFormatString=said.bmFormatString,
        bmPINBlockString=said.bmPINBlockString,
        bmPINLengthFormat=said.bmPINLengthFormat,
        bInsertionOffsetOld=said.bInsertionOffsetOld,
        bInsertionOffsetNew=said.bInsertionOffsetNew,
        wPINMaxExtraDigit=said.wPINMaxExtraDigit,
        bConfirmPIN=said.bConfirmPIN,
        bEntryValidationCondition=said.bEntryValidationCondition,
        bNumberMessage=said.bNumberMessage,
        wLangId=said.wLangId,
        bMsgIndex1=said.bMsgIndex1,
        bMsgIndex2=said.bMsgIndex2,
        bMsgIndex3=said.bMsgIndex3,
        bTeoPrologue=said.bTeoPrologue,
        abPINApdu=said.abData,
    )
    table.only(IDS, *quirks)
    coded = secured(lambda slot: slot.control(ControlCode.MODIFY_PIN_DIRECT, data))
    assert secured(lambda slot: slot.verify_pin(structure)) == coded


def modification(**fields: int) -> PinModification:
    """A modification that leaves the message indexes out."""
    return PinModification(
        bmFormatString=0,
        bmPINBlockString=0,
        bmPINLengthFormat=0,
        bInsertionOffsetOld=0,
        bInsertionOffsetNew=0,
        wPINMaxExtraDigit=0,
        bConfirmPIN=0,
        bEntryValidationCondition=2,
        bNumberMessage=fields.get("bNumberMessage", 0),
        wLangId=0,
    )


def test_indexes_that_python_leaves_out_are_the_usual_messages(table: Table) -> None:
    """The quirk wants more message indexes on the wire than the structure has."""
    table.only(IDS, "pin-modify-bNumberMessage = 3")
    (message,), _ = secured(lambda slot: slot.verify_pin(modification()))
    assert message[20:26].hex() == "030000000102", "bNumberMessage, wLangId, bMsgIndex1 to 3"


def test_a_number_of_messages_that_there_is_not(table: Table) -> None:
    with pytest.raises(MalformedMessage, match="bNumberMessage 4"):
        secured(lambda slot: slot.verify_pin(modification(bNumberMessage=4)))


def secured(ask: Callable[[Slot], bytes]) -> tuple[list[bytes], list[bytes]]:
    """The Secure messages that a PIN pad gets, without bSeq, and the Escapes before them."""
    escapes: list[bytes] = []

    def escape(data: bytes) -> bytes:
        escapes.append(data)
        return b""

    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, bPINSupport=3)
    function = PinPad(descriptor, [EchoCard()], escape=escape)
    function.presses, function.secured = [PIN], []
    virtual = ccid.VirtualReader(functions=[function], vendor_id=0x08E6, product_id=0x3478)
    with ccid.open_reader(virtual) as opened, opened.slots[0].connect():
        ask(opened.slots[0])
    return [m[:6] + m[7:] for m in function.secured], escapes
