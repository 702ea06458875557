"""Exchanges where the host speaks the card's protocol: T=1 at TPDU level, both at character level.

The machines are in :mod:`ccid.iso7816`; here they meet the reader. A whole APDU is one operation:
its blocks are bounded by time together and cancelled together.
"""

from __future__ import annotations

from collections.abc import Callable

from ccid.commands import SlotCommands
from ccid.exchange.agreement import Agreement
from ccid.exchange.links import character_link
from ccid.iso7816 import t0, t1
from ccid.iso7816.apdu import Bytes, octets
from ccid.iso7816.machine import run


class Blocks:
    """T=1: APDUs as chains of blocks.

    Args:
        commands: The slot's commands.
        agreement: With the card; its ``t1`` goes on from APDU to APDU.
        link: How a block gets to the card.
    """

    def __init__(
        self,
        commands: SlotCommands,
        agreement: Agreement,
        link: Callable[[t1.Block], bytes | t1.LinkError],
    ) -> None:
        assert agreement.t1 is not None
        self.commands = commands
        self.machine = agreement.t1
        self.link = link

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` and return the response.

        Raises:
            ProtocolError: Card and reader have lost each other; ``may_have_executed`` tells
                whether the card may have carried it out.
        """
        exchange = self.machine.exchange(octets(apdu))
        return self.commands.perform(lambda: run(exchange, self.link))


class CharacterT0:
    """T=0 at character level: a TPDU by the card's procedure bytes.

    A case 4 command goes as case 3: what the card has to say it announces by 61xx.

    Args:
        commands: The slot's commands.
        agreement: With the card.
    """

    def __init__(self, commands: SlotCommands, agreement: Agreement) -> None:
        self.commands = commands
        self.link = character_link(commands, agreement)

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` as one TPDU and return the response.

        Raises:
            InvalidApdu: It does not fit into a TPDU.
            ProtocolError: The card does not keep to the protocol.
        """
        machine = t0.procedure(octets(apdu), self.commands.name)
        return self.commands.perform(lambda: run(machine, self.link))


class Mapped:
    """T=0 with the whole mapping of APDUs onto TPDUs (ISO/IEC 7816-3:2006 12.2).

    Args:
        commands: The slot's commands.
        tpdu: Sends one TPDU and returns its response.
    """

    def __init__(self, commands: SlotCommands, tpdu: Callable[[bytes], bytes]) -> None:
        self.commands = commands
        self.tpdu = tpdu

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu`` of any case and return its whole response."""
        machine = t0.command(octets(apdu))
        return self.commands.perform(lambda: run(machine, self.tpdu))
