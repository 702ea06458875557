"""How blocks of T=1 and characters of T=0 get through a reader that leaves the protocol to us.

At TPDU level a block is one XfrBlock, and so is its answer. At character level the host says how
many characters it waits for (wLevelParameter, USB CCID rev 1.1, 6.1.4), so a block comes in two
parts: the prologue, and what its LEN announces.

What a reader reports of a disturbed line is an input for the protocol above; what it reports of
itself, or of a card that is gone, is an error for the caller.
"""

from __future__ import annotations

from ccid.codec.messages import MESSAGE_HEADER
from ccid.codes import IccStatus, SlotError
from ccid.errors import CardMute, CommandFailed
from ccid.iso7816.t0 import Characters
from ccid.iso7816.t1 import PROLOGUE, Block, LinkError
from ccid.link.slot_commands import SlotCommands
from ccid.session.exchange.agreement import Agreement

LINK_ERRORS: dict[int, LinkError] = {
    SlotError.XFR_PARITY_ERROR: LinkError.PARITY,
    SlotError.XFR_OVERRUN: LinkError.OTHER,
    SlotError.ICC_MUTE: LinkError.MUTE,
}
"""What bError says of the line between reader and card (USB CCID rev 1.1, table 6.2-2)."""


def link_error(error: CardMute | CommandFailed) -> LinkError:
    """The disturbance that ``error`` reports; raises it if it is none."""
    found = LINK_ERRORS.get(error.bError or 0)
    if found is None or (error.bStatus or 0) & 0x03 != IccStatus.ACTIVE:
        raise error
    return found


class BlockLink:
    """T=1 at TPDU level: one XfrBlock a block.

    Args:
        commands: The slot's commands.
        agreement: With the card.
    """

    def __init__(self, commands: SlotCommands, agreement: Agreement) -> None:
        self.commands = commands
        self.agreement = agreement

    def __call__(self, block: Block) -> bytes | LinkError:
        """Send a block and return the card's."""
        try:
            return self.commands.xfr_block(
                block.data,
                timeout_s=self.agreement.timeout_s(block.multiplier),
                bBWI=block.multiplier,
            )[0]
        except (CardMute, CommandFailed) as error:
            return link_error(error)


def characters(
    commands: SlotCommands, data: bytes, expected: int, timeout_s: float, bBWI: int = 0
) -> bytes:
    """Send ``data`` at character level and return the ``expected`` characters that come back;
    where the reader loses full packets, as one and the rest."""
    if not commands.quirks.split_full_packets or expected < 2:
        first = expected
    else:
        size = commands.conversation.transport.packet_size
        first = expected if (MESSAGE_HEADER + expected) % size else 1
    got = commands.xfr_block(data, timeout_s=timeout_s, bBWI=bBWI, wLevelParameter=first)[0]
    if first == expected or len(got) < first:
        return got
    return got + commands.xfr_block(b"", timeout_s=timeout_s, wLevelParameter=expected - first)[0]


class CharacterBlockLink:
    """T=1 at character level: the prologue first, then the rest.

    Args:
        commands: The slot's commands.
        agreement: With the card.
    """

    def __init__(self, commands: SlotCommands, agreement: Agreement) -> None:
        self.commands = commands
        self.agreement = agreement
        assert agreement.t1 is not None
        self.edc_length = agreement.t1.edc_length

    def __call__(self, block: Block) -> bytes | LinkError:
        """Send a block and return the card's."""
        try:
            prologue = self._receive(block.data, PROLOGUE, block.multiplier)
            if len(prologue) != PROLOGUE:
                return prologue
            return prologue + self._receive(b"", prologue[2] + self.edc_length, 0)
        except (CardMute, CommandFailed) as error:
            return link_error(error)

    def _receive(self, data: bytes, expected: int, multiplier: int) -> bytes:
        timeout_s = self.agreement.timeout_s(multiplier)
        return characters(self.commands, data, expected, timeout_s, multiplier)


class CharacterLink:
    """T=0 at character level.

    Args:
        commands: The slot's commands.
        agreement: With the card.
    """

    def __init__(self, commands: SlotCommands, agreement: Agreement) -> None:
        self.commands = commands
        self.agreement = agreement

    def __call__(self, step: Characters) -> bytes:
        """Send a step and return the characters that come back."""
        timeout_s = self.agreement.timeout_s()
        return characters(self.commands, step.data, step.expected, timeout_s)
