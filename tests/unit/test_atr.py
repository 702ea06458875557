"""The answer to reset: ISO/IEC 7816-3:2006 8."""

from __future__ import annotations

from functools import reduce
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.errors import MalformedAtr
from ccid.iso7816.atr import Atr

YUBIKEY = "3BFD1300008131FE158073C021C057597562694B657940"
OPENPGP = "3BFA1300FF813180450031C173C00100009000B1"
MIFARE = "3B8F8001804F0CA000000306030001000000006A"
DEEP = "3B8080F120250191FE9E11FF4381001F87B0"
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
    """TA3, TB3 and TC3 behind T=15 are not IFSC, BWI, CWI and check code."""
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
        ("3B808131FE", "TB3, byte 6, is announced by TD2 = 0x31, and the ATR ends after 5 bytes"),
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
        (YUBIKEY + "00", "1 byte too many"),
        (YUBIKEY + "0000", "2 bytes too many"),
        ("3B0000", "only T=0"),
        ("3B00AA", "1 byte too many"),
        ("3B000000", "2 bytes too many"),
        ("3B808F0F" + "00", "T=15"),
        ("3B80818000", "TD2 offers T=0 after T=1"),
        ("3B0501020304", "T0 announces 5 historical bytes, 4 are there"),
        ("3B00" + "00" * 40, "33 at most"),
    ],
)
def test_sloppy_cards_get_a_warning(text: str, warning: str) -> None:
    a = atr(text)
    assert any(warning in w for w in a.warnings), a.warnings
    assert warning.split()[0] in a.explain()


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    for data in (raw, b"\x3b" + raw, b"\x3f" + raw):
        try:
            a = Atr.parse(data)
        except MalformedAtr:
            continue
        assert a.explain()
        assert 1 <= a.ifsc <= 254
        assert a.protocols
        assert a.historical_data.raw == a.historical


@st.composite
def well_formed(draw: st.DrawFn) -> tuple[bytes, list[dict[str, int]], bytes]:
    """An ATR according to the standard, with its interface bytes and historical bytes."""
    ts = sorted(draw(st.lists(st.integers(0, 14), max_size=3)))
    if ts:
        ts += draw(st.sampled_from([[], [15]]))
    historical = draw(st.binary(max_size=15))
    groups: list[dict[str, int]] = []
    for i in range(len(ts) + 1):
        letters = draw(st.sets(st.sampled_from("abc"), max_size=2))
        groups.append({letter: draw(st.integers(0, 255)) for letter in sorted(letters)})
        if i < len(ts):
            groups[-1]["d"] = ts[i]
    for i, group in enumerate(groups[:-1]):
        group["d"] |= follows(groups[i + 1]) << 4
    body = bytes([follows(groups[0]) << 4 | len(historical)])
    body += bytes(value for group in groups for value in group.values()) + historical
    if any(ts):
        body += bytes([reduce(xor, body)])
    return bytes([draw(st.sampled_from([0x3B, 0x3F]))]) + body, groups, historical


def follows(group: dict[str, int]) -> int:
    return sum(1 << "abcd".index(letter) for letter in group)


@given(well_formed())
def test_what_was_built_is_found(built: tuple[bytes, list[dict[str, int]], bytes]) -> None:
    raw, groups, historical = built
    a = Atr.parse(raw)
    assert [{n[1].lower(): v for n, v in g.items()} for g in a.groups] == groups
    assert a.historical == historical
    assert a.tck_right is (True if a.tck_expected else None)
    assert [w for w in a.warnings if "at most" not in w] == []
    assert (a.extra_guard_time, a.specific_mode) == (groups[0].get("c", 0), a.ta2 is not None)


@given(well_formed(), st.data())
def test_what_is_cut_off_is_told(
    built: tuple[bytes, list[dict[str, int]], bytes], data: st.DataObject
) -> None:
    """Cut among the interface bytes, the bytes are no ATR. Cut later, they are an ATR with a
    warning."""
    raw, groups, historical = built
    end = 2 + sum(len(group) for group in groups)
    cut = data.draw(st.integers(2, len(raw)))
    if cut < end:
        with pytest.raises(MalformedAtr, match=f"byte {cut + 1}, is announced by T"):
            Atr.parse(raw[:cut])
        return
    told = " ".join(Atr.parse(raw[:cut]).warnings)
    assert ("historical bytes, " in told) is (cut < end + len(historical))


