"""Models of virtual readers, by ``vvvv:pppp``: what ``ccid-probe --virtual`` takes.

Every reader with known figures (:mod:`ccid.known.descriptor_figures`) is a model. Class, levels,
slots, interfaces and endpoints are those of the real reader; :class:`CcidFunction` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codes import ExchangeLevel
from ccid.errors import ReaderNotFound
from ccid.known.quirks import lookup
from ccid.virtual.cards import Application, FileSystemCard
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.iccd_function import IccdFunction
from ccid.virtual.virtual_reader import PRODUCT_ID, VENDOR_ID, VirtualReader

if TYPE_CHECKING:
    from ccid.known.descriptor_figures import DeviceFigures, InterfaceFigures
    from ccid.virtual.gadgets import Gadgets

DEFAULT = f"{VENDOR_ID:04x}:{PRODUCT_ID:04x}"
QEMU_IDS = "08e6:4433"
"""QEMU's usb-ccid has the ids of Gemalto's GemPC433-Swap; for --virtual they mean QEMU's reader."""

QEMU = SmartCardDescriptor(
    bVoltageSupport=0x07,
    dwProtocols=0x01,
    dwDefaultClock=4000,
    dwMaximumClock=65536,
    dwDataRate=9600,
    dwMaxDataRate=115200,
    dwMaxIFSD=254,
    dwFeatures=0x000104FE,
    dwMaxCCIDMessageLength=65554,
    bPINSupport=0x01,
)
"""The figures of QEMU's usb-ccid."""


def make(
    model: str | None = None, card: Callable[[], Application] | None = FileSystemCard
) -> VirtualReader:
    """A virtual reader of this model.

    Args:
        model: ``vvvv:pppp``; None for the default.
        card: Makes the card in slot 0 of each interface; None for empty slots.

    Raises:
        ReaderNotFound: The figures of such a reader are not known.
        ReaderUnsupported: No virtual reader can do what the real reader does.
        ReaderTableError: The user's file is wrong.
    """
    match (model or DEFAULT).lower():
        case str(known) if known == DEFAULT:
            return VirtualReader(card() if card else None, level=ExchangeLevel.EXTENDED_APDU)
        case str(known) if known == QEMU_IDS:
            return VirtualReader(
                card() if card else None,
                descriptor=QEMU,
                vendor_id=0x08E6,
                product_id=0x4433,
                name="QEMU USB CCID",
            )
        case str(known):
            vendor_id, product_id = (int(part, 16) for part in known.split(":"))
    return virtual_reader(newest(vendor_id, product_id), card)


def newest(vendor_id: int, product_id: int) -> DeviceFigures:
    """The figures of a reader with its newest firmware.

    Raises:
        ReaderNotFound: The figures are not known.
        ReaderTableError: The user's file is wrong.
    """
    from ccid.known.descriptor_figures import figures

    devices = figures(vendor_id, product_id)
    if not devices:
        model, name = f"{vendor_id:04x}:{product_id:04x}", lookup(vendor_id, product_id).name
        what = f"{model} ({name})" if name else f"a reader {model}"
        raise ReaderNotFound(
            f"no figures of {what} are known; `ccid-probe readers --virtual` lists those that "
            f"are, `ccid-probe import` adds one"
        )
    return devices[0]


def virtual_reader(
    device: DeviceFigures,
    card: Callable[[], Application] | None = FileSystemCard,
    *,
    secrets: bool = False,
) -> VirtualReader:
    """A virtual reader with the figures of a real reader.

    Args:
        device: The figures.
        card: Makes the card in slot 0 of each interface; None for empty slots.
        secrets: Log PINs and keys.

    Raises:
        ReaderUnsupported: No virtual reader can do what the real reader does.
    """
    interfaces = sorted(device.interfaces, key=lambda interface: interface.number)
    quirks = lookup(device.vendor_id, device.product_id, device.bcdDevice)
    known, gadgets = quirks.name, None
    if quirks.buzzer_escape or quirks.led_escape:
        from ccid.virtual.gadgets import Gadgets  # few readers need it

        gadgets = Gadgets(quirks)
    return VirtualReader(
        functions=[
            _function(device, interface, card() if card else None, gadgets, secrets)
            for interface in interfaces
        ],
        numbers=[interface.number for interface in interfaces],
        vendor_id=device.vendor_id,
        product_id=device.product_id,
        bcdDevice=device.bcdDevice,
        name=device.product or known or "Virtual Reader",
        model=known or None,
    )


def _function(
    device: DeviceFigures,
    figures: InterfaceFigures,
    card: Application | None,
    gadgets: Gadgets | None,
    secrets: bool,
) -> CcidFunction:
    reader = figures.reader
    head = reader.interface
    if reader.is_iccd:
        return IccdFunction(
            head.bInterfaceProtocol,
            card,
            descriptor=reader.smart_card,
            interrupt=reader.interrupt_in is not None,
            bInterfaceClass=head.bInterfaceClass,
            name=f"{device.id} interface {head.bInterfaceNumber}",
            secrets=secrets,
        )
    # bNumDataRatesSupported = 0: all rates up to dwMaxDataRate, whatever list the reader has
    limited = reader.smart_card.bNumDataRatesSupported
    packets = reader.bulk_in
    return CcidFunction(
        reader.smart_card,
        [card],
        interrupt=reader.interrupt_in is not None,
        bInterfaceClass=head.bInterfaceClass,
        bInterfaceProtocol=head.bInterfaceProtocol,
        packet_size=packets.max_packet_size if packets and packets.max_packet_size else 64,
        misplaced=reader.misplaced,
        data_rates=figures.data_rates if limited else (),
        clock_frequencies=figures.clock_frequencies,
        gadgets=gadgets,
        name=f"{device.id} interface {head.bInterfaceNumber}",
        secrets=secrets,
    )
