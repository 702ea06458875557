"""Bytes in hexadecimal, in the forms that people paste."""

from __future__ import annotations

import copy
import pickle
import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.ground.hexadecimal import NotHexadecimal, joined, mentioned, parse

BYTES = bytes.fromhex("3B 65 00 00 9C 02 07")


@pytest.mark.parametrize(
    "text",
    [
        "3B6500009C0207",
        "3b 65 00 00 9c 02 07",
        "3B:65:00:00:9C:02:07",
        "3B-65-00-00-9C-02-07",
        "3B,65,00,00,9C,02,07",
        "3B65 0000 9C02 07",
        "3B_65_00_00_9C_02_07",
        "\ufeff 3B 65 00 00 9C 02 07 \t",
        "3B 65 00 00\r\n9C 02 07\n",
        "ATR: 3B 65 00 00 9C 02 07",
        "  ATR=3B6500009C0207",
        "atr 3B 65 00 00 9C 02 07",
        "APDU: 3B 65 00 00 9C 02 07",
        "static const unsigned char atr[] = { 0x3B, 0x65, 0x00, 0x00, 0x9C, 0x02, 0x07 };",
        "byte[] apdu = { (byte)0x3B, (byte)0x65, (byte)0x0, (byte)0x0, (byte)0x9C, 0x02, 0x07 };",
        "C-APDU: 3B 65 00 00 9C 02 07",
        "0x3B6500009C0207",
        "0x3B 65 00 00 9C 02 07",
        "0x3B,0x65,0x00,0x00,0x9C,0x02,0x07",
        "0x3B 0X65 0x00 0x00 0x9C 0x02 0x07",
        "0x3B0x650x000x000x9C0x020x07",
        "[3B 65 00 00 9C 02 07]",
        "[0x3B, 0x65, 0x0, 0x0, 0x9c, 0x2, 0x7]",
        "{0x3B, 0x65, 0x00,\n 0x00, 0x9C, 0x02, 0x07,};",
        "(0x3B, 0x65, 0x00, 0x00, 0x9C, 0x02, 0x07)",
        "ATR: [[0x3B, 0x65, 0x00, 0x00, 0x9C, 0x02, 0x07]]",
        "{ (byte) 0x3B, (byte)0x65, (byte)0x00, (byte)0x0, (byte)0x9C, (byte)0x2, (byte)0x7 }",
        "(byte)0x3B, (byte)0x65, (byte)0x00, (byte)0x0, (byte)0x9C, (byte)0x2, (byte)0x7",
        "<3b650000 9c0207>",
        "'3B 65 00 00 9C 02 07'",
        '"3B6500009C0207"',
        "“3B 65 00 00 9C 02 07”",
        r"\x3b\x65\x00\x00\x9c\x02\x07",
        r"'\x3B\x65\x00\x00\x9C\x02\x07'",
        r"b'\x3b\x65\x00\x00\x9c\x02\x07'",
        r'b"\x3b\x65\x00\x00\x9c\x02\x07"',
        '"\\x3b\\x65\\x00"\n  "\\x00\\x9c\\x02\\x07"',
        "3Bh 65h 00h 00h 9Ch 02h 07h",
        "3BH,65H,00H,00H,09CH,02H,07H",
        "3B6500009C0207h",
        "3B 65 00 00 9C 02 07h",
        "\x1b[35m3B 65 00\x1b[0m 00 9C 02 07",
    ],
)
def test_the_same_bytes(text: str) -> None:
    assert parse(text) == BYTES


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "no digit"),
        ("[ ]", 3, "no digit"),
        ("ATR:", 4, "no digit"),
        ("3B0", 3, "3 digits"),
        ("3B 0", 4, "3 digits"),
        ("3B0 0", 1, "a group of 3 digits"),
        ("0x3B6, 0x1", 1, "a group of 3 digits"),
        ("3B 65,,00", 7, "no hexadecimal digit"),
        ("3B::65", 4, "no hexadecimal digit"),
        ("-3B65", 1, "no hexadecimal digit"),
        ("3B65-", 5, "no hexadecimal digit"),
        ("[3B 65", 1, "no hexadecimal digit"),
        ("3B 65]", 6, "no hexadecimal digit"),
        ("{3B 65]", 1, "no hexadecimal digit"),
        ("3B 65 0O", 8, "no hexadecimal digit"),
        ("3B 0x", 5, "no hexadecimal digit"),
        ("3B 65 h", 7, "no hexadecimal digit"),
        ("3B.65", 3, "no hexadecimal digit"),
        ("３B65", 1, "no hexadecimal digit"),
        ("3B\x0065", 3, "no hexadecimal digit"),
        ("0x3Bh", 5, "0x before the digits, and h behind"),
        ("3B'65", 3, "no hexadecimal digit"),
        ("[59, 101, 0]", 2, "may be decimal"),
        ("59,65", 1, "may be decimal"),
        ("0x3B, 65", 7, "with and without 0x"),
        ("3B, 0x65", 5, "with and without 0x"),
        ("10h, 20", 6, "with and without 0x"),
        (r"\x3be", 1, r"\x takes two digits"),
        (r"\x3", 1, r"\x takes two digits"),
        (r"b';e\x00'", 3, "no hexadecimal digit"),
    ],
)
def test_what_is_wrong_or_may_be_other_bytes(text: str, position: int, words: str) -> None:
    with pytest.raises(NotHexadecimal, match=re.escape(words)) as error:
        parse(text)
    assert error.value.position == position


