"""Lists of ATRs, one a line, and smartcard_list.txt's format."""

from __future__ import annotations

import io
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.probe.atr_list import NotHexadecimal, entries, parse, read

LIST = """\
# a comment

3B 00
\ta card
\thttps://example.org

3b:10 11  # another
3F 6. [1,3]0 A[0-5] .*00
\tone of many
"""


def test_a_list() -> None:
    first, second, third = entries(LIST.splitlines())
    assert (first.raw, first.line, first.pattern) == (b"\x3b\x00", 3, False)
    assert first.description == ("a card", "https://example.org")
    assert (second.raw, second.line, second.description) == (b"\x3b\x10\x11", 7, ())
    assert third.pattern
    assert third.text == "3F 6. [1,3]0 A[0-5] .*00"
    assert third.raw == bytes.fromhex("3F 60 10 A0 00")
    assert third.highest == bytes.fromhex("3F 6F 30 A5 00")
    assert third.description == ("one of many",)


def test_a_set_is_taken_by_value_not_by_place() -> None:
    entry = parse("3B A[fE]")
    assert (entry.raw, entry.highest) == (b"\x3b\xae", b"\x3b\xaf")


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("3B0G", 4, "character 4, 'G', is not hexadecimal"),
        ("3B+00", 3, "character 3, '+'"),
        ("  3B x", 6, "character 6, 'x'"),
        ("3B [,]0", 4, "has no digit"),
        ("3B [0", 4, "character 4, '['"),
        ("3B0", 3, "3 digits up to character 3"),
        ("", 0, "no digit"),
        (".*", 2, "no digit"),
    ],
)
def test_what_is_not_hexadecimal(text: str, position: int, words: str) -> None:
    with pytest.raises(NotHexadecimal, match=re.escape(words)) as error:
        parse(text)
    assert error.value.position == position


SCANNED = """\
\x1b[35mPC/SC device scanner
\x1b[0m V 1.6.2 (c) 2001-2022
\x1b[34m0: Example 00 00\x1b[0m

\x1b[35mFri Mar 10 10:10:10 2023\x1b[0m
 Reader 0: \x1b[35mExample 00 00\x1b[0m
  Event number: \x1b[35m0\x1b[0m
  Card state: \x1b[31mCard inserted, \x1b[0m
  ATR: \x1b[35m3B 65 00 00 9C 02 02 07 02\x1b[0m

ATR: 3B 65 00 00 9C 02 02 07 02
+ TS = 3B --> Direct Convention
+ T0 = 65, Y(1): 0110, K: 5 (historical bytes)
  TB(1) = 00 --> VPP is not electrically connected

Possibly identified card (using /usr/share/pcsc/smartcard_list.txt):
3B 65 00 00 9C 02 02 07 02
\tAn example
3B 65 00 00 .. 02 02 07 02
\tATR: of many

 Reader 0: Example 00 00
  Card state: Card removed,\x20
  ATR:\x20
  ATR: none
  ATR: 3B:02:41:42
"""
SEEN = [bytes.fromhex("3B6500009C02020702"), bytes.fromhex("3B024142")]


def test_what_pcsc_scan_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scan"
    for codec in ("utf-8", "utf-16"):
        file.write_text(SCANNED, codec)
        assert [entry.raw for entry in read(str(file))] == SEEN
    assert [entry.line for entry in read(str(file))] == [9, 26]
    monkeypatch.setattr("sys.stdin", io.StringIO(SCANNED))
    assert [entry.raw for entry in read("-")] == SEEN


def test_an_atr_in_it_that_is_wrong_is_not_passed_over() -> None:
    for line, words in (
        ("  ATR: 3B 6", "line 2: 3 digits"),
        ("ATR: 3B 65 0G", "line 2: character 8, 'G'"),
        ("3B 0G", "line 2: character 5, 'G'"),
    ):
        with pytest.raises(NotHexadecimal, match=re.escape(words)):
            list(entries([" Reader 0: Example", line, "  ATR: 3B 00"]))


def test_lines_that_are_no_more_than_named_are_a_list() -> None:
    """Each line counts, even if two lines are equal."""
    lines = ["ATR: 3B 00", "# a remark", "3B 01 41", "Atr = 3B 00", "\tATR: of a description"]
    assert [entry.raw.hex() for entry in entries(lines)] == ["3b00", "3b0141", "3b00"]


def test_an_atr_over_several_lines() -> None:
    lines = ["{ 0x3B, 0x02,  # TS, T0", "  0x41,", "  0x42 };", "3B 02", "0x3B,0x01,", "0x41"]
    found = [(entry.raw.hex(), entry.line) for entry in entries(lines)]
    assert found == [("3b024142", 1), ("3b02", 4), ("3b0141", 5)]
    with pytest.raises(NotHexadecimal, match=r"^line 2: character 1"):
        list(entries(["3B 00", "[3B 00", "3B 00"]))


