"""T=0 of a virtual card: from TPDUs to APDUs, the card's side of ISO/IEC 7816-3:2006 12.2.

A TPDU has 5 bytes of header and data in one direction, never in both. A command with data in both
directions is two TPDUs: the card answers the first with 61xx, then GET RESPONSE follows. A command
with an extended Lc or Le comes in the data of ENVELOPE commands (12.2.5 and 12.2.7).
"""

from __future__ import annotations

from ccid.errors import InvalidApdu
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards.application import Answer, Application

GET_RESPONSE = 0xC0
ENVELOPE = 0xC2
FULL = 255
"""Bytes of data of every ENVELOPE but the last."""


class T0Face:
    """An application seen through T=0.

    Args:
        application: The card.
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        self._response = b""
        self._sw = 0
        self._enveloped = bytearray()

    def takes_data(self, header: bytes) -> bool:
        """True if data go to the card with this header, CLA INS P1 P2 P3."""
        if header[1] == ENVELOPE and self.application.takes_envelope:
            return True
        return header[1] != GET_RESPONSE and self.application.takes_data(header)

    def reset(self) -> None:
        """Power-up or reset: forget pending data and reset the application."""
        self._response = b""
        self._enveloped.clear()
        self.application.reset()

    def transmit(self, tpdu: bytes) -> Answer:
        """Carry out one TPDU: header, P3 and optional data (a header alone has P3 = 0)."""
        if len(tpdu) < 4:
            return Answer(sw=0x6700)
        cla, ins, p1, p2, p3, *data = *tpdu, *([0] if len(tpdu) == 4 else [])
        if ins == GET_RESPONSE and not data and self._response:
            return self._more(p3 or 256)
        self._response = b""
        if data and len(data) != p3:
            return Answer(sw=0x6700)
        if ins == ENVELOPE and self.application.takes_envelope:
            return self._envelope(bytes(data))
        self._enveloped.clear()
        self.application.commands += 1
        if data:
            return self._with_data(CommandApdu(cla, ins, p1, p2, bytes(data), ne=256))
        ne = 0 if len(tpdu) == 4 else p3 or 256
        return self._without(CommandApdu(cla, ins, p1, p2, ne=ne))

    def _with_data(self, command: CommandApdu) -> Answer:
        """Cases 3 and 4: response data wait for GET RESPONSE."""
        answer = self.application.process(command)
        if not answer.data:
            return answer
        return Answer(sw=self._keep(answer.data, answer.sw), after_s=answer.after_s)

    def _without(self, command: CommandApdu) -> Answer:
        """Cases 1 and 2: the answer to a wrong Le is 6Cxx."""
        answer = self.application.process(command)
        if not command.ne or not answer.data or len(answer.data) == command.ne:
            return Answer(answer.data[: command.ne], answer.sw, answer.after_s)
        if len(answer.data) < command.ne:
            return Answer(sw=0x6C00 | len(answer.data), after_s=answer.after_s)
        sw = self._keep(answer.data[command.ne :], answer.sw)
        return Answer(answer.data[: command.ne], sw, answer.after_s)

    def _envelope(self, data: bytes) -> Answer:
        """A part of an APDU; a part that is not full, or empty, is the last
        (ISO/IEC 7816-4:2013 11.8.2)."""
        self._enveloped += data
        apdu = bytes(self._enveloped)
        if len(data) == FULL and not _is_whole(apdu):
            return Answer()
        self._enveloped.clear()
        answer = self.application.transmit(apdu)
        if not answer.data:
            return answer
        return Answer(sw=self._keep(answer.data, answer.sw), after_s=answer.after_s)

    def _more(self, ne: int) -> Answer:
        """GET RESPONSE (ISO/IEC 7816-4:2013 11.8.1)."""
        if ne > len(self._response):
            return Answer(sw=0x6C00 | len(self._response))
        part, self._response = self._response[:ne], self._response[ne:]
        return Answer(part, self._waiting() if self._response else self._sw)

    def _keep(self, data: bytes, sw: int) -> int:
        """Keep ``data`` for GET RESPONSE, and SW1-SW2 for its end; return 61xx."""
        self._response, self._sw = data, sw
        return self._waiting()

    def _waiting(self) -> int:
        return 0x6100 | min(len(self._response), 256) & 0xFF


def _is_whole(apdu: bytes) -> bool:
    """True if no further part can follow: the APDU has data and Le, or has no data."""
    try:
        command = CommandApdu.parse(apdu)
    except InvalidApdu:
        return False
    return bool(command.ne)