def test_a_wrong_character_is_quoted_on_request_alone() -> None:
    with pytest.raises(NotHexadecimal, match=r"^character 4, 'G', is not hexadecimal$"):
        parse("3B0G", quote=True)
    with pytest.raises(NotHexadecimal, match=r"^character 4 is no hexadecimal digit$"):
        parse("3B0G")


FORMS = [
    lambda raw: raw.hex(),
    lambda raw: raw.hex(" ").upper(),
    lambda raw: raw.hex("-"),
    lambda raw: str([hex(byte) for byte in raw]).replace("'", ""),
    lambda raw: "".join(f"\\x{byte:02x}" for byte in raw),
    lambda raw: " ".join(f"{byte:02X}h" for byte in raw),
    lambda raw: "{" + ", ".join(f"(byte) 0x{byte:02X}" for byte in raw) + "};",
]


@given(st.binary(min_size=1, max_size=60), st.sampled_from(FORMS))
def test_what_was_written_is_read(raw: bytes, form: object) -> None:
    assert callable(form)
    assert parse(form(raw)) == raw


@given(st.text(alphabet="0123BFabxXhH\\ \n,:-[]{}()<>'\"“”b;_.\x1bmATRbyte", max_size=30))
def test_any_text(text: str) -> None:
    """Every text is parsed, or refused with a position that is in the text."""
    refused: NotHexadecimal | None = None
    try:
        assert parse(text)
    except NotHexadecimal as error:
        refused = error
    assert refused is None or 0 <= refused.position <= len(text)


@pytest.mark.parametrize(
    "text",
    ["0020000108" + "31" * 5 + "G", "0x" + "31" * 6 + "Z", "[31, 32, 33, 34, 35]", "3132333"],
)
def test_no_error_quotes_the_bytes(text: str) -> None:
    with pytest.raises(NotHexadecimal) as error:
        parse(text)
    assert "31" not in str(error.value)
    assert "32" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["3B", "65", "00"], ["3B 65 00"]),
        (["ATR:", "3B", "65"], ["ATR: 3B 65"]),
        (["0x3B,", "0x65"], ["0x3B, 0x65"]),
        (["[", "3Bh", "65h", "]"], ["[ 3Bh 65h ]"]),
        (["(byte)0x3B,", "(byte)0x65"], ["(byte)0x3B, (byte)0x65"]),
        (["3B00", "3B10"], ["3B00", "3B10"]),
        (["3B", "-"], ["3B", "-"]),
        (["3B"], ["3B"]),
        ([], []),
    ],
)
def test_words_that_lack_their_quotes(words: list[str], made: list[str]) -> None:
    assert joined(words) == made


def test_what_may_be_told() -> None:
    for harmless in ("frob", "--frob", "cards2.txt", "/home/me/2023/list.txt", "T=2", "a b c!"):
        assert mentioned(harmless) == repr(harmless)
    for bytes_ in ("00200081", "00 20 00 81", "0x00,0x20", r"\x00\x20", "x0020y", "/x/0020000131"):
        assert mentioned(bytes_) == f"(a word of {len(bytes_)} characters)"
    assert len(mentioned("z" * 1000)) < 100


@pytest.mark.parametrize(
    "unit", ["00", "0x3B,", "[", "\x1b[", "(byte)", "(byte", "'", " ", "0x", "\\x", '"\n"']
)
def test_the_longest_text_takes_no_time(unit: str) -> None:
    """Time is proportional to the length; quadratic time would be minutes."""
    text = "3B" + unit * 100_000
    before = time.process_time()
    with suppress(NotHexadecimal):
        parse(text)
    mentioned(text)
    assert time.process_time() - before < 20


@pytest.mark.parametrize(
    "text",
    [
        "Card ATR: 3B 65 00", "ATR of the card: 3B 65 00", "ATR (hex): 3B 65 00", "> ATR: 3B 65 00",
        "**ATR:** 3B 65 00", "ATR: `3B 65 00`", "`3B 65 00`", "new byte[] {0x3B, 0x65, 0x00}",
        "bytes.fromhex('3B 65 00')", "bytes([0x3B, 0x65, 0x00])", '"3B","65","00"', "3B;65;00",
        "3B|65|00", "3B/65/00", "x3B x65 x00", "$3B $65 $00", "%3B%65%00", "\u200b3B 65 00",
        "3B 65 \\\n00", "Command APDU: 3B 65 00", "=> 3B 65 00",
    ],
)  # fmt: skip
def test_more_forms_that_are_pasted(text: str) -> None:
    assert parse(text) == b"\x3b\x65\x00"


@pytest.mark.parametrize("text", ["0000: 3B 65", "FFh:65h=x"])
def test_what_may_be_an_offset_or_digits_is_no_label(text: str) -> None:
    with pytest.raises(NotHexadecimal):
        parse(text)


def test_a_label_is_found_in_no_time() -> None:
    before = time.process_time()
    for text in ("z" * 400_000, "A" * 400_000 + ":", "3B" + " " * 400_000 + "x", "b(" * 200_000):
        with suppress(NotHexadecimal):
            parse(text)
    assert time.process_time() - before < 10


@pytest.mark.parametrize("mark", ";|$%/+~")
def test_bytes_with_any_mark_between_them_are_not_mentioned(mark: str) -> None:
    text = mark.join(["00", "20", "00", "81", "04", "31", "32", "33", "34"])
    assert mentioned(text) == f"(a word of {len(text)} characters)"


def test_the_error_can_be_copied() -> None:
    error = pickle.loads(pickle.dumps(copy.deepcopy(NotHexadecimal("wrong", 7))))
    assert (str(error), error.position) == ("wrong", 7)
