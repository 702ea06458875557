"""Text from a file or from standard input, up to a largest size."""

from __future__ import annotations

from ccid.errors import MalformedDescriptor
from ccid.ground.hexadecimal import plain
from ccid.probe.command_files import taken
from ccid.probe.pasted import decoded

MOST = 16 << 20
"""Bytes of the longest text that is accepted."""


def name(file: str) -> str:
    """The name of a file in a message."""
    return "standard input" if file == "-" else file


def read_lines(file: str) -> list[str]:
    """The lines of a file, ``-`` for standard input, without the colours of a terminal.

    Raises:
        OSError: The file cannot be read, or is longer than :data:`MOST`.
    """
    data = taken(file, MOST)
    if len(data) > MOST:
        raise OSError(f"{name(file)}: more than {MOST >> 20} MiB are no list")
    try:
        text = decoded(data, name(file))
    except MalformedDescriptor:  # no text: the parser reports the first wrong character
        text = data.decode("utf-8", errors="replace")
    return plain(text.removeprefix("\ufeff")).splitlines()
