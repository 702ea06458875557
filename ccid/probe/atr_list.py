"""Lists of ATRs: one in hexadecimal a line, or pcsc-tools' smartcard_list.txt; or what pcsc_scan
and its like print.

Bytes may be written as people paste them (:mod:`ccid.hexadecimal`); a line that ends with a comma,
or within brackets, goes on in the next. Empty lines and what follows a ``#`` are left out; a line
that begins with a tab describes the ATR above it. An ATR may be a pattern as smartcard_list.txt
has them, and stands for two ATRs, the lowest and the highest it matches:

- ``.``, any digit, becomes 0 or F;
- ``[1,3]``, ``[0-5]``, one of the digits in it, becomes the least or the greatest of them;
- ``.*``, any digits, becomes none.

What is the same in both is as good as known.

A text in which a line says ``ATR: …`` and others are neither ATRs nor comments is what a program
printed. Of that every ATR counts once: those that are named so, and those of lines that begin with
3B or 3F and are not the same again (pcsc_scan repeats what it has identified).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ccid import hexadecimal
from ccid.hexadecimal import NotHexadecimal
from ccid.probe.text_file import name, read_lines

__all__ = ["Entry", "NotHexadecimal", "entries", "parse", "read"]

TOKEN = re.compile(
    r"(?P<any>\.\*)|(?P<one>\.)|(?P<set>\[[0-9A-Fa-f,-]+\])|(?P<digit>[0-9A-Fa-f])|[\s:]+"
)
"""What a pattern is made of."""
IS_PATTERN = re.compile(r"[.\[]")
NAMED = re.compile(r"(?:^|[^0-9A-Za-z])ATR\s*[:=]\s*(?=\S)", re.IGNORECASE)
"""Where a program names an ATR."""
FIRST_BYTE = re.compile(
    r"(?:\(\s*byte\s*\)\s*)?(?:0x|\\x)?[0-9][0-9A-Fa-f](?![g-z])", re.IGNORECASE
)
"""How one goes on there, and not a remark."""
INITIAL = re.compile(r"\s*(?:0x)?3[BF](?![G-Zg-z])", re.IGNORECASE)
"""How an ATR begins (ISO/IEC 7816-3:2006 8.1)."""


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


def _is_printed(lines: list[str]) -> bool:
    """True if this is what a program printed, and names an ATR somewhere in it."""
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
            if named is (found is None) or (found is None and not INITIAL.match(line)):
                continue
            text = line if found is None else line[found.end() :]
            if line.startswith("\t") or (found is not None and not _begins_with_byte(text)):
                continue
            with suppress(NotHexadecimal):
                entry = parse(text)
                if entry.raw in seen or (entry.pattern and not named):
                    continue
                seen.add(entry.raw)
            yield text, number


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
