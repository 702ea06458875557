"""Commands for buzzer and LEDs, as the table of readers writes them: bytes with places. Pure.

    E0 00 00 28 01 {10ms}                    the duration, one byte that counts 10 ms
    58 1C {1ms:2}                            two bytes that count ms, the more significant one first
    E0 00 00 29 01 {red=01|green=02}         one byte, a bit for each LED
    FF 00 40 {0C|red=01|green=02} 04 …       the same, with bits that are always set
    58 1E {red=01} {green=01}                one byte for each LED

A command has places for a duration or for LEDs, not for both.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

WANTED = 'bytes in hexadecimal with one {10ms}, or with {red=01}, as "E0 00 00 28 01 {10ms}"'
DURATION = re.compile(r"\{([1-9]\d{0,3})ms(?::([12]))?\}")
"""The place for a duration: its unit in ms, and its length in bytes."""
LIGHTS = re.compile(
    r"\{(?:[0-9A-F]{2}\|)?[a-z]+(?:-\d)?=[0-9A-F]{2}(?:\|[a-z]+(?:-\d)?=[0-9A-F]{2})*\}"
)
"""The place for LEDs: bits that are always set, and the bits of each LED."""
BYTE = re.compile(r"[0-9A-F]{2}")


def check(value: Any) -> str:
    """``value`` with single spaces, if it is a command with places.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        raise ValueError(WANTED)
    words = value.split()
    durations = sum(DURATION.fullmatch(word) is not None for word in words)
    lights = sum(LIGHTS.fullmatch(word) is not None for word in words)
    plain = sum(BYTE.fullmatch(word) is not None for word in words)
    if durations + lights + plain != len(words) or (durations, bool(lights)) not in (
        (1, False),
        (0, True),
    ):
        raise ValueError(WANTED)
    return " ".join(words)


def leds(command: str) -> tuple[str, ...]:
    """The names of the LEDs that ``command`` sets, in its order."""
    names = (term.partition("=")[0] for word in command.split() for term in _terms(word))
    return tuple(dict.fromkeys(names))


def _terms(word: str) -> list[str]:
    """The ``name=bits`` of a place for LEDs."""
    return [term for term in word.strip("{}").split("|") if "=" in term]


def longest_s(command: str) -> float:
    """The longest duration, in seconds, that ``command`` has room for."""
    unit_ms, length = _duration(command)
    most: int = (1 << 8 * length) - 1
    return unit_ms * most / 1000


def _duration(command: str) -> tuple[int, int]:
    """Unit in ms, and length in bytes, of the duration in ``command``."""
    found = DURATION.search(command)
    assert found is not None
    return int(found[1]), int(found[2] or 1)


def buzzer_command(command: str, seconds: float) -> bytes:
    """``command`` with a duration in its place.

    Args:
        command: A command with a place for a duration.
        seconds: From 0 to :func:`longest_s`. 0 is silence; any other duration is rounded to a
            multiple of the unit, and up to one unit if it is shorter.
    """
    unit_ms, length = _duration(command)
    count = max(round(seconds * 1000 / unit_ms), 1 if seconds > 0 else 0)
    shown = count.to_bytes(length, "big").hex()
    return bytes.fromhex(DURATION.sub(shown, command))


def led_command(command: str, lit: Collection[str]) -> bytes:
    """``command`` with the LEDs ``lit`` switched on, and all others switched off."""
    return bytes(
        _lights(word, lit) if word.startswith("{") else int(word, 16) for word in command.split()
    )


def _lights(word: str, lit: Collection[str]) -> int:
    value = 0
    for term in word.strip("{}").split("|"):
        name, equals, bits = term.partition("=")
        if not equals:
            value |= int(name, 16)
        elif name in lit:
            value |= int(bits, 16)
    return value


# What a reader reads ----------------------------------------------------------------------------


def heard_duration(command: str, data: bytes) -> float | None:
    """The duration in seconds if ``data`` are ``command`` with a duration; None for other data."""
    unit_ms, length = _duration(command)
    head, tail = (bytes.fromhex(part) for part in DURATION.sub("|", command).split("|"))
    if len(data) != len(head) + length + len(tail) or data[: len(head)] != head:
        return None
    if data[len(head) + length :] != tail:
        return None
    return int.from_bytes(data[len(head) :][:length], "big") * unit_ms / 1000


def heard_leds(command: str, data: bytes) -> frozenset[str] | None:
    """The LEDs that are switched on if ``data`` are ``command``; None for other data."""
    words = command.split()
    if len(words) != len(data):
        return None
    terms = [
        (term.partition("=")[0], int(term.partition("=")[2], 16), byte)
        for word, byte in zip(words, data, strict=True)
        for term in _terms(word)
    ]
    lit = frozenset(name for name, bits, byte in terms if byte & bits == bits)
    return lit if led_command(command, lit) == data else None
