"""Decisions for the activation of a card: voltage, protocol, speed, parameters, IFSD. Pure.

dwFeatures declares what the reader does automatically (USB CCID rev 1.1, 5.1). This module decides
the rest; :mod:`ccid.session.activation` executes the decisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import MESSAGE_HEADER, ProtocolDataT0, ProtocolDataT1
from ccid.codes import BLOCKWISE, Features, PowerSelect, Protocol, VoltageSupport
from ccid.errors import UnsupportedByReader
from ccid.iso7816.atr import DEFAULT_FIDI, DI, FI, MAX_IFS, Atr
from ccid.known.card_quirks import waiting_times

if TYPE_CHECKING:
    from ccid.iso7816.t1 import T1

VOLTAGES = (
    (VoltageSupport.V5_0, PowerSelect.V5_0),
    (VoltageSupport.V1_8, PowerSelect.V1_8),
    (VoltageSupport.V3_0, PowerSelect.V3_0),
)
"""The voltages in the order in which they are tried."""
CLASSES = {PowerSelect.V5_0: 1, PowerSelect.V3_0: 2, PowerSelect.V1_8: 4}
"""The bit of each voltage in the class indicator of an ATR (ISO/IEC 7816-3:2006 8.3)."""
MAX_SPEEDS = 3
"""Number of speeds to try before the default speed; each failure costs a reset."""
AUTOMATIC_PPS = Features.AUTO_NEGOTIATION | Features.AUTO_PPS
"""Features of a reader that sends the PPS request itself."""
RATE_TOLERANCE = 1
"""Greatest difference, in bit/s, between a computed data rate and the figure of the reader, which
may be rounded up or down."""


def power_selects(
    descriptor: SmartCardDescriptor,
    first: PowerSelect | None = None,
    wished: PowerSelect | None = None,
) -> list[PowerSelect]:
    """The values of bPowerSelect to try with a card, in order (USB CCID rev 1.1, 6.1.1).

    Args:
        descriptor: The class descriptor of the reader.
        first: The first value, whatever the reader declares; None for no such value.
        wished: The first value if the host chooses the voltage and the reader declares this value;
            AUTOMATIC is tried with any reader. None for 5 V.
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
    """The voltage to use for a card that answered at voltage ``used`` (ISO/IEC 7816-3:2006 6.2.4).

    Args:
        atr: The ATR of the card.
        used: The voltage in use.
        descriptor: The class descriptor of the reader.

    Returns:
        ``used``, unless the class indicator of the ATR excludes ``used`` and allows a voltage that
        the reader supports.
    """
    own = CLASSES.get(used)
    if own is None or not atr.classes or atr.classes & own:
        return used
    others = [v for v in power_selects(descriptor) if atr.classes & CLASSES.get(v, 0)]
    return others[0] if others else used


