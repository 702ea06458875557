"""Protocol and parameters selection: ISO/IEC 7816-3:2006 9.

In negotiable mode the interface device may, as the first thing after the ATR, ask the card for a
protocol and for Fi and Di: PPSS, PPS0, PPS1 and PCK. The card confirms by the same bytes; without
PPS1 in its response the default Fd and Dd hold.
"""

from __future__ import annotations

from functools import reduce
from operator import xor

from ccid.errors import PpsFailed
from ccid.iso7816.atr import DEFAULT_FIDI

PPSS = 0xFF
HAS_PPS1, HAS_PPS2, HAS_PPS3 = 0x10, 0x20, 0x40
MAX_PPS = 6
"""Bytes of the longest response: PPSS, PPS0, PPS1, PPS2, PPS3, PCK."""


def request(
    protocol: int, fidi: int | None = None, pps2: int | None = None, pps3: int | None = None
) -> bytes:
    """The PPS request (9.2).

    Args:
        protocol: T.
        fidi: PPS1, Fi and Di coded as TA1; None to leave the default.
        pps2: For the first TB of T=15; None for none.
        pps3: Reserved; None for none.
    """
    parts = ((HAS_PPS1, fidi), (HAS_PPS2, pps2), (HAS_PPS3, pps3))
    pps0 = protocol | sum(bit for bit, value in parts if value is not None)
    body = bytes((PPSS, pps0, *(value for _, value in parts if value is not None)))
    return body + bytes((reduce(xor, body),))


def confirmed(asked: bytes, response: bytes, name: str = "the card") -> int:
    """The Fi and Di in force after ``response`` to the request ``asked``, coded as TA1 (9.3).

    Raises:
        PpsFailed: The response confirms something else, or nothing.
    """
    if len(response) < 3 or len(response) > len(asked):
        raise PpsFailed(f"{name} answers a PPS request of {len(asked)} bytes by {len(response)}")
    if response[0] != PPSS:
        raise PpsFailed(f"{name}: PPSS is 0x{response[0]:02X} in the PPS response, FF is right")
    if reduce(xor, response):
        raise PpsFailed(f"{name}: PCK 0x{response[-1]:02X} of the PPS response is wrong")
    pps0 = response[1]
    if len(response) != 3 + (pps0 >> 4 & 7).bit_count() or pps0 & 0x80:
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
    """True if ``data`` are a whole PPS request or response (9.2), its check byte right."""
    if len(data) < 3 or data[0] != PPSS or data[1] & 0x80:
        return False
    return len(data) == 3 + (data[1] >> 4 & 7).bit_count() and not reduce(xor, data)


def _parameters(pps: bytes) -> dict[int, int]:
    """PPS1 to PPS3 by their bit in PPS0."""
    there = [bit for bit in (HAS_PPS1, HAS_PPS2, HAS_PPS3) if pps[1] & bit]
    return dict(zip(there, pps[2:-1], strict=True))
