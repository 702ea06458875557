"""What to ask of a card after its ATR: voltage, protocol, speed, parameters. Pure.

dwFeatures says what the reader does by itself (USB CCID rev 1.1, 5.1); the rest is decided here
and done by :mod:`ccid.session.activation`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import MESSAGE_HEADER, ProtocolDataT0, ProtocolDataT1
from ccid.codes import BLOCKWISE, Features, PowerSelect, Protocol, VoltageSupport
from ccid.errors import UnsupportedByReader
from ccid.iso7816.atr import DEFAULT_FIDI, DI, FI, MAX_IFS, Atr
from ccid.iso7816.t1 import PROLOGUE, T1
from ccid.known.card_quirks import waiting_times

VOLTAGES = (
    (VoltageSupport.V5_0, PowerSelect.V5_0),
    (VoltageSupport.V1_8, PowerSelect.V1_8),
    (VoltageSupport.V3_0, PowerSelect.V3_0),
)
"""In the order they are tried."""
CLASSES = {PowerSelect.V5_0: 1, PowerSelect.V3_0: 2, PowerSelect.V1_8: 4}
"""The operating class of each, as the class indicator of an ATR codes it (ISO/IEC 7816-3:2006
8.3)."""
MAX_SPEEDS = 3
"""How many speeds are tried before the default one: each costs a reset."""
AUTOMATIC_PPS = Features.AUTO_NEGOTIATION | Features.AUTO_PPS
"""The reader sends the PPS itself."""
RATE_TOLERANCE = 1
"""Bit/s that a rate may be off the reader's figures: they are rounded either way."""


def power_selects(
    descriptor: SmartCardDescriptor,
    first: PowerSelect | None = None,
    wished: PowerSelect | None = None,
) -> list[PowerSelect]:
    """The values of bPowerSelect to try on a card, in order (USB CCID rev 1.1, 6.1.1).

    Args:
        descriptor: The reader's.
        first: What to begin with, whatever the reader declares.
        wished: What to begin with else, where the host chooses and the reader has it; AUTOMATIC
            is tried on any reader.
    """
    if descriptor.features & (Features.AUTO_VOLTAGE | Features.AUTO_ACTIVATION):
        known = [PowerSelect.AUTOMATIC]
    else:
        known = [select for bit, select in VOLTAGES if descriptor.voltages & bit]
        known = known or [PowerSelect.V5_0]
        if wished in known:
            at = known.index(wished)
            known = known[at:] + known[:at]
        elif wished is PowerSelect.AUTOMATIC:
            known = [wished, *known]
    return known if first is None else [first, *(one for one in known if one is not first)]


def better_voltage(atr: Atr, used: PowerSelect, descriptor: SmartCardDescriptor) -> PowerSelect:
    """The voltage to use for a card that answered at ``used``: another one only if its class
    indicator excludes that and names one that the reader has (ISO/IEC 7816-3:2006 6.2.4)."""
    own = CLASSES.get(used)
    if own is None or not atr.classes or atr.classes & own:
        return used
    others = [v for v in power_selects(descriptor) if atr.classes & CLASSES.get(v, 0)]
    return others[0] if others else used


def choose_protocol(
    atr: Atr, descriptor: SmartCardDescriptor, wanted: Protocol | None, *, no_pps: bool = False
) -> list[Protocol]:
    """The protocols to try, in order.

    Args:
        atr: The card's.
        descriptor: The reader's.
        wanted: What the caller insists on. None: TA2's in specific mode, else T=1 where the
            card and the reader have it, as PC/SC does, else T=0; the other as the second try.
            Where nobody sends a PPS (:func:`lacks_pps`), the card's own first.
        no_pps: The reader cannot send a PPS: the first protocol of the ATR stays.

    Raises:
        UnsupportedByReader: Card and reader have none in common, or not the one wanted.
    """
    card = [Protocol(t) for t in atr.protocols if t in (0, 1)]
    if atr.specific_mode or no_pps:
        card = [Protocol(atr.default_protocol)] if atr.default_protocol in (0, 1) else []
    both = [p for p in card if descriptor.dwProtocols >> p & 1]
    if wanted is not None:
        both = [p for p in both if p is wanted]
    if not both:
        raise UnsupportedByReader(_nothing_in_common(atr, descriptor, wanted, no_pps))
    first = Protocol.T1 if Protocol.T1 in both else both[0]
    if lacks_pps(descriptor) and atr.default_protocol in both:
        first = Protocol(atr.default_protocol)
    return [first, *(p for p in both if p is not first)]


