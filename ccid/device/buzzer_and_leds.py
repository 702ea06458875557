"""Buzzer and LEDs of a reader, by the commands that the table of readers knows.

There is no standard for them. The quirks ``buzzer-escape`` and ``led-escape`` have the command of
the manufacturer's manual; PC_to_RDR_Escape (USB CCID rev 1.1, 6.1.8) carries it. A reader without
these quirks pays nothing: this module is imported when the first command is asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ccid.errors import CommandFailed, UnsupportedByReader
from ccid.ground.safe_text import short
from ccid.known.quirks import gadget_commands
from ccid.known.quirks.vocabulary import begins_like

if TYPE_CHECKING:
    from ccid.device.reader import Reader


def buzz(reader: Reader, seconds: float) -> None:
    """:meth:`ccid.Reader.buzzer`."""
    command = reader.quirks.buzzer_escape
    if command is None:
        raise _unknown(reader, "buzzer")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"seconds: a number is wanted, not {type(seconds).__name__}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds: {short(seconds)} is no duration")
    longest_s = gadget_commands.longest_s(command)
    if seconds > longest_s:
        raise UnsupportedByReader(
            f"{reader.name}: a tone of {short(seconds)} s is too long, "
            f"{longest_s:g} s is the longest",
            reader=reader.name,
        )
    _send(reader, gadget_commands.buzzer_command(command, seconds), "buzzer")


def light(reader: Reader, lit: tuple[str, ...]) -> None:
    """:meth:`ccid.Reader.led`."""
    command = reader.quirks.led_escape
    if command is None:
        raise _unknown(reader, "LEDs")
    known = gadget_commands.leds(command)
    for name in lit:
        if not isinstance(name, str):
            raise TypeError(f"an LED has a name, not {type(name).__name__}")
        if name not in known:
            raise UnsupportedByReader(
                f"{reader.name}: there is no LED {short(name)}, there are {', '.join(known)}",
                reader=reader.name,
            )
    _send(reader, gadget_commands.led_command(command, lit), "LEDs")


def _unknown(reader: Reader, what: str) -> UnsupportedByReader:
    quirks = reader.quirks
    others = [("buzzer", quirks.buzzer_escape), ("LEDs", quirks.led_escape)]
    known = [name for name, command in others if command is not None]
    also = f"; one for its {known[0]} is known ({quirks.gadgets_source})" if known else ""
    return UnsupportedByReader(
        f"{reader.name}: the table of readers has no command for the {what} of this reader{also}",
        reader=reader.name,
    )


def _send(reader: Reader, command: bytes, what: str) -> None:
    """Send ``command`` as an Escape, and look whether the reader obeyed."""
    reply = reader.slots[0].escape(command)
    wanted = reader.quirks.gadgets_reply
    if wanted is not None and not begins_like(wanted, reply):
        raise CommandFailed(
            f"{reader.name}: the reader answered the command for its {what} with "
            f"{reply[:16].hex(' ').upper() or 'nothing'}",
            reader=reader.name,
        )
