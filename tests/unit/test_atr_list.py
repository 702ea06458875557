"""Lists of ATRs, one a line, and smartcard_list.txt's format."""

from __future__ import annotations

import io
import re
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
        ("3B-00", 3, "character 3, '-'"),
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
    """Read, or refused with a place that is in it."""
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
