"""One APDU or TPDU, one block: short APDU level, and T=0 at TPDU level."""

from __future__ import annotations

from ccid.commands import SlotCommands
from ccid.errors import InvalidApdu, UnsupportedByReader
from ccid.exchange.agreement import Agreement
from ccid.iso7816.apdu import HEADER_LENGTH, MAX_EXTENDED, MAX_SHORT, Bytes, octets

OLD_SCM_ROOM = 263 - 10
"""dwMaxCCIDMessageLength 263 of old SCM readers is too small: they take 271 bytes."""


class SingleBlock:
    """Sends the bytes as they are and hands up the reply as it is.

    At TPDU level the application sees 61xx and 6Cxx, as it does through PC/SC. A case 1 APDU
    goes as its 4 bytes; the reader adds P3 (USB CCID rev 1.1, 3.2.1).

    Args:
        commands: The slot's commands.
        room: Bytes a message has for the block: dwMaxCCIDMessageLength - 10.
        agreement: With the card.
    """

    def __init__(self, commands: SlotCommands, room: int, agreement: Agreement) -> None:
        self.commands = commands
        self.room = MAX_SHORT if room == OLD_SCM_ROOM else min(room, MAX_EXTENDED)
        # bChainParameter has a meaning at extended APDU level alone (6.2.1)
        self.xfr_block = commands.quick_xfr_block(agreement.patience_s, lambda data, _: data)

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` in one block.

        Raises:
            InvalidApdu: Fewer than 4 bytes.
            UnsupportedByReader: More bytes than one message of this reader, or a command, holds.
        """
        try:
            if HEADER_LENGTH <= len(apdu) <= self.room:
                return self.xfr_block(apdu)
        except (TypeError, ValueError):
            octets(apdu)  # it has no length
            raise
        octets(apdu)
        name = self.commands.name
        if len(apdu) < HEADER_LENGTH:
            raise InvalidApdu(
                f"{len(apdu)} bytes; a command APDU has at least {HEADER_LENGTH}",
                reader=name,
                slot=self.commands.slot,
            )
        raise UnsupportedByReader(
            f"{name}: an APDU of {len(apdu)} bytes does not fit; dwMaxCCIDMessageLength "
            f"allows {self.room}",
            reader=name,
            slot=self.commands.slot,
        )