@pytest.mark.parametrize("text", ["3B" + "00" * 200_000, "3B" + ".." * 200_000, "[" * 400_000])
def test_the_longest_line_takes_no_time(text: str) -> None:
    """Four times the length takes about four times as long; quadratic time would be minutes."""
    before = time.process_time()
    with suppress(NotHexadecimal):
        parse(text)
    assert time.process_time() - before < 10


def test_a_file_without_end_is_no_list() -> None:
    with pytest.raises(OSError, match="16 MiB"):
        read("/dev/zero")


def test_a_wrong_line_is_named() -> None:
    with pytest.raises(NotHexadecimal, match=r"^line 2: character 6, 'X'"):
        list(entries(["3B 00", " 3B 0X", "3B 00"]))


def test_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "atrs"
    file.write_bytes(b"\xef\xbb\xbf3B 00\r\n\t\xff\r\n")
    (entry,) = read(str(file))
    assert entry.raw == b"\x3b\x00"
    monkeypatch.setattr("sys.stdin", io.StringIO("3B00\n3B 02 AA BB"))
    assert [entry.raw.hex() for entry in read("-")] == ["3b00", "3b02aabb"]
    monkeypatch.setattr("sys.stdin", io.StringIO("zz"))
    with pytest.raises(NotHexadecimal, match=r"^standard input: line 1: character 1"):
        read("-")
    file.write_text("# nothing\n")
    with pytest.raises(OSError, match="there is no ATR in it"):
        read(str(file))


@given(st.binary(min_size=1, max_size=40), st.sampled_from(["", " ", ":"]))
def test_what_was_written_is_read(raw: bytes, separator: str) -> None:
    entry = parse(raw.hex(separator) if separator else raw.hex())
    assert (entry.raw, entry.highest, entry.pattern) == (raw, raw, False)


@given(st.text(alphabet="0123456789abcdefABCDEF.[]*,-: \t#xG", max_size=20))
def test_any_line(text: str) -> None:
    """Every line is parsed, or refused with a position that is in the line."""
    refused: NotHexadecimal | None = None
    try:
        entry = parse(text)
    except NotHexadecimal as error:
        refused = error
    if refused is not None:
        assert 0 <= refused.position <= len(text)
        return
    assert entry.raw
    assert len(entry.raw) == len(entry.highest)
    assert entry.raw <= entry.highest


CRYPTOFLEX = "3B 65 00 00 9C 02 02 07 02"


@pytest.mark.parametrize(
    "text",
    [
        "Using reader with a card: Foo 00 00\n3b:65:00:00:9c:02:02:07:02",  # opensc-tool
        f"Current Reader ATR Size : 9 (0x9)\nCurrent Reader ATR Value : {CRYPTOFLEX} ",  # pcsctest
        f"Using T=0 protocol\n> RESET\n< OK: {CRYPTOFLEX} \n",  # scriptor
        "scd apdu\nD[0000]  3B 65 00 00 9C 02 02 07  02                     ;e.......\nOK",
        "--- Card: X\n---  ATR:\n   3b 65 00 00 9c 02 02 07  02                   ;e.......",
        f"00000012 ifdhandler.c:1234:IFDHPowerICC() Card ATR: {CRYPTOFLEX} \n",
        f"<pre>ATR: {CRYPTOFLEX}</pre>",
        "atr,name\n3B6500009C02020702,card",
        "unsigned char atr[] = {\n 0x3b, 0x65, 0, 0, 0x9c, 2, 2, 7, 2\n};".replace(" 0,", " 0x00,")
        .replace(" 2,", " 0x02,").replace(" 7,", " 0x07,").replace(" 2\n", " 0x02\n"),
        "00000000  3b 65 00 00 9c 02 02 07  02                     |;e.......|\n00000009",
        "00000000: 3b65 0000 9c02 0207 02                   ;e.......",
        "ATR: 3B 65 00 00\n9C 02 02 07 02",
        "3B 65 00 00\n9C 02 02 07 02\n",
        "> ATR: 3B 65 00 00 9C\n> 02 02 07 02\n> and so on",
        f"ATR:\n{CRYPTOFLEX}",
        f"Reader: X\nATR:\n  {CRYPTOFLEX}\nfoo",
        "3B.65.00.00.9C.02.02.07.02",
    ],
)  # fmt: skip
def test_an_atr_amid_other_text(text: str) -> None:
    assert [entry.raw for entry in entries(text.splitlines())] == [bytes.fromhex(CRYPTOFLEX)]


def test_whole_atrs_are_not_joined() -> None:
    assert len(list(entries(["3B 00", "3B 02 14 50", "3B 02 AA BB"]))) == 3


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32", "utf-16", "cp1252"])
def test_a_list_of_any_encoding(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "atrs"
    file.write_bytes(f"{CRYPTOFLEX}\r\n\tcarte à puce\r\n".encode(encoding))
    (entry,) = read(str(file))
    assert entry.raw == bytes.fromhex(CRYPTOFLEX)
    assert entry.description == ("carte à puce",)
