"""A whole USB configuration (USB 2.0, 9.6.3), and the smart-card readers in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import TypeVar

from ccid.codec.declaration import Declared
from ccid.codec.descriptors.smart_card import DESCRIPTOR_TYPES, SmartCardDescriptor
from ccid.codec.descriptors.standard import (
    ConfigurationDescriptor,
    DescriptorType,
    EndpointDescriptor,
    InterfaceDescriptor,
    TransferType,
)
from ccid.codes import (
    CCID_DESCRIPTOR_LENGTH,
    CLASS_SMART_CARD,
    CLASS_VENDOR,
    InterfaceProtocol,
)
from ccid.errors import MalformedDescriptor
from ccid.ground.records import record

D = TypeVar("D", bound=Declared)
_Growing = tuple[EndpointDescriptor, bytearray]


@record
class Endpoint:
    """An endpoint, and the bytes of the class-specific descriptors after its descriptor."""

    descriptor: EndpointDescriptor
    extra: bytes = b""


@record
class Interface:
    """One alternate setting of an interface, the bytes of the class-specific descriptors after its
    descriptor, and its endpoints."""

    descriptor: InterfaceDescriptor
    extra: bytes = b""
    endpoints: tuple[Endpoint, ...] = ()


@record
class Configuration:
    """A configuration and its interfaces. Every alternate setting is an entry in
    ``interfaces``."""

    descriptor: ConfigurationDescriptor
    extra: bytes = b""
    interfaces: tuple[Interface, ...] = ()


@record
class SmartCardInterface:
    """An interface that is a smart-card reader: of the smart card class, or a proprietary
    interface with a smart card class descriptor.

    Attributes:
        interface: The interface descriptor.
        endpoints: The endpoint descriptors, in the order of the configuration.
        smart_card: The smart card device class descriptor.
        misplaced: True if the class descriptor stands after an endpoint descriptor, not after the
            interface descriptor.
    """

    interface: InterfaceDescriptor
    endpoints: tuple[EndpointDescriptor, ...]
    smart_card: SmartCardDescriptor
    misplaced: bool = field(default=False, compare=False)

    @property
    def protocol(self) -> InterfaceProtocol | None:
        """CCID, ICCD version A or ICCD version B; None for an undefined bInterfaceProtocol."""
        try:
            return InterfaceProtocol(self.interface.bInterfaceProtocol)
        except ValueError:
            return None

    @property
    def is_iccd(self) -> bool:
        """True if the interface has no bulk endpoints and takes control requests instead (USB
        ICCD rev 1.0). An interface with bulk endpoints is driven as CCID, whatever its
        bInterfaceProtocol."""
        return (
            self.protocol in (InterfaceProtocol.ICCD_A, InterfaceProtocol.ICCD_B)
            and self.bulk_out is None
            and self.bulk_in is None
        )

    def _endpoint(self, kind: TransferType, is_in: bool) -> EndpointDescriptor | None:
        for endpoint in self.endpoints:
            if endpoint.transfer_type is kind and endpoint.is_in is is_in:
                return endpoint
        return None

    @property
    def bulk_out(self) -> EndpointDescriptor | None:
        """The bulk-OUT endpoint, which takes commands; None without it."""
        return self._endpoint(TransferType.BULK, False)

    @property
    def bulk_in(self) -> EndpointDescriptor | None:
        """The bulk-IN endpoint, which returns replies; None without it."""
        return self._endpoint(TransferType.BULK, True)

    @property
    def interrupt_in(self) -> EndpointDescriptor | None:
        """The interrupt-IN endpoint, which reports cards inserted and removed; None without it."""
        return self._endpoint(TransferType.INTERRUPT, True)


def descriptors(data: bytes, where: str) -> Iterator[tuple[int, bytes]]:
    """The descriptors in ``data``, one after the other: bDescriptorType and all bytes of each.

    Args:
        data: The descriptors.
        where: Name of the place, for the error.

    Raises:
        MalformedDescriptor: bLength is less than 2, or exceeds the remaining bytes.
    """
    offset = 0
    while offset < len(data):
        bLength = data[offset]
        if bLength < 2:
            raise MalformedDescriptor(
                f"{where}: bLength {bLength} at byte {offset}; a descriptor has at least 2 bytes",
                field="bLength",
            )
        if offset + bLength > len(data):
            raise MalformedDescriptor(
                f"{where}: bLength {bLength} at byte {offset}, and {len(data) - offset} bytes "
                f"are left",
                field="bLength",
            )
        yield data[offset + 1], data[offset : offset + bLength]
        offset += bLength


def parse_configuration(data: bytes) -> Configuration:
    """Parse a configuration descriptor and all descriptors that wTotalLength covers.

    Args:
        data: The bytes that GET_DESCRIPTOR returned; bytes after wTotalLength are ignored.

    Raises:
        MalformedDescriptor: ``data`` are truncated, or one descriptor contradicts another.
    """
    head = ConfigurationDescriptor.parse(data[: ConfigurationDescriptor.size()])
    if head.wTotalLength > len(data):
        raise MalformedDescriptor(
            f"configuration: wTotalLength says {head.wTotalLength} bytes, {len(data)} came",
            field="wTotalLength",
        )
    if head.wTotalLength < head.bLength:
        raise MalformedDescriptor(
            f"configuration: wTotalLength {head.wTotalLength} does not cover the descriptor itself",
            field="wTotalLength",
        )
    configuration = _tree(
        head, descriptors(data[head.bLength : head.wTotalLength], "configuration")
    )
    for interface in configuration.interfaces:
        wanted, there = interface.descriptor.bNumEndpoints, len(interface.endpoints)
        if wanted != there:
            raise MalformedDescriptor(
                f"interface {interface.descriptor.bInterfaceNumber}: bNumEndpoints says {wanted}, "
                f"{there} endpoint descriptors follow",
                field="bNumEndpoints",
            )
    numbers = {i.descriptor.bInterfaceNumber for i in configuration.interfaces}
    if len(numbers) != head.bNumInterfaces:
        raise MalformedDescriptor(
            f"configuration: bNumInterfaces says {head.bNumInterfaces}, {len(numbers)} follow",
            field="bNumInterfaces",
        )
    return configuration


def _standard(cls: type[D], raw: bytes) -> tuple[D, bytes]:
    """A standard descriptor, and the bytes that bLength counts beyond its standard length (an
    audio endpoint has such bytes)."""
    size = cls.size()
    return cls.parse(bytes([min(raw[0], size)]) + raw[1:size]), raw[size:]


def _tree(head: ConfigurationDescriptor, parts: Iterable[tuple[int, bytes]]) -> Configuration:
    """The configuration from its descriptors: endpoints go to the interface before them, other
    descriptors to the interface or endpoint before them."""
    extra = bytearray()
    behind = extra  # receives the next class-specific descriptors
    interfaces: list[tuple[InterfaceDescriptor, bytearray, list[_Growing]]] = []
    for kind, raw in parts:
        if kind == DescriptorType.INTERFACE:
            interface, rest = _standard(InterfaceDescriptor, raw)
            behind = bytearray(rest)
            interfaces.append((interface, behind, []))
        elif kind == DescriptorType.ENDPOINT and interfaces:
            endpoint, rest = _standard(EndpointDescriptor, raw)
            behind = bytearray(rest)
            interfaces[-1][2].append((endpoint, behind))
        else:
            behind += raw
    return Configuration(
        head,
        bytes(extra),
        tuple(
            Interface(own, bytes(rest), tuple(Endpoint(e, bytes(x)) for e, x in endpoints))
            for own, rest, endpoints in interfaces
        ),
    )


def smart_card_interfaces(configuration: Configuration) -> list[SmartCardInterface]:
    """The smart-card readers in a configuration: interfaces of class 0x0B, or of class 0xFF with
    a smart card class descriptor of 54 bytes. Only alternate setting 0 counts.

    Raises:
        MalformedDescriptor: An interface of class 0x0B has no class descriptor of 54 bytes.
    """
    found = []
    for interface in configuration.interfaces:
        if interface.descriptor.bAlternateSetting == 0:
            reader = smart_card_interface(interface)
            if reader is not None:
                found.append(reader)
    return found


def smart_card_interface(interface: Interface) -> SmartCardInterface | None:
    """``interface`` as a smart-card reader; None if the interface is no reader.

    The class descriptor stands after the interface descriptor. In some readers it stands after an
    endpoint descriptor.

    Raises:
        MalformedDescriptor: The interface is of class 0x0B and has no class descriptor of 54
            bytes.
    """
    head = interface.descriptor
    if head.bInterfaceClass not in (CLASS_SMART_CARD, CLASS_VENDOR):
        return None
    certain = head.bInterfaceClass == CLASS_SMART_CARD
    where = f"interface {head.bInterfaceNumber}"
    places = [interface.extra, *(endpoint.extra for endpoint in reversed(interface.endpoints))]
    for index, extra in enumerate(places):
        raw = _class_descriptor(extra, where, certain)
        if raw is not None:
            return SmartCardInterface(
                interface=head,
                endpoints=tuple(endpoint.descriptor for endpoint in interface.endpoints),
                smart_card=SmartCardDescriptor.parse(raw),
                misplaced=index > 0,
            )
    if certain:
        raise MalformedDescriptor(
            f"{where}: bInterfaceClass 0x0B, but no smart card class descriptor follows",
            field="bDescriptorType",
        )
    return None


def _class_descriptor(extra: bytes, where: str, certain: bool) -> bytes | None:
    """The smart card class descriptor in ``extra``; None without it.

    Args:
        extra: Class-specific descriptors.
        where: Name of the interface, for the error.
        certain: True for an interface of class 0x0B: a wrong length is then an error.
    """
    try:
        for kind, raw in descriptors(extra, where):
            if kind in DESCRIPTOR_TYPES and len(raw) == CCID_DESCRIPTOR_LENGTH:
                return raw
            if kind == DESCRIPTOR_TYPES[0] and certain:
                raise MalformedDescriptor(
                    f"{where}: bLength {len(raw)} of the smart card class descriptor is not "
                    f"{CCID_DESCRIPTOR_LENGTH}",
                    field="bLength",
                )
    except MalformedDescriptor:
        if certain:
            raise
    return None
