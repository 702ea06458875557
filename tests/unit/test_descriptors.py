"""Descriptors: USB 2.0 chapter 9.6 and USB CCID rev 1.1, 5.1."""

from __future__ import annotations

import dataclasses
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.codec.declaration import Declared
from ccid.codec.descriptors import (
    ClassControl,
    Configuration,
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    SmartCardDescriptor,
    parse_configuration,
    parse_u32_list,
    smart_card_interfaces,
)
from ccid.codec.descriptors.configuration import smart_card_interface
from ccid.codes import ExchangeLevel, Features, InterfaceProtocol
from ccid.errors import MalformedDescriptor

# Recorded from QEMU's usb-ccid: an interface with its class descriptor and three endpoints.
QEMU = bytes.fromhex(
    "09025d00010100e032"
    "0904000003 0b000004"
    "3621 1001 00 07 01000000 a00f0000 00000100 00 80250000 00c20100 00 fe000000 00000000"
    "00000000 fe040100 12000100 ff ff 0000 01 01"
    "0705810340 00ff"
    "0705820240 0000"
    "0705030240 0000"
)
SMART_CARD = QEMU[18:72]
BULK = EndpointDescriptor(bEndpointAddress=0x02, bmAttributes=2).build()


def configuration(*parts: bytes, interfaces: int = 1) -> bytes:
    """A configuration with these descriptors in it."""
    body = b"".join(parts)
    head = ConfigurationDescriptor(wTotalLength=9 + len(body), bNumInterfaces=interfaces)
    return head.build() + body


def interface(number: int = 0, endpoints: int = 0, **fields: int) -> bytes:
    return InterfaceDescriptor(bInterfaceNumber=number, bNumEndpoints=endpoints, **fields).build()


def readers(data: bytes) -> list[SmartCardDescriptor]:
    return [r.smart_card for r in smart_card_interfaces(parse_configuration(data))]


def test_every_field_of_a_real_reader() -> None:
    (reader,) = smart_card_interfaces(parse_configuration(QEMU))
    d = reader.smart_card
    assert dataclasses.asdict(d) == {
        "bLength": 54,
        "bDescriptorType": 0x21,
        "bcdCCID": 0x0110,
        "bMaxSlotIndex": 0,
        "bVoltageSupport": 7,
        "dwProtocols": 1,
        "dwDefaultClock": 4000,
        "dwMaximumClock": 65536,
        "bNumClockSupported": 0,
        "dwDataRate": 9600,
        "dwMaxDataRate": 115200,
        "bNumDataRatesSupported": 0,
        "dwMaxIFSD": 254,
        "dwSynchProtocols": 0,
        "dwMechanical": 0,
        "dwFeatures": 0x000104FE,
        "dwMaxCCIDMessageLength": 65554,
        "bClassGetResponse": 0xFF,
        "bClassEnvelope": 0xFF,
        "wLcdLayout": 0,
        "bPINSupport": 1,
        "bMaxCCIDBusySlots": 1,
    }
    assert d.exchange_level is ExchangeLevel.TPDU
    assert Features.AUTO_NEGOTIATION in d.features
    assert d.slot_count == 1
    assert reader.protocol is InterfaceProtocol.CCID
    assert reader.bulk_out is not None
    assert reader.bulk_out.bEndpointAddress == 0x03
    assert reader.bulk_in is not None
    assert reader.bulk_in.bEndpointAddress == 0x82
    assert reader.interrupt_in is not None
    assert reader.interrupt_in.bInterval == 255


def test_build_undoes_parse() -> None:
    assert SmartCardDescriptor.parse(SMART_CARD).build() == SMART_CARD


@given(st.binary(min_size=52, max_size=52))
def test_any_class_descriptor_survives_parse_and_build(fields: bytes) -> None:
    raw = b"\x36\x21" + fields
    assert SmartCardDescriptor.parse(raw).build() == raw


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (DeviceDescriptor, 1),
        (ConfigurationDescriptor, 2),
        (InterfaceDescriptor, 4),
        (EndpointDescriptor, 5),
    ],
)
@given(fields=st.binary(min_size=18, max_size=18))
def test_any_standard_descriptor_survives_parse_and_build(
    cls: type[Declared], kind: int, fields: bytes
) -> None:
    raw = bytearray(fields)[: cls.layout.sizeof()]
    raw[0], raw[1] = len(raw), kind
    assert cls.parse(bytes(raw)).build() == bytes(raw)


