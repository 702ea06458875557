"""Whether a reader transfers extended APDUs, by level of exchange and protocol. Pure.

- Extended APDU level: yes.
- TPDU and character level: with T=1. The host runs the protocol; with T=1 an APDU of any length is
  a chain of blocks that fit into dwMaxCCIDMessageLength (ISO/IEC 7816-3:2006 11.6.2). With T=0 a
  TPDU holds a short APDU.
- Short APDU level: no (USB CCID rev 1.1, 3.2). With T=1, if the quirk ``tpdu-escape`` is set.
"""

from __future__ import annotations

from ccid.codec.descriptors import SmartCardDescriptor, SmartCardInterface
from ccid.codes import BLOCKWISE, ExchangeLevel, InterfaceProtocol, Protocol
from ccid.known.quirks import Quirks

EXTENDED, WITH_T1, NO_EXTENDED = "yes", "with T=1", "no"
"""The answers: with any card, with a card in T=1, with no card."""


def extended_apdus(
    descriptor: SmartCardDescriptor, interface: SmartCardInterface, quirks: Quirks
) -> str:
    """Whether the reader transfers extended APDUs: ``yes``, ``with T=1`` or ``no``.

    Args:
        descriptor: The class descriptor, with the quirks applied.
        interface: The interface of the class descriptor.
        quirks: The quirks of the reader.
    """
    level = descriptor.exchange_level
    if level is ExchangeLevel.EXTENDED_APDU:
        return EXTENDED
    if interface.is_iccd and interface.protocol is InterfaceProtocol.ICCD_A:
        return NO_EXTENDED  # such a device takes only TPDUs of T=0
    has_t1 = bool(descriptor.dwProtocols >> Protocol.T1 & 1)
    by_blocks = level in BLOCKWISE or (level is ExchangeLevel.SHORT_APDU and quirks.tpdu_escape)
    return WITH_T1 if has_t1 and by_blocks else NO_EXTENDED
