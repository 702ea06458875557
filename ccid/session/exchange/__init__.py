"""The exchange of APDUs at the four levels of exchange.

dwFeatures declares which part of ISO/IEC 7816-3 the reader does itself (USB CCID rev 1.1, 5.1).
Each way of exchange is a class with the method ``transmit``; :func:`choose` selects the class:

=====================  ===========  ===========
Level                  T=0          T=1
=====================  ===========  ===========
character              CharacterT0  Blocks
TPDU                   SingleBlock  Blocks
short APDU             SingleBlock  SingleBlock
short and extended     Chained      Chained
=====================  ===========  ===========

With T=0 at character and TPDU level the caller gets 61xx and 6Cxx, as through PC/SC; on request
:class:`~.host_protocols.Mapped` does the whole mapping instead.

- ``one_block``: SingleBlock, one XfrBlock for each APDU or TPDU.
- ``chained_blocks``: Chained, an APDU in several XfrBlocks.
- ``host_protocols``: Blocks (T=1), CharacterT0 and Mapped (T=0): the host runs the protocol.
- ``block_links``: how a T=1 block or T=0 characters get through a reader.
- ``escape_blocks``: Escaped, extended APDUs in T=1 blocks by an Escape, at short APDU level.
- ``iccd_tpdu``: IccdAT0, for ICCD devices of version A.
- ``pin_entry``: a command APDU whose PIN is entered at the reader.
- ``agreement``: what reader and card agreed on during the activation.
- ``refused_extended``: the error for an extended APDU that a reader does not transfer.

:func:`choose` imports the modules of a way when a card goes that way: with most cards that is one
way, and a program's first response waits for all that is imported before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol as Interface

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import MESSAGE_HEADER
from ccid.codes import BLOCKWISE, ExchangeLevel, Protocol
from ccid.errors import ReaderUnsupported
from ccid.iso7816.apdu import Bytes
from ccid.link.iccd_commands import IccdA
from ccid.link.slot_commands import SlotCommands
from ccid.session.exchange.agreement import APDU_LEVEL_S, Agreement
from ccid.session.exchange.one_block import SingleBlock
from ccid.session.exchange.refused_extended import T0


class Exchange(Interface):
    """The way of exchange between one reader and one card."""

    def transmit(self, apdu: Bytes) -> bytes:
        """Send a command APDU, and return the response APDU: data and SW1 SW2."""


def choose(
    commands: SlotCommands,
    descriptor: SmartCardDescriptor,
    agreement: Agreement,
    auto_get_response: bool = False,
) -> Exchange:
    """The way of exchange for a card.

    Args:
        commands: The commands of the slot.
        descriptor: The class descriptor of the reader.
        agreement: The agreement with the card.
        auto_get_response: With T=0 at character and TPDU level, map APDUs to TPDUs completely:
            fetch responses by GET RESPONSE, and so on (ISO/IEC 7816-3:2006 12.2).

    Raises:
        ReaderUnsupported: dwFeatures has more than one level of exchange.
    """
    room = descriptor.dwMaxCCIDMessageLength - MESSAGE_HEADER
    if descriptor.exchange_level not in BLOCKWISE:
        agreement.longest_s = APDU_LEVEL_S
    exchange: Exchange
    if isinstance(commands, IccdA):
        from ccid.session.exchange.iccd_tpdu import IccdAT0

        exchange = IccdAT0(commands, agreement.session)
        return _mapped(commands, exchange) if auto_get_response else exchange
    match descriptor.exchange_level, agreement.protocol:
        case None, _:
            raise ReaderUnsupported(
                f"{commands.name}: dwFeatures 0x{descriptor.dwFeatures:08X} has more than one "
                f"level of exchange",
                reader=commands.name,
            )
        case ExchangeLevel.EXTENDED_APDU, _:
            from ccid.session.exchange.chained_blocks import Chained

            return Chained(commands, room, agreement)
        case ExchangeLevel.SHORT_APDU, _:
            single = SingleBlock(commands, room, agreement)
            if not commands.quirks.tpdu_escape or agreement.by_escape is None:
                return single
            from ccid.session.exchange.escape_blocks import Escaped, EscapeLink

            by_escape = EscapeLink(commands, agreement)
            return Escaped(commands, agreement.by_escape, by_escape, single)
        case level, Protocol.T1:
            from ccid.session.exchange.block_links import BlockLink, CharacterBlockLink
            from ccid.session.exchange.host_protocols import Blocks

            character = level is ExchangeLevel.CHARACTER
            link = (CharacterBlockLink if character else BlockLink)(commands, agreement)
            return Blocks(commands, agreement, link)
        case ExchangeLevel.TPDU, _:
            exchange = SingleBlock(commands, room, agreement, T0)
        case _:
            from ccid.session.exchange.host_protocols import CharacterT0

            exchange = CharacterT0(commands, agreement)
    return _mapped(commands, exchange) if auto_get_response else exchange


def _mapped(commands: SlotCommands, exchange: Exchange) -> Exchange:
    """The whole mapping of APDUs to TPDUs of T=0 around ``exchange``."""
    from ccid.session.exchange.host_protocols import Mapped

    return Mapped(commands, exchange.transmit)


class Answering:
    """An exchange in which the host answers some command APDUs itself.

    Args:
        exchange: The exchange for all others.
        answers: Response APDUs by command APDU.
    """

    def __init__(self, exchange: Exchange, answers: Mapping[bytes, bytes]) -> None:
        self.exchange = exchange
        self.answers = answers

    def transmit(self, apdu: Bytes) -> bytes:
        """Send ``apdu``, or answer it."""
        own = self.answers.get(bytes(apdu))
        return self.exchange.transmit(apdu) if own is None else own