# Where the class descriptor is ----------------------------------------------------------------


def test_behind_an_endpoint() -> None:
    data = configuration(interface(endpoints=2), BULK, BULK, SMART_CARD)
    (reader,) = smart_card_interfaces(parse_configuration(data))
    assert reader.misplaced
    assert reader.smart_card.build() == SMART_CARD


def test_behind_the_first_endpoint() -> None:
    assert len(readers(configuration(interface(endpoints=2), BULK, SMART_CARD, BULK))) == 1


def test_after_another_functional_descriptor() -> None:
    other = bytes.fromhex("0524001001")
    assert len(readers(configuration(interface(), other, SMART_CARD))) == 1


@pytest.mark.parametrize("kind", [0x21, 0xFF])
def test_proprietary_interface_with_a_class_descriptor(kind: int) -> None:
    raw = bytes([0x36, kind]) + SMART_CARD[2:]
    (reader,) = smart_card_interfaces(
        parse_configuration(configuration(interface(bInterfaceClass=0xFF), raw))
    )
    assert reader.smart_card.bDescriptorType == kind


def test_proprietary_interface_without_one_is_no_reader() -> None:
    hid = bytes.fromhex("092111010001222900")
    assert readers(configuration(interface(bInterfaceClass=0xFF), hid)) == []


def test_proprietary_interface_with_nonsense_is_no_reader() -> None:
    found = parse_configuration(configuration(interface(bInterfaceClass=0xFF)))
    nonsense = dataclasses.replace(found.interfaces[0], extra=b"\x00\xff\xff")
    assert smart_card_interface(nonsense) is None


# Composite devices ----------------------------------------------------------------------------


def test_several_readers_and_others_between() -> None:
    iad = bytes.fromhex("080b010102020100")
    data = configuration(
        interface(0, 1, bInterfaceClass=3),
        bytes.fromhex("092111010001223f00"),
        BULK,
        iad,
        interface(1, 1),
        SMART_CARD,
        BULK,
        interface(2, 0, bInterfaceClass=8),
        interface(3, 1),
        SMART_CARD,
        BULK,
        interfaces=4,
    )
    found = smart_card_interfaces(parse_configuration(data))
    assert [r.interface.bInterfaceNumber for r in found] == [1, 3]


def test_other_alternate_settings_are_no_readers_of_their_own() -> None:
    data = configuration(
        interface(0), SMART_CARD, interface(0, bAlternateSetting=1), SMART_CARD, interfaces=1
    )
    assert len(readers(data)) == 1


def test_endpoint_descriptors_longer_than_the_standard() -> None:
    audio = bytes.fromhex("090502024000000000")
    parsed = parse_configuration(configuration(interface(endpoints=1), SMART_CARD, audio))
    assert parsed.interfaces[0].endpoints[0].descriptor.wMaxPacketSize == 64
    assert parsed.interfaces[0].endpoints[0].extra == bytes(2)


def test_bytes_beyond_the_total_length_are_not_its() -> None:
    assert parse_configuration(QEMU + b"\x00\x00") == parse_configuration(QEMU)


@pytest.mark.parametrize(
    ("number", "protocol"),
    [
        (0, InterfaceProtocol.CCID),
        (1, InterfaceProtocol.ICCD_A),
        (2, InterfaceProtocol.ICCD_B),
        (3, None),
    ],
)
def test_interface_protocols(number: int, protocol: InterfaceProtocol | None) -> None:
    data = configuration(interface(bInterfaceProtocol=number), SMART_CARD)
    (reader,) = smart_card_interfaces(parse_configuration(data))
    assert reader.protocol is protocol


