"""The coding of T=1 blocks: ISO/IEC 7816-3:2006 11.3. NAD PCB LEN, INF, LRC or CRC."""

from __future__ import annotations

from binascii import crc_hqx
from enum import Enum

RESYNCH, IFS, ABORT, WTX = 0, 1, 2, 3
"""Kinds of S-blocks, bits 1 to 5 of PCB (ISO/IEC 7816-3:2006, table 18)."""
S_REQUEST, S_RESPONSE = 0xC0, 0xE0
MORE = 0x20
"""M, the more-data bit of an I-block's PCB."""
PROLOGUE = 3
MAX_INF = 254
"""LEN 255 is reserved (ISO/IEC 7816-3:2006 11.3.2.3)."""
EDC_ERROR, OTHER_ERROR = 1, 2
"""Bits 1 to 4 of an R-block's PCB; 0 means no error."""

_REFLECTED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FOLDS = (1024, 512, 256, 128, 64, 32, 16, 8)


def lrc(data: bytes) -> int:
    """The exclusive OR of all bytes (ISO/IEC 7816-3:2006 11.3.4)."""
    folded = int.from_bytes(data, "big")
    if len(data) > 256:
        folded ^= folded >> 2048
    for bits in _FOLDS:
        folded ^= folded >> bits
    return folded & 0xFF


def crc(data: bytes) -> int:
    """The remainder by x^16 + x^12 + x^5 + 1, bits in the order of the line, initial value FFFF,
    not inverted. crc_hqx divides by the same polynomial with the bits in reverse order."""
    rest = crc_hqx(data.translate(_REFLECTED), 0xFFFF)
    return _REFLECTED[rest & 0xFF] << 8 | _REFLECTED[rest >> 8]


class Check(Enum):
    """The epilogue field.

    ISO/IEC 7816-3:2006 11.3.4 leaves the CRC to ISO/IEC 13239, whose 16-bit frame check sequence
    is the complement of the remainder, low byte first: 1 to 9 in ASCII gives 6E 90. Readers and
    libccid send the remainder itself, high byte first: 6F 91, and 54 4E for ``00 C1 01 FE``. Cards
    with a CRC are rare, so this difference persists. The virtual card follows the readers by
    default; the standard's form is an option.
    """

    LRC = "lrc"
    CRC = "crc"
    CRC_13239 = "crc-13239"

    @property
    def length(self) -> int:
        """Bytes of the epilogue field."""
        return 1 if self is Check.LRC else 2

    def of(self, data: bytes) -> bytes:
        """The check bytes for prologue and INF."""
        if self is Check.LRC:
            return bytes((lrc(data),))
        if self is Check.CRC:
            return crc(data).to_bytes(2, "big")
        return (crc(data) ^ 0xFFFF).to_bytes(2, "little")


def block(pcb: int, inf: bytes = b"", check: Check = Check.LRC, nad: int = 0) -> bytes:
    """A whole block.

    Raises:
        ValueError: INF has more than 255 bytes, or PCB or NAD is not a byte.
    """
    head = bytes((nad, pcb, len(inf))) + inf
    return head + check.of(head)


def kind(data: bytes) -> str:
    """``I``, ``R`` or ``S`` by PCB (ISO/IEC 7816-3:2006 11.3.2.2); empty without a PCB."""
    if len(data) < 2:
        return ""
    return "IIRS"[data[1] >> 6]
