"""Buzzer and LEDs of a virtual reader: what the host switched can be looked at. Pure.

reader = ccid.virtual.models.make("072f:2200")
with ccid.open_reader(reader) as opened:
    opened.led("green")
reader.gadgets.lit                                     # frozenset({'green'})
"""

from __future__ import annotations

from ccid.codes import SlotError
from ccid.known.quirks import Quirks, gadget_commands
from ccid.virtual.contact_wire import Refused

PCSC = 0xFF
"""CLA of a pseudo-APDU."""


class Gadgets:
    """Buzzer and LEDs of one reader, with the commands that its quirks name.

    Args:
        quirks: The quirks of the reader.

    Attributes:
        lit: The names of the LEDs that are switched on.
        tones: The length of each tone in seconds, in order; 0.0 for silence.
        refuses: The reader answers all commands with an error of its manufacturer.
    """

    def __init__(self, quirks: Quirks) -> None:
        self._buzzer = quirks.buzzer_escape
        self._led = quirks.led_escape
        self._reply = (quirks.gadgets_reply or "").split()
        self.lit: frozenset[str] = frozenset()
        self.tones: list[float] = []
        self.refuses = False

    def escape(self, data: bytes) -> bytes:
        """The answer to PC_to_RDR_Escape.

        Raises:
            Refused: The reader does not know the command.
        """
        answer = self._obeyed(data)
        if answer is None:
            raise Refused(SlotError.CMD_NOT_SUPPORTED)
        return answer

    def pseudo_apdu(self, apdu: bytes) -> bytes | None:
        """The response to a pseudo-APDU for the reader; None for any other command APDU."""
        return self._obeyed(apdu) if apdu[:1] == bytes((PCSC,)) else None

    def _obeyed(self, data: bytes) -> bytes | None:
        """Carry out a command for buzzer or LEDs; None for any other command."""
        seconds = gadget_commands.heard_duration(self._buzzer, data) if self._buzzer else None
        lit = gadget_commands.heard_leds(self._led, data) if self._led else None
        if seconds is None and lit is None:
            return None
        if self.refuses:
            return b"\x63\x00"
        if seconds is not None:
            self.tones.append(seconds)
        if lit is not None:
            self.lit = lit
        names = gadget_commands.leds(self._led) if self._led else ()
        state = sum(1 << i for i, name in enumerate(names) if name in self.lit)
        return bytes(state if word == ".." else int(word, 16) for word in self._reply)
