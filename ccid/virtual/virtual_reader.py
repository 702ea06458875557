"""A virtual reader: a whole USB device in this process, with cards."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ccid.codec.descriptors import (
    ClassControl,
    SmartCardDescriptor,
    SmartCardInterface,
    parse_configuration,
    smart_card_interfaces,
)
from ccid.codes import ExchangeLevel, Features, InterfaceProtocol, Protocols
from ccid.transport import ReaderInfo, Transport
from ccid.virtual.cards import Application, Contact, FileSystemCard
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.faults import Fault
from ccid.virtual.iccd_function import IccdFunction
from ccid.virtual.other_interface import OtherInterface
from ccid.virtual.port import Port
from ccid.virtual.usb_device import Function, Request, UsbDevice
from ccid.virtual.virtual_slot import Card

if TYPE_CHECKING:
    from ccid.virtual.gadgets import Gadgets
    from ccid.virtual.virtual_transport import VirtualTransport

VENDOR_ID, PRODUCT_ID = 0x1209, 0x0001
"""Ids that pid.codes reserves for private tests."""

AUTOMATIC = (
    Features.AUTO_PARAMETERS
    | Features.AUTO_VOLTAGE
    | Features.AUTO_CLOCK
    | Features.AUTO_BAUD_RATE
    | Features.AUTO_PPS
    | Features.AUTO_IFSD
)
MANUAL = Features.AUTO_VOLTAGE | Features.AUTO_CLOCK | Features.AUTO_BAUD_RATE
"""dwFeatures of a reader whose host sets parameters, does PPS and announces IFSD."""
MESSAGE_LENGTH = {
    ExchangeLevel.CHARACTER: 271,
    ExchangeLevel.TPDU: 271,
    ExchangeLevel.SHORT_APDU: 271,
    ExchangeLevel.EXTENDED_APDU: 1034,
}

_numbers = itertools.count(1)


def make_descriptor(level: ExchangeLevel, slots: int = 1, **fields: Any) -> SmartCardDescriptor:
    """A usual class descriptor of a reader of this level.

    Args:
        level: Level of exchange.
        slots: Number of slots.
        **fields: Other values, by the names of the fields: ``dwFeatures``, ``dwProtocols``,
            ``dwMaxIFSD``, ``dwDefaultClock``, ``dwMaxDataRate`` and so on.
    """
    values = {
        "dwProtocols": Protocols.T0 | Protocols.T1,
        "dwFeatures": (MANUAL if level is ExchangeLevel.CHARACTER else AUTOMATIC) | level,
        "dwMaxCCIDMessageLength": MESSAGE_LENGTH[level],
        "bMaxSlotIndex": slots - 1,
        **fields,
    }
    return SmartCardDescriptor(**values)


class VirtualReader:
    """A reader with a card, without hardware. :func:`ccid.open_reader` opens the reader.

    Args:
        card: The card in slot 0; by default a :class:`~ccid.virtual.cards.FileSystemCard`.
            A :class:`~ccid.virtual.cards.Contact` is a card with options and faults of its
            contacts. A sequence fills several slots. None for an empty slot.
        level: Level of exchange.
        slots: Number of slots.
        descriptor: The whole class descriptor, instead of one by ``level`` and ``slots``.
        vendor_id, product_id: idVendor and idProduct.
        name: iProduct.
        model: What lists call the reader, as :attr:`ccid.transport.ReaderInfo.model`; by default
            ``name``.
        functions: Several interfaces, instead of one.
        bInterfaceProtocol: 0 for a CCID, 1 or 2 for an ICCD of version A or B, with a fixed
            card (:class:`~ccid.virtual.iccd_function.IccdFunction`).
        numbers: bInterfaceNumber of each of ``functions``, rising; placeholder interfaces fill
            the gaps. By default the numbers count from 0.
        **function: Further arguments of :class:`~ccid.virtual.ccid_function.CcidFunction`.
    """

    def __init__(
        self,
        card: Card | Sequence[Card | None] | type[FileSystemCard] | None = (FileSystemCard),
        *,
        level: ExchangeLevel = ExchangeLevel.SHORT_APDU,
        slots: int = 1,
        descriptor: SmartCardDescriptor | None = None,
        vendor_id: int = VENDOR_ID,
        product_id: int = PRODUCT_ID,
        bcdDevice: int = 0x0100,
        name: str = "Virtual Reader",
        model: str | None = None,
        functions: Sequence[CcidFunction] = (),
        bInterfaceProtocol: int = InterfaceProtocol.CCID,
        numbers: Sequence[int] = (),
        **function: Any,
    ) -> None:
        number = next(_numbers)
        if isinstance(card, type):
            card = card()
        cards = [card] if card is None or isinstance(card, Application | Contact) else list(card)
        function |= {"name": f"virtual {number}"}
        self.functions = list(functions)
        if not functions and bInterfaceProtocol in (
            InterfaceProtocol.ICCD_A,
            InterfaceProtocol.ICCD_B,
        ):
            iccd = IccdFunction(bInterfaceProtocol, cards, descriptor=descriptor, **function)
            self.functions = [iccd]
        elif not functions:
            descriptor = descriptor or make_descriptor(level, slots)
            function |= {"bInterfaceProtocol": bInterfaceProtocol}
            self.functions = [CcidFunction(descriptor, cards, **function)]
        self.device = UsbDevice(
            self._with_others(numbers),
            idVendor=vendor_id,
            idProduct=product_id,
            bcdDevice=bcdDevice,
            manufacturer="ccid",
            product=name,
            serial=f"{number:04d}",
        )
        self.number = number
        self._address = number & 0x7F or 1
        self._names = name, model or name
        self.port = Port(self.device)
        self.port.control(ClassControl(0x00, Request.SET_CONFIGURATION, 1, 0))
        self.infos = self._infos(*self._names)

    def _with_others(self, numbers: Sequence[int]) -> list[Function]:
        """The functions, with placeholder interfaces in the gaps between their numbers."""
        if not numbers:
            return list(self.functions)
        own = dict(zip(numbers, self.functions, strict=True))
        return [own.get(n) or OtherInterface() for n in range(max(numbers) + 1)]

    def _infos(self, product: str, model: str) -> list[ReaderInfo]:
        """One :class:`ReaderInfo` for each interface."""
        configuration = parse_configuration(self.device.raw_configuration)
        readers = smart_card_interfaces(configuration)
        infos = []
        for reader in readers:
            number = reader.interface.bInterfaceNumber
            infos.append(
                ReaderInfo(
                    name=model if len(readers) == 1 else f"{model} [{number}]",
                    path=f"virtual:{self.number}:{number}",
                    device=self.device.descriptor,
                    configuration=configuration.descriptor,
                    reader=reader,
                    connect=self._connect,
                    bus=0,
                    address=self._address,
                    speed="full" if self._packet_size(reader) <= 64 else "high",
                    manufacturer="ccid",
                    product=product,
                    serial=f"{self.number:04d}",
                    siblings=len(readers),
                    raw_configuration=self.device.raw_configuration,
                    model=model,
                )
            )
        return infos

    @staticmethod
    def _packet_size(reader: SmartCardInterface) -> int:
        return reader.bulk_in.max_packet_size if reader.bulk_in else 0

    def _connect(self, info: ReaderInfo) -> Transport:
        from ccid.virtual.virtual_transport import (
            VirtualTransport,  # here: that module imports this package
        )

        return VirtualTransport(self.port, info)

    @property
    def info(self) -> ReaderInfo:
        """The first interface, for :func:`ccid.open_reader`."""
        return self.infos[0]

    @property
    def faults(self) -> list[Fault]:
        """The faults of the first interface, a list to append to."""
        return self.functions[0].faults

    @property
    def gadgets(self) -> Gadgets | None:
        """Buzzer and LEDs; None if the reader has none that the table of readers knows."""
        return self.functions[0].gadgets

    # Insertion, removal, unplugging -----------------------------------------------------------

    def insert(self, card: Card, slot: int = 0, interface: int = 0) -> None:
        """Insert a card."""
        self._put(card, slot, interface)

    def remove(self, slot: int = 0, interface: int = 0) -> Card | None:
        """Remove the card and return it; None from an empty slot."""
        card = self.functions[interface].slots[slot].inserted
        self._put(None, slot, interface)
        return card

    def _put(self, card: Card | None, slot: int, interface: int) -> None:
        with self.port.changed:
            self.functions[interface].put(slot, card, self.port.now())

    def unplug(self) -> None:
        """Unplug the reader."""
        with self.port.changed:
            self.functions[0].unplug()

    def reset(self) -> None:
        """Reset the USB device, as another program, or a computer that slept, does: all cards lose
        their power, and the reader forgets what it was at. Where the reader is open, it is opened
        again, and the card is reset (:class:`ccid.errors.CardReset`)."""
        with self.port.changed:
            self.port.reset()
            holders = self._holders()
        for transport in holders:
            transport.reset()

    def replug(self) -> None:
        """Unplug the reader, and plug it in again at once. It gets another USB address. Where the
        reader is open with ``reopen`` (:func:`ccid.open_reader`), it is opened again as after
        :meth:`reset`; elsewhere it is gone, and can be opened anew."""
        with self.port.changed:
            for function in self.functions:
                function.is_unplugged = False
            self.port.reset()
            self._address = self._address % 0x7F + 1
            self.infos = self._infos(*self._names)
            holders = self._holders()
        there = {info.interface_number: info for info in self.infos}
        for transport in holders:
            transport.returned(there[transport.info.interface_number])

    def _holders(self) -> list[VirtualTransport]:
        """The transports that have an interface open."""
        return [one for held in self.port.claims.values() if (one := held()) is not None]

    def __repr__(self) -> str:
        return f"<ccid.VirtualReader {self.info.name!r} {self.info.path}>"
