"""Text from a device, a file or another program, made safe to show. Pure.

A terminal obeys control characters, and reorders characters between overrides of the writing
direction. So text from outside is cleaned where it enters (the strings of a
:class:`ccid.transport.ReaderInfo`, a table of readers) and again where it is printed.
"""

from __future__ import annotations

from typing import Any

LINE_SEPARATORS = "\u2028\u2029"
MAX_SHOWN = 60
"""Characters of a value that an error message quotes, at most."""
MAX_BITS = 128
"""Bits of a number that an error message quotes, at most: Python refuses to write a number of
several thousand digits."""


def printable(text: str) -> str:
    r"""``text`` on one line, without characters that a terminal obeys.

    Every character that is not printable (C0, DEL and C1, line ends, overrides of the writing
    direction, lone surrogates) becomes an escape sequence of Python: ``\x1b``, ``\n``,
    ``\u202e``. A blank of another width becomes a space.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """What stands for a character that is not printable."""
    if character >= "\xa0" and character.isspace() and character not in LINE_SEPARATORS:
        return " "
    return repr(character)[1:-1]


def printable_lines(text: str) -> str:
    """``text`` of several lines, each made :func:`printable`. Only ``\\n`` ends a line."""
    if text.isprintable():
        return text
    return "\n".join(printable(line) for line in text.split("\n"))


def short(value: Any) -> str:
    """A wrong value from a file for an error message: printable, and short."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        value = value[:MAX_SHOWN] + "…"
    return printable(repr(value))
