"""Every field of a reader's descriptors, with its meaning in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntFlag
from typing import NamedTuple, TypeVar

from ccid.codec.descriptors import EndpointDescriptor, SmartCardDescriptor, SmartCardInterface
from ccid.codes import (
    CLASS_SMART_CARD,
    EXCHANGE_LEVEL_MASK,
    EXCHANGE_LEVEL_TEXT,
    FEATURES_TEXT,
    INTERFACE_PROTOCOL_TEXT,
    MECHANICAL_TEXT,
    PIN_SUPPORT_TEXT,
    SYNCH_TEXT,
    VOLTAGE_TEXT,
    ExchangeLevel,
)
from ccid.transport import ReaderInfo

F = TypeVar("F", bound=IntFlag)


class Field(NamedTuple):
    """A field: its name in the specification, its value, and the meaning of the value."""

    name: str
    value: str
    meaning: tuple[str, ...] = ()


def bcd(value: int) -> str:
    """A BCD release number: ``1.10``."""
    return f"{value >> 8:x}.{value & 0xFF:02x}"


def flags(value: int, texts: Mapping[F, str], width: int) -> tuple[str, ...]:
    """The texts of the bits set in ``value``; unknown bits together as one text."""
    known = 0
    lines = []
    for flag, text in texts.items():
        known |= flag
        if value & flag:
            lines.append(text)
    if value & ~known:
        lines.append(f"unknown bits 0x{value & ~known:0{width}X}")
    return tuple(lines)


def device_fields(info: ReaderInfo) -> Iterator[Field]:
    """The fields of the device descriptor and of the configuration descriptor."""
    d = info.device
    yield Field("idVendor", f"0x{d.idVendor:04X}")
    yield _string("iManufacturer", d.iManufacturer, info.manufacturer)
    yield Field("idProduct", f"0x{d.idProduct:04X}")
    yield _string("iProduct", d.iProduct, info.product)
    yield Field("bcdDevice", f"{bcd(d.bcdDevice)} (firmware release)")
    yield _string("iSerialNumber", d.iSerialNumber, info.serial)
    yield Field("bcdUSB", bcd(d.bcdUSB))
    yield Field("bDeviceClass", f"0x{d.bDeviceClass:02X}")
    yield Field("bDeviceSubClass", str(d.bDeviceSubClass))
    yield Field("bDeviceProtocol", str(d.bDeviceProtocol))
    yield Field("bMaxPacketSize0", f"{d.bMaxPacketSize0} bytes")
    yield Field("bNumConfigurations", str(d.bNumConfigurations))
    c = info.configuration
    yield Field("bConfigurationValue", str(c.bConfigurationValue))
    yield Field("bNumInterfaces", str(c.bNumInterfaces))
    power = ["self-powered"] if c.bmAttributes & 0x40 else []
    power += ["remote wake-up"] if c.bmAttributes & 0x20 else []
    yield Field("bmAttributes", f"0x{c.bmAttributes:02X}", tuple(power))
    yield Field("bMaxPower", f"{2 * c.bMaxPower} mA")


def _string(name: str, index: int, text: str | None) -> Field:
    """The index of a string descriptor, and the string where it is known."""
    return Field(name, str(index) if text is None else f"{index} {text}")


def interface_fields(reader: SmartCardInterface, name: str | None) -> Iterator[Field]:
    """The interface and its endpoints."""
    i = reader.interface
    own = "Smart Card Device Class" if i.bInterfaceClass == CLASS_SMART_CARD else "proprietary"
    protocol = reader.protocol
    meaning = "unknown" if protocol is None else INTERFACE_PROTOCOL_TEXT[protocol]
    yield Field("bLength", str(i.bLength))
    yield Field("bDescriptorType", str(i.bDescriptorType))
    yield Field("bInterfaceNumber", str(i.bInterfaceNumber))
    yield Field("bAlternateSetting", str(i.bAlternateSetting))
    kinds = tuple(_endpoint(endpoint) for endpoint in reader.endpoints)
    yield Field("bNumEndpoints", str(i.bNumEndpoints), kinds)
    yield Field("bInterfaceClass", f"0x{i.bInterfaceClass:02X}", (own,))
    yield Field("bInterfaceSubClass", str(i.bInterfaceSubClass))
    yield Field("bInterfaceProtocol", str(i.bInterfaceProtocol), (meaning,))
    yield _string("iInterface", i.iInterface, name)


def _endpoint(e: EndpointDescriptor) -> str:
    kind = e.transfer_type.name.lower()
    return (
        f"bEndpointAddress 0x{e.bEndpointAddress:02X}: {kind}-{'IN' if e.is_in else 'OUT'}, "
        f"wMaxPacketSize {e.max_packet_size}, bInterval {e.bInterval}"
    )


def smart_card_fields(
    d: SmartCardDescriptor, clocks: list[int] | None, rates: list[int] | None
) -> Iterator[Field]:
    """The class descriptor (USB CCID rev 1.1, 5.1).

    Args:
        d: The descriptor.
        clocks: The answer to GET_CLOCK_FREQUENCIES in kHz; None if it was not read.
        rates: The answer to GET_DATA_RATES in bit/s; None if it was not read.
    """
    yield Field("bLength", f"0x{d.bLength:02X}")
    yield Field("bDescriptorType", f"0x{d.bDescriptorType:02X}")
    yield Field("bcdCCID", bcd(d.bcdCCID))
    yield Field("bMaxSlotIndex", f"0x{d.bMaxSlotIndex:02X}")
    voltages = flags(d.bVoltageSupport, VOLTAGE_TEXT, 2)
    yield Field("bVoltageSupport", f"0x{d.bVoltageSupport:02X}", voltages)
    protocols = tuple(f"T={t}" for t in range(2) if d.dwProtocols >> t & 1)
    yield Field("dwProtocols", f"0x{d.dwProtocols:08X}", protocols)
    yield Field("dwDefaultClock", f"{d.dwDefaultClock / 1000:.3f} MHz")
    yield Field("dwMaximumClock", f"{d.dwMaximumClock / 1000:.3f} MHz")
    yield Field("bNumClockSupported", str(d.bNumClockSupported), _list(clocks, "kHz"))
    yield Field("dwDataRate", f"{d.dwDataRate} bps")
    yield Field("dwMaxDataRate", f"{d.dwMaxDataRate} bps")
    yield Field("bNumDataRatesSupported", str(d.bNumDataRatesSupported), _list(rates, "bps"))
    yield Field("dwMaxIFSD", str(d.dwMaxIFSD))
    synch = flags(d.dwSynchProtocols, SYNCH_TEXT, 8)
    yield Field("dwSynchProtocols", f"0x{d.dwSynchProtocols:08X}", synch)
    mechanical = flags(d.dwMechanical, MECHANICAL_TEXT, 8)
    yield Field(
        "dwMechanical", f"0x{d.dwMechanical:08X}", mechanical or ("No special characteristics",)
    )
    yield Field("dwFeatures", f"0x{d.dwFeatures:08X}", features(d))
    yield Field("dwMaxCCIDMessageLength", f"{d.dwMaxCCIDMessageLength} bytes")
    yield Field("bClassGetResponse", f"0x{d.bClassGetResponse:02X}", _class(d.bClassGetResponse))
    yield Field("bClassEnvelope", f"0x{d.bClassEnvelope:02X}", _class(d.bClassEnvelope))
    display = (f"{d.lcd_lines} lines of {d.lcd_characters} characters",) if d.wLcdLayout else ()
    yield Field("wLcdLayout", f"0x{d.wLcdLayout:04X}", display)
    pin = flags(d.bPINSupport, PIN_SUPPORT_TEXT, 2)
    yield Field("bPINSupport", f"0x{d.bPINSupport:02X}", pin)
    yield Field("bMaxCCIDBusySlots", str(d.bMaxCCIDBusySlots))


def features(d: SmartCardDescriptor) -> tuple[str, ...]:
    """dwFeatures, one line for each bit. No bit of the exchange level means character level."""
    lines = [f"0x{flag:08X} {text}" for flag, text in FEATURES_TEXT.items() if d.dwFeatures & flag]
    if not d.dwFeatures & EXCHANGE_LEVEL_MASK:
        lines.append(f"0x00000000 {EXCHANGE_LEVEL_TEXT[ExchangeLevel.CHARACTER]} level exchange")
    known = sum(FEATURES_TEXT)
    if d.dwFeatures & ~known:
        lines.append(f"unknown bits 0x{d.dwFeatures & ~known:08X}")
    return tuple(lines)


def _list(values: list[int] | None, unit: str) -> tuple[str, ...]:
    if values is None:
        return ("the list was not read",)
    return tuple(f"Support {value} {unit}" for value in values)


def _class(value: int) -> tuple[str, ...]:
    return ("echoes the APDU class",) if value == 0xFF else ()
