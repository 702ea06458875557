"""Waiting times of cards that need more time than their ATR says, by the whole ATR."""

from __future__ import annotations

from collections.abc import Mapping

WAITING_TIMES: Mapping[bytes, int] = {
    bytes.fromhex("3BFA1300FF813180450031C173C001000090 00B1"): 0x75,
}
"""BWI and CWI of T=1, coded as TB3, for parameters and time limits, instead of the value in the ATR
(ISO/IEC 7816-3:2006 11.4.3). The OpenPGP card version 2 has 0x45 in its ATR and needs more time."""


def waiting_times(atr: bytes) -> int | None:
    """BWI and CWI, coded as TB3, for the card with this ATR; None if the ATR is right.

    Args:
        atr: All bytes of the ATR.
    """
    return WAITING_TIMES.get(atr)
