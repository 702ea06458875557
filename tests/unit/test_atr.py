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


def test_a_wrong_tck_is_told_with_the_right_one() -> None:
    """Greater or smaller than the right one makes no difference."""
    for wrong in ("00", "3F", "41", "FF"):
        a = atr(YUBIKEY[:-2] + wrong)
        assert a.warnings == (f"TCK is 0x{wrong}, and 0x40 would be right",)
        assert (a.tck, a.tck_right) == (int(wrong, 16), False)


def test_what_follows_tck_has_no_part_in_it() -> None:
    a = atr(YUBIKEY + "A5")
    assert (a.tck_right, a.warnings) == (True, ("1 byte too many at the end",))
    a = atr(YUBIKEY + "A55A77")
    assert (a.tck_right, a.warnings) == (True, ("3 bytes too many at the end",))


def test_the_longest_atr() -> None:
    """TS and 32 characters (ISO/IEC 7816-3:2006 8.1)."""
    groups = bytes.fromhex("FF 110000F1 11000AF1 20450071 204500")
    body = groups + b"A" * 15
    longest = bytes((0x3B,)) + body + bytes((reduce(xor, body),))
    assert len(longest) == 33
    assert Atr.parse(longest).warnings == ()
    assert Atr.parse(longest + b"A").warnings == (
        "1 byte too many at the end",
        "34 bytes; an ATR has 33 at most",
    )


# ISO/IEC 7816-3:2006, tables 7 and 8: by F the integer Fi and f(max) in MHz, by D the integer Di
BY_F = {
    0: (372, 4.0),
    1: (372, 5.0),
    2: (558, 6.0),
    3: (744, 8.0),
    4: (1116, 12.0),
    5: (1488, 16.0),
    6: (1860, 20.0),
    9: (512, 5.0),
    10: (768, 7.5),
    11: (1024, 10.0),
    12: (1536, 15.0),
    13: (2048, 20.0),
}
BY_D = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 32, 7: 64, 8: 12, 9: 20}


def test_every_ta1() -> None:
    for ta1 in range(256):
        a = atr(f"3B10{ta1:02X}")
        fi, fmax = BY_F.get(ta1 >> 4, (None, None))
        assert (a.ta1, a.fi, a.fmax_mhz, a.di) == (ta1, fi, fmax, BY_D.get(ta1 & 0x0F))


def test_without_interface_bytes_the_default_values_are_in_force() -> None:
    """ISO/IEC 7816-3:2006 8.3, 10.2 and 11.4"""
    a = atr("3B00")
    assert (a.ta1, a.fi, a.di, a.fmax_mhz, a.extra_guard_time) == (None, 372, 1, 5.0, 0)
    assert (a.protocols, a.default_protocol, a.specific_mode) == ((0,), 0, False)
    assert (a.wi, a.ifsc, a.bwi, a.cwi, a.crc) == (10, 32, 4, 13, False)
    assert (a.clock_stop, a.classes, a.spu) == (None, None, None)


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


def meaning(text: str, name: str) -> str:
    """What the ATR's explanation says of one byte."""
    lines = atr(text).explain().splitlines()
    begin = f"{name} = 0x"
    (told,) = [line for line in lines if line.startswith(begin)]
    return told[len(begin) + 4 :]


def test_every_ta1_in_words() -> None:
    for ta1 in range(256):
        f, d = ta1 >> 4, ta1 & 0x0F
        fi, fmax = BY_F.get(f, (None, None))
        di = BY_D.get(d)
        if fi is not None and fmax is not None and di is not None:
            expected = (
                f"Fi = {fi}, Di = {di}, {fi / di:.6g} clock cycles a bit, "
                f"{4_000_000 * di / fi:.0f} bit/s at 4 MHz, "
                f"{fmax * 1_000_000 * di / fi:.0f} bit/s at f(max) = {fmax:g} MHz"
            )
        else:
            first = "a reserved code" if fi is None else f"{fi}, f(max) = {fmax:g} MHz"
            second = "a reserved code" if di is None else str(di)
            expected = f"Fi = {first} (F = {f}), Di = {second} (D = {d})"
        assert meaning(f"3B10{ta1:02X}", "TA1") == f"global: {expected}"


