"""``ccid-probe led``: switch the reader's LEDs, or list them."""

from __future__ import annotations

import argparse

from ccid.errors import UnsupportedByReader
from ccid.probe.reader_choice import note, opened, print_json, say

OFF = "off"
"""The word that switches all LEDs off."""


def run(options: argparse.Namespace) -> int:
    """Send the command for the LEDs that the table of readers has; without names list the names."""
    names: list[str] = options.names
    if OFF in names and len(names) > 1:
        note("led: `off` goes with no name: it switches all LEDs off")
        return 2
    lit = None if not names else [] if names == [OFF] else list(dict.fromkeys(names))
    with opened(options) as reader:
        info = reader.info
        leds = list(reader.leds)
        if lit is not None:
            reader.led(*lit)
        elif not leds:
            raise UnsupportedByReader(
                f"{info.name}: the table of readers knows no LEDs of this reader", reader=info.name
            )
    if options.json:
        print_json("led", name=info.name, path=info.path, leds=leds, lit=lit)
    elif lit is None:
        say(f"{info.name}: {', '.join(leds)}")
    else:
        say(f"{info.name}: {', '.join(lit) or 'all off'}")
    return 0
