"""Historical bytes: ISO/IEC 7816-4:2013 12.1.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.iso7816.historical_bytes import (
    CardCapabilities,
    CardServiceData,
    Historical,
    LifeCycle,
    StatusIndicator,
    Tag,
)
from ccid.iso7816.historical_bytes_text import lines


def parse(text: str) -> Historical:
    return Historical.parse(bytes.fromhex(text))


def test_none() -> None:
    h = parse("")
    assert (h.category, h.objects, h.status, h.proprietary) == (None, (), None, False)
    assert lines(h) == []


def test_every_object() -> None:
    h = parse("80 12276F 2312345F 31A0 4110 525859 6201FF 7301C190 83059000 F3A00001")
    assert [o.tag for o in h.objects] == list(Tag)
    assert h.warnings == ()
    assert h.country_code == "276"
    assert h.issuer_identification_number == "12345"
    assert h.card_service_data == CardServiceData(0xA0)
    assert h.value(Tag.INITIAL_ACCESS_DATA) == b"\x10"
    assert h.value(Tag.CARD_ISSUER_DATA) == b"XY"
    assert h.value(Tag.PRE_ISSUING_DATA) == b"\x01\xff"
    assert h.card_capabilities == CardCapabilities(0x01, 0xC1, 0x90)
    assert h.status == StatusIndicator(0x05, 0x9000)
    assert h.application_identifier == bytes.fromhex("A00001")
    told = lines(h)
    assert told[:3] == [
        "80 = COMPACT-TLV objects",
        "12 27 6F = country code 276 (ISO 3166-1)",
        "23 12 34 5F = issuer identification number 12345 (ISO/IEC 7812-1)",
    ]
    assert told[3] == (
        "31 A0 = card service data: applications selected by full DF name; "
        "data objects in EF.DIR; access by READ RECORD; with MF"
    )
    assert told[4:9] == [
        "41 10 = initial access data: READ BINARY of 16 bytes",
        "52 58 59 = card issuer's data 'XY'",
        "62 01 FF = pre-issuing data '..'",
        "73 01 C1 90 = card capabilities",
        "  01: DF selection: not told; record identifier",
    ]
    assert told[9] == (
        "  C1: EF of TLV structure; write function OR; FF as first byte of a BER-TLV tag invalid; "
        "data unit of 2 quartets"
    )
    assert told[10] == (
        "  90: command chaining; no extended Lc and Le; "
        "up to 1 logical channel, given out by the card"
    )
    assert told[11] == (
        "83 05 90 00 = status indicator: life cycle 05, operational state, activated; "
        "SW 9000, normal processing"
    )
    assert told[12:] == ["F3 A0 00 01 = application identifier"]


def test_a_status_indicator_at_the_end() -> None:
    h = parse("00 3180 03 0000")
    assert [o.header for o in h.objects] == [0x31]
    assert h.status == StatusIndicator(3, 0)
    assert h.status.life_cycle is LifeCycle.INITIALISATION
    assert lines(h)[0] == "00 = COMPACT-TLV objects, then a status indicator of three bytes"
    assert lines(h)[-1] == (
        "03 00 00 = status indicator: life cycle 03, initialisation state; SW 0000, not reported"
    )


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("80 8107", StatusIndicator(lcs=7)),
        ("80 826A82", StatusIndicator(sw=0x6A82)),
        ("80 83 00 6200", StatusIndicator(0, 0x6200)),
        ("80 84 01020304", None),
        ("80", None),
    ],
)
def test_lengths_of_a_status_indicator(text: str, status: StatusIndicator | None) -> None:
    assert parse(text).status == status


def test_dir_data_reference() -> None:
    h = parse("10 42 99")
    assert (h.dir_reference, h.rest, h.proprietary) == (0x42, b"\x99", False)
    assert lines(h) == [
        "10 = the DIR data reference follows",
        "42 = DIR data reference",
        "99 = no meaning in the standard",
    ]


@pytest.mark.parametrize("category", [0x81, 0x8F])
def test_reserved_categories(category: int) -> None:
    h = Historical.parse(bytes([category, 0x31, 0x80]))
    assert (h.objects, h.rest, h.proprietary) == ((), b"\x31\x80", False)
    assert lines(h)[0] == f"{category:02X} = a reserved category"


@pytest.mark.parametrize("category", [0x01, 0x11, 0x7F, 0x90, 0xFF])
def test_proprietary_categories(category: int) -> None:
    h = Historical.parse(bytes([category, 0x31, 0x80]))
    assert (h.objects, h.rest, h.proprietary) == ((), b"\x31\x80", True)
    assert lines(h) == [f"{category:02X} = a proprietary category"]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("00 9000", "a status indicator of 3 bytes should end them, 2 are there"),
        ("10", "the DIR data reference is missing"),
        ("80 73 C0", "object 73 announces 3 bytes, 1 are there"),
        ("80 31", "object 31 announces 1 bytes, 0 are there"),
        ("80 32 0000", "object 32 has a length the standard does not allow"),
        ("80 75 0102030405", "object 75 has a length the standard does not allow"),
    ],
)
def test_what_does_not_fit(text: str, warning: str) -> None:
    assert parse(text).warnings == (warning,)
    assert lines(parse(text))[-1] == f"Warning: {warning}"


def test_a_storage_card_behind_a_contactless_reader() -> None:
    h = parse("80 4F 0C A000000306 03 0001 00000000")
    assert h.storage_card is not None
    assert (h.storage_card.standard, h.storage_card.name) == (3, 1)
    assert lines(h)[1:4] == [
        "4F 0C A0 00 00 03 06 = application identifier of a storage card (PC/SC part 3)",
        "03 = ISO/IEC 14443 A, part 3",
        "00 01 = Mifare Standard 1K",
    ]
    assert lines(parse("80 4F 0C A000000306 00 F0F0"))[2:4] == [
        "00 = standard not told",
        "F0 F0 = another card",
    ]
    assert lines(parse("80 4F 0C A000000306 FF 0001"))[2] == "FF = another standard"


@pytest.mark.parametrize(
    ("lcs", "state"),
    [
        (0x00, LifeCycle.NOT_REPORTED),
        (0x01, LifeCycle.CREATION),
        (0x02, LifeCycle.RESERVED),
        (0x03, LifeCycle.INITIALISATION),
        (0x04, LifeCycle.DEACTIVATED),
        (0x05, LifeCycle.ACTIVATED),
        (0x06, LifeCycle.DEACTIVATED),
        (0x07, LifeCycle.ACTIVATED),
        (0x08, LifeCycle.RESERVED),
        (0x0B, LifeCycle.RESERVED),
        (0x0C, LifeCycle.TERMINATION),
        (0x0F, LifeCycle.TERMINATION),
        (0x10, LifeCycle.PROPRIETARY),
        (0xFF, LifeCycle.PROPRIETARY),
    ],
)
def test_life_cycle(lcs: int, state: LifeCycle) -> None:
    assert LifeCycle.of(lcs) is state


@pytest.mark.parametrize(
    ("byte", "words"),
    [
        (0x00, "applications selected implicitly only; data objects in neither EF.DIR nor EF.ATR"),
        (0x80, "by full DF name"),
        (0x40, "by partial DF name"),
        (0xC0, "by full and partial DF name"),
        (0x20, "in EF.DIR;"),
        (0x10, "in EF.ATR;"),
        (0x30, "in EF.DIR and EF.ATR;"),
        (0x08, "access by READ BINARY"),
        (0x04, "access by GET DATA"),
        (0x00, "access by READ RECORD"),
        (0x0E, "access by a reserved code"),
        (0x00, "; with MF"),
        (0x01, "; without MF"),
    ],
)
def test_card_service_data(byte: int, words: str) -> None:
    assert words in lines(Historical.parse(bytes([0x80, 0x31, byte])))[1]


@pytest.mark.parametrize(
    ("byte", "words"),
    [
        (0x80, "DF selection: full DF name;"),
        (0x40, "DF selection: partial DF name;"),
        (0x20, "DF selection: path;"),
        (0x10, "DF selection: file identifier;"),
        (0x08, "DF selection: implicit;"),
        (0x04, "; short EF identifier"),
        (0x02, "; record number"),
        (0x01, "; record identifier"),
        (0xF8, "full DF name, partial DF name, path, file identifier, implicit; no short EF"),
    ],
)
def test_selection_methods(byte: int, words: str) -> None:
    assert words in lines(Historical.parse(bytes([0x80, 0x71, byte])))[2]


@pytest.mark.parametrize(
    ("byte", "words"),
    [
        (0x80, "EF of TLV structure; "),
        (0x00, "write function one-time"),
        (0x20, "write function proprietary"),
        (0x40, "write function OR"),
        (0x60, "write function AND"),
        (0x00, "tag invalid"),
        (0x10, "tag valid"),
        (0x00, "data unit of 1 quartet"),
        (0x01, "data unit of 2 quartets"),
        (0x0F, "data unit of 32768 quartets"),
    ],
)
def test_data_coding_byte(byte: int, words: str) -> None:
    assert words in lines(Historical.parse(bytes([0x80, 0x72, 0, byte])))[3]


@pytest.mark.parametrize(
    ("byte", "channels", "words"),
    [
        (0x00, 1, "no command chaining; no extended Lc and Le; no logical channels but the basic"),
        (0x80, 1, "command chaining; no"),
        (0x40, 1, "; extended Lc and Le"),
        (0x20, 1, "extended length information in EF.ATR"),
        (0x0B, 4, "up to 4 logical channels, given out by the interface device"),
        (0x13, 4, "up to 4 logical channels, given out by the card"),
        (0x1F, 8, "up to 8 or more logical channels, given out by the interface device or"),
    ],
)
def test_commands_and_channels(byte: int, channels: int, words: str) -> None:
    h = Historical.parse(bytes([0x80, 0x73, 0, 0, byte]))
    assert h.card_capabilities is not None
    assert h.card_capabilities.logical_channels == channels
    assert h.card_capabilities.command_chaining is bool(byte & 0x80)
    assert h.card_capabilities.extended_length is bool(byte & 0x40)
    assert words in lines(h)[4]


def test_what_is_not_told_is_none() -> None:
    told = CardCapabilities(0x80)
    assert (told.write_function, told.data_unit_quartets) == (None, None)
    assert (told.command_chaining, told.extended_length, told.logical_channels) == (None,) * 3
    h = parse("80")
    assert (h.country_code, h.issuer_identification_number, h.card_service_data) == (None,) * 3
    assert (h.card_capabilities, h.application_identifier) == (None, None)


@given(st.binary(max_size=20), st.sampled_from([None, 0x00, 0x10, 0x80, 0x85]))
def test_any_bytes(raw: bytes, category: int | None) -> None:
    raw = raw if category is None else bytes([category]) + raw
    h = Historical.parse(raw)
    assert all(isinstance(line, str) and line for line in lines(h))
    if category == 0x80 and not h.warnings and h.storage_card is None:
        assert raw[1:] == b"".join(bytes([o.header]) + o.value for o in h.objects)