def test_how_tck_is_judged() -> None:
    assert (atr(YUBIKEY).tck_right, atr(YUBIKEY).tck_expected) == (True, True)
    assert atr(YUBIKEY[:-2] + "41").tck_right is False
    assert atr(YUBIKEY[:-2]).tck_right is None
    assert (atr("3B00").tck_right, atr("3B00").tck_expected) == (None, False)
    assert (atr("3B0000").tck_right, atr("3B0000").tck) == (True, 0)


def test_specific_mode_in_detail() -> None:
    able, unable = atr("3B9011110191"), atr("3B9011119101")
    assert (able.can_change_mode, able.implicit_parameters) == (True, False)
    assert (unable.can_change_mode, unable.implicit_parameters) == (False, True)
    assert (atr("3B00").can_change_mode, atr("3B00").implicit_parameters) == (True, False)


def test_deep_groups() -> None:
    """Any depth that fits. The first interface byte of a kind counts, for its own protocol."""
    a = atr(DEEP)
    assert [group.t for group in a.groups] == [None, 0, 1, 1, 14, 15, 15]
    assert (a.ifsc, a.bwi, a.cwi, a.crc) == (0x20, 2, 5, True)
    assert (a.clock_stop, a.classes, a.spu) == (1, 3, 0x81)
    assert a.protocols == (0, 1, 14)
    assert a.warnings == ()
    text = a.explain()
    assert "TA4 = 0xFE  specific to T=1, a second one" in text
    assert "TA5 = 0x11  specific to T=14, no meaning" in text
    assert "TC6 = 0x00  global: no meaning" in text


def test_explain() -> None:
    lines = atr(YUBIKEY).explain().splitlines()
    assert lines[0] == "TS  = 0x3B  direct convention"
    assert "Fi = 372, Di = 4" in lines[2]
    assert "IFSC = 254" in lines[7]
    assert "BWI = 1, CWI = 5" in lines[8]
    assert "YubiKey" in lines[9]
    assert lines[-1] == "TCK = 0x40  right"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OPENPGP, "minimum delay"),
        (SIM, "class A (5 V), B (3 V), C (1.8 V)"),
        (SIM, "T=15, no protocol: global interface bytes, TA3 follows"),
        ("3B901191" + "9100", "specific mode, T=1"),
        ("3B901191" + "9100", "unable to change, parameters implicitly known"),
        ("3B90111161F1", "able to change, parameters given by the interface bytes, reserved bits"),
        ("3B102A", "Di = a reserved code"),
        ("3B1081", "Fi = a reserved code (F = 8), Di = 1"),
        ("3B1096", "250000 bit/s at 4 MHz, 312500 bit/s at f(max) = 5 MHz"),
        ("3B1011", "TA1 = 0x11  global: Fi = 372"),
        ("3B4001", "TC1 = 0x01  global: N = 1, extra guard time in etu"),
        ("3B80400A", "TC2 = 0x0A  specific to T=0: WI = 10"),
        ("3B2000", "VPP not connected"),
        ("3B2025", "PI1 = 5, 5 V; II = 1, 50 mA"),
        ("3B2041", "PI1 = 1, a reserved code; II = 2, reserved"),
        ("3B802064", "PI2 = 100, 10 V, in place of PI1"),
        ("3B802031", "PI2 = 49, a reserved code"),
        ("3B808171000001F1", "reserved value"),
        ("3B808171000001F1", "error detection by CRC"),
        ("3B80814102" + "C2", "error detection by LRC, reserved bits set"),
        ("3B808121A000", "BWI = 10, a reserved value, CWI = 0: 12 etu"),
        ("3B80812145E5", "BWI = 4, CWI = 5: 1.43 s a block at 4 MHz, 43 etu"),
        ("3F00", "inverse"),
        ("3B8040FF", "WI = 255"),
        ("3B80400A", "WI = 10, waiting time of 9600 × Fi clock cycles, 0.893 s at 4 MHz"),
        ("3B804000", "WI = 0, a reserved value"),
        ("3B02", "no interface bytes follow, 2 historical bytes"),
        ("3B01", "1 historical byte"),
        ("3B808F0085", "T=15, no protocol"),
        ("3B808E0E80", "T=14, a protocol outside the standard"),
        ("3B808202", "T=2, a reserved protocol"),
        ("3B80801F0519", "clock stop: not supported; class A (5 V), C (1.8 V), a reserved code"),
        ("3B80801F4852", "clock stop: state L; class a reserved code"),
        ("3B80802F002F", "contact C6 (SPU) not used"),
        ("3B80802F80AF", "contact C6 (SPU) in proprietary use"),
        ("3B80802F012E", "contact C6 (SPU) in standard use, a reserved code"),
    ],
)
def test_explain_says(text: str, words: str) -> None:
    assert words in atr(text).explain()
