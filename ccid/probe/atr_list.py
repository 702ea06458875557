"""Lists of ATRs: one in hexadecimal a line, or pcsc-tools' smartcard_list.txt; or what pcsc_scan
and its like print.

Bytes may be written as people paste them (:mod:`ccid.ground.hexadecimal`); a line that ends with a
comma, or within brackets, goes on in the next. Empty lines and what follows a ``#`` are left out; a
line that begins with a tab describes the ATR above it. An ATR may be a pattern as
smartcard_list.txt has them, and stands for two ATRs, the lowest and the highest it matches:

- ``.``, any digit, becomes 0 or F;
- ``[1,3]``, ``[0-5]``, one of the digits in it, becomes the least or the greatest of them;
- ``.*``, any digits, becomes none.

What is the same in both is as good as known.

A text in which a line says ``ATR: …``, or has an ATR somewhere in it, and others are words is what
a program printed, a dump of a file's bytes perhaps. Of that every ATR counts once: those that are
named so, and those that begin with 3B or 3F, are whole, and are not the same again (pcsc_scan
repeats what it has identified).

Where a line ends before its ATR does, and the next has bytes alone that belong to it, a mail
program broke it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ccid.errors import MalformedAtr
from ccid.ground import hexadecimal
from ccid.ground.hexadecimal import NotHexadecimal
from ccid.iso7816.atr import MAX_ATR, Atr
from ccid.probe.pasted import plain
from ccid.probe.text_file import name, read_lines

__all__ = ["Entry", "NotHexadecimal", "entries", "parse", "read"]

TOKEN = re.compile(
    r"(?P<any>\.\*)|(?P<one>\.)|(?P<set>\[[0-9A-Fa-f,-]+\])|(?P<digit>[0-9A-Fa-f])|[\s:]+"
)
"""What a pattern is made of."""
IS_PATTERN = re.compile(r"[.\[]")
NAMED = re.compile(r"(?:^|[^0-9A-Za-z])ATR\s*[:=]\s*(?=\S)", re.IGNORECASE)
"""Where a program names an ATR."""
NAMED_ALONE = re.compile(r"(?:^|[^0-9A-Za-z])ATR\s*[:=]", re.IGNORECASE)
FIRST_BYTE = re.compile(
    r"(?:\(\s*byte\s*\)\s*)?(?:0x|\\x)?[0-9][0-9A-Fa-f](?![g-z])", re.IGNORECASE
)
"""How one goes on there, and not a remark."""
INITIAL = re.compile(r"\s*(?:0x)?3[BF](?![G-Zg-z])", re.IGNORECASE)
"""How an ATR begins (ISO/IEC 7816-3:2006 8.1)."""


HIDDEN = re.compile(
    r"(?<![0-9A-Za-z])(?:\(byte\)\s?)?(?:0x|\\x)?3[BF](?![g-z])"
    r"(?:[\s,:-]{0,2}(?:\(byte\)\s?)?(?:0x|\\x)?(?:[0-9A-F]{2}){1,40}(?![0-9A-Za-z])|[0-9A-F]{2}){1,40}",
    re.IGNORECASE,
)
"""What looks like an ATR amid other text: at most two blanks between bytes, as in a dump."""
BYTES = re.compile(r"[\s>]*(?:[0-9A-F]{2}[\s:,-]{0,2}){1,32}", re.IGNORECASE)
"""A line that has nothing but bytes."""
WORD = re.compile(r"[A-Za-z]{0,20}[g-zG-Z][A-Za-z]{0,20}")
OF_PROGRAMS = frozenset(("atr", "byte", "const", "static", "unsigned", "char", "uint", "new", "x"))
"""Words that stand before bytes, and are no text."""
OFFSET = re.compile(r"0{4,8}:?\s+(?=3[BF])", re.IGNORECASE)
"""With it a dump of a file's bytes begins."""
DOTTED = re.compile(r"\s*[0-9A-Fa-f]{2}(?:\.[0-9A-Fa-f]{2})+\s*")


