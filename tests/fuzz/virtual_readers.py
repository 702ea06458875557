"""Virtual readers that a target uses for all its inputs: making one costs more than most inputs
do."""

from __future__ import annotations

from ccid.codec.descriptors import ClassControl
from ccid.virtual import VirtualReader
from ccid.virtual.usb_device import Request

SET_CONFIGURATION = ClassControl(0x00, Request.SET_CONFIGURATION, 1, 0)


def as_new(reader: VirtualReader) -> VirtualReader:
    """The same reader as it was when it was made: its host set the configuration anew, so cards
    are without power and nothing is left of what was said. So an input finds what it would find
    alone."""
    reader.port.control(SET_CONFIGURATION)
    return reader
