"""Characters on contact C7 and their times: elementary time unit, waiting times.

Guard times are not counted: ``after_s`` of :class:`Sent` counts from the moment at which the
standard allows the card to send. A card that answers at once has 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ccid.iso7816.atr import DI, FI

BLOCK_GUARD_ETU = 22
"""BGT, the time between blocks of opposite directions (ISO/IEC 7816-3:2006 11.4.3)."""
TURN_GUARD_ETU = 16
"""The time between characters of opposite directions in T=0 (ISO/IEC 7816-3:2006 10.2)."""
DEFAULT_CLOCK_HZ = 4_000_000.0


class Sent(NamedTuple):
    """Characters that a card sends without a pause.

    Attributes:
        after_s: Seconds after the character before, beyond the guard time.
        data: The characters.
        parity_error: The characters come with wrong parity, or as noise.
    """

    after_s: float
    data: bytes
    parity_error: bool = False

    def __repr__(self) -> str:
        """Without the data, which may hold a secret."""
        size, wrong = len(self.data), self.parity_error
        return f"Sent(after_s={self.after_s}, data=<{size} bytes>, parity_error={wrong})"


def clocks_per_etu(fidi: int) -> float | None:
    """F / D, the clock cycles of an etu (ISO/IEC 7816-3:2006 7.1); None for a reserved code.

    Args:
        fidi: F and D coded as TA1.
    """
    f, d = FI[fidi >> 4 & 0x0F], DI[fidi & 0x0F]
    return None if f is None or d is None else f / d


@dataclass(frozen=True, slots=True)
class Line:
    """The times by the parameters in force, in seconds.

    Attributes:
        etu_s: Elementary time unit, F / D / f (ISO/IEC 7816-3:2006 7.1).
        wwt_s: T=0: WWT = WI × 960 × F / f (10.2).
        cwt_s: T=1: CWT = (11 + 2^CWI) etu (11.4.3).
        bwt_s: T=1: BWT = 11 etu + 2^BWI × 960 × Fd / f (11.4.3).
    """

    etu_s: float
    wwt_s: float
    cwt_s: float
    bwt_s: float

    @classmethod
    def of(cls, fidi: int, clock_hz: float, *, wi: int = 10, bwi: int = 4, cwi: int = 13) -> Line:
        """The times for F and D coded as TA1 and a clock in Hz.

        A reserved code counts as Fd = 372 and Dd = 1, a WI of 0 (reserved) as 10.

        Raises:
            ValueError: ``clock_hz`` is 0 or less.
        """
        if clock_hz <= 0:
            raise ValueError(f"a clock of {clock_hz} Hz")
        f, d = FI[fidi >> 4 & 0x0F] or 372, DI[fidi & 0x0F] or 1
        etu = f / d / clock_hz
        return cls(
            etu_s=etu,
            wwt_s=(wi or 10) * 960 * f / clock_hz,
            cwt_s=(11 + 2**cwi) * etu,
            bwt_s=11 * etu + 2**bwi * 960 * 372 / clock_hz,
        )


def joined(sent: Sequence[Sent]) -> bytes:
    """All characters of ``sent``."""
    return b"".join(one.data for one in sent)
