"""Which protocols a card offers, as PC/SC numbers them; pure."""

from __future__ import annotations

from ccid.errors import MalformedAtr
from ccid.iso7816.atr import Atr
from ccid.pcsc.manager.scard_codes import Proto

BITS = {0: Proto.T0, 1: Proto.T1}


def available(atr: bytes) -> tuple[Proto, Proto]:
    """The protocols that a card offers, and its default (ISO/IEC 7816-3:2006 8.2.3 and 8.3).

    Args:
        atr: Its answer to reset. One that cannot be read offers nothing.
    """
    try:
        parsed = Atr.parse(atr)
    except MalformedAtr:
        return Proto.UNSET, Proto.UNSET
    default = BITS.get(parsed.default_protocol, Proto.UNSET)
    if parsed.specific_mode or not default:
        return default, default
    offered = Proto.UNSET
    for number in parsed.protocols:
        offered |= BITS.get(number, Proto.UNSET)
    return offered, default


def wanted_first(protocols: Proto) -> Proto:
    """The one of ``protocols`` to try first: T=1."""
    return Proto.T1 if protocols & Proto.T1 else Proto.T0
