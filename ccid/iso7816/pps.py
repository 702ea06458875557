"""Protocol and parameters selection, PPS: request and response (ISO/IEC 7816-3:2006 9).

In negotiable mode the interface device may request a protocol and Fi and Di right after the ATR:
PPSS, PPS0, PPS1, PCK. The card confirms with the same bytes. If the response has no PPS1, the
default values Fd and Dd are in force.
"""

from __future__ import annotations

from functools import reduce
from operator import xor

from ccid.errors import PpsFailed
from ccid.iso7816.atr import DEFAULT_FIDI

PPSS = 0xFF
"""The first byte of a PPS request and of a PPS response."""
HAS_PPS1, HAS_PPS2, HAS_PPS3 = 0x10, 0x20, 0x40
"""Bits of PPS0: the byte is present."""
MAX_PPS = 6
"""Bytes of the longest response: PPSS, PPS0, PPS1, PPS2, PPS3, PCK."""


def request(
    protocol: int, fidi: int | None = None, pps2: int | None = None, pps3: int | None = None
) -> bytes:
    """The PPS request (ISO/IEC 7816-3:2006 9.2).

    Args:
        protocol: The protocol number T.
        fidi: PPS1, Fi and Di coded as TA1; None for the default values.
        pps2: PPS2, for the use of contact C6 (first TB for T=15); None for a request without it.
        pps3: PPS3, reserved; None for a request without it.
    """
    parts = ((HAS_PPS1, fidi), (HAS_PPS2, pps2), (HAS_PPS3, pps3))
    pps0 = protocol | sum(bit for bit, value in parts if value is not None)
    body = bytes((PPSS, pps0, *(value for _, value in parts if value is not None)))
    return body + bytes((reduce(xor, body),))


def confirmed(asked: bytes, response: bytes, name: str = "the card") -> int:
    """The Fi and Di in force after a PPS response (ISO/IEC 7816-3:2006 9.3).

    Args:
        asked: The PPS request.
        response: The PPS response of the card.
        name: Name of the reader, for errors.

    Returns:
        Fi and Di, coded as TA1.

    Raises:
        PpsFailed: ``response`` is no PPS response, or confirms other values than requested.
    """
    if len(response) < 3 or len(response) > len(asked):
        raise PpsFailed(f"{name} answers a PPS request of {len(asked)} bytes by {len(response)}")
    if response[0] != PPSS:
        raise PpsFailed(f"{name}: PPSS is 0x{response[0]:02X} in the PPS response, FF is right")
    if reduce(xor, response):
        raise PpsFailed(f"{name}: PCK 0x{response[-1]:02X} of the PPS response is wrong")
    pps0 = response[1]
    if len(response) != length(pps0) or pps0 & 0x80:
        raise PpsFailed(f"{name}: PPS0 0x{pps0:02X} does not go with {len(response)} bytes")
    if (pps0 ^ asked[1]) & 0x0F:
        raise PpsFailed(f"{name}: T={asked[1] & 15} was asked for by PPS, T={pps0 & 15} confirmed")
    if pps0 & 0x70 & ~asked[1]:
        raise PpsFailed(f"{name}: PPS0 0x{pps0:02X} confirms what 0x{asked[1]:02X} did not ask")
    wanted, got = _parameters(asked), _parameters(response)
    for bit, value in got.items():
        if wanted[bit] != value:
            raise PpsFailed(
                f"{name}: PPS{bit.bit_length() - 4} was 0x{wanted[bit]:02X} in the request, "
                f"0x{value:02X} in the response"
            )
    return got.get(HAS_PPS1, DEFAULT_FIDI)


def is_pps(data: bytes) -> bool:
    """True if ``data`` are a whole PPS request or response with a right PCK (ISO/IEC 7816-3:2006
    9.2)."""
    if len(data) < 3 or data[0] != PPSS or data[1] & 0x80:
        return False
    return len(data) == length(data[1]) and not reduce(xor, data)


def length(pps0: int) -> int:
    """Bytes of a PPS request or response with this PPS0: PPSS, PPS0, the bytes that PPS0 announces,
    PCK (ISO/IEC 7816-3:2006 9.2)."""
    return 3 + (pps0 >> 4 & 7).bit_count()


def _parameters(pps: bytes) -> dict[int, int]:
    """The bytes PPS1 to PPS3 that are present, by their bit in PPS0."""
    there = [bit for bit in (HAS_PPS1, HAS_PPS2, HAS_PPS3) if pps[1] & bit]
    return dict(zip(there, pps[2:-1], strict=True))
