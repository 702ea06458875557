"""What PC/SC asks of a reader beyond APDUs: control codes and the features of its part 10.

A PIN pad's structures are translated by :mod:`ccid.pin.pad_structures`, as the reader at hand takes
them. Every byte string here may come from an application, so each is checked before it is sent.
"""

from __future__ import annotations

import struct
import time
from enum import IntEnum
from typing import TYPE_CHECKING

from ccid.codec.messages import PinModification, PinVerification
from ccid.codes import ExchangeLevel, PinSupport
from ccid.errors import AccessDenied, CcidError, MalformedMessage, UnsupportedByReader
from ccid.known.extended_apdus import NO_EXTENDED, extended_apdus
from ccid.pin import pad_structures
from ccid.session.exchange.pin_entry import PinStructure, enter_pin

if TYPE_CHECKING:
    from ccid.device.slot import Slot

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


MAX_APDU_DATA = 0x10000
MAX_TLV = 255
"""Bytes of a property, whose length is one byte."""


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
            return _enter(
                slot, pad_structures.verification(data, slot.quirks, slot.reader.pin_features)
            )
        case ControlCode.MODIFY_PIN_DIRECT:
            return _enter(
                slot, pad_structures.modification(data, slot.quirks, slot.reader.pin_features)
            )
        case ControlCode.IFD_PIN_PROPERTIES:
            known = pad_structures.properties(slot.quirks, slot.reader.pin_features)
            layout = slot.reader.descriptor.wLcdLayout
            return struct.pack("<HBB", layout, known.bEntryValidationCondition, 0)
        case ControlCode.GET_TLV_PROPERTIES:
            return properties(slot, escape=escape)
        case ControlCode.MCT_READER_DIRECT:
            return slot.escape(_secoder(data))
        case ControlCode.ESCAPE:
            if not escape and not _is_allowed(slot, data):
                raise AccessDenied(
                    f"{slot.reader.name}: Escape commands are not allowed here",
                    cure="set bit 0 of ifdDriverOptions in the driver's Info.plist",
                    reader=slot.reader.name,
                )
            return slot.escape(data)
        case ControlCode.USB_PATH if slot.reader.info.path.startswith("usb:"):
            return slot.reader.info.path.removeprefix("usb:").encode() + b"\0"
    raise UnsupportedByReader(
        f"{slot.reader.name}: there is no control code "
        f"{f'0x{code:08X}' if isinstance(code, int) else repr(code)}",
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
    if slot.quirks.mct_reader_direct:
        offered.append((Feature.MCT_READER_DIRECT, ControlCode.MCT_READER_DIRECT))
    offered.append((Feature.GET_TLV_PROPERTIES, ControlCode.GET_TLV_PROPERTIES))
    if escape:
        offered.append((Feature.CCID_ESC_COMMAND, ControlCode.ESCAPE))
    return b"".join(struct.pack(">BBI", tag, 4, code) for tag, code in offered)


def properties(slot: Slot, *, escape: bool = True) -> bytes:
    """The answer to GET_TLV_PROPERTIES: tag, length and value of each property, little-endian."""
    reader = slot.reader
    layout = reader.descriptor.wLcdLayout
    known = pad_structures.properties(slot.quirks, reader.pin_features)
    found = [(Property.wLcdLayout, _u16(layout))]
    if layout:
        found.append((Property.wLcdMaxCharacters, _u16(layout & 0xFF)))
        found.append((Property.wLcdMaxLines, _u16(layout >> 8)))
    found.append((Property.bTimeOut2, b"\0"))
    firmware = _firmware(slot)
    if firmware:
        found.append((Property.sFirmwareID, firmware))
    if known.sizes is not None:
        fewest, most = known.sizes
        found.append((Property.bMinPINSize, bytes((fewest,))))
        found.append((Property.bMaxPINSize, bytes((most,))))
    if known.bEntryValidationCondition != pad_structures.ALL_CONDITIONS:
        condition = bytes((known.bEntryValidationCondition,))
        found.append((Property.bEntryValidationCondition, condition))
    found.append((Property.bPPDUSupport, bytes((escape,))))
    found.append((Property.wIdVendor, _u16(reader.info.vendor_id)))
    found.append((Property.wIdProduct, _u16(reader.info.product_id)))
    extended = extended_apdus(slot.descriptor, reader.info.reader, slot.quirks)
    # With T=0 at TPDU level it is the application that sends a long one, by ENVELOPE
    is_long = extended != NO_EXTENDED or slot.descriptor.exchange_level is ExchangeLevel.TPDU
    longest = MAX_APDU_DATA if is_long else 0
    found.append((Property.dwMaxAPDUDataSize, longest.to_bytes(4, "little")))
    return b"".join(bytes((tag, len(value))) + value for tag, value in found)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _firmware(slot: Slot) -> bytes:
    """What the reader calls its firmware; nothing where it is not known how to ask."""
    ask = slot.quirks.firmware_escape
    if ask is None:
        return b""
    try:
        return slot.escape(ask)[:MAX_TLV]
    except pad_structures.REFUSALS:
        return b""


def _is_allowed(slot: Slot, data: bytes) -> bool:
    """This Escape is known to be harmless."""
    return bool(slot.quirks.escapes_allowed) and slot.quirks.allows_escape(data)


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
    """Have a PIN entered at the reader for the command in ``structure``, as this reader takes it;
    see :func:`ccid.session.exchange.pin_entry.enter_pin`.

    Raises:
        MalformedMessage: ``structure`` is none.
    """
    if not isinstance(structure, PinVerification | PinModification):
        raise MalformedMessage(
            f"{slot.reader.name}: {type(structure).__name__} is no structure of a PIN entry",
            field="abPINDataStructure",
            reader=slot.reader.name,
            slot=slot.index,
        )
    features = slot.reader.pin_features
    try:
        request = pad_structures.request(structure, slot.quirks, features)
    except TypeError:  # a field is no number
        structure.build()
        raise
    request.structure.build()  # before anything is said to the card
    return _enter(slot, request)


def _enter(slot: Slot, request: pad_structures.PinRequest) -> bytes:
    """A PIN entry as this reader wants it: an Escape before, or a moment of patience."""
    return slot.commands.perform(lambda: _entered(slot, request))


def _entered(slot: Slot, request: pad_structures.PinRequest) -> bytes:
    card = slot.card
    if card is not None:
        card.look()
    try:
        if request.escape is not None:
            slot.escape(request.escape)
        if request.delay_s:
            time.sleep(request.delay_s)
        return enter_pin(slot.commands, None if card is None else card.agreement, request.structure)
    except CcidError as error:
        if card is not None:
            card.judge(error)
        raise
