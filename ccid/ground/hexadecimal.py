"""Bytes from hexadecimal text as people paste it. Pure.

All of these texts mean the same bytes::

    3B650000    3B 65 00 00    3b:65:00:00    3B-65-00-00    3B,65,00,00    ATR: 3B 65 00 00
    0x3B650000  0x3B,0x65,0x00,0x00    [0x3B, 0x65, 0x0, 0x0]    { (byte) 0x3B, (byte) 0x65, … };
    "\\x3b\\x65\\x00\\x00"    b'\\x3B\\x65\\x00\\x00'    3Bh 65h 00h 00h    3B650000h    <3b650000>

An ambiguous text is refused: an odd number of digits in a row, ``[59, 65]`` (which may be decimal),
bytes with and without ``0x`` side by side, a missing byte between two commas.

An error message names the position. It quotes at most the wrong character, and only on request: the
text may be an APDU with a PIN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
"""An escape sequence of a terminal, such as a colour (ECMA-48, 5.4)."""
LABEL = re.compile(
    r"(?:[=*>-]{0,4}>\s*)?(?:"  # the mark of a quotation, or an arrow such as "=>"
    r"(?=[^:=\n]{0,40}?[g-z][^:=\n]{0,40}[:=])(?![0-9a-f]{1,2}h)"
    r"[*_$]{0,2}[a-z][\w .#()\[\]-]{1,40}?[:=]\*{0,2}\s*"
    r"|(?:(?:static|const|unsigned|char|uint8_t|byte(?:\[\])?)\s+){0,4}"
    r"(?:ATR|(?:[CR][- ]?)?APDU)(?:\[\w*\])?\s*[:=]?\s*"
    r")?(?:new\s+byte\s*\[\d*\]\s*)?(?:(?=\w{0,20}?[g-z])[a-z_][\w.]{0,40}(?=\())?",
    re.IGNORECASE,
)
"""A label that programs and programmers write before the bytes: ``ATR:``, ``Card ATR:``,
``const uint8_t atr[] =``, ``bytes.fromhex``. A label has a letter that is no hexadecimal digit."""
PAIRS = {"[": "]", "{": "}", "(": ")", "<": ">", '"': '"', "'": "'", "“": "”", "‘": "’", "`": "`"}
"""Brackets and quotation marks that may enclose the bytes: opening to closing mark."""
TOKEN = re.compile(
    r"(?P<cast>\(\s*byte\s*\)\s*)?(?P<prefix>0[xX]|\\?[xX]|[$%])?"
    r"(?P<digits>(?:(?!0[xX])[0-9A-Fa-f])+)(?P<suffix>[hH](?![0-9A-Za-z]))?"
)
SEPARATOR = re.compile(
    r"""\s*(?:["']\s{0,9}(?P<comma>[,;]?)\s{0,9}["']|(?P<mark>[,;:|/_‐‑–-]))?\s*(?:\\\n\s*)?"""
)
"""What may stand between two groups of digits."""
INVISIBLE = "\ufeff\u200b"
"""Byte order mark and zero width space."""
DECIMAL = re.compile(r"0|[1-9]\d{0,2}", re.ASCII)
"""A group of digits that may be a decimal number."""

BYTE = re.compile(
    r"""[\[({<"']*(?:\(byte\))?(?:0x|\\x)?[0-9A-Fa-f]{1,2}h?[\])}>"',;]*""", re.IGNORECASE
)
"""One byte as a word of a command line, with brackets or marks at its ends."""
PART = re.compile(r"(?:ATR|(?:[CR]-?)?APDU)[:=]?|[:=,\[\](){}<>;]|\(byte\)", re.IGNORECASE)
"""A label or a mark as a word of a command line."""


class NotHexadecimal(ValueError):
    """The text does not mean bytes in hexadecimal, or is ambiguous.

    Attributes:
        position: Number of the wrong character, from 1.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position

    def __reduce__(self) -> tuple[type[NotHexadecimal], tuple[str, int]]:
        return type(self), (str(self), self.position)


class _Group(NamedTuple):
    """Hexadecimal digits in a row.

    Attributes:
        start: Index of the first character.
        notation: ``0x``, ``\\x``, ``h`` or empty.
        digits: The digits.
        mark: The mark between this group and the group before, such as a comma; empty for blanks.
    """

    start: int
    notation: str
    digits: str
    mark: str


def parse(text: str, *, quote: bool = False) -> bytes:
    """The bytes that ``text`` means.

    Args:
        text: A text in any of the notations above.
        quote: True if an error message may quote the wrong character.

    Raises:
        NotHexadecimal: ``text`` does not mean bytes, or is ambiguous; the message names the
            position.
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
    """``text`` without escape sequences of a terminal."""
    return ANSI.sub("", text) if "\x1b" in text else text


def body(text: str) -> tuple[int, int]:
    """The start and the end of the digits in ``text``: without blanks, label (such as ``ATR:``),
    brackets, quotation marks and semicolon around them."""
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
    """``start`` and ``end`` without blanks at either end."""
    while start < end and (text[start].isspace() or text[start] in INVISIBLE):
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _groups(text: str, start: int, end: int, quote: bool) -> list[_Group]:
    """The groups of digits between ``start`` and ``end``."""
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
    """The error for a wrong character at index ``at``."""
    if text[at : at + 2].lower() == "0x":
        at += 1  # no digit follows
    what = f", {text[at]!r}, is not hexadecimal" if quote else " is no hexadecimal digit"
    return NotHexadecimal(f"character {at + 1}{what}", at + 1)


def _check_notation(groups: list[_Group]) -> None:
    """Raise NotHexadecimal if the groups may be decimal numbers, text or an offset."""
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
        return  # one 0x before all bytes, or one h after all bytes
    first = next(group for group in groups if group.notation != groups[0].notation)
    raise NotHexadecimal(
        f"character {first.start + 1}: bytes with and without 0x, \\x or h side by side: those "
        f"without may be decimal, or text",
        first.start + 1,
    )


def _even(group: _Group, count: int, length: int) -> str:
    """The digits of a group, two for each byte.

    Args:
        group: The group.
        count: Number of digits in all groups.
        length: Number of characters of the text.
    """
    digits = group.digits
    at = group.start + 1
    if group.notation == "\\x" and len(digits) != 2:
        raise NotHexadecimal(f"character {at}: \\x takes two digits, {len(digits)} follow", at)
    if len(digits) % 2 == 0:
        return digits
    if group.notation and len(digits) == 1:
        return f"0{digits}"
    if group.notation == "h" and len(digits) == 3 and digits[0] == "0":
        return digits[1:]  # 0FFh: in an assembler a number begins with a decimal digit
    if count % 2:
        what = f"{count} digit{'s' if count > 1 else ''} up to character {length}"
        raise NotHexadecimal(f"{what}: bytes have two each", length)
    raise NotHexadecimal(
        f"character {at} begins a group of {len(digits)} digits: bytes have two each", at
    )


# Quoting a word of the user that may hold an APDU ---------------------------------------------

SEEMS_BYTES = re.compile(r"(?:(?:0x|\\?x)?[0-9A-Fa-f]h?[^0-9A-Za-z/]*){4,}", re.IGNORECASE)
"""Four hexadecimal digits or more, with any marks between them."""
SEEMS_MANY_BYTES = re.compile(SEEMS_BYTES.pattern.replace("4", "8"), re.IGNORECASE)
"""Eight hexadecimal digits or more: a path often has four."""
SLASHES = re.compile(r"(?:(?<![0-9A-Za-z])[0-9A-Fa-f]{2}/){4,}[0-9A-Fa-f]{2}(?![0-9A-Za-z])")
"""Bytes with slashes between them."""

LONGEST_WORD, LONGEST_PATH = 80, 400
"""Characters of a word and of a path that an error message quotes, at most."""


def mentioned(text: str) -> str:
    """``text`` in quotation marks for an error message; only its length if ``text`` may be bytes.

    A user may type an APDU with a PIN in the wrong place.
    """
    seems = SEEMS_MANY_BYTES if "/" in text else SEEMS_BYTES
    if seems.search(text) or SLASHES.search(text):
        return f"(a word of {len(text)} characters)"
    most = LONGEST_PATH if "/" in text else LONGEST_WORD
    return repr(text if len(text) <= most else f"{text[:most]}…")


def joined(words: Sequence[str]) -> list[str]:
    """``words`` of a command line, joined to one word if all are bytes, labels or brackets: the
    user then forgot the quotation marks around the bytes."""
    if len(words) > 1 and all(BYTE.fullmatch(word) or PART.fullmatch(word) for word in words):
        return [" ".join(words)]
    return list(words)
