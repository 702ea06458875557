"""What a reader and a card agreed on when the card was powered up."""

from __future__ import annotations

from dataclasses import dataclass

from ccid.codes import Protocol
from ccid.iso7816.apdu import Bytes
from ccid.iso7816.atr import DEFAULT_FIDI
from ccid.iso7816.t1 import T1
from ccid.iso7816.timing import Timing, block_waiting_s, exchange_timeout
from ccid.link.card_state import Session

TRANSPARENT = b"\xff\xc2\x01"
"""CLA INS P1 of a transparent exchange with a contactless card (PC/SC part 3, 3.2.2.2.1)."""
APDU_LEVEL_S = 60.0
"""The longest wait at APDU level. The reader keeps the card's times itself, and asks for more."""
BLOCK_LEVEL_S = 120.0
"""The longest wait at the levels below. There, too, a reader keeps the waiting times, and says that
a card is mute; an ATR may promise hours."""
TRANSPARENT_S = 90.0
"""What that may take: its own timer is among its data."""


@dataclass(slots=True)
class Agreement:
    """What a reader and a card agreed on.

    Attributes:
        protocol: T in force.
        fidi: Fi and Di in force, coded as TA1; where the reader negotiates by itself, those
            that it will have chosen.
        timing: The card's times; None if they cannot be known.
        t1: The state of T=1, where the host speaks it.
        by_escape: The state of T=1 where the reader speaks it, and takes blocks of the host's by
            an Escape besides.
        extra_s: Seconds that this reader may need beyond the card's.
        longest_s: Seconds to wait at most for a reply, before extensions and ``extra_s``.
        session: The power-up of the card that this holds for; None where nobody watches over it.
    """

    protocol: Protocol
    fidi: int = DEFAULT_FIDI
    timing: Timing | None = None
    t1: T1 | None = None
    by_escape: T1 | None = None
    extra_s: float = 0.0
    longest_s: float = BLOCK_LEVEL_S
    session: Session | None = None

    def timeout_s(self, multiplier: int = 0) -> float:
        """Seconds to wait for a reply.

        Args:
            multiplier: As T=1's waiting time extension has it, of the block waiting time alone.
        """
        wait_s = min(exchange_timeout(self.timing, self.protocol), self.longest_s) + self.extra_s
        if multiplier > 1:
            wait_s += (multiplier - 1) * min(block_waiting_s(self.timing), self.longest_s)
        return wait_s

    def patience_s(self, apdu: Bytes) -> float:
        """Seconds to wait for the reply to ``apdu``, sent whole."""
        usual = self.timeout_s()
        return max(usual, TRANSPARENT_S) if apdu[:3] == TRANSPARENT else usual
