"""Which card an ATR may belong to, by the list of ATRs that pcsc-tools brings.

The list, ``smartcard_list.txt``, is looked for where ``ATR_analysis`` looks for it; the environment
variable ``CCID_CARD_LIST`` names another file, or none if it is empty. A line of the list is an
ATR, or a pattern as :mod:`ccid.probe.atr_list` describes them; the lines after it that begin with a
tab describe the card.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from ccid.ground.safe_text import printable
from ccid.probe.text_file import read_lines

VARIABLE = "CCID_CARD_LIST"
SYSTEM_FILES = ("/usr/local/share/pcsc/smartcard_list.txt", "/usr/share/pcsc/smartcard_list.txt")
DIGITS = "0123456789ABCDEF"
PART = re.compile(r"(?P<many>\.\*)|(?P<any>\.)|\[(?P<set>[0-9A-F,-]{1,40})\]|(?P<one>[0-9A-F])")
MAX_PATTERN = 300
"""Characters of the longest pattern that is looked at."""
MANY = ""
"""A part of a pattern that stands for any number of digits; others are the digits that fit."""


def list_file() -> str | None:
    """The name of the list of this machine; None without one."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return named or None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for file in (
        f"{home}/smartcard_list.txt",
        os.path.expanduser("~/.smartcard_list.txt"),
        *SYSTEM_FILES,
    ):
        if os.access(file, os.R_OK) and Path(file).is_file():
            return file
    return None


def names(atr: bytes) -> tuple[str, ...]:
    """What the list says of the cards with this ATR, a line each; empty if it says nothing, or
    there is no list.

    Raises:
        OSError: ``CCID_CARD_LIST`` names a file that cannot be read.
    """
    file = list_file()
    return () if file is None else found(_parsed(file), atr)


@cache
def _parsed(file: str) -> CardList:
    return CardList(read_lines(file))


class CardList:
    """A list of ATRs with the names of their cards.

    Args:
        lines: The lines of the file.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.plain: dict[str, list[str]] = {}
        """The descriptions by ATR, in hexadecimal without blanks."""
        self.patterns: list[tuple[str, list[str]]] = []
        """The patterns without blanks, each with its descriptions."""
        about: list[str] = []
        for line in lines:
            if line.startswith("\t"):
                about.append(printable(line.strip()))
            elif line.strip() and not line.startswith("#"):
                text = "".join(line.upper().split())
                if re.fullmatch(r"[0-9A-F]+", text):
                    about = self.plain.setdefault(text, [])
                else:
                    about = []
                    self.patterns.append((text, about))


def found(cards: CardList, atr: bytes) -> tuple[str, ...]:
    """What ``cards`` says of an ATR: the ATR itself first, then the patterns that fit."""
    text = atr.hex().upper()
    told = list(cards.plain.get(text, ()))
    for pattern, about in cards.patterns:
        if pattern[:2] in (text[:2], "..") and fits(parts(pattern), text):
            told += about
    return tuple(dict.fromkeys(line for line in told if line))


def parts(pattern: str) -> list[str] | None:
    """The parts of a pattern: :data:`MANY`, or the digits that one place may have; None for a line
    that is no pattern."""
    if len(pattern) > MAX_PATTERN:
        return None
    result, position = [], 0
    while position < len(pattern):
        match = PART.match(pattern, position)
        if match is None:
            return None
        position = match.end()
        if match["set"]:
            result.append("".join(_spread(match["set"])))
        else:
            result.append(MANY if match["many"] else DIGITS if match["any"] else match["one"])
    return result


def _spread(content: str) -> Iterable[str]:
    """The digits of a set: ``1,3`` or ``0-5``. A range without an end is its one digit."""
    for part in content.split(","):
        low, _, high = part.partition("-")
        if len(low) == 1 and len(high) <= 1 and high in DIGITS:
            yield DIGITS[DIGITS.index(low) : DIGITS.index(high or low) + 1]
        else:
            yield part.replace("-", "")


def fits(pattern: Sequence[str] | None, text: str) -> bool:
    """True if ``text`` matches the parts of a pattern. The time is at most their product."""
    if pattern is None:
        return False
    place = back = 0
    star = -1
    at = 0
    while at < len(text):
        if place < len(pattern) and pattern[place] != MANY and text[at] in pattern[place]:
            place, at = place + 1, at + 1
        elif place < len(pattern) and pattern[place] == MANY:
            star, back, place = place, at, place + 1
        elif star >= 0:
            back += 1
            place, at = star + 1, back
        else:
            return False
    return all(part == MANY for part in pattern[place:])
