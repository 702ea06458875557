"""``ccid-probe buzz``: let the reader's buzzer sound."""

from __future__ import annotations

import argparse

from ccid.probe.reader_choice import opened, print_json, say


def run(options: argparse.Namespace) -> int:
    """Send the command for the buzzer that the table of readers has."""
    with opened(options) as reader:
        reader.buzzer(options.seconds)
        info = reader.info
    if options.json:
        print_json("buzz", name=info.name, path=info.path, seconds=options.seconds)
    else:
        say(f"{info.name}: a tone of {options.seconds:g} s")
    return 0