MADE_UP_ATR = b"\x3b\x00"
"""What some contactless readers say for a card that they do not know (no ATR comes from the card
itself there)."""


def _nothing_in_common(
    atr: Atr, descriptor: SmartCardDescriptor, wanted: Protocol | None, no_pps: bool
) -> str:
    """Why card and reader have no protocol in common, or not ``wanted``, and what may help."""
    has = [p for p in Protocol if descriptor.dwProtocols >> p & 1]
    only = " alone" if len(has) == 1 else ""
    said = f"the card offers {_named(atr.protocols)}"
    if atr.specific_mode:
        said += f", insists on T={atr.default_protocol}"
    if no_pps:
        said += ", and no PPS gets through this reader"
    said += f"; the reader has {_named(has) or 'neither T=0 nor T=1'}{only}"
    if wanted is not None:
        said += f"; {wanted} was asked for"
    if atr.raw == MADE_UP_ATR:
        return (
            f"{said}. If this reader is contactless it made up the ATR: it does not know this type "
            f"of card, and no other protocol helps"
        )
    if no_pps or wanted is not None:
        return said
    usable = [atr.default_protocol] if atr.specific_mode else atr.protocols
    lacked = [t for t in usable if t in (0, 1)]
    return f"{said}. This card needs a reader that has {_named(lacked)}" if lacked else said


def _named(protocols: Iterable[int]) -> str:
    """``T=0 and T=1``."""
    return " and ".join(f"T={int(t)}" for t in protocols)


# Speed ----------------------------------------------------------------------------------------


def data_rate(clock_khz: int, fidi: int) -> int:
    """The rate in bit/s that a clock and Fi and Di, coded as TA1, give; 0 for reserved codes."""
    f, d = FI[fidi >> 4], DI[fidi & 0x0F]
    return 0 if f is None or d is None else 1000 * clock_khz * d // f


def has_rate(descriptor: SmartCardDescriptor, rates: list[int], fidi: int) -> bool:
    """True if the reader can talk at Fi and Di, coded as TA1.

    Args:
        descriptor: The reader's.
        rates: What GET_DATA_RATES returned, in bit/s; empty for any up to dwMaxDataRate.
        fidi: Coded as TA1.
    """
    rate = data_rate(descriptor.dwDefaultClock, fidi)
    if not rate:
        return False
    if rates:
        return any(abs(rate - listed) <= RATE_TOLERANCE for listed in rates)
    return rate <= descriptor.dwMaxDataRate + RATE_TOLERANCE


def speeds(
    atr: Atr, descriptor: SmartCardDescriptor, rates: list[int], *, no_pps: bool = False
) -> list[int]:
    """The Fi and Di to try on a card, in order, coded as TA1.

    A card in negotiable mode takes, besides what TA1 indicates, any smaller D
    (ISO/IEC 7816-3:2006 9.2), and the default. One in specific mode takes TA1's alone.

    Args:
        atr: The card's.
        descriptor: The reader's.
        rates: What GET_DATA_RATES returned, in bit/s; empty for any up to dwMaxDataRate.
        no_pps: The reader cannot send a PPS: a card in negotiable mode keeps the default.

    Raises:
        UnsupportedByReader: The card insists on a speed that this reader has not.
    """
    indicated = DEFAULT_FIDI if atr.ta1 is None else atr.ta1
    if descriptor.features & Features.AUTO_NEGOTIATION:
        return [indicated if atr.fi and atr.di else DEFAULT_FIDI]
    if atr.ta2 is not None:
        return [_specific(atr, atr.ta2, indicated, descriptor, rates)]
    if no_pps or lacks_pps(descriptor):
        return [DEFAULT_FIDI]
    tried = []
    if atr.fi and atr.di and indicated != DEFAULT_FIDI:
        doublings = 8 if indicated & 0x0F < 8 else len(DI)  # D = 12 and 20 are another series
        slower = sorted(
            (code for code, d in enumerate(DI[:doublings]) if d is not None and d <= atr.di),
            key=lambda code: -(DI[code] or 0),
        )
        candidates = [indicated & 0xF0 | code for code in slower]
        default = data_rate(descriptor.dwDefaultClock, DEFAULT_FIDI)
        tried = [
            fidi
            for fidi in candidates
            if has_rate(descriptor, rates, fidi)
            and (fidi == indicated or data_rate(descriptor.dwDefaultClock, fidi) > default)
        ]
    return [*tried[:MAX_SPEEDS], DEFAULT_FIDI]


