"""The epilogue of a T=1 block, its error detection code: ISO/IEC 7816-3:2006 11.3.4.

LRC is the exclusive or of all bytes. For CRC the standard points to ISO/IEC 13239 and leaves
open whether the register is inverted at the end and which byte goes first; readers and card
simulators disagree. So there are four CRCs here, the customary one first, and a
:class:`~ccid.iso7816.t1.T1` keeps to the one that its card uses.
"""

from __future__ import annotations

from collections.abc import Callable

Edc = Callable[[bytes], bytes]
"""The epilogue that belongs to NAD, PCB, LEN and INF."""

_HALVES = (2048, 1024, 512, 256, 128, 64, 32, 16, 8)
"""Halves of a block of up to 512 bytes, in bits."""
_HALVES_OF = tuple(_HALVES[9 - bits :] for bits in range(10))
"""The same for shorter blocks, by the bit length of their size less one."""


def exclusive_or(block: bytes) -> int:
    """The exclusive or of all bytes of ``block``, 1 to 512 of them."""
    folded = int.from_bytes(block, "big")
    for half in _HALVES_OF[(len(block) - 1).bit_length()]:
        folded ^= folded >> half
    return folded & 0xFF


def lrc(block: bytes) -> bytes:
    """The exclusive or of all bytes of ``block``: one byte."""
    return bytes((exclusive_or(block),))


def _reflected(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x8408 if byte & 1 else 0)
    return byte


_TABLE = tuple(_reflected(byte) for byte in range(256))


def _register(block: bytes) -> int:
    """x^16 + x^12 + x^5 + 1, the low bit of a byte first, the register all ones at the start."""
    register = 0xFFFF
    for byte in block:
        register = register >> 8 ^ _TABLE[(register ^ byte) & 0xFF]
    return register


def crc(block: bytes) -> bytes:
    """The register as it is, its high byte first: what readers' drivers have in common."""
    return _register(block).to_bytes(2, "big")


def crc_inverted(block: bytes) -> bytes:
    """The register inverted, its low byte first: the frame check sequence of ISO/IEC 13239."""
    return (_register(block) ^ 0xFFFF).to_bytes(2, "little")


def crc_inverted_high_first(block: bytes) -> bytes:
    """The register inverted, its high byte first."""
    return (_register(block) ^ 0xFFFF).to_bytes(2, "big")


def crc_low_first(block: bytes) -> bytes:
    """The register as it is, its low byte first."""
    return _register(block).to_bytes(2, "little")


LRC: tuple[Edc, ...] = (lrc,)
CRC: tuple[Edc, ...] = (crc, crc_inverted, crc_inverted_high_first, crc_low_first)
"""In the order in which they are tried on a card."""
