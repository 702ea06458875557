"""The answer to reset: ISO/IEC 7816-3:2006 8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import MalformedAtr
from ccid.iso7816.atr import Atr

YUBIKEY = "3BFD1300008131FE158073C021C057597562694B657940"
OPENPGP = "3BFA1300FF813180450031C173C00100009000B1"
MIFARE = "3B8F8001804F0CA000000306030001000000006A"
SIM = "3B9E96801FC78031E073FE2113574A33052936008A"


def atr(text: str) -> Atr:
    return Atr.parse(bytes.fromhex(text))


def test_a_card_that_speaks_t1() -> None:
    a = atr(YUBIKEY)
    assert a.warnings == ()
    assert (a.fi, a.di, a.fmax_mhz) == (372, 4, 5.0)
    assert (a.ifsc, a.bwi, a.cwi, a.crc) == (254, 1, 5, False)
    assert (a.protocols, a.default_protocol, a.specific_mode) == ((1,), 1, False)
    assert a.historical == bytes.fromhex("8073C021C057597562694B6579")
    assert a.tck == 0x40
    assert a.hex() == YUBIKEY.lower()


def test_minimum_delay() -> None:
    assert atr(OPENPGP).extra_guard_time == 255


def test_a_contactless_card_behind_its_reader_offers_both() -> None:
    assert (atr(MIFARE).protocols, atr(MIFARE).default_protocol) == ((0, 1), 0)


def test_global_bytes_of_t15() -> None:
    a = atr(SIM)
    assert (a.clock_stop, a.classes) == (3, 7)
    assert a.protocols == (0,)
    assert a.tck is not None


def test_specific_mode() -> None:
    a = atr("3B901191 11".replace(" ", "") + "00")
    assert a.specific_mode
    assert a.ta2 == 0x11
    assert a.default_protocol == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3B00", {}),
        ("3F00", {"inverse": True}),
        ("3B8000", {}),
        ("3B1018", {"fi": 372, "di": 12}),
        ("3B1097", {"fi": 512, "di": 64}),
        ("3B1077", {"fi": None, "di": 64}),
        ("3B10B7", {"fi": 1024, "fmax_mhz": 10.0}),
        ("3B101A", {"di": None}),
        ("3B4005", {"extra_guard_time": 5}),
        ("3B804014", {"wi": 20}),
        ("3B80813178450D", {"ifsc": 0x78, "bwi": 4, "cwi": 5}),
        ("3B808171000001F1", {"ifsc": 32, "crc": True}),
        ("3B808111FF6F", {"ifsc": 254}),
    ],
)
def test_values(text: str, expected: dict[str, object]) -> None:
    a = atr(text)
    assert {name: getattr(a, name) for name in expected} == expected


def test_values_of_another_protocol_are_not_taken() -> None:
    """TA3 TB3 TC3 behind T=15 are no IFSC, BWI, CWI, check code."""
    a = atr("3B80817F 01 02 03 00".replace(" ", "") + "7C")
    assert (a.ifsc, a.bwi, a.cwi, a.crc) == (32, 4, 13, False)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "at least"),
        ("3B", "at least"),
        ("0300", "TS"),
        ("3B10", "TA1"),
        ("3BF0110000", "TD1"),
        ("3B80", "TD1"),
        ("3B8081", "TD2"),
        ("3B808131FE", "TB3"),
        ("3B05 01020304".replace(" ", ""), "4 are there"),
    ],
)
def test_what_is_no_atr(text: str, field: str) -> None:
    with pytest.raises(MalformedAtr, match=field):
        atr(text)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (YUBIKEY[:-2], "TCK is missing"),
        (YUBIKEY[:-2] + "41", "0x40 would be right"),
        (YUBIKEY + "00", "1 bytes too many"),
        ("3B0000", "only T=0"),
        ("3B00AA", "1 bytes too many"),
        ("3B808F0F" + "00", "T=15"),
        ("3B00" + "00" * 40, "33 at most"),
    ],
)
def test_sloppy_cards_get_a_warning(text: str, warning: str) -> None:
    a = atr(text)
    assert any(warning in w for w in a.warnings), a.warnings
    assert warning.split()[0] in a.explain()


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    for data in (raw, b"\x3b" + raw):
        try:
            a = Atr.parse(data)
        except MalformedAtr:
            continue
        assert a.explain()
        assert 1 <= a.ifsc <= 254
        assert a.protocols


def test_explain() -> None:
    lines = atr(YUBIKEY).explain().splitlines()
    assert lines[0] == "TS  = 0x3B  direct convention"
    assert "Fi = 372, Di = 4" in lines[2]
    assert "IFSC = 254" in lines[7]
    assert "BWI = 1, CWI = 5" in lines[8]
    assert "YubiKey" in lines[9]
    assert "right" in lines[10]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OPENPGP, "minimum delay"),
        (SIM, "class A (5 V), B (3 V), C (1.8 V)"),
        ("3B901191" + "9100", "specific mode, T=1"),
        ("3B102A", "reserved code"),
        ("3B808171000001F1", "reserved value"),
        ("3F00", "inverse"),
        ("3B8040FF", "WI = 255"),
    ],
)
def test_explain_says(text: str, words: str) -> None:
    assert words in atr(text).explain()