# Malicious descriptors ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"", "bLength"),
        (QEMU[:5], "bConfigurationValue"),
        (b"\x08" + QEMU[1:], "bLength"),
        (QEMU[:1] + b"\x01" + QEMU[2:], "bDescriptorType"),
        (QEMU[:-1], "wTotalLength"),
        (QEMU[:2] + b"\x08\x00" + QEMU[4:], "wTotalLength"),
        (configuration(b"\x00\x04"), "bLength"),
        (configuration(b"\x01"), "bLength"),
        (configuration(b"\x09\x04\x00"), "bLength"),
        (configuration(b"\x05\x04\x00\x00\x00"), "bLength"),
        (configuration(interface(endpoints=2), SMART_CARD, BULK), "bNumEndpoints"),
        (configuration(interface(endpoints=0), SMART_CARD, BULK), "bNumEndpoints"),
        (configuration(interface(), SMART_CARD, interfaces=2), "bNumInterfaces"),
        (configuration(interface(endpoints=1), SMART_CARD, b"\x04\x05\x81\x02"), "bLength"),
    ],
)
def test_malformed_configurations_name_the_field(data: bytes, field: str) -> None:
    with pytest.raises(MalformedDescriptor) as raised:
        parse_configuration(data)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (configuration(interface()), "bDescriptorType"),
        (configuration(interface(), b"\x35\x21" + SMART_CARD[2:53]), "bLength"),
        (configuration(interface(), b"\x37\x21" + SMART_CARD[2:] + b"\x00"), "bLength"),
        (configuration(interface(), b"\x36\x22" + SMART_CARD[2:]), "bDescriptorType"),
    ],
)
def test_a_smart_card_interface_without_a_right_class_descriptor(data: bytes, field: str) -> None:
    with pytest.raises(MalformedDescriptor) as raised:
        readers(data)
    assert raised.value.field == field


def look(data: bytes) -> None:
    """Parse ``data`` completely; only errors of this library may be raised."""
    with suppress(MalformedDescriptor):
        smart_card_interfaces(parse_configuration(data))


@given(st.lists(st.tuples(st.integers(0, len(QEMU) - 1), st.integers(0, 255)), max_size=8))
def test_mutations_raise_nothing_else(changes: list[tuple[int, int]]) -> None:
    data = bytearray(QEMU)
    for offset, value in changes:
        data[offset] = value
    look(bytes(data))


@given(st.integers(0, len(QEMU)), st.binary(max_size=20))
def test_cuts_and_tails_raise_nothing_else(at: int, tail: bytes) -> None:
    look(QEMU[:at] + tail)


@given(st.binary(max_size=200))
def test_noise_raises_nothing_else(data: bytes) -> None:
    look(configuration(data))


def test_the_longest_configuration_is_parsed_in_time() -> None:
    """65,535 bytes of the smallest descriptors: parsing is linear; quadratic parsing would take
    minutes."""
    data = configuration(b"\x02\x30" * 32700 + interface())
    assert len(parse_configuration(data).extra) == 65400


# Levels and lists -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dwFeatures", "level"),
    [
        (0x0000_0000, ExchangeLevel.CHARACTER),
        (0x0001_00BA, ExchangeLevel.TPDU),
        (0x0002_00BA, ExchangeLevel.SHORT_APDU),
        (0x0004_00BA, ExchangeLevel.EXTENDED_APDU),
        (0x0006_0000, None),
        (0x0003_0000, None),
        (0x0010_0000, ExchangeLevel.CHARACTER),
    ],
)
def test_exchange_level(dwFeatures: int, level: ExchangeLevel | None) -> None:
    assert SmartCardDescriptor(dwFeatures=dwFeatures).exchange_level is level


def test_lists_of_numbers() -> None:
    assert parse_u32_list(bytes.fromhex("a00f0000 002a0000"), "GET_DATA_RATES") == [4000, 10752]
    with pytest.raises(MalformedDescriptor, match="7 bytes") as raised:
        parse_u32_list(bytes(7), "GET_DATA_RATES")
    assert raised.value.field == "GET_DATA_RATES"


def test_class_specific_requests() -> None:
    """Table 5.3-1."""
    assert ClassControl.abort(2, slot=1, bSeq=7) == ClassControl(0x21, 0x01, 0x0701, 2, 0)
    assert ClassControl.get_clock_frequencies(2, 3) == ClassControl(0xA1, 0x02, 0, 2, 12)
    assert ClassControl.get_data_rates(0, 53) == ClassControl(0xA1, 0x03, 0, 0, 212)


def test_configuration_is_comparable() -> None:
    assert isinstance(parse_configuration(QEMU), Configuration)
