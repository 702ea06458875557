"""The kinds of values that quirks have: each kind converts a TOML value and checks it. Pure.

A kind raises :class:`ValueError` with a text that says which value is right. The reader of the file
adds the name of the file and the line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ccid.codes import ExchangeLevel, PowerSelect

ALL_INTERFACES = tuple(range(256))
"""The value of ``composite-interfaces = "all"``."""

LEVELS = {
    "character": ExchangeLevel.CHARACTER,
    "tpdu": ExchangeLevel.TPDU,
    "short-apdu": ExchangeLevel.SHORT_APDU,
    "extended-apdu": ExchangeLevel.EXTENDED_APDU,
}
VOLTAGES = {
    "automatic": PowerSelect.AUTOMATIC,
    "5V": PowerSelect.V5_0,
    "3V": PowerSelect.V3_0,
    "1.8V": PowerSelect.V1_8,
}


class Kind(NamedTuple):
    """A kind of value.

    Attributes:
        name: Name of the kind in documents.
        parse: Converts a TOML value to the value of the quirk; raises ValueError for a wrong
            value.
    """

    name: str
    parse: Callable[[Any], Any]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _number(value: Any, highest: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        raise ValueError(what)
    return value


def _byte(value: Any) -> int:
    return _number(value, 0xFF, "a number from 0 to 255")


def _word(value: Any) -> int:
    return _number(value, 0xFFFF, "a number from 0 to 0xFFFF")


def _dword(value: Any) -> int:
    return _number(value, 0xFFFF_FFFF, "a number from 0 to 0xFFFFFFFF")


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise ValueError("seconds from 0 to 3600")
    return float(value)


def _hex(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise ValueError('bytes in hexadecimal, as "6A 00"') from None


def _numbers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("a list of numbers")
    return tuple(_dword(one) for one in value)


def _interfaces(value: Any) -> tuple[int, ...]:
    if value == "all":
        return ALL_INTERFACES
    if not isinstance(value, list) or not value:
        raise ValueError('a list of bInterfaceNumbers, or "all"')
    return tuple(_byte(one) for one in value)


def _sizes(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("[fewest, most] digits")
    fewest, most = (_byte(one) for one in value)
    if fewest > most:
        raise ValueError("[fewest, most] digits")
    return fewest, most


def _word_of(table: dict[str, Any], value: Any) -> Any:
    if not isinstance(value, str) or value not in table:
        raise ValueError("one of " + ", ".join(f'"{word}"' for word in table))
    return table[value]


def _patterns(value: Any) -> tuple[str, ...]:
    """Patterns: bytes in hexadecimal, ``..`` for any byte; ``*`` alone for any bytes."""
    wanted = 'a list of bytes in hexadecimal, ".." for any one, or ["*"]'
    if not isinstance(value, list):
        raise ValueError(wanted)
    for pattern in value:
        if not isinstance(pattern, str):
            raise ValueError(wanted)
        if pattern != "*":
            for byte in pattern.split():
                if byte != ".." and (len(byte) != 2 or len(_hex(byte)) != 1):
                    raise ValueError(wanted)
    return tuple(value)


def _apdus(value: Any) -> tuple[tuple[bytes, str], ...]:
    wanted = 'a table of command APDUs and texts, as { "FF 9A 01 01 00" = "text" }'
    if not isinstance(value, dict):
        raise ValueError(wanted)
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError(wanted)
    return tuple((_hex(apdu), text) for apdu, text in value.items())


def _pattern(value: Any) -> str:
    if not isinstance(value, str) or not value.split() or "*" in value:
        raise ValueError('bytes in hexadecimal, ".." for any one')
    (pattern,) = _patterns([value])
    return pattern


def _template(value: Any) -> str:
    from ccid.known.quirks.gadget_commands import check  # few readers have such a quirk

    return check(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


FLAG = Kind("true or false", _flag)
BYTE = Kind("byte", _byte)
RELEASE = Kind("bcdDevice", _word)
BITS = Kind("bits of 32", _dword)
LENGTH = Kind("bytes", _dword)
RATE = Kind("bit/s", _dword)
RATES = Kind("list of bit/s", _numbers)
SECONDS = Kind("seconds", _seconds)
HEX = Kind("bytes in hexadecimal", _hex)
LEVEL = Kind("level of exchange", lambda value: _word_of(LEVELS, value))
VOLTAGE = Kind("voltage", lambda value: _word_of(VOLTAGES, value))
INTERFACES = Kind('bInterfaceNumbers or "all"', _interfaces)
SIZES = Kind("[fewest, most] digits", _sizes)
PATTERNS = Kind("byte patterns", _patterns)
APDUS = Kind("APDUs and texts", _apdus)
PATTERN = Kind("byte pattern", _pattern)
TEMPLATE = Kind("command with places", _template)
TEXT = Kind("text", _text)


def shown(value: Any, kind: Kind) -> str:
    """The text of a value for documents and ``ccid-probe``, similar to the text in a file."""
    if value is True:
        return "true"
    if kind is INTERFACES and value == ALL_INTERFACES:
        return "all"
    if kind in (LEVEL, VOLTAGE):
        return next(word for word, code in (LEVELS | VOLTAGES).items() if code is value)
    if kind is HEX:
        return str(value.hex(" ").upper())
    if kind is APDUS:
        return ", ".join(f"{apdu.hex(' ').upper()} → {text}" for apdu, text in value)
    if kind in (RELEASE, BITS):
        return f"0x{value:04X}"
    if kind is BYTE and value > 9:
        return f"0x{value:02X}"
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value)
    return f"{value:g}" if kind is SECONDS else str(value)
