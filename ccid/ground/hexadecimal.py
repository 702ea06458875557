"""Bytes in hexadecimal, as people paste them. Pure.

All of these are the same bytes::

    3B650000    3B 65 00 00    3b:65:00:00    3B-65-00-00    3B,65,00,00    ATR: 3B 65 00 00
    0x3B650000  0x3B,0x65,0x00,0x00    [0x3B, 0x65, 0x0, 0x0]    { (byte) 0x3B, (byte) 0x65, … };
    "\\x3b\\x65\\x00\\x00"    b'\\x3B\\x65\\x00\\x00'    3Bh 65h 00h 00h    3B650000h    <3b650000>

What may mean other bytes is refused: an odd number of digits in a row, ``[59, 65]`` that may be
decimal, bytes with and without ``0x`` side by side, a byte that lacks between two commas.

An error tells where, and no more of the text than one wrong character, and that only on request:
the text may be an APDU with a PIN in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
"""An escape sequence of a terminal: colours, mostly (ECMA-48, 5.4)."""
LABEL = re.compile(
    r"(?:[=*>-]{0,4}>\s*)?(?:"  # a quotation, or a command of a protocol
    r"(?=[^:=\n]{0,40}?[g-z][^:=\n]{0,40}[:=])(?![0-9a-f]{1,2}h)"
    r"[*_$]{0,2}[a-z][\w .#()\[\]-]{1,40}?[:=]\*{0,2}\s*"
    r"|(?:(?:static|const|unsigned|char|uint8_t|byte(?:\[\])?)\s+){0,4}"
    r"(?:ATR|(?:[CR][- ]?)?APDU)(?:\[\w*\])?\s*[:=]?\s*"
    r")?(?:new\s+byte\s*\[\d*\]\s*)?(?:(?=\w{0,20}?[g-z])[a-z_][\w.]{0,40}(?=\())?",
    re.IGNORECASE,
)
"""What programs, and programmers, write before the bytes: ``ATR:``, ``Card ATR:``,
``const uint8_t atr[] =``, ``bytes.fromhex``. A label has a letter that is no digit."""
PAIRS = {"[": "]", "{": "}", "(": ")", "<": ">", '"': '"', "'": "'", "“": "”", "‘": "’", "`": "`"}
"""What may stand around the bytes, the first and the last of each."""
TOKEN = re.compile(
    r"(?P<cast>\(\s*byte\s*\)\s*)?(?P<prefix>0[xX]|\\?[xX]|[$%])?"
    r"(?P<digits>(?:(?!0[xX])[0-9A-Fa-f])+)(?P<suffix>[hH](?![0-9A-Za-z]))?"
)
SEPARATOR = re.compile(
    r"""\s*(?:["']\s{0,9}(?P<comma>[,;]?)\s{0,9}["']|(?P<mark>[,;:|/_‐‑–-]))?\s*(?:\\\n\s*)?"""
)
INVISIBLE = "\ufeff\u200b"
DECIMAL = re.compile(r"0|[1-9]\d{0,2}", re.ASCII)


BYTE = re.compile(
    r"""[\[({<"']*(?:\(byte\))?(?:0x|\\x)?[0-9A-Fa-f]{1,2}h?[\])}>"',;]*""", re.IGNORECASE
)
"""One byte, and what may stick to it."""
PART = re.compile(r"(?:ATR|(?:[CR]-?)?APDU)[:=]?|[:=,\[\](){}<>;]|\(byte\)", re.IGNORECASE)


class NotHexadecimal(ValueError):
    """A text is no bytes in hexadecimal.

    Attributes:
        position: Of the character that is wrong, from 1.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position

    def __reduce__(self) -> tuple[type[NotHexadecimal], tuple[str, int]]:
        return type(self), (str(self), self.position)


class _Group(NamedTuple):
    """Digits in a row.

    Attributes:
        start: Index of the first character.
        notation: ``0x``, ``\\x``, ``h`` or nothing.
        digits: The digits.
        mark: What separates them from the digits before: a comma, say; empty for blanks.
    """

    start: int
    notation: str
    digits: str
    mark: str


def parse(text: str, *, quote: bool = False) -> bytes:
    """The bytes that ``text`` stands for.

    Args:
        text: In any of the notations above.
        quote: An error may quote the one character that is wrong.

    Raises:
        NotHexadecimal: It is no bytes, or may be several; the message says where.
    """
    text = plain(text)
    start, end = body(text)
    groups = _groups(text, start, end, quote)
    count = sum(len(group.digits) for group in groups)
    if not count:
        raise NotHexadecimal(f"no digit up to character {len(text)}", len(text))
    _check_notation(groups)
    return bytes.fromhex("".join(_even(group, count, len(text)) for group in groups))


def plain(text: str) -> str:
    """``text`` without the escape sequences of a terminal."""
    return ANSI.sub("", text) if "\x1b" in text else text


def body(text: str) -> tuple[int, int]:
    """Where in ``text`` the digits begin and end: without blanks, a label such as ``ATR:``,
    brackets, quotes and a semicolon around them."""
    start, end = _stripped(text, 0, len(text))
    label = LABEL.match(text, start, end)
    if label is not None:
        start, end = _stripped(text, label.end(), end)
    if end > start and text[end - 1] == ";":
        start, end = _stripped(text, start, end - 1)
    while True:
        opened = start + (text[start : start + 1] == "b" and text[start + 1 : start + 2] in "\"'")
        closing = PAIRS.get(text[opened : opened + 1])
        if closing is None or end - opened < 2 or text[end - 1] != closing:
            break
        if TOKEN.match(text, opened) is not None:  # (byte) 0x3B
            break
        start, end = _stripped(text, opened + 1, end - 1)
    if end > start and text[end - 1] == ",":
        start, end = _stripped(text, start, end - 1)
    return start, end


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and (text[start].isspace() or text[start] in INVISIBLE):
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _groups(text: str, start: int, end: int, quote: bool) -> list[_Group]:
    groups: list[_Group] = []
    position = start
    while position < end:
        separator = SEPARATOR.match(text, position, end) if groups else None
        at = position if separator is None else separator.end()
        token = TOKEN.match(text, at, end)
        if token is None:
            raise _wrong(text, min(at, end - 1), quote)
        prefix, suffix = (token["prefix"] or "").lower(), (token["suffix"] or "").lower()
        if at == position and groups and not prefix:
            raise NotHexadecimal(f"character {at + 1} is the next byte, or part of one", at + 1)
        if prefix and suffix:
            raise NotHexadecimal(
                f"character {token.end()}: 0x before the digits, and h behind them",
                token.end(),
            )
        mark = (separator["mark"] or separator["comma"] or "") if separator is not None else ""
        groups.append(_Group(at, prefix or suffix, token["digits"], mark))
        position = token.end()
    return groups


def _wrong(text: str, at: int, quote: bool) -> NotHexadecimal:
    """The error for the character at index ``at``."""
    if text[at : at + 2].lower() == "0x":
        at += 1  # no digit follows
    what = f", {text[at]!r}, is not hexadecimal" if quote else " is no hexadecimal digit"
    return NotHexadecimal(f"character {at + 1}{what}", at + 1)


def _check_notation(groups: list[_Group]) -> None:
    """Raise if the groups may be meant otherwise than as hexadecimal."""
    notations = {group.notation for group in groups}
    marks = [group.mark for group in groups[1:]]
    if marks[:1] == [":"] and len(groups[0].digits) > 2 and ":" not in marks[1:]:
        at = groups[0].start + 1
        raise NotHexadecimal(f"character {at} begins what may be an offset: leave it out", at)
    has_commas = any(group.mark == "," for group in groups)
    if notations == {""}:
        if has_commas and all(DECIMAL.fullmatch(group.digits) for group in groups):
            raise NotHexadecimal(
                f"from character {groups[0].start + 1} on there may be decimal numbers: write 0x "
                f"before each byte, or leave the commas out",
                groups[0].start + 1,
            )
        return
    if len(notations) == 1:
        return
    rest = groups[:-1] if groups[-1].notation == "h" else groups[1:]
    if not has_commas and not any(group.notation for group in rest):
        return  # one 0x before all, or one h behind all
    first = next(group for group in groups if group.notation != groups[0].notation)
    raise NotHexadecimal(
        f"character {first.start + 1}: bytes with and without 0x, \\x or h side by side: those "
        f"without may be decimal, or text",
        first.start + 1,
    )


def _even(group: _Group, count: int, length: int) -> str:
    """The digits of a group, two for each byte."""
    digits = group.digits
    at = group.start + 1
    if group.notation == "\\x" and len(digits) != 2:
        raise NotHexadecimal(f"character {at}: \\x takes two digits, {len(digits)} follow", at)
    if len(digits) % 2 == 0:
        return digits
    if group.notation and len(digits) == 1:
        return f"0{digits}"
    if group.notation == "h" and len(digits) == 3 and digits[0] == "0":
        return digits[1:]  # 0FFh: an assembler's number begins with a figure
    if count % 2:
        what = f"{count} digit{'s' if count > 1 else ''} up to character {length}"
        raise NotHexadecimal(f"{what}: bytes have two each", length)
    raise NotHexadecimal(
        f"character {at} begins a group of {len(digits)} digits: bytes have two each", at
    )


# What may be told of a text -------------------------------------------------------------------

SEEMS_BYTES = re.compile(r"(?:(?:0x|\\?x)?[0-9A-Fa-f]h?[^0-9A-Za-z/]*){4,}", re.IGNORECASE)
"""Four digits or more, whatever stands between them."""
SEEMS_MANY_BYTES = re.compile(SEEMS_BYTES.pattern.replace("4", "8"), re.IGNORECASE)
"""Eight or more: a path may well have four."""
SLASHES = re.compile(r"(?:(?<![0-9A-Za-z])[0-9A-Fa-f]{2}/){4,}[0-9A-Fa-f]{2}(?![0-9A-Za-z])")
"""Bytes with slashes between them."""

LONGEST_WORD, LONGEST_PATH = 80, 400
"""Characters of a word, or of a path, that an error quotes."""


def mentioned(text: str) -> str:
    """``text`` in quotes for an error, or, where it may hold bytes, how long it is: they may be
    an APDU with a PIN, typed where it does not belong."""
    seems = SEEMS_MANY_BYTES if "/" in text else SEEMS_BYTES
    if seems.search(text) or SLASHES.search(text):
        return f"(a word of {len(text)} characters)"
    most = LONGEST_PATH if "/" in text else LONGEST_WORD
    return repr(text if len(text) <= most else f"{text[:most]}…")


def joined(words: Sequence[str]) -> list[str]:
    """``words`` of a command line; as one, if each is a byte, or what may stand before or around
    bytes: it lacks the quotes then."""
    if len(words) > 1 and all(BYTE.fullmatch(word) or PART.fullmatch(word) for word in words):
        return [" ".join(words)]
    return list(words)
