"""A card whose answers a test chooses by INS."""

from __future__ import annotations

import random

from ccid.iso7816.apdu import CommandApdu
from ccid.virtual.cards.application import DONE, Answer, Application


class EchoCard(Application):
    """Answers by INS, in any class:

    ====  ==========================================================
    INS   Answer
    ====  ==========================================================
    A4    9000, any SELECT (6A82 for an AID of ``unknown``)
    10    Ne bytes, byte i is i + P1
    20    9000, whatever the data
    30    the data
    38    9000 after P1 P2 (16 bits) seconds
    40    9000
    50    9000 after P1 P2 (16 bits) milliseconds
    52    P1 P2 as SW1 SW2
    84    Ne random bytes (seeded)
    else  6D00
    ====  ==========================================================

    Args:
        atr: The answer to reset; the default offers T=0 and T=1.
        unknown: An AID that SELECT does not find.
        seed: For the random bytes.
    """

    atr = bytes.fromhex("3B D5 96 00 80 31 FE 45 63 63 69 64 21 65")

    def __init__(
        self, atr: bytes | None = None, *, unknown: bytes = b"\xff", seed: int = 0
    ) -> None:
        super().__init__(atr)
        self.unknown = unknown
        self._random = random.Random(seed)

    def takes_data(self, header: bytes) -> bool:
        """SELECT, 20, 30 and 40."""
        return header[1] in (0xA4, 0x20, 0x30, 0x40)

    def process(self, command: CommandApdu) -> Answer:
        p1, p2, ne = command.p1, command.p2, command.ne
        match command.ins:
            case 0xA4:
                return Answer(sw=0x6A82 if command.data == self.unknown else 0x9000)
            case 0x10:
                return Answer(bytes((i + p1) & 0xFF for i in range(ne)))
            case 0x20 | 0x40:
                return DONE
            case 0x30:
                return Answer(command.data)
            case 0x38:
                return Answer(after_s=float(p1 << 8 | p2))
            case 0x50:
                return Answer(after_s=(p1 << 8 | p2) / 1000)
            case 0x52:
                return Answer(sw=p1 << 8 | p2)
            case 0x84:
                return Answer(self._random.randbytes(ne))
        return Answer(sw=0x6D00)
