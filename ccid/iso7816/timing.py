"""How long a card may take: ISO/IEC 7816-3:2006 7.1, 8.3, 10.2, 11.4.2 and 11.4.3.

All results are seconds; clocks are Hz.
"""

from __future__ import annotations

from dataclasses import dataclass

from ccid.codes import Protocol
from ccid.iso7816.atr import DEFAULT_FIDI, DI, FI, Atr

FLOOR_S = 3.0
"""No exchange is given up earlier: USB, the reader's own work, a slow host."""
UNKNOWN_S = 60.0
"""For a clock or an Fi or Di code that says nothing."""
MAX_BWI = 9
"""Greater values of BWI are reserved (ISO/IEC 7816-3:2006 11.4.3)."""
UNKNOWN_BWT_S = 6.0
"""BWT where it is unknown: BWI 4, the default, at 1 MHz, the slowest clock."""
PPS_CHARACTERS = 6
"""Of the longest PPS response (ISO/IEC 7816-3:2006 9.2)."""
LONGEST_PPS_S = 30.0
"""No card takes longer for it, whatever its ATR says."""
ACTIVATION_S = 60.0
"""For a power-on: the longest ATR takes 29 s at 4 MHz, and a reader may try three voltages."""
BLOCK = 260
"""Characters of the longest block: prologue, 254 bytes, epilogue; with one or two to spare."""
BLOCK_MARGIN_S = 1.0
"""Beyond what the standard gives a card of T=1: the way over USB and back."""
MIN_GUARD = 255
"""TC1 that asks for the shortest guard time (ISO/IEC 7816-3:2006 8.3)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The times that follow from an ATR, the Fi and Di in force and the clock.

    Attributes:
        etu_s: Elementary time unit.
        guard_t0_s: From the leading edge of one character to the next, in the host's direction.
        guard_t1_s: The same for T=1.
        wwt_s: T=0: work waiting time.
        cwt_s: T=1: character waiting time.
        bwt_s: T=1: block waiting time.
    """

    etu_s: float
    guard_t0_s: float
    guard_t1_s: float
    wwt_s: float
    cwt_s: float
    bwt_s: float

    @classmethod
    def of(
        cls,
        atr: Atr,
        clock_hz: float,
        fidi: int = DEFAULT_FIDI,
        *,
        bwi: int | None = None,
        cwi: int | None = None,
    ) -> Timing | None:
        """The times for a card.

        Args:
            atr: Its answer to reset.
            clock_hz: The clock the reader gives it, in Hz.
            fidi: The Fi and Di in force, coded as TA1.
            bwi, cwi: Instead of the ATR's, for a card whose ATR promises too much.

        Returns:
            None where the clock is 0 or the codes are reserved.
        """
        f, d = FI[fidi >> 4], DI[fidi & 0x0F]
        if f is None or d is None or clock_hz <= 0:
            return None
        etu = f / d / clock_hz
        n = atr.extra_guard_time
        if n == MIN_GUARD:
            guard_t0, guard_t1 = 12 * etu, 11 * etu
        else:
            guard_t0 = guard_t1 = 12 * etu + n * _guard_unit(atr, etu, clock_hz)
        bwi = min(atr.bwi if bwi is None else bwi, MAX_BWI)
        cwi = atr.cwi if cwi is None else cwi
        return cls(
            etu_s=etu,
            guard_t0_s=guard_t0,
            guard_t1_s=guard_t1,
            wwt_s=(atr.wi or 10) * 960 * f / clock_hz,
            cwt_s=(11 + 2**cwi) * etu,
            bwt_s=11 * etu + 2**bwi * 960 * 372 / clock_hz,
        )


def _guard_unit(atr: Atr, etu: float, clock_hz: float) -> float:
    """What N counts: etu in force, or, with T=15 in the ATR, those that TA1 indicates (8.3)."""
    if any(group.t == 15 for group in atr.groups) and atr.fi and atr.di:
        return atr.fi / atr.di / clock_hz
    return etu


def exchange_timeout(timing: Timing | None, protocol: Protocol) -> float:
    """How long to wait for the reply to one TPDU, block or APDU, in seconds.

    For T=0 the worse of a command with 255 bytes out and of one with 256 bytes in, each received
    character after up to WWT. For T=1 a full block out, BWT, and a full block in.

    Args:
        timing: The card's; None if it cannot be known.
        protocol: T in force.
    """
    if timing is None:
        return UNKNOWN_S
    if protocol is Protocol.T0:
        out = 261 * timing.guard_t0_s + 6 * timing.wwt_s
        back = 5 * timing.guard_t0_s + 260 * timing.wwt_s
        return max(FLOOR_S, out, back)
    block = BLOCK * (timing.guard_t1_s + timing.cwt_s) + BLOCK_MARGIN_S
    return max(FLOOR_S, block + timing.bwt_s)


def block_waiting_s(timing: Timing | None) -> float:
    """BWT, which a waiting time extension of T=1 multiplies (11.4.3 and 11.6.2.3), in seconds.

    Args:
        timing: The card's; None if it cannot be known.
    """
    return UNKNOWN_BWT_S if timing is None else timing.bwt_s


def pps_timeout(timing: Timing | None) -> float:
    """How long to wait for a PPS response, in seconds: each character after up to WT (9.2).

    Args:
        timing: The card's, right after its reset; None if it cannot be known.
    """
    if timing is None:
        return LONGEST_PPS_S
    answer = PPS_CHARACTERS * (timing.wwt_s + timing.guard_t0_s) + BLOCK_MARGIN_S
    return min(max(FLOOR_S, answer), LONGEST_PPS_S)
