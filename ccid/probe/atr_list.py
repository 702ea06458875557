"""Lists of ATRs: files with an ATR a line, pcsc-tools' smartcard_list.txt, and the output of
programs such as pcsc_scan.

Bytes may be written in every way that :mod:`ccid.ground.hexadecimal` accepts. A line that ends with
a comma, or within brackets, continues in the next line. Empty lines, and text after ``#``, are left
out. A line that begins with a tab describes the ATR above. An ATR may be a pattern, as in
smartcard_list.txt. A pattern stands for two ATRs, the lowest and the highest that it matches:

- ``.``, any digit, becomes 0 or F;
- ``[1,3]`` or ``[0-5]``, one of these digits, becomes the lowest or the highest of them;
- ``.*``, any digits, becomes no digit.

A value that is the same in both ATRs counts as known.

A text is the output of a program if one line has ``ATR: …`` or an ATR among other text, and other
lines are words; it may also be a dump of a file. Each ATR in such a text counts once: every ATR
that follows the word ATR, and every complete ATR that begins with 3B or 3F (pcsc_scan prints an ATR
again when it has identified the card).

Where a line ends in the middle of an ATR, and the next line has only bytes that belong to the ATR,
a mail program broke the line: both are joined.
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
from ccid.probe.text_file import name, read_lines, whole_texts

__all__ = ["Entry", "NotHexadecimal", "entries", "parse", "read"]

TOKEN = re.compile(
    r"(?P<any>\.\*)|(?P<one>\.)|(?P<set>\[[0-9A-Fa-f,-]+\])|(?P<digit>[0-9A-Fa-f])|[\s:]+"
)
"""The parts of a pattern."""
IS_PATTERN = re.compile(r"[.\[]")
NAMED = re.compile(r"(?:^|[^0-9A-Za-z])ATR\s*[:=]\s*(?=\S)", re.IGNORECASE)
"""The word ATR, as programs print it, with text behind it."""
NAMED_ALONE = re.compile(r"(?:^|[^0-9A-Za-z])ATR\s*[:=]", re.IGNORECASE)
FIRST_BYTE = re.compile(
    r"(?:\(\s*byte\s*\)\s*)?(?:0x|\\x)?[0-9][0-9A-Fa-f](?![g-z])", re.IGNORECASE
)
"""The first byte of an ATR behind the word ATR; a remark begins otherwise."""
INITIAL = re.compile(r"\s*(?:0x)?3[BF](?![G-Zg-z])", re.IGNORECASE)
"""The first byte of an ATR (ISO/IEC 7816-3:2006 8.1)."""
HIDDEN = re.compile(
    r"(?<![0-9A-Za-z])(?:\(byte\)\s?)?(?:0x|\\x)?3[BF](?![g-z])"
    r"(?:[\s,:-]{0,2}(?:\(byte\)\s?)?(?:0x|\\x)?(?:[0-9A-F]{2}){1,40}(?![0-9A-Za-z])|[0-9A-F]{2}){1,40}",
    re.IGNORECASE,
)
"""A text that may be an ATR among other text: at most two blanks between bytes, as in a dump."""
BYTES = re.compile(r"[\s>]*(?:[0-9A-F]{2}[\s:,-]{0,2}){1,32}", re.IGNORECASE)
"""A line of bytes alone."""
WORD = re.compile(r"[A-Za-z]{0,20}[g-zG-Z][A-Za-z]{0,20}")
OF_PROGRAMS = frozenset(("atr", "byte", "const", "static", "unsigned", "char", "uint", "new", "x"))
"""Words of program code that may stand before bytes: a line with them is no prose."""
OFFSET = re.compile(r"0{4,8}:?\s+(?=3[BF])", re.IGNORECASE)
"""The offset at the start of a dump of a file's bytes."""
DOTTED = re.compile(r"\s*[0-9A-Fa-f]{2}(?:\.[0-9A-Fa-f]{2})+\s*")


@dataclass(frozen=True, slots=True)
class Entry:
    """An ATR of a list.

    Attributes:
        text: The text of the ATR in the list.
        line: Number of the line, from 1; 0 for a word of the command line.
        raw: The bytes; for a pattern, the lowest ATR that it matches.
        highest: The highest ATR that the pattern matches; ``raw`` if the text is no pattern.
        pattern: Whether the text is a pattern.
        description: The lines that describe the ATR.
    """

    text: str
    line: int
    raw: bytes
    highest: bytes
    pattern: bool = False
    description: tuple[str, ...] = ()


def parse(text: str, line: int = 0, description: Iterable[str] = ()) -> Entry:
    """Parse one ATR in hexadecimal, or a pattern.

    Raises:
        NotHexadecimal: The text is neither.
    """
    text = hexadecimal.plain(text)
    start, end = hexadecimal.body(text)
    if "][" in text:  # sets at both ends, not one pair of brackets
        start, end = 0, len(text)
    if DOTTED.fullmatch(text, start, end):
        text = text.replace(".", ":")
    if IS_PATTERN.search(text, start, end):
        lowest, highest = _pattern(text, start, end)
        return Entry(text.strip(), line, lowest, highest, True, tuple(description))
    raw = hexadecimal.parse(text, quote=True)
    return Entry(text.strip(), line, raw, raw, False, tuple(description))


def _pattern(text: str, position: int, end: int) -> tuple[bytes, bytes]:
    """The lowest and the highest ATR that a pattern matches."""
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
    """The ATRs of a list, or of the output of a program.

    Raises:
        NotHexadecimal: A line is no ATR; the message begins with the number of the line.
    """
    lines = list(lines)
    if _is_prose(lines):
        lines = plain("\n".join(lines)).split("\n")
    lines = _mended(lines)
    waiting: tuple[str, int] | None = None
    description: list[str] = []
    for text, number in (
        _printed(lines) if _is_printed(lines) else whole_texts(lines, descriptions=True)
    ):
        if text.startswith("\t"):
            if waiting is not None:
                description.append(text.strip())
            continue
        if waiting is not None:
            yield _entry(*waiting, description)
        waiting, description = (text, number), []
    if waiting is not None:
        yield _entry(*waiting, description)


def _mended(lines: list[str]) -> list[str]:
    """``lines`` in which each ATR stands in one line. The lines that the rest of an ATR was taken
    from are left empty, so that line numbers stay."""
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
    """``line`` with the bytes of ``more`` added to its ATR; empty if ``more`` is no part of it."""
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
    """The length in bytes that the beginning of an ATR announces; the longest possible length if
    interface bytes are missing."""
    try:
        atr = Atr.parse(raw)
    except MalformedAtr:
        return MAX_ATR
    interface = sum(1 for group in atr.groups for _ in group.items())
    return 2 + interface + (raw[1] & 0x0F) + atr.tck_expected


def _is_prose(lines: list[str]) -> bool:
    """Whether one line has words and no ATR, and another line has an ATR."""
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
    """A complete ATR among other text in a line; None if there is none."""
    for found in HIDDEN.finditer(line):
        with suppress(NotHexadecimal):
            raw = hexadecimal.parse(found[0])
            if 2 < len(raw) <= MAX_ATR and len(raw) == _announced(raw):
                return found[0]
    return None


def _is_printed(lines: list[str]) -> bool:
    """Whether ``lines`` are the output of a program with an ATR in it."""
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
    """The ATRs in the output of a program, each once, with their line numbers."""
    seen: set[bytes] = set()
    for named in (True, False):  # a pattern that matched the ATR may stand in another line
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
        OSError: The file cannot be read, or has no ATR.
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
