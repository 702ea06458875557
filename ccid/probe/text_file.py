"""Text from a file or from standard input, no more of it than makes sense."""

from __future__ import annotations

from ccid.hexadecimal import plain
from ccid.probe.files import taken

MOST = 16 << 20
"""Bytes of the longest text that is read."""
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
"""What Windows' shells begin a file with."""


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
    codec = BYTE_ORDER_MARKS.get(data[:2], "utf-8")
    return plain(data.decode(codec, errors="replace").removeprefix("\ufeff")).splitlines()
