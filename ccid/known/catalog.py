"""The catalog: the table of readers and their descriptors, together, for searches.

The abilities of a reader follow from its descriptors after its quirks were applied. If descriptors
of several firmware releases are known, the newest release counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codes import (
    EXCHANGE_LEVEL_TEXT,
    VOLTAGE_TEXT,
    ExchangeLevel,
    InterfaceProtocol,
    PinSupport,
    Protocol,
)
from ccid.ground.records import record
from ccid.known.descriptor_figures import DeviceFigures, InterfaceFigures, all_figures
from ccid.known.extended_apdus import EXTENDED as EXTENDED
from ccid.known.extended_apdus import NO_EXTENDED as NO_EXTENDED
from ccid.known.extended_apdus import WITH_T1 as WITH_T1
from ccid.known.extended_apdus import extended_apdus
from ccid.known.quirks import VOCABULARY, Known, Quirks, known_readers, lookup
from ccid.known.quirks.descriptor_fixups import apply


@record
class Entry:
    """One reader of the catalog.

    Attributes:
        known: The entry in the table of readers.
        devices: The known descriptors, the newest firmware release first; may be empty.
        descriptors: The class descriptors of the newest release, one for each interface, with the
            quirks applied.
    """

    known: Known
    devices: tuple[DeviceFigures, ...]
    descriptors: tuple[SmartCardDescriptor, ...]

    @property
    def name(self) -> str:
        """The name of the reader; ``vvvv:pppp`` if the table has no name."""
        return self.known.quirks.name or self.known.id

    @property
    def interfaces(self) -> Sequence[InterfaceFigures]:
        """The smart-card interfaces of the newest firmware release."""
        return self.devices[0].interfaces if self.devices else ()

    @property
    def levels(self) -> list[ExchangeLevel]:
        """The levels of exchange, one for most readers."""
        found = {d.exchange_level for d in self.descriptors}
        return sorted(level for level in found if level is not None)

    @property
    def protocols(self) -> list[Protocol]:
        """The protocols that the reader supports: T=0, T=1."""
        return [p for p in Protocol if any(d.dwProtocols >> p & 1 for d in self.descriptors)]

    @property
    def voltages(self) -> list[str]:
        """The supply voltages: ``5 V``, ``3 V``, ``1.8 V``."""
        found = 0
        for descriptor in self.descriptors:
            found |= descriptor.bVoltageSupport
        return [text.replace(".0", "") for bit, text in VOLTAGE_TEXT.items() if found & bit]

    @property
    def slots(self) -> int:
        """Number of slots on all interfaces; 0 if no descriptors are known."""
        return sum(descriptor.slot_count for descriptor in self.descriptors)

    @property
    def pin_pad(self) -> list[str]:
        """The functions of the PIN pad: ``verify``, ``modify``."""
        found = PinSupport(0)
        for descriptor in self.descriptors:
            found |= descriptor.pin_support
        words = (("verify", PinSupport.VERIFICATION), ("modify", PinSupport.MODIFICATION))
        return [word for word, bit in words if found & bit]

    @property
    def display(self) -> str:
        """Lines and characters of the display, such as ``2 × 16``; empty without a display."""
        for d in self.descriptors:
            if d.wLcdLayout:
                return f"{d.lcd_lines} × {d.lcd_characters}"
        return ""

    @property
    def extended(self) -> str:
        """Whether the reader transfers extended APDUs: ``yes``, ``with T=1`` or ``no``; empty if
        unknown."""
        if not self.descriptors:
            return ""
        found = {
            extended_apdus(d, interface.reader, _quirks(self.devices[0], interface))
            for d, interface in zip(self.descriptors, self.interfaces, strict=True)
        }
        return next(one for one in (EXTENDED, WITH_T1, NO_EXTENDED) if one in found)

    @property
    def kinds(self) -> list[str]:
        """The kinds of interface: ``CCID``, ``ICCD A``, ``ICCD B``."""
        found = {interface.reader.protocol for interface in self.interfaces}
        return [p.name.replace("_", " ") for p in InterfaceProtocol if p in found]

    @property
    def quirk_names(self) -> list[str]:
        """The names of the quirks of the reader, with and without conditions."""
        fields = {field for case in self.known.cases for field in case.values}
        return [d.name for d in VOCABULARY.values() if d.field in fields]

    @property
    def is_virtual(self) -> bool:
        """True if a virtual reader with these descriptors can be made."""
        return self.kinds == ["CCID"]

    @property
    def words(self) -> str:
        """The text that a search looks into, in lower case."""
        parts = [
            self.known.id, self.name, self.known.vendor, self.known.quirks.status,
            *(f"{EXCHANGE_LEVEL_TEXT[level]} level" for level in self.levels),
            *map(str, self.protocols), *self.voltages,
            *(f"{word} pin pad pinpad" for word in self.pin_pad),
            *(device.product for device in self.devices),
            *self.kinds,
            f"display lcd {self.display}" if self.display else "",
        ]  # fmt: skip
        return " ".join(parts).lower()


def catalog() -> Iterator[Entry]:
    """All known readers, in the order of idVendor and idProduct.

    Raises:
        ReaderTableError: A file of the table or of the user is wrong.
    """
    figures: dict[str, list[DeviceFigures]] = {}
    for device in all_figures():
        figures.setdefault(device.id, []).append(device)
    for known in known_readers():
        devices = tuple(figures.get(known.id, ()))
        descriptors = (
            tuple(_with_quirks(devices[0], i) for i in devices[0].interfaces) if devices else ()
        )
        yield Entry(known, devices, descriptors)


def _with_quirks(device: DeviceFigures, interface: InterfaceFigures) -> SmartCardDescriptor:
    return apply(_quirks(device, interface), interface.descriptor, interface.reader.protocol)


def _quirks(device: DeviceFigures, interface: InterfaceFigures) -> Quirks:
    return lookup(device.vendor_id, device.product_id, device.bcdDevice, interface=interface.number)


def search(entries: Iterable[Entry], words: Sequence[str]) -> list[Entry]:
    """The entries that match all words.

    Args:
        entries: The entries to search.
        words: Each word is a part of :attr:`Entry.words`, or the name of a quirk; upper and lower
            case are the same.
    """
    wanted = [word.lower() for word in words]
    return [entry for entry in entries if _matches(entry, wanted)]


def _matches(entry: Entry, words: Sequence[str]) -> bool:
    """True if ``entry`` matches all words, which are in lower case."""
    text, quirks = entry.words, {name.lower() for name in entry.quirk_names}
    return all(word in text or word in quirks for word in words)
