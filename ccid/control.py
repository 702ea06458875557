"""What PC/SC asks of a reader beyond APDUs: control codes and the features of its part 10.

A PIN pad's structures are translated into those of USB CCID rev 1.1, 6.1.11; they are nearly the
same. Every byte string here may come from an application, so each is checked before it is sent.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from ccid.codes import ExchangeLevel, PinSupport
from ccid.errors import AccessDenied, MalformedMessage, UnsupportedByReader
from ccid.exchange.pin import PinStructure, enter_pin
from ccid.messages.structures import PinModification, PinVerification

if TYPE_CHECKING:
    from ccid.reader import Slot

BASE = 0x4200_0000
"""SCARD_CTL_CODE(0), as pcsc-lite has it on every system."""


class Feature(IntEnum):
    """Features of a reader (PC/SC part 10, 2.3)."""

    VERIFY_PIN_DIRECT = 0x06
    MODIFY_PIN_DIRECT = 0x07
    MCT_READER_DIRECT = 0x08
    IFD_PIN_PROPERTIES = 0x0A
    GET_TLV_PROPERTIES = 0x12
    CCID_ESC_COMMAND = 0x13


class ControlCode(IntEnum):
    """Codes that :func:`control` knows."""

    ESCAPE = BASE + 1
    GET_FEATURE_REQUEST = BASE + 3400
    WINDOWS_GET_FEATURE_REQUEST = 0x0031_3520  # as remote desktops pass it on
    USB_PATH = BASE + 3601
    VERIFY_PIN_DIRECT = BASE + 0x33_0000 + Feature.VERIFY_PIN_DIRECT
    MODIFY_PIN_DIRECT = BASE + 0x33_0000 + Feature.MODIFY_PIN_DIRECT
    MCT_READER_DIRECT = BASE + 0x33_0000 + Feature.MCT_READER_DIRECT
    IFD_PIN_PROPERTIES = BASE + 0x33_0000 + Feature.IFD_PIN_PROPERTIES
    GET_TLV_PROPERTIES = BASE + 0x33_0000 + Feature.GET_TLV_PROPERTIES


class Property(IntEnum):
    """Tags of GET_TLV_PROPERTIES (PC/SC part 10, 2.6.14)."""

    wLcdLayout = 0x01
    bEntryValidationCondition = 0x02
    bTimeOut2 = 0x03
    wLcdMaxCharacters = 0x04
    wLcdMaxLines = 0x05
    bMinPINSize = 0x06
    bMaxPINSize = 0x07
    sFirmwareID = 0x08
    bPPDUSupport = 0x09
    dwMaxAPDUDataSize = 0x0A
    wIdVendor = 0x0B
    wIdProduct = 0x0C


VERIFY = struct.Struct("<BBBBBHBBHB3sI")
"""PIN_VERIFY_STRUCTURE up to its data (PC/SC part 10, 2.5.2)."""
MODIFY = struct.Struct("<BBBBBBBHBBBHBBB3sI")
"""PIN_MODIFY_STRUCTURE up to its data (PC/SC part 10, 2.5.3)."""
MIN_APDU = 4
VALIDATION_KEY_PRESSED = 0x02
"""bEntryValidationCondition that stands for one that has no meaning."""
ALL_VALIDATIONS = 0x07
MAX_APDU_DATA = 0x10000


def control(slot: Slot, code: int, data: bytes, *, escape: bool = True) -> bytes:
    """Carry out a control code.

    Args:
        slot: Where.
        code: One of :class:`ControlCode`.
        data: What it is given.
        escape: Escape commands of the application's own are allowed.

    Raises:
        UnsupportedByReader: This reader, or this library, does not know the code.
        MalformedMessage: The data are not what the code takes.
        AccessDenied: It would be an Escape, and those are not allowed.
        CommandFailed, CardAbsent, CardMute, ProtocolError: It did not succeed.
    """
    match code:
        case ControlCode.GET_FEATURE_REQUEST | ControlCode.WINDOWS_GET_FEATURE_REQUEST:
            return features(slot, escape=escape)
        case ControlCode.VERIFY_PIN_DIRECT:
            return verify_pin(slot, parse_verify(data))
        case ControlCode.MODIFY_PIN_DIRECT:
            return verify_pin(slot, parse_modify(data))
        case ControlCode.IFD_PIN_PROPERTIES:
            return struct.pack("<HBB", slot.reader.descriptor.wLcdLayout, ALL_VALIDATIONS, 0)
        case ControlCode.GET_TLV_PROPERTIES:
            return properties(slot, escape=escape)
        case ControlCode.MCT_READER_DIRECT:
            return slot.escape(_secoder(data))
        case ControlCode.ESCAPE:
            if not escape:
                raise AccessDenied(
                    f"{slot.reader.name}: Escape commands are not allowed here",
                    cure="set bit 0 of ifdDriverOptions in the driver's Info.plist",
                    reader=slot.reader.name,
                )
            return slot.escape(data)
        case ControlCode.USB_PATH if slot.reader.info.path.startswith("usb:"):
            return slot.reader.info.path.removeprefix("usb:").encode() + b"\0"
    raise UnsupportedByReader(
        f"{slot.reader.name}: there is no control code 0x{code:08X}",
        reader=slot.reader.name,
        slot=slot.index,
    )


# What there is --------------------------------------------------------------------------------


def features(slot: Slot, *, escape: bool = True) -> bytes:
    """The answer to GET_FEATURE_REQUEST: tag, length and control code of each feature."""
    support = slot.reader.descriptor.bPINSupport
    offered = []
    if support & PinSupport.VERIFICATION:
        offered.append((Feature.VERIFY_PIN_DIRECT, ControlCode.VERIFY_PIN_DIRECT))
    if support & PinSupport.MODIFICATION:
        offered.append((Feature.MODIFY_PIN_DIRECT, ControlCode.MODIFY_PIN_DIRECT))
    if support:
        offered.append((Feature.IFD_PIN_PROPERTIES, ControlCode.IFD_PIN_PROPERTIES))
    offered.append((Feature.GET_TLV_PROPERTIES, ControlCode.GET_TLV_PROPERTIES))
    if escape:
        offered.append((Feature.CCID_ESC_COMMAND, ControlCode.ESCAPE))
    return b"".join(struct.pack(">BBI", tag, 4, code) for tag, code in offered)


def properties(slot: Slot, *, escape: bool = True) -> bytes:
    """The answer to GET_TLV_PROPERTIES: tag, length and value of each property, little-endian."""
    reader = slot.reader
    layout = reader.descriptor.wLcdLayout
    level = reader.descriptor.exchange_level
    found: list[tuple[Property, int, int]] = [(Property.wLcdLayout, 2, layout)]
    if layout:
        found.append((Property.wLcdMaxCharacters, 2, layout & 0xFF))
        found.append((Property.wLcdMaxLines, 2, layout >> 8))
    found.append((Property.bTimeOut2, 1, 0))
    found.append((Property.bPPDUSupport, 1, int(escape)))
    found.append((Property.wIdVendor, 2, reader.info.vendor_id))
    found.append((Property.wIdProduct, 2, reader.info.product_id))
    is_long = level in (ExchangeLevel.TPDU, ExchangeLevel.EXTENDED_APDU)
    found.append((Property.dwMaxAPDUDataSize, 4, MAX_APDU_DATA if is_long else 0))
    return b"".join(
        bytes((tag, size)) + value.to_bytes(size, "little") for tag, size, value in found
    )


def _secoder(data: bytes) -> bytes:
    """``data`` if it is a command for a reader with such a display of its own.

    Raises:
        MalformedMessage: It is not.
    """
    if len(data) < 5 or data[0] != 0x20 or not 0x70 <= data[1] <= 0x74 or any(data[2:5]):
        raise MalformedMessage("MCT_READER_DIRECT takes commands 20 70…74 00 00 00", field="CLA")
    return data


# The PIN --------------------------------------------------------------------------------------


def verify_pin(slot: Slot, structure: PinStructure) -> bytes:
    """Have a PIN entered at the reader for the command in ``structure``; see
    :func:`ccid.exchange.pin.enter_pin`."""
    agreement = slot.card.agreement if slot.card is not None else None
    return enter_pin(slot.commands, agreement, structure)


def _apdu(name: str, data: bytes, head: struct.Struct, length: int) -> bytes:
    """The command behind a structure's head.

    Raises:
        MalformedMessage: ulDataLength is not its length.
    """
    apdu = data[head.size :]
    if len(apdu) < MIN_APDU or length != len(apdu):
        raise MalformedMessage(
            f"{name}: ulDataLength {length}, {len(apdu)} bytes follow", field="ulDataLength"
        )
    return apdu


def _checked(name: str, data: bytes, head: struct.Struct) -> tuple[Any, ...]:
    if len(data) < head.size + MIN_APDU:
        raise MalformedMessage(
            f"{name} of {len(data)} bytes; with a command it has {head.size + MIN_APDU} at least",
            field="ulDataLength",
        )
    return head.unpack_from(data)


def _validation(condition: int) -> int:
    return condition if 1 <= condition <= ALL_VALIDATIONS else VALIDATION_KEY_PRESSED


def parse_verify(data: bytes) -> PinVerification:
    """PIN_VERIFY_STRUCTURE as the reader takes it; bTimerOut2 is nobody's concern there.

    Raises:
        MalformedMessage: Its lengths do not agree.
    """
    name = "PIN_VERIFY_STRUCTURE"
    timeout, _, form, block, size, extra, valid, count, lang, index, prologue, length = _checked(
        name, data, VERIFY
    )
    return PinVerification(
        bTimeOut=timeout,
        bmFormatString=form,
        bmPINBlockString=block,
        bmPINLengthFormat=size,
        wPINMaxExtraDigit=extra,
        bEntryValidationCondition=_validation(valid),
        bNumberMessage=count,
        wLangId=lang,
        bMsgIndex=index,
        bTeoPrologue=prologue,
        abPINApdu=_apdu(name, data, VERIFY, length),
    )


def parse_modify(data: bytes) -> PinModification:
    """PIN_MODIFY_STRUCTURE as the reader takes it: message indices as many as bNumberMessage
    wants.

    Raises:
        MalformedMessage: Its lengths do not agree, or bNumberMessage has no meaning.
    """
    name = "PIN_MODIFY_STRUCTURE"
    (
        timeout, _, form, block, size, old, new, extra, confirm, valid, count, lang, first, second,
        third, prologue, length,
    ) = _checked(name, data, MODIFY)  # fmt: skip
    if count > 3 and count != 0xFF:
        raise MalformedMessage(f"{name}: bNumberMessage {count}", field="bNumberMessage")
    return PinModification(
        bTimeOut=timeout,
        bmFormatString=form,
        bmPINBlockString=block,
        bmPINLengthFormat=size,
        bInsertionOffsetOld=old,
        bInsertionOffsetNew=new,
        wPINMaxExtraDigit=extra,
        bConfirmPIN=confirm,
        bEntryValidationCondition=_validation(valid),
        bNumberMessage=count,
        wLangId=lang,
        bMsgIndex1=first,
        bMsgIndex2=second if count else None,
        bMsgIndex3=third if count >= 3 else None,
        bTeoPrologue=prologue,
        abPINApdu=_apdu(name, data, MODIFY, length),
    )
