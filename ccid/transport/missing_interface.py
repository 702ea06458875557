"""Devices with the ids of a reader that show no smart-card interface: the reason and the cure.

Only commands for people use this module (``ccid-probe doctor``); opening a reader does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ccid.codes import CLASS_SMART_CARD, CLASS_VENDOR
from ccid.errors import UsbUnavailable
from ccid.ground.records import record
from ccid.known.quirks import lookup
from ccid.transport import discovery, linux
from ccid.transport.libusb import status_of, status_text, usb_error

CLASSES = {
    0x01: "audio",
    0x02: "communications",
    0x03: "HID",
    0x06: "image",
    0x08: "mass storage",
    0x0A: "CDC data",
    CLASS_SMART_CARD: "smart card",
    0x0E: "video",
    0xE0: "wireless",
    0xEF: "miscellaneous",
    0xFE: "application specific",
    CLASS_VENDOR: "proprietary",
}
"""bInterfaceClass in words (USB-IF, defined class codes)."""

SWITCH_ON = (
    "switch its smart card on with Yubico's program: ykman config usb --enable PIV (or OATH, "
    "OPENPGP) for a YubiKey 5, ykman config mode OTP+FIDO+CCID for a NEO or a YubiKey 4; then "
    "plug it in again"
)
NONE_TO_SWITCH_ON = "this model has no smart card in it; a YubiKey 4 or 5 has"
TOKENS: dict[tuple[int, int], tuple[str, bool]] = {
    (0x1050, 0x0010): ("Yubico YubiKey OTP", False),
    (0x1050, 0x0018): ("Yubico YubiKey OTP", False),
    (0x1050, 0x0030): ("Yubico YubiHSM", False),
    (0x1050, 0x0110): ("Yubico YubiKey NEO OTP", True),
    (0x1050, 0x0113): ("Yubico YubiKey NEO U2F", True),
    (0x1050, 0x0114): ("Yubico YubiKey NEO OTP+U2F", True),
    (0x1050, 0x0120): ("Yubico Security Key", False),
    (0x1050, 0x0200): ("Yubico U2F Gnubby", False),
    (0x1050, 0x0211): ("Yubico Gnubby", False),
    (0x1050, 0x0401): ("Yubico YubiKey OTP", True),
    (0x1050, 0x0402): ("Yubico YubiKey FIDO", True),
    (0x1050, 0x0403): ("Yubico YubiKey OTP+FIDO", True),
    (0x1050, 0x0410): ("Yubico YubiKey Plus", False),
}
"""Tokens whose ids depend on the functions that are switched on: idVendor and idProduct without a
smart card, to name, and True if the token has a smart card that can be switched on."""

CUT_SHORT = (
    "plug it into another port, without a hub between, with another cable; if it comes through "
    "USB/IP or a virtual machine, attach it anew or take newer ones of these; else try a newer "
    "kernel. The kernel's log (dmesg) tells more"
)
UNREADABLE = f"unplug it, wait a second, plug it in again; or {CUT_SHORT}"
OTHER_MODE = (
    "it may be in another mode, which its maker's program changes; or a model of the same ids "
    "that is no reader. Report it with the output of lsusb -v -d {id}"
)


@record
class Lacking:
    """A device with the ids of a reader that shows no smart-card interface.

    Attributes:
        path: Its place, ``usb:1-2``.
        id: ``vvvv:pppp``.
        name: Its name in the table of readers.
        interfaces: bInterfaceNumber and bInterfaceClass of each interface that it shows.
        drivers: The kernel drivers bound to these interfaces, as far as they are known.
        why: The reason, in words.
        cure: What the user can do; empty if the device works as it should.
    """

    path: str
    id: str
    name: str
    interfaces: tuple[tuple[int, int], ...]
    drivers: tuple[str, ...]
    why: str
    cure: str

    def holds(self, path: str) -> bool:
        """True if ``path`` is the path of this device or of one of its interfaces."""
        return path == self.path or path.startswith(f"{self.path}:")

    def __str__(self) -> str:
        return f"{self.name} ({self.id} at {self.path})"

    @property
    def facts(self) -> list[str]:
        """The interfaces and drivers, one line each."""
        shown = [
            f"interface {number}: {CLASSES.get(kind, f'class 0x{kind:02X}')}"
            for number, kind in self.interfaces
        ]
        bound = [f"bound to it: the kernel driver {driver}" for driver in self.drivers]
        return shown + bound


def lacking() -> list[Lacking]:
    """All such devices on USB; no device is opened.

    Raises:
        UsbUnavailable: libusb cannot be loaded.
    """
    try:
        devices = list(discovery.backend().enumerate_devices())
    except usb_error() as error:
        raise UsbUnavailable(
            f"libusb cannot list the devices on USB: {status_text(status_of(error))}"
        ) from None
    found = []
    seen = set()
    for device in devices:
        with suppress(usb_error()):  # the device was unplugged meanwhile
            raw = discovery.backend().get_device_descriptor(device)
            seen.add((raw.idVendor, raw.idProduct))
            one = look_at(device, raw)
            if one is not None:
                found.append(one)
    if discovery.LINUX:
        found += _hidden(seen)
    return sorted(found, key=lambda one: one.path)


def _hidden(seen: set[tuple[int, int]]) -> Iterator[Lacking]:
    """Devices that Linux lists and libusb does not, because it cannot read their descriptors.

    Args:
        seen: idVendor and idProduct of all devices that libusb lists.
    """
    for device, vendor_id, product_id in linux.identities():
        known = lookup(vendor_id, product_id)
        if (vendor_id, product_id) in seen or known.name is None or known.needs_mode_switch:
            continue
        ident = f"{vendor_id:04x}:{product_id:04x}"
        why = "libusb does not show it: its descriptors cannot be read"
        yield Lacking(f"usb:{device}", ident, known.name, (), (), why, UNREADABLE)


def look_at(device: Any, raw: Any) -> Lacking | None:
    vendor_id, product_id = raw.idVendor, raw.idProduct
    ident = f"{vendor_id:04x}:{product_id:04x}"
    token = TOKENS.get((vendor_id, product_id))
    known = lookup(vendor_id, product_id)
    name = known.name if token is None else token[0]
    if known.needs_mode_switch:  # ccid-probe doctor reports these devices itself
        return None
    there = discovery.Discovery()
    discovery.look_at(device, there)
    if there.readers or (name is None and not there.broken):
        return None
    interfaces, announced, came = _configuration(device, raw)
    if there.broken and came >= announced:
        return None
    ports = tuple(raw.port_numbers or ())
    where = linux.device_name(raw.bus, ports)
    numbers = [number for number, _ in interfaces]
    bound = (linux.driver(where, value, n) for value in (1, 2) for n in numbers)
    drivers = tuple(dict.fromkeys(driver for driver in bound if driver is not None))
    if not came:
        why, cure = "no configuration of it can be read", UNREADABLE
    elif came < announced:
        why = (
            f"its configuration is cut short, so it shows no smart-card interface that is whole: "
            f"wTotalLength says {announced} bytes, {came} came"
        )
        cure = CUT_SHORT
    elif token is not None and not token[1]:
        why, cure = NONE_TO_SWITCH_ON, ""
    else:
        why = "it shows no smart-card interface"
        why += ": that is switched off" if token is not None else ""
        cure = OTHER_MODE.format(id=ident) if token is None else SWITCH_ON
    path = f"usb:{where}" if ports or not raw.address else f"usb:{raw.bus}.{raw.address}"
    return Lacking(path, ident, name or f"CCID reader {ident}", interfaces, drivers, why, cure)


def _configuration(device: Any, raw: Any) -> tuple[tuple[tuple[int, int], ...], int, int]:
    """The first configuration that can be read.

    Returns:
        Number and class of its interfaces, wTotalLength, and the number of bytes that came; all
        empty or 0 if no configuration can be read.
    """
    for index in range(raw.bNumConfigurations):
        with suppress(usb_error()):
            found = discovery.backend().get_configuration_descriptor(device, index)
            settings = [
                found.interface[i].altsetting[0]
                for i in range(found.bNumInterfaces)
                if found.interface[i].num_altsetting
            ]
            shown = tuple((one.bInterfaceNumber, one.bInterfaceClass) for one in settings)
            return shown, found.wTotalLength, len(discovery._raw_configuration(found))
    return (), 0, 0
