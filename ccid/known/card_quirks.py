"""What is known of a card beyond its ATR, by the whole ATR."""

from __future__ import annotations

from collections.abc import Mapping

WAITING_TIMES: Mapping[bytes, int] = {
    bytes.fromhex("3BFA1300FF813180450031C173C001000090 00B1"): 0x75,
}
"""TB3 of T=1 (BWI and CWI) to take instead of the ATR's, for the parameters and for timeouts
(ISO/IEC 7816-3:2006 11.4.3). The OpenPGP card version 2 says 0x45 and takes longer."""


def waiting_times(atr: bytes) -> int | None:
    """BWI and CWI (bWaitingIntegersT1) of the card with this ATR, None to take the ATR's."""
    return WAITING_TIMES.get(atr)
