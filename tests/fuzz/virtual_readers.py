"""Virtual readers that a target uses for all its inputs: making one costs more than most inputs
do."""

from __future__ import annotations

from dataclasses import replace

from ccid.codec.descriptors import ClassControl
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual import EchoCard, VirtualReader
from ccid.virtual.cards.application import Answer
from ccid.virtual.usb_device import Request

SET_CONFIGURATION = ClassControl(0x00, Request.SET_CONFIGURATION, 1, 0)


class PromptCard(EchoCard):
    """Answers at once, also where an input has it compute for hours."""

    def process(self, command: CommandApdu) -> Answer:
        return replace(super().process(command), after_s=0.0)


def as_new(reader: VirtualReader) -> VirtualReader:
    """The same reader as it was when it was made: its host set the configuration anew, so cards
    are without power and nothing is left of what was said. So an input finds what it would find
    alone."""
    reader.port.control(SET_CONFIGURATION)
    return reader
