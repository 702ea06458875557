"""What the commands print, and how: nothing that a device, a file or somebody else wrote commands
the terminal, whatever command shows it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from ccid.ground.safe_text import printable, printable_lines


def say(text: str = "") -> None:
    """Print a line of the result: what is in it cannot command a terminal, nor end the line."""
    print(printable(text))


def say_lines(text: str) -> None:
    """The same of several lines, whose ends are ours."""
    print(printable_lines(text))


def note(text: str) -> None:
    """Print a remark, which is no result. That nobody takes it is no error."""
    if sys.stderr is not None:
        try:
            print(f"ccid-probe: {printable_lines(text)}", file=sys.stderr)
        except OSError:
            silence(sys.stderr)


def flush() -> None:
    """Have what was printed leave this process now."""
    if sys.stdout is not None:
        sys.stdout.flush()


def silence(stream: TextIO | None) -> None:
    """Drop what is printed from now on, and what waits: it cannot be written."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)


def json_text(document: Any, indent: int | None = None) -> str:
    """A JSON document in ASCII, without any control character but the ends of its lines."""
    import json

    return json.dumps(document, indent=indent).replace("\x7f", "\\u007f")


def print_json(schema: str, **content: Any) -> None:
    """Print a JSON document of a documented schema."""
    say_lines(json_text({"schema": f"ccid-probe/{schema}/1", **content}, indent=2))