@dataclass(frozen=True, slots=True)
class Entry:
    """An ATR of a list.

    Attributes:
        text: As the list has it.
        line: Number of its line, from 1; 0 for a word of the command line.
        raw: Its bytes; of a pattern the lowest it matches.
        highest: The highest it matches; ``raw`` if it is no pattern.
        pattern: It has places that stand for several digits.
        description: The lines that describe it.
    """

    text: str
    line: int
    raw: bytes
    highest: bytes
    pattern: bool = False
    description: tuple[str, ...] = ()


def parse(text: str, line: int = 0, description: Iterable[str] = ()) -> Entry:
    """One ATR in hexadecimal, or a pattern.

    Raises:
        NotHexadecimal: It is neither.
    """
    text = hexadecimal.plain(text)
    start, end = hexadecimal.body(text)
    if "][" in text:  # sets at both ends, not brackets around it all
        start, end = 0, len(text)
    if DOTTED.fullmatch(text, start, end):
        text = text.replace(".", ":")
    if IS_PATTERN.search(text, start, end):
        lowest, highest = _pattern(text, start, end)
        return Entry(text.strip(), line, lowest, highest, True, tuple(description))
    raw = hexadecimal.parse(text, quote=True)
    return Entry(text.strip(), line, raw, raw, False, tuple(description))


def _pattern(text: str, position: int, end: int) -> tuple[bytes, bytes]:
    """The lowest and the highest that a pattern matches."""
    lowest: list[str] = []
    highest: list[str] = []
    while position < end:
        found = TOKEN.match(text, position, end)
        if found is None:
            raise NotHexadecimal(
                f"character {position + 1}, {text[position]!r}, is not hexadecimal", position + 1
            )
        position = found.end()
        match found.lastgroup:
            case "digit":
                lowest.append(found[0])
                highest.append(found[0])
            case "one":
                lowest.append("0")
                highest.append("F")
            case "set":
                digits = re.findall("[0-9A-F]", found[0].upper())
                if not digits:
                    raise NotHexadecimal(
                        f"character {found.start() + 1}, {found[0]!r}, has no digit",
                        found.start() + 1,
                    )
                lowest.append(min(digits))
                highest.append(max(digits))
    if not lowest or len(lowest) % 2:
        count = f"{len(lowest)} digits" if lowest else "no digit"
        raise NotHexadecimal(f"{count} up to character {end}: bytes have two each", end)
    return bytes.fromhex("".join(lowest)), bytes.fromhex("".join(highest))


# Lists ----------------------------------------------------------------------------------------


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """The ATRs of a list, or of what a program printed.

    Raises:
        NotHexadecimal: A line is none; the message begins with its number.
    """
    lines = list(lines)
    if _is_prose(lines):
        lines = plain("\n".join(lines)).split("\n")
    lines = _mended(lines)
    waiting: tuple[str, int] | None = None
    description: list[str] = []
    for text, number in _printed(lines) if _is_printed(lines) else _listed(lines):
        if text.startswith("\t"):
            if waiting is not None:
                description.append(text.strip())
            continue
        if waiting is not None:
            yield _entry(*waiting, description)
        waiting, description = (text, number), []
    if waiting is not None:
        yield _entry(*waiting, description)


