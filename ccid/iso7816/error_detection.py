"""Error detection codes LRC and CRC, the epilogue of a T=1 block (ISO/IEC 7816-3:2006 11.3.4).

The LRC is the exclusive or of all bytes. For the CRC the standard refers to ISO/IEC 13239 and does
not say whether the register is inverted at the end, nor which byte goes first; readers and card
simulators differ. So this module has four CRCs, the most usual first. A
:class:`~ccid.iso7816.t1.T1` uses the CRC that its card uses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

Edc = Callable[[bytes], bytes]
"""A function that returns the epilogue for NAD, PCB, LEN and INF."""

_HALVES = (2048, 1024, 512, 256, 128, 64, 32, 16, 8)
"""Shifts, in bits, that fold a block of up to 512 bytes to one byte: each halves the block."""
_HALVES_OF = tuple(_HALVES[9 - bits :] for bits in range(10))
"""The shifts for a shorter block. The index is the bit length of (size of the block - 1)."""


def exclusive_or(block: bytes) -> int:
    """The exclusive or of all bytes of ``block``, which has 1 to 512 bytes."""
    folded = int.from_bytes(block, "big")
    for half in _HALVES_OF[(len(block) - 1).bit_length()]:
        folded ^= folded >> half
    return folded & 0xFF


def lrc(block: bytes) -> bytes:
    """The LRC of ``block``, one byte."""
    return bytes((exclusive_or(block),))


def _reflected(byte: int) -> int:
    """The CRC register after one byte, low bit first."""
    for _ in range(8):
        byte = byte >> 1 ^ (0x8408 if byte & 1 else 0)
    return byte


@cache
def _table() -> tuple[int, ...]:
    """The register after each byte. Few cards use a CRC: it is made when one does."""
    return tuple(_reflected(byte) for byte in range(256))


def _register(block: bytes) -> int:
    """The CRC register after ``block``: polynomial x^16 + x^12 + x^5 + 1, low bit of a byte first,
    all bits one at the start."""
    register, table = 0xFFFF, _table()
    for byte in block:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register


def crc(block: bytes) -> bytes:
    """The register, high byte first: the CRC that drivers of readers usually use."""
    return _register(block).to_bytes(2, "big")


def crc_inverted(block: bytes) -> bytes:
    """The inverted register, low byte first: the frame check sequence of ISO/IEC 13239."""
    return (_register(block) ^ 0xFFFF).to_bytes(2, "little")


def crc_inverted_high_first(block: bytes) -> bytes:
    """The inverted register, high byte first."""
    return (_register(block) ^ 0xFFFF).to_bytes(2, "big")


def crc_low_first(block: bytes) -> bytes:
    """The register, low byte first."""
    return _register(block).to_bytes(2, "little")


LRC: tuple[Edc, ...] = (lrc,)
CRC: tuple[Edc, ...] = (crc, crc_inverted, crc_inverted_high_first, crc_low_first)
"""The CRCs, in the order in which they are tried with a card."""