def test_every_ta2_in_words() -> None:
    for ta2 in range(256):
        change = "unable" if ta2 >= 0x80 else "able"
        where = "implicitly known" if ta2 % 0x20 >= 0x10 else "given by the interface bytes"
        reserved = ", reserved bits set" if ta2 // 0x20 % 4 else ""
        assert meaning(f"3B8010{ta2:02X}", "TA2") == (
            f"global: specific mode, T={ta2 % 16}, {change} to change, parameters {where}{reserved}"
        )


def test_every_waiting_time_of_t1_in_words() -> None:
    """The times of ISO/IEC 7816-3:2006 11.4.3, at 4 MHz and Fd = 372."""
    for tb3 in range(256):
        bwi, cwi = divmod(tb3, 16)
        characters = f"{11 + (1 << cwi)} etu between characters"
        block = f"{(1 << bwi) * 960 * 372 / 4_000_000:.3g} s a block at 4 MHz"
        assert meaning(f"3B808121{tb3:02X}", "TB3") == "specific to T=1: " + (
            f"BWI = {bwi}, a reserved value, CWI = {cwi}: {characters}"
            if bwi > 9
            else f"BWI = {bwi}, CWI = {cwi}: {block}, {characters}"
        )


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        # Programming voltage and current (ISO/IEC 7816-3:1997 6.5.4)
        ("3B2000", "TB1", "global: programming voltage, deprecated: VPP not connected"),
        ("3B2060", "TB1", "global: programming voltage, deprecated: VPP not connected"),
        (
            "3B2004",
            "TB1",
            "global: programming voltage, deprecated: PI1 = 4, a reserved code; II = 0, 25 mA",
        ),
        ("3B2005", "TB1", "global: programming voltage, deprecated: PI1 = 5, 5 V; II = 0, 25 mA"),
        ("3B2039", "TB1", "global: programming voltage, deprecated: PI1 = 25, 25 V; II = 1, 50 mA"),
        (
            "3B205A",
            "TB1",
            "global: programming voltage, deprecated: PI1 = 26, a reserved code; II = 2, reserved",
        ),
        (
            "3B20FF",
            "TB1",
            "global: programming voltage, deprecated: PI1 = 31, a reserved code; II = 3, reserved",
        ),
        ("3B802031", "TB2", "global: programming voltage, deprecated: PI2 = 49, a reserved code"),
        (
            "3B802032",
            "TB2",
            "global: programming voltage, deprecated: PI2 = 50, 5 V, in place of PI1",
        ),
        (
            "3B8020FA",
            "TB2",
            "global: programming voltage, deprecated: PI2 = 250, 25 V, in place of PI1",
        ),
        ("3B8020FB", "TB2", "global: programming voltage, deprecated: PI2 = 251, a reserved code"),
        ("3B4000", "TC1", "global: N = 0, extra guard time in etu"),
        ("3B40FE", "TC1", "global: N = 254, extra guard time in etu"),
        ("3B40FF", "TC1", "global: N = 255, minimum delay: 12 etu with T=0, 11 etu with T=1"),
        ("3B804000", "TC2", "specific to T=0: WI = 0, a reserved value"),
        (
            "3B804001",
            "TC2",
            (
                "specific to T=0: "
                "WI = 1, waiting time of 960 × Fi clock cycles, 0.0893 s at 4 MHz and Fi"
            ),
        ),
        ("3B90864014", "TC2", "specific to T=0: WI = 20, waiting time of 19200 × Fi clock cycles"),
        (
            "3B90964014",
            "TC2",
            (
                "specific to T=0: "
                "WI = 20, waiting time of 19200 × Fi clock cycles, 2.46 s at 4 MHz and Fi"
            ),
        ),
        ("3B80811100", "TA3", "specific to T=1: IFSC = 0, a reserved value"),
        ("3B80811101", "TA3", "specific to T=1: IFSC = 1"),
        ("3B808111FE", "TA3", "specific to T=1: IFSC = 254"),
        ("3B808111FF", "TA3", "specific to T=1: IFSC = 255, a reserved value"),
        ("3B80814100", "TC3", "specific to T=1: error detection by LRC"),
        ("3B80814101", "TC3", "specific to T=1: error detection by CRC"),
        ("3B80814103", "TC3", "specific to T=1: error detection by CRC, reserved bits set"),
        ("3B80814180", "TC3", "specific to T=1: error detection by LRC, reserved bits set"),
        ("3B80811E00", "TA3", "specific to T=14, no meaning in the standard"),
        ("3B80801000", "TA3", "specific to T=0, no meaning in the standard"),
        ("3B80801F01", "TA3", "global: clock stop: not supported; class A (5 V)"),
        ("3B80801F42", "TA3", "global: clock stop: state L; class B (3 V)"),
        ("3B80801F83", "TA3", "global: clock stop: state H; class A (5 V), B (3 V)"),
        ("3B80801FC4", "TA3", "global: clock stop: no preference; class C (1.8 V)"),
        ("3B80801F06", "TA3", "global: clock stop: not supported; class B (3 V), C (1.8 V)"),
        (
            "3B80801F07",
            "TA3",
            "global: clock stop: not supported; class A (5 V), B (3 V), C (1.8 V)",
        ),
        (
            "3B80801F05",
            "TA3",
            "global: clock stop: not supported; class A (5 V), C (1.8 V), a reserved code",
        ),
        ("3B80801F20", "TA3", "global: clock stop: not supported; class a reserved code"),
        ("3B80802F00", "TB3", "global: contact C6 (SPU) not used"),
        ("3B80802F7F", "TB3", "global: contact C6 (SPU) in standard use, a reserved code"),
        ("3B80802F80", "TB3", "global: contact C6 (SPU) in proprietary use"),
        ("3B80804F00", "TC3", "global: no meaning in the standard"),
        ("3B8000", "TD1", "T=0, no interface bytes follow"),
        ("3B80D1000000", "TD1", "T=1, TA2, TC2, TD2 follow"),
        ("3B802100", "TD1", "T=1, TB2 follows"),
        ("3B808100", "TD2", "T=0, no interface bytes follow"),
        ("3B808E0E", "TD2", "T=14, a protocol outside the standard, no interface bytes follow"),
        ("3B808D0D", "TD2", "T=13, a reserved protocol, no interface bytes follow"),
        ("3B80801F01", "TD2", "T=15, no protocol: global interface bytes, TA3 follows"),
    ],
)
def test_a_byte_in_words(text: str, name: str, words: str) -> None:
    assert meaning(text, name) == words


def test_the_lines_around_the_interface_bytes() -> None:
    """Printable are 0x20 to 0x7E."""
    lines = atr("3F06" + "1F207E7F4180").explain().splitlines()
    assert lines[:3] == [
        "TS  = 0x3F  inverse convention",
        "T0  = 0x06  no interface bytes follow, 6 historical bytes",
        "Historical bytes: 1F 20 7E 7F 41 80  '. ~.A.'",
    ]
    for count in range(16):
        many = "1 historical byte" if count == 1 else f"{count} historical bytes"
        told = atr(f"3B{count:02X}" + "41" * count).explain().splitlines()
        assert told[1] == f"T0  = 0x{count:02X}  no interface bytes follow, {many}"
    assert atr("3B0000").explain().splitlines()[1:] == [
        "T0  = 0x00  no interface bytes follow, 0 historical bytes",
        "TCK = 0x00  right",
        "Warning: TCK is there though only T=0 is offered",
    ]
    assert atr("3B800105").explain().splitlines()[1:] == [
        "T0  = 0x80  TD1 follows, 0 historical bytes",
        "TD1 = 0x01  T=1, no interface bytes follow",
        "TCK = 0x05  wrong",
        "Warning: TCK is 0x05, and 0x81 would be right",
    ]


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
