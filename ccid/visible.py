"""How much of an exchange that carries a PIN or a key a trace may show. Pure.

Each way an APDU goes (:mod:`ccid.exchange`) knows its own blocks; the trace only masks.
"""

from __future__ import annotations

from dataclasses import dataclass

from ccid.iso7816.apdu import Bytes, visible_length


@dataclass(frozen=True, slots=True)
class Visible:
    """How much of each block's data may be seen.

    Attributes:
        first_out: Bytes at the start of the exchange's first block to the card.
        head: Bytes at the start of every other block, either way.
        tail_in: Bytes at the end of every block from the card.
    """

    first_out: int = 0
    head: int = 0
    tail_in: int = 0


def apdu_level(apdu: Bytes) -> Visible:
    """For APDUs and T=0 TPDUs in blocks: CLA INS P1 P2 and Lc, and SW1 SW2."""
    return Visible(first_out=visible_length(apdu), tail_in=2)
