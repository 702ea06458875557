"""Values as TOML, to be added to a user's file. Pure.

Python reads TOML and does not write it. Libraries that do (tomli-w, tomlkit) are more than these
few kinds of values need, and a file of the user's keeps its own text anyway: something is added
to its end. So this is all: strings, whole numbers, true and false, lists, and tables on one line.
"""

from __future__ import annotations

import re
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHORT = {'"': '\\"', "\\": "\\\\"}
_LAST_OF_FOUR = 0xFFFF


class Hexadecimal(str):
    """A whole number as a file has it: ``0x0204``. Bare in TOML, a string in JSON.

    Args:
        value: The number.
        digits: How many it has at least.
    """

    __slots__ = ()

    def __new__(cls, value: int, digits: int) -> Hexadecimal:
        return super().__new__(cls, f"0x{value:0{digits}X}")


def quoted(text: str) -> str:
    """A basic string: what is not printable is escaped. TOML has no lone surrogates; U+FFFD
    takes the place of one."""
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
    """A key, quoted where it has to be."""
    return name if _BARE.fullmatch(name) else quoted(name)


def value(content: Any) -> str:
    """A value on one line.

    Raises:
        TypeError: It is of a kind that no file of ours has.
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
