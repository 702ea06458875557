"""Text from a file or from standard input, no more of it than makes sense."""

from __future__ import annotations

from ccid.errors import MalformedDescriptor
from ccid.ground.hexadecimal import plain
from ccid.probe.command_files import taken
from ccid.probe.pasted import decoded

MOST = 16 << 20
"""Bytes of the longest text that is read."""


def name(file: str) -> str:
    """What to call it in a message."""
    return "standard input" if file == "-" else file


def read_lines(file: str) -> list[str]:
    """The lines of a file, ``-`` for standard input, without the colours of a terminal.

    Raises:
        OSError: It cannot be read, or is longer than 16 MiB.
    """
    data = taken(file, MOST)
    if len(data) > MOST:
        raise OSError(f"{name(file)}: more than {MOST >> 20} MiB are no list")
    try:
        text = decoded(data, name(file))
    except MalformedDescriptor:  # of what is no text, an error names the first character
        text = data.decode("utf-8", errors="replace")
    return plain(text.removeprefix("\ufeff")).splitlines()
