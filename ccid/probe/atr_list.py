"""Lists of ATRs: one in hexadecimal a line, or pcsc-tools' smartcard_list.txt.

Empty lines and what follows a ``#`` are left out; a line that begins with a tab describes the ATR
above it. An ATR may be a pattern as smartcard_list.txt has them, and stands for two ATRs, the
lowest and the highest it matches:

- ``.``, any digit, becomes 0 or F;
- ``[1,3]``, ``[0-5]``, one of the digits in it, becomes the least or the greatest of them;
- ``.*``, any digits, becomes none.

What is the same in both is as good as known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ccid.probe.files import lines_of_input

TOKEN = re.compile(
    r"(?P<any>\.\*)|(?P<one>\.)|(?P<set>\[[0-9A-Fa-f,-]+\])|(?P<digit>[0-9A-Fa-f])|[ \t:]+"
)


class NotHexadecimal(ValueError):
    """A word or a line is no ATR in hexadecimal.

    Attributes:
        position: Of the character that is wrong, from 1.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


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
    lowest, highest, pattern, position = "", "", False, 0
    while position < len(text):
        found = TOKEN.match(text, position)
        if found is None:
            wrong = text[position]
            raise NotHexadecimal(
                f"character {position + 1}, {wrong!r}, is not hexadecimal", position + 1
            )
        position = found.end()
        match found.lastgroup:
            case "digit":
                lowest, highest = lowest + found[0], highest + found[0]
            case "one":
                lowest, highest, pattern = lowest + "0", highest + "F", True
            case "any":
                pattern = True
            case "set":
                digits = re.findall("[0-9A-F]", found[0].upper())
                if not digits:
                    raise NotHexadecimal(
                        f"character {found.start() + 1}, {found[0]!r}, has no digit",
                        found.start() + 1,
                    )
                lowest, highest, pattern = lowest + min(digits), highest + max(digits), True
    if not lowest or len(lowest) % 2:
        count = f"{len(lowest)} digits" if lowest else "no digit"
        raise NotHexadecimal(f"{count} up to character {len(text)}: bytes have two each", len(text))
    return Entry(
        text.strip(),
        line,
        bytes.fromhex(lowest),
        bytes.fromhex(highest),
        pattern,
        tuple(description),
    )


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """The ATRs of a list.

    Raises:
        NotHexadecimal: A line is none; the message begins with its number.
    """
    waiting: tuple[str, int] | None = None
    description: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("\t"):
            if waiting is not None and line.strip():
                description.append(line.strip())
            continue
        text = line.split("#", 1)[0].rstrip()
        if not text:
            continue
        if waiting is not None:
            yield _entry(*waiting, description)
        waiting, description = (text, number), []
    if waiting is not None:
        yield _entry(*waiting, description)


def read(file: str) -> list[Entry]:
    """The ATRs of a file, ``-`` for standard input.

    Raises:
        OSError: It cannot be read, or has no ATR.
        NotHexadecimal: A line is no ATR; the message begins with the name of the file.
    """
    name = "standard input" if file == "-" else file
    try:
        if file == "-":
            found = list(entries(lines_of_input()))
        else:
            with open(file, encoding="utf-8-sig", errors="replace") as lines:
                found = list(entries(lines))
    except NotHexadecimal as error:
        raise NotHexadecimal(f"{name}: {error}", error.position) from None
    if not found:
        raise OSError(f"{name}: there is no ATR in it")
    return found


def _entry(text: str, number: int, description: list[str]) -> Entry:
    try:
        return parse(text, number, description)
    except NotHexadecimal as error:
        raise NotHexadecimal(f"line {number}: {error}", error.position) from None
