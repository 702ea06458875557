"""Waiting times of a card, and the time limits that follow (ISO/IEC 7816-3:2006 8.3, 10.2, 11.4).

All times are in seconds, all clocks in Hz.
"""

from __future__ import annotations

from ccid.codes import Protocol
from ccid.ground.records import record
from ccid.iso7816.atr import DEFAULT_FIDI, DI, FI, Atr

FLOOR_S = 3.0
"""The shortest time limit of an exchange: USB, the reader and the host need time as well."""
UNKNOWN_S = 60.0
"""The time limit of an exchange with a card whose waiting times are unknown."""
MAX_BWI = 9
"""The greatest BWI; greater values are reserved (ISO/IEC 7816-3:2006 11.4.3)."""
UNKNOWN_BWT_S = 6.0
"""BWT of a card whose BWT is unknown: the default BWI, 4, at 1 MHz, the slowest clock."""
PPS_CHARACTERS = 6
"""Characters of the longest PPS response (ISO/IEC 7816-3:2006 9.2)."""
LONGEST_PPS_S = 30.0
"""The longest time limit of a PPS exchange, whatever the ATR says."""
ACTIVATION_S = 60.0
"""The time limit of a power-on: the longest ATR takes 29 s at 4 MHz, and a reader may try three
voltages."""
BLOCK = 260
"""Characters of the longest T=1 block, 259 (prologue 3, information field 254, epilogue 2), and
one to spare."""
BLOCK_MARGIN_S = 1.0
"""Seconds beyond the waiting times of the standard, for USB."""
MIN_GUARD = 255
"""The value of TC1 for the shortest guard time (ISO/IEC 7816-3:2006 8.3)."""


@record
class Timing:
    """The times that follow from the ATR, the Fi and Di in force, and the clock. All in seconds.

    Attributes:
        etu_s: Elementary time unit (7.1).
        guard_t0_s: T=0: from the leading edge of one character to the next, host to card (8.3).
        guard_t1_s: T=1: from the leading edge of one character to the next, host to card (8.3).
        wwt_s: T=0: work waiting time (10.2).
        cwt_s: T=1: character waiting time (11.4.3).
        bwt_s: T=1: block waiting time (11.4.3).
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
        """The times of a card.

        Args:
            atr: The ATR of the card.
            clock_hz: The clock of the card, in Hz.
            fidi: The Fi and Di in force, coded as TA1.
            bwi, cwi: Values to use instead of those of the ATR, for a card that needs more time
                than its ATR says.

        Returns:
            The times; None if the clock is 0 or the code of Fi or Di is reserved.
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
    """The unit of the extra guard time N, in seconds: the etu in force, or, with T=15 in the ATR,
    the etu of the Fi and Di that TA1 indicates (8.3)."""
    if any(group.t == 15 for group in atr.groups) and atr.fi and atr.di:
        return atr.fi / atr.di / clock_hz
    return etu


def exchange_timeout(timing: Timing | None, protocol: Protocol) -> float:
    """The time limit, in seconds, of the exchange of one TPDU, block or APDU.

    T=0: the longer of a command with 255 bytes of data and a command with 256 bytes of response,
    if each character from the card takes WWT. T=1: a full block to the card, BWT, and a full block
    from the card.

    Args:
        timing: The times of the card; None if they are unknown.
        protocol: The protocol in force.
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
    """BWT in seconds, which a waiting time extension of T=1 multiplies (11.4.3 and 11.6.2.3).

    Args:
        timing: The times of the card; None if they are unknown.
    """
    return UNKNOWN_BWT_S if timing is None else timing.bwt_s


def pps_timeout(timing: Timing | None) -> float:
    """The time limit, in seconds, of a PPS exchange; each character may take WT (9.2).

    Args:
        timing: The times of the card right after its reset; None if they are unknown.
    """
    if timing is None:
        return LONGEST_PPS_S
    answer = PPS_CHARACTERS * (timing.wwt_s + timing.guard_t0_s) + BLOCK_MARGIN_S
    return min(max(FLOOR_S, answer), LONGEST_PPS_S)
