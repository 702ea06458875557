"""The agreement: what reader and card agreed on during the activation, and its time limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccid.codes import Protocol
from ccid.iso7816.apdu import Bytes
from ccid.iso7816.atr import DEFAULT_FIDI
from ccid.iso7816.timing import Timing, block_waiting_s, exchange_timeout
from ccid.link.card_state import Session

if TYPE_CHECKING:
    from ccid.iso7816.t1 import T1

TRANSPARENT = b"\xff\xc2\x01"
"""CLA INS P1 of a transparent exchange with a contactless card (PC/SC part 3, 3.2.2.2.1)."""
APDU_LEVEL_S = 60.0
"""The longest time limit at APDU level, in seconds. The reader enforces the waiting times of the
card, and sends time extensions."""
BLOCK_LEVEL_S = 120.0
"""The longest time limit at TPDU and character level, in seconds. There the reader enforces the
waiting times as well, and reports a mute card; the waiting times of an ATR may be hours."""
TRANSPARENT_S = 90.0
"""The time limit of a transparent exchange, in seconds: its data contain a timer of their own."""


@dataclass(slots=True)
class Agreement:
    """What reader and card agreed on during the activation.

    Attributes:
        protocol: The protocol in force.
        fidi: The Fi and Di in force, coded as TA1. For a reader with automatic negotiation these
            are the values that the reader probably chose.
        timing: The times of the card; None if they are unknown.
        t1: The state of T=1 if the host runs T=1, else None.
        by_escape: The state of T=1 for blocks by Escape if the reader runs T=1, else None.
        extra_s: Seconds that this reader needs beyond the times of the card.
        longest_s: The longest time limit of a reply in seconds, without time extensions and
            ``extra_s``.
        session: The power-up of the card to which the agreement belongs; None for any.
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
        """The time limit of a reply in seconds.

        Args:
            multiplier: Multiplier of the block waiting time, from the waiting time extension of
                T=1; 0 without.
        """
        wait_s = min(exchange_timeout(self.timing, self.protocol), self.longest_s) + self.extra_s
        if multiplier > 1:
            wait_s += (multiplier - 1) * min(block_waiting_s(self.timing), self.longest_s)
        return wait_s

    def patience_s(self, apdu: Bytes) -> float:
        """The time limit, in seconds, of the reply to ``apdu`` in one XfrBlock."""
        usual = self.timeout_s()
        return max(usual, TRANSPARENT_S) if apdu[:3] == TRANSPARENT else usual