def choose_protocol(
    atr: Atr, descriptor: SmartCardDescriptor, wanted: Protocol | None, *, no_pps: bool = False
) -> list[Protocol]:
    """The protocols to try, in order.

    In specific mode this is the protocol of TA2. In negotiable mode T=1 comes first if card and
    reader support it, as with PC/SC, and T=0 second. Without a PPS (:func:`lacks_pps`) the first
    protocol of the ATR comes first.

    Args:
        atr: The ATR of the card.
        descriptor: The class descriptor of the reader.
        wanted: The protocol that the caller requires; None for any.
        no_pps: The reader cannot send a PPS: only the first protocol of the ATR is possible.

    Raises:
        UnsupportedByReader: Card and reader have no protocol in common, or not ``wanted``.
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
"""The ATR that some contactless readers build for an unknown card. A contactless card sends no
ATR."""


def _nothing_in_common(
    atr: Atr, descriptor: SmartCardDescriptor, wanted: Protocol | None, no_pps: bool
) -> str:
    """The error message: why card and reader have no protocol in common, or not ``wanted``, and the
    cure if there is one."""
    has = [p for p in Protocol if descriptor.dwProtocols >> p & 1]
    only = " alone" if len(has) == 1 else ""
    reason = f"the card offers {_named(atr.protocols)}"
    if atr.specific_mode:
        reason += f", insists on T={atr.default_protocol}"
    if no_pps:
        reason += ", and no PPS gets through this reader"
    reason += f"; the reader has {_named(has) or 'neither T=0 nor T=1'}{only}"
    if wanted is not None:
        reason += f"; {wanted} was asked for"
    if atr.raw == MADE_UP_ATR:
        return (
            f"{reason}. If this reader is contactless it made up the ATR: it does not know this "
            f"type of card, and no other protocol helps"
        )
    if no_pps or wanted is not None:
        return reason
    usable = [atr.default_protocol] if atr.specific_mode else atr.protocols
    needed = [t for t in usable if t in (0, 1)]
    return f"{reason}. This card needs a reader that has {_named(needed)}" if needed else reason


def _named(protocols: Iterable[int]) -> str:
    """The protocols in words: ``T=0 and T=1``."""
    return " and ".join(f"T={int(t)}" for t in protocols)


# Speed ----------------------------------------------------------------------------------------


def data_rate(clock_khz: int, fidi: int) -> int:
    """The data rate in bit/s; 0 for a reserved code of Fi or Di (ISO/IEC 7816-3:2006 7.1).

    Args:
        clock_khz: The clock in kHz.
        fidi: Fi and Di, coded as TA1.
    """
    f, d = FI[fidi >> 4], DI[fidi & 0x0F]
    return 0 if f is None or d is None else 1000 * clock_khz * d // f


def has_rate(descriptor: SmartCardDescriptor, rates: list[int], fidi: int) -> bool:
    """True if the reader supports the data rate of Fi and Di.

    Args:
        descriptor: The class descriptor of the reader.
        rates: The answer to GET_DATA_RATES, in bit/s; empty for all rates up to dwMaxDataRate.
        fidi: Fi and Di, coded as TA1.
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
    """The values of Fi and Di to try with a card, in order, coded as TA1.

    A card in negotiable mode supports the values of TA1, any smaller D (ISO/IEC 7816-3:2006 9.2),
    and the default values. A card in specific mode supports only the values of TA1.

    Args:
        atr: The ATR of the card.
        descriptor: The class descriptor of the reader.
        rates: The answer to GET_DATA_RATES, in bit/s; empty for all rates up to dwMaxDataRate.
        no_pps: The reader cannot send a PPS: a card in negotiable mode keeps the default values.

    Raises:
        UnsupportedByReader: The card is in specific mode at a speed that the reader does not
            support.
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
        doublings = 8 if indicated & 0x0F < 8 else len(DI)  # D = 12 and 20 are no power of 2
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
    """The only speed of a card in specific mode, coded as TA1 (ISO/IEC 7816-3:2006 6.3.1)."""
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
    """True if the host has to request ``protocol`` and ``fidi`` from the card by PPS.

    Args:
        atr: The ATR of the card.
        descriptor: The class descriptor of the reader.
        protocol: The protocol to use.
        fidi: The Fi and Di to use, coded as TA1.
    """
    if descriptor.features & AUTOMATIC_PPS or atr.specific_mode or lacks_pps(descriptor):
        return False
    return protocol != atr.default_protocol or fidi != DEFAULT_FIDI


def lacks_pps(descriptor: SmartCardDescriptor) -> bool:
    """True if neither host nor reader can send a PPS: a reader at APDU level that does not declare
    an automatic PPS. The XfrBlock of such a reader carries APDUs; the reader would take a PPS for
    an APDU. So the card keeps the first protocol of its ATR and the default speed, and
    SetParameters tells the reader these values.

    The specification does not allow such readers (USB CCID rev 1.1, 3.2 and 5.1), but they exist.
    """
    level = descriptor.exchange_level
    return level not in BLOCKWISE and not descriptor.features & AUTOMATIC_PPS


# Parameters -----------------------------------------------------------------------------------


def protocol_data(atr: Atr, protocol: Protocol, fidi: int) -> ProtocolDataT0 | ProtocolDataT1:
    """The parameters of a card for PC_to_RDR_SetParameters (USB CCID rev 1.1, 6.1.7).

    Args:
        atr: The ATR of the card.
        protocol: The protocol in force.
        fidi: The Fi and Di in force, coded as TA1.
    """
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
        bmTCCKST1=0x10 | convention | (0x01 if atr.crc else 0x00),
        bGuardTimeT1=atr.extra_guard_time,
        bmWaitingIntegersT1=bwi << 4 | cwi,
        bIFSC=atr.ifsc,
    )


def waiting_integers(atr: Atr) -> tuple[int, int]:
    """BWI and CWI of a card: those of the ATR, or greater values for a card that is known to need
    more time (:mod:`ccid.known.card_quirks`)."""
    known = waiting_times(atr.raw)
    return (atr.bwi, atr.cwi) if known is None else (known >> 4, known & 0x0F)


def make_t1(atr: Atr, descriptor: SmartCardDescriptor, name: str, taken: int = 0) -> T1:
    """The state of T=1 with a card; its blocks fit into a message of the reader.

    Args:
        atr: The ATR of the card.
        descriptor: The class descriptor of the reader.
        name: Name of the reader, for errors.
        taken: Bytes in the data of a message that do not belong to the block.
    """
    from ccid.iso7816.t1 import PROLOGUE, T1

    edc_length = 2 if atr.crc else 1
    room = descriptor.dwMaxCCIDMessageLength - MESSAGE_HEADER - taken - PROLOGUE - edc_length
    return T1(atr.ifsc, crc=atr.crc, max_inf=max(1, min(room, MAX_IFS)), name=name)


def choose_ifsd(descriptor: SmartCardDescriptor, t1: T1) -> int:
    """IFSD in bytes for a reader: dwMaxIFSD (254 for an impossible value), but not more than a
    message of the reader can carry.

    Args:
        descriptor: The class descriptor of the reader.
        t1: The state of T=1 with the card.
    """
    ifsd = descriptor.dwMaxIFSD
    return min(ifsd if 1 <= ifsd <= MAX_IFS else MAX_IFS, t1.max_inf)
