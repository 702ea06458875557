"""Device strings: the names by which pcscd identifies a reader."""

from __future__ import annotations

import re
from collections.abc import Collection

from ccid.errors import ReaderNotFound, ReaderUnsupported
from ccid.ground.records import record
from ccid.transport import ReaderInfo

USB = re.compile(r"usb:([0-9A-Fa-f]{1,4})/([0-9A-Fa-f]{1,4})(.*)")
LIBUDEV_PREFIX, LIBUDEV_PLACE = "libudev:", "%u:/dev/bus/usb/%u/%u"
"""pcscd with libudev: interface, bus, address. ``plug.c`` has the same texts."""
LIBUSB_PREFIX, LIBUSB_PLACE = "libusb-1.0:", "%u:%u:%u"
"""pcscd with libusb: bus, address, interface."""
LIBUDEV = re.compile(re.escape(LIBUDEV_PREFIX + LIBUDEV_PLACE).replace("%u", r"(\d+)"))
LIBUSB = re.compile(re.escape(LIBUSB_PREFIX + LIBUSB_PLACE).replace("%u", r"(\d+)"))
VIRTUAL = re.compile(r"virtual:(?:([0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}))?")


@record
class DeviceName:
    """A parsed device string.

    Attributes:
        vendor_id, product_id: idVendor and idProduct; None for any.
        bus, address: Bus number and address of the USB device; None for any.
        interface: bInterfaceNumber; None for the first.
        model: Model of a virtual reader, ``vvvv:pppp`` or empty; None for a reader on USB.
    """

    vendor_id: int | None = None
    product_id: int | None = None
    bus: int | None = None
    address: int | None = None
    interface: int | None = None
    model: str | None = None

    @classmethod
    def parse(cls, text: str) -> DeviceName:
        """Parse a device string::

            usb:08e6/3437:libudev:0:/dev/bus/usb/001/004    interface 0 of bus 1, address 4
            usb:08e6/3437:libusb-1.0:1:4:0                  the same
            usb:08e6/3437                                   the first such reader
            virtual:  virtual:08e6:4433                     a virtual reader, of this model
            (nothing)                                       the first reader

        Raises:
            ReaderNotFound: The text has none of these forms.
        """
        if not text:
            return cls()
        if virtual := VIRTUAL.fullmatch(text):
            return cls(model=(virtual[1] or "").lower())
        usb = USB.match(text)
        if usb is None:
            raise ReaderNotFound(f"{text!r} is no device string of pcscd")
        vendor_id, product_id = int(usb[1], 16), int(usb[2], 16)
        if place := LIBUDEV.search(usb[3]):
            interface, bus, address = map(int, place.groups())
            return cls(vendor_id, product_id, bus, address, interface)
        if place := LIBUSB.search(usb[3]):
            bus, address, interface = map(int, place.groups())
            return cls(vendor_id, product_id, bus, address, interface)
        return cls(vendor_id, product_id)

    def fits(self, info: ReaderInfo) -> bool:
        """Whether this device string can mean the reader ``info``."""
        pairs = (
            (self.vendor_id, info.vendor_id),
            (self.product_id, info.product_id),
            (self.bus, info.bus),
            (self.address, info.address),
            (self.interface, info.interface_number),
        )
        return all(wanted is None or wanted == has for wanted, has in pairs)


def find(name: DeviceName, taken: Collection[str] = ()) -> ReaderInfo:
    """The reader that a device string means.

    Args:
        name: The parsed device string.
        taken: Paths of readers that are open already; a device string without an interface means
            none of these.

    Raises:
        ReaderNotFound: There is no such reader: the device is gone, or the interface is no CCID
            interface.
        ReaderUnsupported: The reader is there, and its descriptors cannot be parsed.
        UsbUnavailable: libusb cannot be loaded.
    """
    if name.model is not None:
        from ccid.virtual.models import make

        return make(name.model or None).info
    from ccid.transport.discovery import discover

    there = discover()
    found = [info for info in there.readers if name.fits(info)]
    if name.interface is None:
        found = [info for info in found if info.path not in taken]
    if found:
        return found[0]
    ident = f"{name.vendor_id or 0:04x}:{name.product_id or 0:04x}"
    for broken in there.broken:
        number = broken.path.rpartition(".")[2] if ":" in broken.path[4:] else ""
        if broken.id == ident and number in ("", str(name.interface)):
            raise ReaderUnsupported(f"{broken.path}: {broken.error}")
    raise ReaderNotFound(f"there is no such CCID interface: {name}")
