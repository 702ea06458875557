"""Text from a file or from standard input, no more of it than makes sense."""

from __future__ import annotations

import io
import sys
from typing import BinaryIO

from ccid.hexadecimal import plain

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
    if file != "-":
        with open(file, "rb") as source:
            text = _text(source, file)
    elif isinstance(sys.stdin, io.TextIOWrapper):
        text = _text(sys.stdin.buffer, file)
    else:
        text = sys.stdin.read(MOST + 1)
        _bounded(len(text), file)
    return plain(text).splitlines()


def _text(source: BinaryIO, file: str) -> str:
    data = source.read(MOST + 1)
    _bounded(len(data), file)
    codec = BYTE_ORDER_MARKS.get(data[:2], "utf-8")
    return data.decode(codec, errors="replace").removeprefix("\ufeff")


def _bounded(length: int, file: str) -> None:
    if length > MOST:
        raise OSError(f"{name(file)}: more than {MOST >> 20} MiB are no list")