def _specific(
    atr: Atr, ta2: int, indicated: int, descriptor: SmartCardDescriptor, rates: list[int]
) -> int:
    """The one speed of a card in specific mode (ISO/IEC 7816-3:2006 6.3.1)."""
    if ta2 & 0x10:
        raise UnsupportedByReader(
            f"the card is in specific mode with parameters known to its issuer alone (TA2 = "
            f"0x{ta2:02X}), and this reader does not find them by itself"
        )
    if not (atr.fi and atr.di):
        raise UnsupportedByReader(
            f"the card insists on Fi and Di by the reserved code TA1 = 0x{indicated:02X}"
        )
    if indicated != DEFAULT_FIDI and not has_rate(descriptor, rates, indicated):
        rate = data_rate(descriptor.dwDefaultClock, indicated)
        goes_to = descriptor.dwMaxDataRate
        lacks = f"goes to {goes_to} bit/s" if rate > goes_to else "does not list that rate"
        raise UnsupportedByReader(
            f"the card insists on {rate} bit/s (TA1 = 0x{indicated:02X}, TA2 = 0x{ta2:02X}); "
            f"the reader {lacks}"
        )
    return indicated


def needs_pps(atr: Atr, descriptor: SmartCardDescriptor, protocol: Protocol, fidi: int) -> bool:
    """True if it is up to the host to ask the card for ``protocol`` and ``fidi`` by PPS."""
    if descriptor.features & AUTOMATIC_PPS or atr.specific_mode or lacks_pps(descriptor):
        return False
    return protocol != atr.default_protocol or fidi != DEFAULT_FIDI


def lacks_pps(descriptor: SmartCardDescriptor) -> bool:
    """True if the card is asked for nothing by PPS: a reader at APDU level that does not declare
    to send one itself. Its XfrBlock carries APDUs, and would take a PPS for one; so the card keeps
    the first protocol of its ATR and the default speed, and SetParameters says so to the reader.

    The specification has no such reader (USB CCID rev 1.1, 3.2 and 5.1); there are some.
    """
    level = descriptor.exchange_level
    return level not in BLOCKWISE and not descriptor.features & AUTOMATIC_PPS


# Parameters -----------------------------------------------------------------------------------


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
    bwi, cwi = waiting_integers(atr)
    return ProtocolDataT1(
        bmFindexDindex=fidi,
        bmTCCKST1=0x10 | convention | atr.crc,
        bGuardTimeT1=atr.extra_guard_time,
        bmWaitingIntegersT1=bwi << 4 | cwi,
        bIFSC=atr.ifsc,
    )


def waiting_integers(atr: Atr) -> tuple[int, int]:
    """BWI and CWI of a card: its ATR's, or better ones for a card known to promise too much."""
    known = waiting_times(atr.raw)
    return (atr.bwi, atr.cwi) if known is None else (known >> 4, known & 0x0F)


def make_t1(atr: Atr, descriptor: SmartCardDescriptor, name: str, taken: int = 0) -> T1:
    """The state of T=1 with a card, its blocks held to what a message of the reader carries.

    Args:
        atr: The card's.
        descriptor: The reader's.
        name: Of the reader, for errors.
        taken: Bytes of a message's data that are not the block's.
    """
    edc_length = 2 if atr.crc else 1
    room = descriptor.dwMaxCCIDMessageLength - MESSAGE_HEADER - taken - PROLOGUE - edc_length
    return T1(atr.ifsc, crc=atr.crc, max_inf=max(1, min(room, MAX_IFS)), name=name)


def choose_ifsd(descriptor: SmartCardDescriptor, t1: T1) -> int:
    """IFSD for a reader: dwMaxIFSD where that makes sense, and what a message carries."""
    ifsd = descriptor.dwMaxIFSD
    return min(ifsd if 1 <= ifsd <= MAX_IFS else MAX_IFS, t1.max_inf)
