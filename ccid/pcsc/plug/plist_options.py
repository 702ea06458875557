"""The settings of the driver in the bundle's Info.plist."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ccid.codes import PowerSelect
from ccid.ground.records import record

ESCAPE, APDU_MODE, OLD_FIRMWARE = 0x0001, 0x0002, 0x0004
VOLTAGE, NO_RETRY_COUNTER = 0x0030, 0x0040
"""Bits of ifdDriverOptions."""
VOLTAGES = {0x10: PowerSelect.V3_0, 0x20: PowerSelect.V1_8, 0x30: PowerSelect.AUTOMATIC}
"""The voltage for each value of the bits :data:`VOLTAGE`; 0 is 5 V, the default."""


@record
class Options:
    """Settings of the driver: the arguments of :class:`ccid.pcsc.ifd.IFDHandler`.

    Attributes:
        escape: Applications may send Escape commands.
        apdu_mode: Readers that can be switched to short APDU level are switched.
        old_firmware: Readers with firmware that is known to be faulty are opened.
        first_voltage: The first voltage for a card; None for 5 V.
        no_retry_counter: PIN pads do not send an empty VERIFY of their own.
    """

    escape: bool = False
    apdu_mode: bool = False
    old_firmware: bool = False
    first_voltage: PowerSelect | None = None
    no_retry_counter: bool = False

    @classmethod
    def of(cls, bits: int) -> Options:
        """The options in the value of ifdDriverOptions. Unknown bits are ignored."""
        return cls(
            escape=bool(bits & ESCAPE),
            apdu_mode=bool(bits & APDU_MODE),
            old_firmware=bool(bits & OLD_FIRMWARE),
            first_voltage=VOLTAGES.get(bits & VOLTAGE),
            no_retry_counter=bool(bits & NO_RETRY_COUNTER),
        )

    def as_arguments(self) -> dict[str, Any]:
        """The keyword arguments of :class:`ccid.pcsc.ifd.IFDHandler`."""
        return asdict(self)


def read_options(folder: str) -> Options:
    """The settings in the Info.plist of the bundle whose shared object is in ``folder``; the
    defaults if the file is missing."""
    try:
        text = (Path(folder).parent / "Info.plist").read_text("utf-8", "replace")
    except OSError:
        return Options()
    found = re.search(r"<key>ifdDriverOptions</key>\s*<string>\s*(\w+)\s*</string>", text)
    try:
        bits = int(found[1], 0) if found else 0
    except ValueError:
        bits = 0
    return Options.of(bits)
