"""How long a card may take: ISO/IEC 7816-3:2006 8.1, 10.2 and 11.4.3.

All results are seconds; clocks are Hz.
"""

from __future__ import annotations

from dataclasses import dataclass

from ccid.codes import Protocol
from ccid.iso7816.atr import DI, FI, Atr

FLOOR_S = 3.0
"""No exchange is given up earlier: USB, the reader's own work, a slow host."""
UNKNOWN_S = 60.0
"""For a clock or an Fi or Di code that says nothing."""
MAX_BWI = 9
"""Greater values of BWI are reserved (ISO/IEC 7816-3:2006 11.4.3)."""
ACTIVATION_S = 60.0
"""For a power-on: the longest ATR takes 29 s at 4 MHz, and a reader may try three voltages."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The times that follow from an ATR, the Fi and Di in force and the clock.

    Attributes:
        etu_s: Elementary time unit.
        guard_s: From the leading edge of one character to the next, in the host's direction.
        wwt_s: T=0: work waiting time.
        cwt_s: T=1: character waiting time.
        bwt_s: T=1: block waiting time.
    """

    etu_s: float
    guard_s: float
    wwt_s: float
    cwt_s: float
    bwt_s: float

    @classmethod
    def of(cls, atr: Atr, clock_hz: float, fidi: int = 0x11) -> Timing | None:
        """The times for a card.

        Args:
            atr: Its answer to reset.
            clock_hz: The clock the reader gives it, in Hz.
            fidi: The Fi and Di in force, coded as TA1.

        Returns:
            None where the clock is 0 or the codes are reserved.
        """
        f, d = FI[fidi >> 4], DI[fidi & 0x0F]
        if f is None or d is None or clock_hz <= 0:
            return None
        etu = f / d / clock_hz
        n = atr.extra_guard_time
        extra = 0.0 if n == 255 else n * etu
        return cls(
            etu_s=etu,
            guard_s=12 * etu + extra,
            wwt_s=atr.wi * 960 * f / clock_hz,
            cwt_s=(11 + 2**atr.cwi) * etu,
            bwt_s=11 * etu + 2 ** min(atr.bwi, MAX_BWI) * 960 * 372 / clock_hz,
        )


def exchange_timeout(timing: Timing | None, protocol: Protocol) -> float:
    """How long to wait for the reply to one TPDU or APDU block, in seconds.

    For T=0 the worse of a command with 255 bytes out and of one with 256 bytes in, each received
    character after up to WWT. For T=1 a full block out, BWT, and a full block in.
    """
    if timing is None:
        return UNKNOWN_S
    if protocol is Protocol.T0:
        out = 261 * timing.guard_s + 6 * timing.wwt_s
        back = 5 * timing.guard_s + 260 * timing.wwt_s
        return max(FLOOR_S, out, back)
    return max(FLOOR_S, 260 * timing.guard_s + timing.bwt_s + 260 * timing.cwt_s + 1.0)
