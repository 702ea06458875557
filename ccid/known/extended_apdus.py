"""Do extended APDUs get through a reader? Pure; the one answer for all who tell of it.

At extended APDU level they go as they are. At TPDU and character level the host speaks the card's
protocol: with T=1 an APDU of any length goes as a chain of blocks, each of which fits into
dwMaxCCIDMessageLength (ISO/IEC 7816-3:2006 11.6.2); with T=0 a TPDU carries a short APDU. At short
APDU level the reader takes short ones alone (USB CCID rev 1.1, 3.2).
"""

from __future__ import annotations

from ccid.codec.descriptors import SmartCardDescriptor, SmartCardInterface
from ccid.codes import BLOCKWISE, ExchangeLevel, InterfaceProtocol, Protocol
from ccid.known.quirks import Quirks

EXTENDED, WITH_T1, NO_EXTENDED = "yes", "with T=1", "no"
"""With any card, with those that speak T=1, with none."""


def extended_apdus(
    descriptor: SmartCardDescriptor, interface: SmartCardInterface, quirks: Quirks
) -> str:
    """Do extended APDUs get through: ``yes``, ``with T=1``, ``no``.

    Args:
        descriptor: The class descriptor, mended by the quirks.
        interface: The interface that it describes.
        quirks: What is known of the reader.
    """
    level = descriptor.exchange_level
    if level is ExchangeLevel.EXTENDED_APDU:
        return EXTENDED
    if interface.is_iccd and interface.protocol is InterfaceProtocol.ICCD_A:
        return NO_EXTENDED  # TPDUs of T=0 alone
    has_t1 = bool(descriptor.dwProtocols >> Protocol.T1 & 1)
    by_blocks = level in BLOCKWISE or (level is ExchangeLevel.SHORT_APDU and quirks.tpdu_escape)
    return WITH_T1 if has_t1 and by_blocks else NO_EXTENDED
