"""How often each value of an interface byte occurs in ATRs, and what the values code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ccid.errors import MalformedAtr
from ccid.ground.hexadecimal import mentioned
from ccid.iso7816.atr import DI, FI, Atr
from ccid.iso7816.atr_text import CLASSES, CLOCK_STOP
from ccid.probe.atr_list import Entry

NAME = re.compile(r"T([ABCD])([1-9]\d?)")
"""Names of interface bytes."""


@dataclass(frozen=True, slots=True)
class Row:
    """A value and how often it occurs.

    Attributes:
        value: The number.
        label: The number as it is shown.
        count: How often the value occurs.
        percent: Share of all values in the table, 0 to 100.
    """

    value: int
    label: str
    count: int
    percent: float


@dataclass(frozen=True, slots=True)
class Table:
    """The values of one parameter that a byte codes.

    Attributes:
        name: The parameter's name in the standard.
        total: How many values were counted.
        rows: The values that occur, in ascending order.
    """

    name: str
    total: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """The counts of one interface byte.

    Attributes:
        byte: Name of the byte.
        title: The name, with an explanation where the name alone is not clear.
        atrs: Number of ATRs.
        present: Number of ATRs that have the byte.
        absent: Number of ATRs that do not have the byte.
        unknown: Number of patterns that leave open whether they have the byte, or its value.
        malformed: Number of ATRs that cannot be parsed.
        tables: First the byte itself, then the parameters that it codes.
    """

    byte: str
    title: str
    atrs: int
    present: int
    absent: int
    unknown: int
    malformed: int
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """A parameter that a byte codes.

    Attributes:
        name: The parameter's name in the standard.
        take: Takes the parameter's number from the byte.
        label: Makes the text that shows the number.
        t: The protocol that the byte has to belong to; None for any.
    """

    name: str
    take: Callable[[int], int]
    label: Callable[[int], str] = str
    t: int | None = None


def _factor(table: tuple[int | None, ...]) -> Callable[[int], str]:
    return lambda code: f"{code:X}: {'reserved' if table[code] is None else table[code]}"


def _class(y: int) -> str:
    names = "".join(text[0] for bit, text in CLASSES if y & bit)
    return f"{y:02X}: {names or 'reserved'}"


def _low(value: int) -> int:
    return value & 0x0F


def _high(value: int) -> int:
    return value >> 4


def _whole(value: int) -> int:
    return value


def _protocol(t: int) -> str:
    return f"T={t}"


CODES: dict[str, tuple[Code, ...]] = {
    "TA1": (Code("Fi", _high, _factor(FI)), Code("Di", _low, _factor(DI))),
    "TB1": (
        Code("II", lambda value: value >> 5 & 3),
        Code("PI1", lambda value: value & 0x1F),
    ),
    "TC1": (Code("N", _whole),),
    "TA2": (
        Code("T", _low, _protocol),
        Code("change", lambda v: v >> 7, lambda bit: "unable" if bit else "able"),
        Code("parameters", lambda v: v >> 4 & 1, lambda bit: "implicit" if bit else "explicit"),
    ),
    "TB2": (Code("PI2", _whole),),
    "TC2": (Code("WI", _whole),),
    "TD": (
        Code("T", _low, _protocol),
        Code("Y", _high, lambda y: "".join(c for i, c in enumerate("ABCD") if y >> i & 1) or "-"),
    ),
    "TA3": (
        Code("IFSC", _whole, t=1),
        Code("X", lambda value: value >> 6, lambda x: f"{x}: {CLOCK_STOP[x]}", t=15),
        Code("Y", lambda value: value & 0x3F, _class, t=15),
    ),
    "TB3": (
        Code("BWI", _high, t=1),
        Code("CWI", _low, t=1),
        Code("SPU", _whole, lambda value: f"{value:02X}", t=15),
    ),
    "TC3": (Code("error detection", lambda v: v & 1, lambda bit: "CRC" if bit else "LRC", t=1),),
}
"""The parameters of each byte (ISO/IEC 7816-3:2006 8.2.3, 8.3, 10.2 and 11.4)."""


def title(byte: str) -> str:
    """The name of a byte, with an explanation where the name alone is not clear."""
    letter, number = byte[1], int(byte[2:])
    return f"{byte} (first after T=15 or T=1)" if number == 3 and letter != "D" else byte


def choose(atr: Atr, byte: str) -> tuple[int, int | None] | None:
    """The value of a named byte in an ATR, and the T that the byte belongs to; None if the ATR does
    not have the byte.

    TA3, TB3 and TC3 are the first byte of their letter, from the third group on, that belongs to
    T=1 or T=15. All other names are the letter and the number of the group.
    """
    letter, number = byte[1].lower(), int(byte[2:])
    for group in atr.groups:
        value: int | None = getattr(group, f"t{letter}")
        if value is None:
            continue
        if number == 3 and letter != "d":
            if group.i >= 3 and group.t in (1, 15):
                return value, group.t
        elif group.i == number:
            return value, group.t
    return None


def count(entries: Iterable[Entry], byte: str) -> Stats:
    """Count the values of a byte.

    Args:
        entries: The ATRs. The byte of a pattern is known if the lowest and the highest ATR of the
            pattern have the same value.
        byte: Name of the byte, as TA1 or TD2.

    Raises:
        ValueError: There is no such byte.
    """
    if NAME.fullmatch(byte) is None:
        raise ValueError(
            f"{mentioned(byte)} is no interface byte: TA1, TB1, TC1, TD1, TA2 and so on"
        )
    found: list[tuple[int, int | None]] = []
    total = absent = unknown = malformed = 0
    for entry in entries:
        total += 1
        try:
            value = choose(Atr.parse(entry.raw), byte)
            other = value if not entry.pattern else choose(Atr.parse(entry.highest), byte)
        except MalformedAtr:
            if entry.pattern:
                unknown += 1
            else:
                malformed += 1
            continue
        if value != other:
            unknown += 1
        elif value is None:
            absent += 1
        else:
            found.append(value)
    tables = [_table(byte, [value for value, _ in found], lambda value: f"0x{value:02X}")]
    for code in CODES.get("TD" if byte[1] == "D" else byte, ()):
        values = [code.take(value) for value, t in found if code.t in (None, t)]
        if values:
            after = "" if code.t is None else f" (T={code.t})"
            tables.append(_table(code.name + after, values, code.label))
    return Stats(byte, title(byte), total, len(found), absent, unknown, malformed, tuple(tables))


def _table(name: str, values: list[int], label: Callable[[int], str]) -> Table:
    total = len(values)
    rows = (
        Row(value, label(value), times, 100 * times / total)
        for value, times in sorted(Counter(values).items())
    )
    return Table(name, total, tuple(rows))
