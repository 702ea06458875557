"""Extended APDUs in T=1 blocks by an Escape, for readers at short APDU level (``tpdu-escape``).

OMNIKEY readers have such an Escape: 1A and a block; the answer is 1A and the block of the card. The
Escape is not documented. scdaemon of GnuPG has used it since 2009, after the driver of the
manufacturer for Windows
(https://lists.gnupg.org/pipermail/gnupg-devel/2009-June/025210.html).

Short APDUs go by XfrBlock, and the reader runs T=1 for them, with sequence numbers of its own. So
S(RESYNCH request) goes before each extended APDU, to reset the sequence numbers (ISO/IEC
7816-3:2006 11.6.2.3, rule 6). After an extended APDU the card answers the next block of the reader
by an R-block, and the reader resynchronises in the same way.
"""

from __future__ import annotations

from ccid.errors import (
    CardMute,
    CommandFailed,
    MalformedMessage,
    ProtocolError,
    UnsupportedByReader,
)
from ccid.iso7816.apdu import Bytes, is_extended, octets
from ccid.iso7816.protocol_runner import run
from ccid.iso7816.t1 import R_BLOCK, T1, Block, LinkError
from ccid.known.quirks.vocabulary import TPDU_ESCAPE
from ccid.link.slot_commands import SlotCommands
from ccid.session.exchange.agreement import Agreement
from ccid.session.exchange.block_links import link_error
from ccid.session.exchange.one_block import SingleBlock
from ccid.session.exchange.refused_extended import SHORT_LEVEL, short_only


class EscapeLink:
    """Transfers each T=1 block by one Escape.

    Args:
        commands: The commands of the slot.
        agreement: The agreement with the card.

    Attributes:
        has_sent: True if an I-block was sent.
    """

    def __init__(self, commands: SlotCommands, agreement: Agreement) -> None:
        self.commands = commands
        self.agreement = agreement
        self.has_sent = False

    def __call__(self, block: Block) -> bytes | LinkError:
        """Send a block, and return the block of the card, or the reason why no block came."""
        self.has_sent |= block.data[1] < R_BLOCK
        timeout_s = self.agreement.timeout_s(block.multiplier)
        try:
            answer = self.commands.escape(TPDU_ESCAPE + block.data, timeout_s)
        except (CardMute, CommandFailed) as error:
            return link_error(error)
        if not answer.startswith(TPDU_ESCAPE):
            raise ProtocolError(
                f"{self.commands.name}: slot {self.commands.slot}: the answer to the Escape that "
                f"carries T=1 blocks is none",
                may_have_executed=self.has_sent,
                reader=self.commands.name,
                slot=self.commands.slot,
            )
        return answer[len(TPDU_ESCAPE) :]


class Escaped:
    """Sends short APDUs by XfrBlock, and extended APDUs in T=1 blocks by Escape.

    Args:
        commands: The commands of the slot.
        machine: The state of T=1 for extended APDUs.
        link: Transfers the blocks of extended APDUs.
        single: Sends short APDUs.
    """

    def __init__(
        self, commands: SlotCommands, machine: T1, link: EscapeLink, single: SingleBlock
    ) -> None:
        self.commands = commands
        self.machine = machine
        self.session = link.agreement.session
        self.link = link
        self.short = single.transmit

    def transmit(self, apdu: Bytes) -> bytes:
        """Send a command APDU, and return the response APDU.

        Raises:
            InvalidApdu: ``apdu`` has fewer than 4 or more than 65,544 bytes.
            UnsupportedByReader: The reader refuses the Escape.
            ProtocolError: Card and host are out of step. ``may_have_executed`` is True if the card
                may have executed the command.
        """
        if not is_extended(apdu):
            return self.short(apdu)
        return self.commands.perform(lambda: self._extended(octets(apdu)), session=self.session)

    def _extended(self, apdu: bytes) -> bytes:
        self.link.has_sent = False
        self.machine.interrupted()
        try:
            return run(self.machine.exchange(apdu), self.link)
        except (CommandFailed, MalformedMessage, ProtocolError, UnsupportedByReader) as error:
            if self.link.has_sent:
                raise
            more = f"its maker's Escape for T=1 blocks failed: {error}"
            raise short_only(self.commands, SHORT_LEVEL, more) from None
