"""From an ATR to a card that can be talked to: voltage, protocol, parameters. Pure.

dwFeatures says what the reader does by itself (USB CCID rev 1.1, 5.1); the rest is decided here.
"""

from __future__ import annotations

from ccid.codes import Features, PowerSelect, Protocol, VoltageSupport
from ccid.descriptors import SmartCardDescriptor
from ccid.errors import UnsupportedByReader
from ccid.exchange import has_protocol
from ccid.iso7816.atr import DI, FI, Atr
from ccid.messages import ProtocolDataT0, ProtocolDataT1

DEFAULT_FIDI = 0x11
"""Fd = 372 and Dd = 1, in force after an ATR (ISO/IEC 7816-3:2006 8.3)."""

VOLTAGES = (
    (VoltageSupport.V5_0, PowerSelect.V5_0),
    (VoltageSupport.V1_8, PowerSelect.V1_8),
    (VoltageSupport.V3_0, PowerSelect.V3_0),
)
"""In the order they are tried."""


def power_selects(descriptor: SmartCardDescriptor) -> list[int]:
    """The values of bPowerSelect to try on a card, in order (USB CCID rev 1.1, 6.1.1)."""
    if descriptor.features & (Features.AUTO_VOLTAGE | Features.AUTO_ACTIVATION):
        return [PowerSelect.AUTOMATIC]
    known = [select for bit, select in VOLTAGES if descriptor.voltages & bit]
    return [int(select) for select in known] or [PowerSelect.V5_0]


def choose_protocol(
    atr: Atr, descriptor: SmartCardDescriptor, wanted: Protocol | None
) -> list[Protocol]:
    """The protocols to try, in order.

    Args:
        atr: The card's.
        descriptor: The reader's.
        wanted: What the caller insists on. None: TA2's in specific mode, else T=1 where the
            card and the reader have it, as PC/SC does, else T=0; the card's default as the
            second try.

    Raises:
        UnsupportedByReader: Card and reader have none in common, or not the one wanted.
    """
    card = [Protocol(t) for t in atr.protocols if t in (0, 1)]
    if atr.specific_mode:
        card = [Protocol(atr.default_protocol)] if atr.default_protocol in (0, 1) else []
    level = descriptor.exchange_level
    both = [p for p in card if descriptor.dwProtocols >> p & 1 and has_protocol(level, p)]
    if wanted is not None:
        both = [p for p in both if p is wanted]
    if not both:
        offered = ", ".join(f"T={t}" for t in atr.protocols)
        asked = "" if wanted is None else f"; {wanted} was asked for"
        raise UnsupportedByReader(
            f"the card offers {offered}, the reader has dwProtocols "
            f"0x{descriptor.dwProtocols:08X}{asked}"
        )
    first = Protocol.T1 if Protocol.T1 in both else both[0]
    return [first, *(p for p in both if p is not first)]


def choose_fidi(atr: Atr, descriptor: SmartCardDescriptor, rates: list[int]) -> int:
    """The Fi and Di to have the reader negotiate, coded as TA1.

    Args:
        atr: The card's.
        descriptor: The reader's. Without dwFeatures bit 7 the default stays.
        rates: What GET_DATA_RATES returned, in bit/s; empty for any up to dwMaxDataRate.
    """
    automatic = bool(descriptor.features & Features.AUTO_PPS)
    if atr.ta1 is None or not automatic or atr.fi is None or atr.di is None:
        return DEFAULT_FIDI
    rate = data_rate(descriptor.dwDefaultClock, atr.ta1)
    known = not rates or any(abs(rate - listed) <= 1 for listed in rates)
    return atr.ta1 if known and rate <= descriptor.dwMaxDataRate else DEFAULT_FIDI


def data_rate(clock_khz: int, fidi: int) -> int:
    """The rate in bit/s that a clock and Fi and Di, coded as TA1, give; 0 for reserved codes."""
    f, d = FI[fidi >> 4], DI[fidi & 0x0F]
    return 0 if f is None or d is None else 1000 * clock_khz * d // f


def protocol_data(atr: Atr, protocol: Protocol, fidi: int) -> ProtocolDataT0 | ProtocolDataT1:
    """What SetParameters tells the reader of a card (USB CCID rev 1.1, 6.1.7)."""
    convention = 0x02 if atr.inverse else 0x00
    if protocol is Protocol.T0:
        return ProtocolDataT0(
            bmFindexDindex=fidi,
            bmTCCKST0=convention,
            bGuardTimeT0=atr.extra_guard_time,
            bWaitingIntegerT0=atr.wi,
        )
    return ProtocolDataT1(
        bmFindexDindex=fidi,
        bmTCCKST1=0x10 | convention | atr.crc,
        bGuardTimeT1=atr.extra_guard_time,
        bmWaitingIntegersT1=atr.bwi << 4 | atr.cwi,
        bIFSC=atr.ifsc,
    )
