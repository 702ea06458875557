"""The standard USB descriptors: device, configuration, interface, endpoint (USB 2.0, 9.6)."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from ccid.codec.declaration import Declared, declared, wire
from ccid.codec.layouts import Byte, Const, Int16ul
from ccid.codes import DIRECTION_IN
from ccid.errors import MalformedDescriptor


class DescriptorType(IntEnum):
    """bDescriptorType (USB 2.0, table 9-5)."""

    DEVICE = 1
    CONFIGURATION = 2
    STRING = 3
    INTERFACE = 4
    ENDPOINT = 5
    DEVICE_QUALIFIER = 6


class TransferType(IntEnum):
    """bmAttributes of an endpoint, bits 0 and 1 (USB 2.0, 9.6.6)."""

    CONTROL = 0
    ISOCHRONOUS = 1
    BULK = 2
    INTERRUPT = 3


def _fixed(value: int) -> Any:
    """Declare a byte that always has this value."""
    return wire(Const(value, Byte), default=value)


@declared
class DeviceDescriptor(Declared):
    """A device descriptor (USB 2.0, table 9-8)."""

    error = MalformedDescriptor

    bLength: int = _fixed(18)
    bDescriptorType: int = _fixed(DescriptorType.DEVICE)
    bcdUSB: int = wire(Int16ul, default=0x0200)
    bDeviceClass: int = wire(Byte, default=0)
    bDeviceSubClass: int = wire(Byte, default=0)
    bDeviceProtocol: int = wire(Byte, default=0)
    bMaxPacketSize0: int = wire(Byte, default=64)
    idVendor: int = wire(Int16ul)
    idProduct: int = wire(Int16ul)
    bcdDevice: int = wire(Int16ul, default=0)
    iManufacturer: int = wire(Byte, default=0)
    iProduct: int = wire(Byte, default=0)
    iSerialNumber: int = wire(Byte, default=0)
    bNumConfigurations: int = wire(Byte, default=1)


@declared
class ConfigurationDescriptor(Declared):
    """A configuration descriptor (USB 2.0, table 9-10). bMaxPower is in units of 2 mA."""

    error = MalformedDescriptor

    bLength: int = _fixed(9)
    bDescriptorType: int = _fixed(DescriptorType.CONFIGURATION)
    wTotalLength: int = wire(Int16ul, default=0)
    bNumInterfaces: int = wire(Byte, default=1)
    bConfigurationValue: int = wire(Byte, default=1)
    iConfiguration: int = wire(Byte, default=0)
    bmAttributes: int = wire(Byte, default=0x80)
    bMaxPower: int = wire(Byte, default=50)


@declared
class InterfaceDescriptor(Declared):
    """An interface descriptor (USB 2.0, table 9-12)."""

    error = MalformedDescriptor

    bLength: int = _fixed(9)
    bDescriptorType: int = _fixed(DescriptorType.INTERFACE)
    bInterfaceNumber: int = wire(Byte, default=0)
    bAlternateSetting: int = wire(Byte, default=0)
    bNumEndpoints: int = wire(Byte, default=0)
    bInterfaceClass: int = wire(Byte, default=0x0B)
    bInterfaceSubClass: int = wire(Byte, default=0)
    bInterfaceProtocol: int = wire(Byte, default=0)
    iInterface: int = wire(Byte, default=0)


@declared
class EndpointDescriptor(Declared):
    """An endpoint descriptor (USB 2.0, table 9-13)."""

    error = MalformedDescriptor

    bLength: int = _fixed(7)
    bDescriptorType: int = _fixed(DescriptorType.ENDPOINT)
    bEndpointAddress: int = wire(Byte)
    bmAttributes: int = wire(Byte)
    wMaxPacketSize: int = wire(Int16ul, default=64)
    bInterval: int = wire(Byte, default=0)

    @property
    def transfer_type(self) -> TransferType:
        """The transfer type of the endpoint."""
        return TransferType(self.bmAttributes & 0x03)

    @property
    def is_in(self) -> bool:
        """True if the direction is device to host."""
        return bool(self.bEndpointAddress & DIRECTION_IN)

    @property
    def max_packet_size(self) -> int:
        """Greatest size of a packet in bytes (bits 0 to 10 of wMaxPacketSize)."""
        return self.wMaxPacketSize & 0x07FF
