"""T=0 with an ICCD device of version A: a TPDU in phases, each announced by the status byte.

USB ICCD rev 1.0, 6.4.2: the header goes out; if the device then wants data they follow, or it has
some and they are fetched; at the end the status word is fetched.
"""

from __future__ import annotations

from ccid.errors import InvalidApdu, ProtocolError
from ccid.iso7816.apdu import APDU_HEADER, SW_LENGTH, TPDU_HEADER, Bytes, is_extended, octets
from ccid.link.card_state import Session
from ccid.link.iccd_commands import DATA_EXPECTED, STATUS_READY, IccdA
from ccid.session.exchange.refused_extended import T0, short_only


class IccdAT0:
    """Sends a TPDU and hands up the reply as it is: 61xx and 6Cxx are the caller's.

    Args:
        commands: The device's commands.
        session: The power-up that the TPDUs are for; None for any.
    """

    def __init__(self, commands: IccdA, session: Session | None = None) -> None:
        self.commands = commands
        self.session = session

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` as one TPDU.

        Raises:
            InvalidApdu: Fewer than 4 bytes, or more than a header and the data that P3 announces.
            UnsupportedByReader: An extended APDU.
            ProtocolError: The device asks for a phase that the TPDU has not.
        """
        apdu = octets(apdu)
        if is_extended(apdu):
            raise short_only(self.commands, T0)
        if len(apdu) < APDU_HEADER:
            raise InvalidApdu(f"{len(apdu)} bytes; a command APDU has at least {APDU_HEADER}")
        header = apdu[:TPDU_HEADER].ljust(TPDU_HEADER, b"\0")
        data = apdu[TPDU_HEADER:]
        if data and len(data) == header[4] + 1:
            data = data[:-1]  # case 4 goes as case 3: the card tells by 61xx what there is
        if data and len(data) != header[4]:
            raise InvalidApdu(f"P3 says {header[4]} bytes of data, {len(data)} follow")
        return self.commands.perform(lambda: self._phases(header, data), session=self.session)

    def _phases(self, header: bytes, data: bytes) -> bytes:
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
