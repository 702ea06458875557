"""What the bundle's Info.plist says to the driver."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ESCAPE = 0x0001
"""Bit of ifdDriverOptions: applications may send Escape commands."""


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the driver.

    Attributes:
        escape: Applications may send Escape commands.
    """

    escape: bool = False


def read_options(folder: str) -> Options:
    """The settings in the Info.plist of the bundle whose shared object is in ``folder``; the
    defaults where there is none."""
    try:
        text = (Path(folder).parent / "Info.plist").read_text("utf-8", "replace")
    except OSError:
        return Options()
    found = re.search(r"<key>ifdDriverOptions</key>\s*<string>\s*(\w+)\s*</string>", text)
    try:
        bits = int(found[1], 0) if found else 0
    except ValueError:
        bits = 0
    return Options(escape=bool(bits & ESCAPE))
