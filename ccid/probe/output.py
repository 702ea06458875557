"""How the commands print: text of a device, a file or another program never reaches the terminal
with control characters in it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from ccid.ground.safe_text import printable, printable_lines


def say(text: str = "") -> None:
    """Print one line of the result. Control characters and line ends in ``text`` are escaped."""
    print(printable(text))


def say_lines(text: str) -> None:
    """Print several lines of the result. Line ends stay; other control characters are escaped."""
    print(printable_lines(text))


def note(text: str) -> None:
    """Print a remark to standard error. A closed standard error is no error."""
    if sys.stderr is not None:
        try:
            print(f"ccid-probe: {printable_lines(text)}", file=sys.stderr)
        except OSError:
            silence(sys.stderr)


def flush() -> None:
    """Write everything printed so far to standard output."""
    if sys.stdout is not None:
        sys.stdout.flush()


def silence(stream: TextIO | None) -> None:
    """Discard everything printed to ``stream`` from now on, and what its buffer holds."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)


def json_text(document: Any, indent: int | None = None) -> str:
    """A JSON document in ASCII. Line ends are its only control characters."""
    import json

    return json.dumps(document, indent=indent).replace("\x7f", "\\u007f")


def print_json(schema: str, **content: Any) -> None:
    """Print a JSON document of a documented schema."""
    say_lines(json_text({"schema": f"ccid-probe/{schema}/1", **content}, indent=2))
