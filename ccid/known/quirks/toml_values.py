"""Values as TOML text, to be appended to a user's file. Pure.

The standard library reads TOML and does not write it. A library that writes TOML (tomli-w, tomlkit)
would be a further dependency for a few kinds of values: strings, whole numbers, true and false,
lists, and tables on one line. The user's file keeps its text; new text is appended.
"""

from __future__ import annotations

import re
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = {'"': '\\"', "\\": "\\\\"}
_LAST_OF_FOUR = 0xFFFF
"""The greatest code point that an escape with four digits can name."""


class Hexadecimal(str):
    """A whole number in hexadecimal: ``0x0204`` in TOML, ``"0x0204"`` in JSON.

    Args:
        value: The number.
        digits: The least number of digits.
    """

    __slots__ = ()

    def __new__(cls, value: int, digits: int) -> Hexadecimal:
        return super().__new__(cls, f"0x{value:0{digits}X}")


def quoted(text: str) -> str:
    """A basic string of TOML. Characters that are not printable are escaped. U+FFFD replaces a
    lone surrogate, which TOML does not allow."""
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        return "\\uFFFD"
    return f"\\u{code:04X}" if code <= _LAST_OF_FOUR else f"\\U{code:08X}"


def key(name: str) -> str:
    """A key, in quotation marks if necessary."""
    return name if _BARE.fullmatch(name) else quoted(name)


def value(content: Any) -> str:
    """A value on one line.

    Raises:
        TypeError: The type of ``content`` is none of those that the table of readers has.
    """
    if isinstance(content, Hexadecimal):
        return str(content)
    if isinstance(content, str):
        return quoted(content)
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, int):
        return str(int(content))
    if isinstance(content, list):
        return f"[{', '.join(value(one) for one in content)}]"
    if isinstance(content, dict):
        inner = ", ".join(f"{key(name)} = {value(one)}" for name, one in content.items())
        return f"{{ {inner} }}" if inner else "{}"
    raise TypeError(f"{type(content).__name__} is not written")
