"""T=0 TPDUs with an ICCD device of version A: the phases of a TPDU (USB ICCD rev 1.0, 6.4.2).

The host sends the header. The status byte of the device names the next phase: the host sends the
data, or fetches the response data. At the end the host fetches SW1 SW2.
"""

from __future__ import annotations

from ccid.errors import InvalidApdu, ProtocolError
from ccid.iso7816.apdu import APDU_HEADER, SW_LENGTH, TPDU_HEADER, Bytes, is_extended, octets
from ccid.link.card_state import Session
from ccid.link.iccd_commands import DATA_EXPECTED, STATUS_READY, IccdA
from ccid.session.exchange.refused_extended import T0, short_only


class IccdAT0:
    """Sends an APDU as one TPDU, and returns the response unchanged, 61xx and 6Cxx as well.

    Args:
        commands: The commands of the device.
        session: The power-up of the card to which the TPDUs belong; None for any.
    """

    def __init__(self, commands: IccdA, session: Session | None = None) -> None:
        self.commands = commands
        self.session = session

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` as one TPDU, and return the response.

        Raises:
            InvalidApdu: ``apdu`` has fewer than 4 bytes, or P3 differs from the length of the data.
            UnsupportedByReader: ``apdu`` is an extended APDU.
            ProtocolError: The status byte of the device fits no phase, or SW1 SW2 are incomplete.
        """
        apdu = octets(apdu)
        if is_extended(apdu):
            raise short_only(self.commands, T0)
        if len(apdu) < APDU_HEADER:
            raise InvalidApdu(f"{len(apdu)} bytes; a command APDU has at least {APDU_HEADER}")
        header = apdu[:TPDU_HEADER].ljust(TPDU_HEADER, b"\0")
        data = apdu[TPDU_HEADER:]
        if data and len(data) == header[4] + 1:
            data = data[:-1]  # case 4 goes as case 3: the card announces its response by 61xx
        if data and len(data) != header[4]:
            raise InvalidApdu(f"P3 says {header[4]} bytes of data, {len(data)} follow")
        return self.commands.perform(lambda: self._phases(header, data), session=self.session)

    def _phases(self, header: bytes, data: bytes) -> bytes:
        """All phases of one TPDU; returns response data and SW1 SW2."""
        response = b""
        status = self.commands.send(header)
        if status & DATA_EXPECTED:
            if data:
                status = self.commands.send_more(data)
            else:
                response = self.commands.receive(header[4] or 256)
                status = self.commands.ready()
        if not status & STATUS_READY:
            self.commands.give_up()
            raise ProtocolError(
                f"{self.commands.name}: the device has no status word, its status is "
                f"0x{status:02X}",
                may_have_executed=True,
            )
        sw = self.commands.receive(SW_LENGTH)
        self.commands.done()
        if len(sw) != SW_LENGTH:
            raise ProtocolError(
                f"{self.commands.name}: a status word of {len(sw)} bytes", may_have_executed=True
            )
        return response + sw
