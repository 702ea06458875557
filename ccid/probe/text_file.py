"""Text from a file or from standard input, up to a largest size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ccid.errors import MalformedDescriptor
from ccid.ground.hexadecimal import plain
from ccid.probe.command_files import taken
from ccid.probe.pasted import decoded, marked

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
    data = _taken(file, "list")
    try:
        text = decoded(data, name(file))
    except MalformedDescriptor:  # no text: the parser reports the first wrong character
        text = data.decode("utf-8", errors="replace")
    return plain(text.removeprefix("\ufeff")).splitlines()


def read_script(file: str) -> list[str]:
    """The lines of a script: UTF-8, or any encoding that begins with a byte order mark. Nothing is
    guessed, and nothing is taken away: a script is carried out.

    Raises:
        OSError: The file cannot be read, is longer than :data:`MOST`, or is no such text.
    """
    data = _taken(file, "script")
    mark, encoding = marked(data)
    data = data.removeprefix(mark)
    if encoding in ("", "utf-8"):
        return [utf8(line, name(file), number) for number, line in enumerate(data.splitlines(), 1)]
    try:
        return data.decode(encoding).splitlines()
    except UnicodeDecodeError as error:
        raise OSError(f"{name(file)}: byte {error.start + len(mark) + 1} is no text in "
                      f"{encoding}, which its first bytes promise") from None  # fmt: skip


def _taken(file: str, what: str) -> bytes:
    """The bytes of a file that is to be a ``what``.

    Raises:
        OSError: The file cannot be read, or is longer than :data:`MOST`.
    """
    data = taken(file, MOST)
    if len(data) > MOST:
        raise OSError(f"{name(file)}: more than {MOST >> 20} MiB are no {what}")
    return data


def utf8(line: bytes, file: str, number: int) -> str:
    """The text of a line.

    Args:
        line: The bytes of the line.
        file: The name of the file, for an error.
        number: Which line it is, from 1, for an error.

    Raises:
        OSError: It is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OSError(
            f"{file}: line {number} is not UTF-8: its byte {error.start + 1} is "
            f"{line[error.start]:02X}"
        ) from None


def whole_texts(lines: Iterable[str], *, descriptions: bool = False) -> Iterator[tuple[str, int]]:
    """The texts of a list with their line numbers, from 1. A text that ends with a comma, or within
    brackets, continues in the next line. Empty lines, and text after ``#``, are left out.

    Args:
        lines: The lines.
        descriptions: Whether a line that begins with a tab is a text by itself, as it is.
    """
    parts: list[str] = []
    first = depth = 0
    for number, line in enumerate(lines, 1):
        if descriptions and line.startswith("\t") and not parts:
            if line.strip():
                yield line, number
            continue
        text = line.split("#", 1)[0].rstrip()
        if not text.strip():
            continue
        if not parts:
            first, depth = number, 0
        parts.append(text)
        depth += sum(text.count(one) for one in "[{(") - sum(text.count(one) for one in "]})")
        if depth <= 0 and not text.endswith(","):
            yield "\n".join(parts), first
            parts = []
    if parts:
        yield "\n".join(parts), first