def _listed(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    """The lines that say something, and their numbers: ATRs, or a tab and a description. What
    goes on in the next line is one."""
    parts: list[str] = []
    first = depth = 0
    for number, line in enumerate(lines, 1):
        if line.startswith("\t") and not parts:
            if line.strip():
                yield line, number
            continue
        text = line.split("#", 1)[0].rstrip()
        if not text:
            continue
        if not parts:
            first, depth = number, 0
        parts.append(text)
        depth += sum(text.count(one) for one in "[{(") - sum(text.count(one) for one in "]})")
        if depth <= 0 and not text.endswith(","):
            yield "\n".join(parts), first
            parts = []
    if parts:
        yield "\n".join(parts), first


def _mended(lines: list[str]) -> list[str]:
    """``lines`` with the rest of each ATR that goes on in the next at the end of its own; what it
    was taken from is left empty."""
    mended: list[str] = []
    last = -1
    for index, line in enumerate(lines):
        if last >= 0 and BYTES.fullmatch(line) and (more := _with(mended[last], line)):
            mended[last] = more
            mended.append("")
            continue
        mended.append(line)
        if line.strip():
            last = index if NAMED_ALONE.search(line) or INITIAL.search(line) else -1
            if last >= 0 and "#" in line:
                last = -1
    return mended


def _with(line: str, more: str) -> str:
    """A line with more bytes of its ATR; empty if they do not belong to it."""
    if NAMED_ALONE.search(line) and not re.search(r"[:=]\s*\S", line):
        return f"{line} {more.strip(' >')}" if INITIAL.match(more.lstrip(" >")) else ""
    found = HIDDEN.search(line)
    if found is None or line[found.end() :].strip():
        return ""
    with suppress(NotHexadecimal):
        before = hexadecimal.parse(found[0])
        after = before + hexadecimal.parse(more.strip(" >"))
        if len(before) < _announced(before) and len(after) <= _announced(after):
            return f"{line} {more.strip(' >')}"
    return ""


def _announced(raw: bytes) -> int:
    """How many bytes an ATR has that begins so, by what is there of it; one more than it has if
    interface bytes lack."""
    try:
        atr = Atr.parse(raw)
    except MalformedAtr:
        return MAX_ATR
    interface = sum(1 for group in atr.groups for _ in group.items())
    return 2 + interface + (raw[1] & 0x0F) + atr.tck_expected


def _is_prose(lines: list[str]) -> bool:
    """True if a line has words and no ATR, and another has an ATR."""
    words = has = False
    for line in lines:
        text = line.split("#", 1)[0]
        has = has or NAMED.search(text) is not None or _hidden(text) is not None
        words = words or OFFSET.match(text) is not None
        if not words and not line.startswith("\t") and not INITIAL.match(text):
            found = WORD.findall(text)
            words = any(len(word) > 2 and word.lower() not in OF_PROGRAMS for word in found)
        if words and has:
            return True
    return False


def _hidden(line: str) -> str | None:
    """The whole ATR somewhere in a line, if there is one."""
    for found in HIDDEN.finditer(line):
        with suppress(NotHexadecimal):
            raw = hexadecimal.parse(found[0])
            if 2 < len(raw) <= MAX_ATR and len(raw) == _announced(raw):
                return found[0]
    return None


def _is_printed(lines: list[str]) -> bool:
    """True if this is what a program printed, and names an ATR somewhere in it."""
    if _is_prose(lines):
        return True
    names = other = False
    for line in lines:
        text = line.split("#", 1)[0].strip()
        if NAMED.search(text):
            names = True
        elif text and not line.startswith("\t") and not INITIAL.match(text):
            other = True
        if names and other:
            return True
    return False


def _printed(lines: list[str]) -> Iterator[tuple[str, int]]:
    """The ATRs in what a program printed, each once."""
    seen: set[bytes] = set()
    for named in (True, False):  # what is named comes first: a pattern may be what it was found by
        for number, line in enumerate(lines, 1):
            found = NAMED.search(line)
            amid = None if named else _hidden(line)
            if named is (found is None) or not (found or amid or INITIAL.match(line)):
                continue
            text = line if found is None else line[found.end() :]
            if found is None and amid is not None:
                text = amid
            elif found is not None and not _parses(text):
                text = _hidden(text) or text
            if line.startswith("\t") or (found is not None and not _begins_with_byte(text)):
                continue
            with suppress(NotHexadecimal):
                entry = parse(text)
                if entry.raw in seen or (entry.pattern and not named):
                    continue
                seen.add(entry.raw)
            yield text, number


def _parses(text: str) -> bool:
    try:
        parse(text)
    except NotHexadecimal:
        return False
    return True


def _begins_with_byte(text: str) -> bool:
    start, end = hexadecimal.body(text)
    return FIRST_BYTE.match(text, start, end) is not None


def read(file: str) -> list[Entry]:
    """The ATRs of a file, ``-`` for standard input.

    Raises:
        OSError: It cannot be read, or has no ATR.
        NotHexadecimal: A line is no ATR; the message begins with the name of the file.
    """
    try:
        found = list(entries(read_lines(file)))
    except NotHexadecimal as error:
        raise NotHexadecimal(f"{name(file)}: {error}", error.position) from None
    if not found:
        raise OSError(f"{name(file)}: there is no ATR in it")
    return found


def _entry(text: str, number: int, description: list[str]) -> Entry:
    try:
        return parse(text, number, description)
    except NotHexadecimal as error:
        raise NotHexadecimal(f"line {number}: {error}", error.position) from None
