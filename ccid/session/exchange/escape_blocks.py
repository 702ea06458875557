"""Extended APDUs through a reader at short APDU level whose maker's Escape carries T=1 blocks.

OMNIKEY's readers have such an Escape: 1A and a block; its answer is 1A and the card's block. It is
not documented. GnuPG's scdaemon has used it since 2009, and so its maker's driver for Windows.
(https://lists.gnupg.org/pipermail/gnupg-devel/2009-June/025210.html)

Short APDUs go as ever, and the reader speaks T=1 for them, with sequence numbers of its own. So
before each extended APDU S(RESYNCH) makes an end to what it and the card counted (ISO/IEC
7816-3:2006 11.6.2.3, rule 6); after one, the reader puts itself in step with the card in the same
way, when its next block is answered by an R-block.
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
    """One Escape a block.

    Args:
        commands: The slot's commands.
        agreement: With the card.

    Attributes:
        has_sent: An I-block went out.
    """

    def __init__(self, commands: SlotCommands, agreement: Agreement) -> None:
        self.commands = commands
        self.agreement = agreement
        self.has_sent = False

    def __call__(self, block: Block) -> bytes | LinkError:
        """Send a block and return the card's."""
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
    """Short APDUs by XfrBlock, extended ones in T=1 blocks by Escape.

    Args:
        commands: The slot's commands.
        machine: The state of T=1 for the latter.
        link: How a block gets to the card.
        single: Sends the former.
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
        """Send ``apdu`` and return the response.

        Raises:
            InvalidApdu: Fewer than 4 bytes, or too many.
            UnsupportedByReader: This reader has no such Escape.
            ProtocolError: Card and reader have lost each other; ``may_have_executed`` tells
                whether the card may have carried it out.
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
