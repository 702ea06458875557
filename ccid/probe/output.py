"""How the commands print: text of a device, a file or another program never reaches the terminal
with control characters in it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple, TextIO

from ccid.ground.safe_text import printable, printable_lines

# Colours ----------------------------------------------------------------------------------------


class Colour(Enum):
    """What a colour says, and its number (ECMA-48, 8.3.117)."""

    GOOD = 32
    LIMIT = 33
    BAD = 31


class Painted(NamedTuple):
    """A text with a colour, for :func:`say`: shown where the terminal has colours; None is its
    own."""

    text: str
    colour: Colour | None


def has_colours(stream: TextIO | None) -> bool:
    """Whether what is printed to ``stream`` may have colours: it is a terminal that knows them, and
    NO_COLOR is not set (https://no-color.org)."""
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def colour_of_status(sw: int) -> Colour | None:
    """The colour of a status word: warnings are 62XX and 63XX, errors 64XX to 6FXX but for 6CXX
    (ISO/IEC 7816-4:2013 5.6)."""
    sw1 = sw >> 8
    if sw == 0x9000 or sw1 == 0x61:
        return Colour.GOOD
    if sw1 in (0x62, 0x63, 0x6C):
        return Colour.LIMIT
    return Colour.BAD if sw1 >> 4 == 6 else None


# Text -------------------------------------------------------------------------------------------


def say(*parts: str | Painted) -> None:
    """Print one line of the result, in one or more parts. Control characters and line ends in them
    are escaped."""
    colours = has_colours(sys.stdout)
    print("".join(_shown(part, colours) for part in parts))


def _shown(part: str | Painted, colours: bool) -> str:
    if isinstance(part, str):
        return printable(part)
    text = printable(part.text)
    return f"\x1b[{part.colour.value}m{text}\x1b[0m" if colours and part.colour else text


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
