"""Protocol and parameters selection, the card's side: ISO/IEC 7816-3:2006 clause 9.

``FF PPS0 [PPS1] [PPS2] [PPS3] PCK``: bits 1 to 4 of PPS0 are T, bits 5 to 7 announce PPS1 to
PPS3; the exclusive OR of all bytes is 0.
"""

from __future__ import annotations

from enum import Enum
from functools import reduce
from operator import xor
from typing import NamedTuple

from ccid.iso7816.atr import DEFAULT_FIDI, DI, FI, Atr
from ccid.iso7816.pps import PPSS, length


class Pps(Enum):
    """How a card answers a correct PPS request."""

    ECHO = "echo"
    """As in 9.3: the card echoes all it supports, and not PPS1 beyond TA1, PPS2 and PPS3."""
    WITHOUT_PPS1 = "without-pps1"
    """The card does not echo PPS1: Fd and Dd stay in force."""
    MUTE = "mute"
    OTHER_PPS1 = "other-pps1"
    OTHER_PROTOCOL = "other-protocol"
    WRONG_PCK = "wrong-pck"
    WRONG_PPSS = "wrong-ppss"
    TOO_LONG = "too-long"
    """The response has a PPS1, and the request has none."""


class Selected(NamedTuple):
    """The result of a PPS request.

    Attributes:
        response: What the card sends; empty for nothing.
        protocol, fidi: The values in force afterwards; None after an unsuccessful exchange.
    """

    response: bytes
    protocol: int | None = None
    fidi: int = DEFAULT_FIDI


def wanted(data: bytes) -> int:
    """How many characters a PPS request that begins with ``data`` still lacks."""
    return max(0, (length(data[1]) if len(data) >= 2 else 2) - len(data))


def select(data: bytes, atr: Atr, pps: Pps = Pps.ECHO) -> Selected:
    """Answer a whole PPS request.

    A card does not answer a wrong request, or a request for a protocol that it does not offer.
    """
    if len(data) < 3 or wanted(data) or reduce(xor, data) or data[1] & 0x80:
        return Selected(b"")
    protocol = data[1] & 0x0F
    if protocol not in atr.protocols or pps is Pps.MUTE:
        return Selected(b"")
    pps1 = data[2] if data[1] & 0x10 else None
    if pps1 is not None and not _can(atr, pps1):
        pps1 = None
    fidi = DEFAULT_FIDI if pps1 is None else pps1
    match pps:
        case Pps.WITHOUT_PPS1:
            return Selected(_coded(protocol, None), protocol)
        case Pps.OTHER_PPS1:
            return Selected(_coded(protocol, fidi ^ 0x01))
        case Pps.OTHER_PROTOCOL:
            return Selected(_coded(protocol ^ 1, pps1))
        case Pps.WRONG_PCK:
            response = _coded(protocol, pps1)
            return Selected(response[:-1] + bytes((response[-1] ^ 0x80,)))
        case Pps.WRONG_PPSS:
            return Selected(b"\xfe" + _coded(protocol, pps1)[1:])
        case Pps.TOO_LONG:
            return Selected(_coded(protocol, fidi))
    return Selected(_coded(protocol, pps1), protocol, fidi)


def _coded(protocol: int, pps1: int | None) -> bytes:
    head = bytes((PPSS, protocol)) if pps1 is None else bytes((PPSS, 0x10 | protocol, pps1))
    return head + bytes((reduce(xor, head),))


def _can(atr: Atr, pps1: int) -> bool:
    """True if F is Fd or Fi and D is from Dd to Di (ISO/IEC 7816-3:2006 9.2)."""
    f, d = FI[pps1 >> 4], DI[pps1 & 0x0F]
    if f is None or d is None or atr.fi is None or atr.di is None:
        return False
    return f in (372, atr.fi) and min(1, atr.di) <= d <= max(1, atr.di)
