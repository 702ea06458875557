"""Control codes: what PC/SC asks of a reader beyond APDUs (PC/SC part 10).

:mod:`ccid.pin.pad_structures` translates the structures of a PIN entry to the form that the reader
accepts. Every byte string here may come from an application, so each is checked before the reader
gets it.
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
"""SCARD_CTL_CODE(0) of pcsc-lite, the same on every system."""


class Feature(IntEnum):
    """Features of a reader (PC/SC part 10, 2.3)."""

    VERIFY_PIN_DIRECT = 0x06
    MODIFY_PIN_DIRECT = 0x07
    MCT_READER_DIRECT = 0x08
    IFD_PIN_PROPERTIES = 0x0A
    GET_TLV_PROPERTIES = 0x12
    CCID_ESC_COMMAND = 0x13


class ControlCode(IntEnum):
    """Control codes that :func:`control` accepts."""

    ESCAPE = BASE + 1
    GET_FEATURE_REQUEST = BASE + 3400
    WINDOWS_GET_FEATURE_REQUEST = 0x0031_3520  # Windows' value; remote desktops send it
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
"""dwMaxAPDUDataSize of a reader that takes extended APDUs, in bytes (PC/SC part 10, 2.6.14)."""
MAX_TLV = 255
"""Most bytes of the value of a property: its length field has one byte."""


def control(slot: Slot, code: int, data: bytes, *, escape: bool = True) -> bytes:
    """Carry out a control code.

    Args:
        slot: The slot.
        code: One of :class:`ControlCode`.
        data: The input data of the code.
        escape: True if the application may send Escape commands of its own.

    Returns:
        The output data of the code.

    Raises:
        UnsupportedByReader: The reader, or this library, does not have the code.
        MalformedMessage: ``data`` do not have the form that the code demands.
        AccessDenied: The code is an Escape, and ``escape`` is False.
        CommandFailed, CardAbsent, CardMute, ProtocolError: The command to the reader or card
            failed.
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


# Features and properties ----------------------------------------------------------------------


def features(slot: Slot, *, escape: bool = True) -> bytes:
    """The answer to GET_FEATURE_REQUEST (PC/SC part 10).

    Args:
        slot: The slot.
        escape: True if applications may send Escape commands: then CCID_ESC_COMMAND is offered.

    Returns:
        Tag, length (4) and control code, big-endian, of each feature.
    """
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
    """The answer to GET_TLV_PROPERTIES (PC/SC part 10, 2.6.14).

    Args:
        slot: The slot.
        escape: True if applications may send Escape commands: the value of bPPDUSupport.

    Returns:
        Tag, length and value, little-endian, of each property.

    Raises:
        ReaderClosed, ReaderRemoved, TransportTimeout, TransportError: The reader could not be asked
            for its firmware or its PIN pad.
    """
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
    # With T=0 at TPDU level the application sends an extended APDU itself, by ENVELOPE
    is_long = extended != NO_EXTENDED or slot.descriptor.exchange_level is ExchangeLevel.TPDU
    longest = MAX_APDU_DATA if is_long else 0
    found.append((Property.dwMaxAPDUDataSize, longest.to_bytes(4, "little")))
    return b"".join(bytes((tag, len(value))) + value for tag, value in found)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _firmware(slot: Slot) -> bytes:
    """The firmware version that the reader reports; empty if the table of readers has no
    ``firmware-escape`` for it, or if the reader refuses that Escape."""
    ask = slot.quirks.firmware_escape
    if ask is None:
        return b""
    try:
        return slot.escape(ask)[:MAX_TLV]
    except pad_structures.REFUSALS:
        return b""


def _is_allowed(slot: Slot, data: bytes) -> bool:
    """True if the table of readers lists this Escape as harmless (``escapes-allowed``)."""
    return bool(slot.quirks.escapes_allowed) and slot.quirks.allows_escape(data)


def _secoder(data: bytes) -> bytes:
    """Check ``data`` for MCT_READER_DIRECT: a command for a reader with a display (Secoder).

    Returns:
        ``data``.

    Raises:
        MalformedMessage: ``data`` are no such command.
    """
    if len(data) < 5 or data[0] != 0x20 or not 0x70 <= data[1] <= 0x74 or any(data[2:5]):
        raise MalformedMessage("MCT_READER_DIRECT takes commands 20 70…74 00 00 00", field="CLA")
    return data


# PIN entry ------------------------------------------------------------------------------------


def verify_pin(slot: Slot, structure: PinStructure) -> bytes:
    """Let the user enter a PIN at the PIN pad, for the command APDU in ``structure``
    (USB CCID rev 1.1, 6.1.11; :func:`ccid.session.exchange.pin_entry.enter_pin`).

    Args:
        slot: The slot of the card that gets the command APDU.
        structure: The PIN entry. The quirks of the reader are applied to it.

    Returns:
        The response APDU.

    Raises:
        MalformedMessage: ``structure`` is no structure of a PIN entry, or has a field with a wrong
            value.
        UnsupportedByReader: The reader has no PIN pad.
        CommandFailed, CardAbsent, CardMute, ProtocolError: The PIN entry failed.
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
    except TypeError:  # a field is no number: build() raises the error that names the field
        structure.build()
        raise
    request.structure.build()  # checks the fields before the card gets a command
    return _enter(slot, request)


def _enter(slot: Slot, request: pad_structures.PinRequest) -> bytes:
    """A PIN entry as one operation; returns the response APDU."""
    return slot.commands.perform(lambda: _send_pin_request(slot, request))


def _send_pin_request(slot: Slot, request: pad_structures.PinRequest) -> bytes:
    """Send the commands of a PIN entry: the Escape and the delay that the reader needs first."""
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
