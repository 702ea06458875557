"""From an APDU to what this reader takes, and back: the four levels of exchange.

dwFeatures says how much of ISO/IEC 7816-3 a reader does itself (USB CCID rev 1.1, 5.1). Each
level is a class with one method, ``transmit``; :func:`choose` picks it:

=====================  ============================  =================================
Level                  T=0                           T=1
=====================  ============================  =================================
character              (to come)                     (to come)
TPDU                   :class:`~.single.SingleBlock` (to come)
short APDU             :class:`~.single.SingleBlock` :class:`~.single.SingleBlock`
short and extended     :class:`~.chained.Chained`    :class:`~.chained.Chained`
=====================  ============================  =================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Protocol as Interface

from ccid.codes import EXCHANGE_LEVEL_TEXT, ExchangeLevel, Protocol
from ccid.commands import Commands
from ccid.descriptors import SmartCardDescriptor
from ccid.errors import ReaderUnsupported, UnsupportedByReader
from ccid.exchange.chained import Chained
from ccid.exchange.single import SingleBlock
from ccid.iso7816.apdu import Bytes, is_secret
from ccid.messages import HEADER_LENGTH

if TYPE_CHECKING:
    from ccid.trace import Tap


class Exchange(Interface):
    """How APDUs get through one reader to one card."""

    def transmit(self, apdu: Bytes) -> bytes:
        """Send a command APDU and return the response APDU, data and SW1 SW2."""


def has_protocol(level: ExchangeLevel | None, protocol: Protocol) -> bool:
    """True if this library does ``protocol`` at this level of exchange."""
    match level:
        case ExchangeLevel.SHORT_APDU | ExchangeLevel.EXTENDED_APDU:
            return True
        case ExchangeLevel.TPDU:
            return protocol is Protocol.T0
    return False


def choose(
    commands: Commands, descriptor: SmartCardDescriptor, protocol: Protocol, timeout_s: float
) -> Exchange:
    """The exchange for a card.

    Args:
        commands: The slot's commands.
        descriptor: The reader's class descriptor.
        protocol: T in force.
        timeout_s: Seconds the card may take for one block, before extensions.

    Raises:
        ReaderUnsupported: dwFeatures has no single level.
        UnsupportedByReader: This level and protocol together.
    """
    level = descriptor.exchange_level
    room = descriptor.dwMaxCCIDMessageLength - HEADER_LENGTH
    if level is None:
        raise ReaderUnsupported(
            f"{commands.pipe.name}: dwFeatures 0x{descriptor.dwFeatures:08X} has more than one "
            f"level of exchange",
            reader=commands.pipe.name,
        )
    if not has_protocol(level, protocol):
        raise UnsupportedByReader(
            f"{commands.pipe.name}: {protocol} at {EXCHANGE_LEVEL_TEXT[level]} level is not "
            f"there yet",
            reader=commands.pipe.name,
            slot=commands.slot,
        )
    if level is ExchangeLevel.EXTENDED_APDU:
        return Chained(commands, room, timeout_s)
    return SingleBlock(commands, room, timeout_s)


def marking(exchange: Exchange, tap: Tap, slot: int) -> Callable[[Bytes], bytes]:
    """``exchange.transmit`` that tells ``tap`` which APDUs carry a PIN or a key."""
    from ccid.trace.secrets import apdu_level

    def transmit(apdu: Bytes) -> bytes:
        if not is_secret(apdu):
            return exchange.transmit(apdu)
        with tap.secret(slot, apdu_level(apdu)):
            return exchange.transmit(apdu)

    return transmit
