"""The table of readers and the figures of their descriptors, put together to be searched.

What a reader can do is told after its quirks have mended what its descriptors say; of one that is
known with several firmware releases, the newest counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codes import (
    EXCHANGE_LEVEL_TEXT,
    VOLTAGE_TEXT,
    ExchangeLevel,
    InterfaceProtocol,
    PinSupport,
    Protocol,
)
from ccid.known.descriptor_figures import DeviceFigures, InterfaceFigures, all_figures
from ccid.known.extended_apdus import EXTENDED as EXTENDED
from ccid.known.extended_apdus import NO_EXTENDED as NO_EXTENDED
from ccid.known.extended_apdus import WITH_T1 as WITH_T1
from ccid.known.extended_apdus import extended_apdus
from ccid.known.quirks import VOCABULARY, Known, Quirks, known_readers, lookup
from ccid.known.quirks.descriptor_fixups import apply


@dataclass(frozen=True, slots=True)
class Entry:
    """A reader and what is known of it.

    Attributes:
        known: What the table says.
        devices: Its figures, the newest firmware first; empty where none are known.
        descriptors: The class descriptors of the newest, an interface each, mended by its quirks.
    """

    known: Known
    devices: tuple[DeviceFigures, ...]
    descriptors: tuple[SmartCardDescriptor, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.known.quirks.name or self.known.id

    @property
    def interfaces(self) -> Sequence[InterfaceFigures]:
        """Its CCID interfaces."""
        return self.devices[0].interfaces if self.devices else ()

    @property
    def levels(self) -> list[ExchangeLevel]:
        """Its levels of exchange, one for most."""
        found = {d.exchange_level for d in self.descriptors}
        return sorted(level for level in found if level is not None)

    @property
    def protocols(self) -> list[Protocol]:
        """T=0, T=1."""
        return [p for p in Protocol if any(d.dwProtocols >> p & 1 for d in self.descriptors)]

    @property
    def voltages(self) -> list[str]:
        """``5 V``, ``3 V``, ``1.8 V``."""
        found = 0
        for descriptor in self.descriptors:
            found |= descriptor.bVoltageSupport
        return [text.replace(".0", "") for bit, text in VOLTAGE_TEXT.items() if found & bit]

    @property
    def slots(self) -> int:
        """Slots, on all its interfaces; 0 where no figures are known."""
        return sum(descriptor.slot_count for descriptor in self.descriptors)

    @property
    def pin_pad(self) -> list[str]:
        """What its PIN pad does: ``verify``, ``modify``."""
        found = PinSupport(0)
        for descriptor in self.descriptors:
            found |= descriptor.pin_support
        words = (("verify", PinSupport.VERIFICATION), ("modify", PinSupport.MODIFICATION))
        return [word for word, bit in words if found & bit]

    @property
    def display(self) -> str:
        """Its display, as ``2 × 16``; empty without one."""
        for d in self.descriptors:
            if d.wLcdLayout:
                return f"{d.lcd_lines} × {d.lcd_characters}"
        return ""

    @property
    def extended(self) -> str:
        """Do extended APDUs get through: ``yes``, ``with T=1``, ``no``; empty if not known."""
        if not self.descriptors:
            return ""
        found = {
            extended_apdus(d, interface.reader, _quirks(self.devices[0], interface))
            for d, interface in zip(self.descriptors, self.interfaces, strict=True)
        }
        return next(one for one in (EXTENDED, WITH_T1, NO_EXTENDED) if one in found)

    @property
    def kinds(self) -> list[str]:
        """``CCID``, ``ICCD A``, ``ICCD B``."""
        found = {interface.reader.protocol for interface in self.interfaces}
        return [p.name.replace("_", " ") for p in InterfaceProtocol if p in found]

    @property
    def quirk_names(self) -> list[str]:
        """The quirks it has, under whatever conditions."""
        fields = {field for case in self.known.cases for field in case.bends}
        return [d.name for d in VOCABULARY.values() if d.field in fields]

    @property
    def is_virtual(self) -> bool:
        """Can it be had as a virtual reader?"""
        return self.kinds == ["CCID"]

    @property
    def words(self) -> str:
        """All there is to search for, in small letters."""
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
    """Every reader known, by vendor and product id.

    Raises:
        ReaderTableError: A file is wrong.
    """
    figures: dict[str, list[DeviceFigures]] = {}
    for device in all_figures():
        figures.setdefault(device.id, []).append(device)
    for known in known_readers():
        devices = tuple(figures.get(known.id, ()))
        descriptors = (
            tuple(_mended(devices[0], i) for i in devices[0].interfaces) if devices else ()
        )
        yield Entry(known, devices, descriptors)


def _mended(device: DeviceFigures, interface: InterfaceFigures) -> SmartCardDescriptor:
    return apply(_quirks(device, interface), interface.descriptor, interface.reader.protocol)


def _quirks(device: DeviceFigures, interface: InterfaceFigures) -> Quirks:
    return lookup(device.vendor_id, device.product_id, device.bcdDevice, interface=interface.number)


def search(entries: Iterable[Entry], words: Sequence[str]) -> list[Entry]:
    """The entries in which every one of ``words`` stands, or is the name of a quirk they have."""
    wanted = [word.lower() for word in words]

    def fits(entry: Entry) -> bool:
        text, quirks = entry.words, {name.lower() for name in entry.quirk_names}
        return all(word in text or word in quirks for word in wanted)

    return [entry for entry in entries if fits(entry)]
