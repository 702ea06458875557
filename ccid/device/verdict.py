"""Whether a reader will work, judged by its descriptors and the table of readers. Pure.

Every reason names the descriptor field that is its cause. ``ccid-probe check`` prints the verdict;
:func:`ccid.open_reader` refuses a reader whose verdict is UNSUPPORTED.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from ccid.codec.descriptors import SmartCardDescriptor, SmartCardInterface
from ccid.codec.messages import MESSAGE_HEADER
from ccid.codes import (
    CLASS_VENDOR,
    EXCHANGE_LEVEL_TEXT,
    INTERFACE_PROTOCOL_TEXT,
    ExchangeLevel,
    Features,
    InterfaceProtocol,
    Protocol,
    Protocols,
)
from ccid.ground.records import record
from ccid.iso7816.apdu import MAX_SHORT
from ccid.known.extended_apdus import EXTENDED, WITH_T1, extended_apdus
from ccid.known.quirks import Quirks
from ccid.known.quirks.descriptor_fixups import apply
from ccid.transport import ReaderInfo


class Level(Enum):
    """Outcome of a verdict."""

    WORKS = "works"
    LIMITS = "works with limits"
    UNSUPPORTED = "unsupported"


class Weight(Enum):
    """Effect of a reason on the verdict."""

    NOTE = "note"
    LIMIT = "limit"
    FATAL = "fatal"


@record
class Reason:
    """One reason of a verdict.

    Attributes:
        field: Name of the descriptor field that is the cause; ``table`` for the table of readers.
        text: What follows from the value of the field.
        weight: Effect on the verdict.
    """

    field: str
    text: str
    weight: Weight

    @property
    def fatal(self) -> bool:
        """True if this reason alone makes the reader unsupported."""
        return self.weight is Weight.FATAL

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


@record
class Verdict:
    """The verdict on a reader.

    Attributes:
        level: Works, works with limits, or unsupported.
        reasons: The reasons, by weight: FATAL first, NOTE last.
    """

    level: Level
    reasons: tuple[Reason, ...]


def judge(info: ReaderInfo, quirks: Quirks | None = None, *, old_firmware: bool = False) -> Verdict:
    """Judge a reader without opening it.

    Args:
        info: The reader.
        quirks: The quirks of the reader; None to look them up in the table of readers.
        old_firmware: True to count firmware that is known to be faulty as a limit only; False to
            count that firmware as fatal.

    Returns:
        The verdict.

    Raises:
        ReaderTableError: The user's table of readers has an error.
    """
    release = info.device.bcdDevice
    if quirks is None:
        quirks = info.quirks()
    descriptor = apply(quirks, info.descriptor, info.reader.protocol)
    reasons = [
        *_table(quirks, release, old_firmware),
        *_interface(info.reader),
        *_class(descriptor),
        *_extended(descriptor, extended_apdus(descriptor, info.reader, quirks)),
    ]
    order = [Weight.FATAL, Weight.LIMIT, Weight.NOTE]
    reasons.sort(key=lambda reason: order.index(reason.weight))
    weights = {reason.weight for reason in reasons}
    if Weight.FATAL in weights:
        level = Level.UNSUPPORTED
    else:
        level = Level.LIMITS if Weight.LIMIT in weights else Level.WORKS
    return Verdict(level, tuple(reasons))


def _table(quirks: Quirks, release: int, old_firmware: bool) -> Iterator[Reason]:
    because = f": {quirks.reason}" if quirks.reason else ""
    if because and quirks.min_release is not None:
        because += f" (this one has {_bcd(release)})"
    if quirks.status == "unsupported":
        yield Reason("table", f"known not to work well{because}", Weight.LIMIT)
    elif quirks.status == "disabled":
        yield Reason("table", f"disabled{because}", Weight.FATAL)
    elif quirks.status == "unknown":
        yield Reason("table", "not in the table of readers; driven by its class", Weight.NOTE)
    if quirks.min_release is not None and release < quirks.min_release:
        yield Reason(
            "bcdDevice",
            f"firmware {_bcd(release)} has faults that {_bcd(quirks.min_release)} mends",
            Weight.LIMIT if old_firmware else Weight.FATAL,
        )


def _bcd(release: int) -> str:
    return f"{release >> 8:x}.{release & 0xFF:02x}"


def _interface(reader: SmartCardInterface) -> Iterator[Reason]:
    head = reader.interface
    protocol = reader.protocol
    if head.bInterfaceClass == CLASS_VENDOR:
        yield Reason(
            "bInterfaceClass", "0xFF, a proprietary interface with a CCID descriptor", Weight.NOTE
        )
    if reader.misplaced:
        yield Reason(
            "bDescriptorType", "the class descriptor stands behind an endpoint", Weight.NOTE
        )
    if protocol is None:
        yield Reason(
            "bInterfaceProtocol",
            f"{head.bInterfaceProtocol} is neither CCID (0) nor ICCD (1, 2)",
            Weight.FATAL,
        )
    elif reader.is_iccd:
        text = f"{head.bInterfaceProtocol}, {INTERFACE_PROTOCOL_TEXT[protocol]}"
        yield Reason("bInterfaceProtocol", text, Weight.NOTE)
    else:
        if protocol is not InterfaceProtocol.CCID:
            text = f"{head.bInterfaceProtocol} names ICCD; its bulk endpoints are used all the same"
            yield Reason("bInterfaceProtocol", text, Weight.NOTE)
        for endpoint, name in ((reader.bulk_out, "bulk-OUT"), (reader.bulk_in, "bulk-IN")):
            if endpoint is None:
                yield Reason("bNumEndpoints", f"no {name} endpoint", Weight.FATAL)
            elif not endpoint.max_packet_size:
                yield Reason("wMaxPacketSize", f"0 on the {name} endpoint", Weight.FATAL)
        if reader.interrupt_in is None:
            text = "no interrupt-IN endpoint: cards coming and going are seen by asking"
            if reader.smart_card.dwFeatures & Features.AUTO_ACTIVATION:
                text += (
                    ", and as it powers cards by itself, one exchanged in between is not noticed"
                )
            yield Reason("bNumEndpoints", text, Weight.NOTE)


def _class(d: SmartCardDescriptor) -> Iterator[Reason]:
    yield from _level(d)
    if d.dwMaxCCIDMessageLength < MESSAGE_HEADER + 5:
        yield Reason(
            "dwMaxCCIDMessageLength",
            f"{d.dwMaxCCIDMessageLength} bytes hold no command for a card",
            Weight.FATAL,
        )
    elif _whole_apdus(d) and d.dwMaxCCIDMessageLength < MESSAGE_HEADER + MAX_SHORT:
        only = "" if d.exchange_level is ExchangeLevel.SHORT_APDU else "with T=0 "
        yield Reason(
            "dwMaxCCIDMessageLength",
            f"{d.dwMaxCCIDMessageLength}: {only}APDUs of at most "
            f"{d.dwMaxCCIDMessageLength - MESSAGE_HEADER} bytes, {MAX_SHORT} may be needed",
            Weight.LIMIT,
        )
    if not d.bVoltageSupport & 0x07 and not d.features & (
        Features.AUTO_VOLTAGE | Features.AUTO_ACTIVATION
    ):
        yield Reason("bVoltageSupport", "names no voltage; 5 V is tried", Weight.NOTE)
    if not d.dwDefaultClock:
        yield Reason("dwDefaultClock", "0: timeouts are guessed", Weight.NOTE)
    if d.bMaxCCIDBusySlots > d.slot_count:
        yield Reason(
            "bMaxCCIDBusySlots",
            f"{d.bMaxCCIDBusySlots} of {d.slot_count} slots; taken as {d.slot_count}",
            Weight.NOTE,
        )


def _whole_apdus(d: SmartCardDescriptor) -> bool:
    """True if one message must hold a whole APDU: at short APDU level, and at TPDU level with
    T=0."""
    if d.exchange_level is ExchangeLevel.TPDU:
        return bool(d.dwProtocols >> Protocol.T0 & 1)
    return d.exchange_level is ExchangeLevel.SHORT_APDU


def _extended(d: SmartCardDescriptor, extended: str) -> Iterator[Reason]:
    """The note on extended APDUs, for a reader that does not take all of them."""
    level = d.exchange_level
    if level is None or extended == EXTENDED:
        return
    name = f"{EXCHANGE_LEVEL_TEXT[level]} level exchange"
    if extended == WITH_T1:
        way = "by its maker's Escape" if level is ExchangeLevel.SHORT_APDU else "in its blocks"
        text = f"{name}: extended APDUs with T=1 only, {way}"
    elif level is ExchangeLevel.SHORT_APDU:
        text = f"{name}: no extended APDU"
    else:
        text = f"{name}: no extended APDU without T=1"
    yield Reason("dwFeatures", text, Weight.NOTE)


def _level(d: SmartCardDescriptor) -> Iterator[Reason]:
    level = d.exchange_level
    if level is None:
        yield Reason(
            "dwFeatures", f"0x{d.dwFeatures:08X} has several levels of exchange", Weight.FATAL
        )
        return
    offered = [p for p in Protocol if d.dwProtocols >> p & 1]
    if not offered:
        yield Reason("dwProtocols", f"0x{d.dwProtocols:08X} has neither T=0 nor T=1", Weight.FATAL)
        return
    if Protocols.T1 not in d.protocols:
        yield Reason(
            "dwProtocols", "no T=1: cards that speak nothing else will not do", Weight.LIMIT
        )
    elif Protocols.T0 not in d.protocols:
        yield Reason(
            "dwProtocols",
            "no T=0, as on contactless readers, and on tokens with a card built in",
            Weight.NOTE,
        )
