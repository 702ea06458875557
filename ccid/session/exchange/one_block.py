"""One APDU or TPDU, one block: short APDU level, and T=0 at TPDU level."""

from __future__ import annotations

from ccid.errors import CardMute, CommandFailed, InvalidApdu, UnsupportedByReader
from ccid.iso7816.apdu import (
    APDU_HEADER,
    MAX_EXTENDED,
    Bytes,
    is_extended,
    octets,
)
from ccid.link.slot_commands import SlotCommands
from ccid.session.exchange.agreement import Agreement
from ccid.session.exchange.refused_extended import SHORT_LEVEL, explained, short_only


def as_it_came(data: bytes, bChainParameter: int) -> bytes:
    """``data``: bChainParameter has a meaning at extended APDU level alone (USB CCID rev 1.1,
    6.2.1)."""
    return data


class SingleBlock:
    """Sends the bytes as they are and hands up the reply as it is.

    At TPDU level the application sees 61xx and 6Cxx, as it does through PC/SC. A case 1 APDU
    goes as its 4 bytes; the reader adds P3 (USB CCID rev 1.1, 3.2.1).

    Args:
        commands: The slot's commands.
        room: Bytes a message has for the block: dwMaxCCIDMessageLength - 10.
        agreement: With the card.
        short_only: Why an extended APDU does not get through, if it does not
            (:mod:`~.refused_extended`).
    """

    def __init__(
        self,
        commands: SlotCommands,
        room: int,
        agreement: Agreement,
        short_only: str = SHORT_LEVEL,
    ) -> None:
        self.commands = commands
        self.short_only = short_only
        self.room = min(room, MAX_EXTENDED)
        self.way = commands.apdu_way(agreement.patience_s, as_it_came, agreement.session)

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` in one block.

        Raises:
            InvalidApdu: Fewer than 4 bytes.
            UnsupportedByReader: More bytes than one message of this reader, or a command, holds;
                or an extended APDU that the reader refuses.
        """
        try:
            if APDU_HEADER <= len(apdu) <= self.room:
                return self.way.transmit(apdu)
        except (CardMute, CommandFailed, UnsupportedByReader) as error:
            told = explained(error, apdu, self.commands, self.short_only)
            if told is error:
                raise
            raise told from None
        except (TypeError, ValueError):
            octets(apdu)  # it has no length
            raise
        apdu = octets(apdu)
        name = self.commands.name
        if len(apdu) < APDU_HEADER:
            raise InvalidApdu(
                f"{len(apdu)} bytes; a command APDU has at least {APDU_HEADER}",
                reader=name,
                slot=self.commands.slot,
            )
        size = f"{len(apdu)} bytes, and dwMaxCCIDMessageLength allows {self.room}"
        if is_extended(apdu):
            raise short_only(self.commands, self.short_only, f"it has {size}")
        raise UnsupportedByReader(
            f"{name}: an APDU does not fit: it has {size}", reader=name, slot=self.commands.slot
        )
