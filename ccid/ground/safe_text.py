"""Text that a device, a file or another program wrote, made fit to be shown. Pure.

A terminal obeys control characters, and reorders what stands between overrides of the writing
direction. So what others wrote is cleaned where it comes in (the strings of a
:class:`ccid.transport.ReaderInfo`, a table of readers) and once more where it is printed.
"""

from __future__ import annotations

from typing import Any

LINE_SEPARATORS = "\u2028\u2029"
MAX_SHOWN = 60
"""Characters of a value that an error quotes."""
MAX_BITS = 128
"""Of a number that an error quotes; Python writes none of more than some thousand digits."""


def printable(text: str) -> str:
    r"""``text`` on one line, with nothing in it that a terminal obeys.

    Every character that is not printable (C0, DEL and C1, line ends, overrides of the writing
    direction, lone surrogates) becomes an escape as in a string of Python: ``\x1b``, ``\n``,
    ``\u202e``. A blank of another width becomes a space.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _shown(c) for c in text)


def _shown(character: str) -> str:
    if character >= "\xa0" and character.isspace() and character not in LINE_SEPARATORS:
        return " "
    return repr(character)[1:-1]


def printable_lines(text: str) -> str:
    """The same of a text of several lines: only ``\\n`` ends one."""
    if text.isprintable():
        return text
    return "\n".join(printable(line) for line in text.split("\n"))


def short(value: Any) -> str:
    """What a file has in place of something else, for an error: printable, and never long."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        value = value[:MAX_SHOWN] + "…"
    return printable(repr(value))
