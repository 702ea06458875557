"""A reader whose device another process opened: this process was given the file descriptor.

Android's ``termux-usb`` and brokers hand a program the open descriptor of a USB device that the
program itself may not open. libusb takes such a descriptor (``libusb_wrap_sys_device``), on Linux
and Android. The descriptor is duplicated: the caller's own stays the caller's.
"""

from __future__ import annotations

import array
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from ccid.codec.descriptors.standard import DescriptorType
from ccid.codes import ENGLISH_US
from ccid.errors import ReaderForked, ReaderNotFound, TransportError
from ccid.ground.safe_text import short
from ccid.transport import ReaderInfo, Transport, linux
from ccid.transport.claim import has_no_node
from ccid.transport.discovery import Discovery, look_at
from ccid.transport.libusb import backend, backend_without_devices, usb_errors
from ccid.transport.usb import UsbTransport
from ccid.transport.wrapped_handle import Descriptor, GivenHandle

STRING_MS = 500
"""How long a device may take to tell one of its strings."""


def readers_of(fd: int) -> list[ReaderInfo]:
    """The readers of a device whose open file descriptor this process was given.

    Args:
        fd: The descriptor.

    Returns:
        One reader for each CCID interface. Each opens a duplicate of the descriptor.

    Raises:
        TypeError: ``fd`` is no number.
        TransportError: It is no descriptor of a USB device, or not open.
        UsbUnavailable: libusb cannot be loaded, or takes no descriptors.
    """
    if not isinstance(fd, int) or isinstance(fd, bool):
        raise TypeError(f"a file descriptor is a number, not {type(fd).__name__}")
    duplicate = Descriptor(fd)
    backend_without_devices()
    handle = GivenHandle(duplicate)
    try:
        found = Discovery()
        raw = backend().get_device_descriptor(handle)
        name = linux.device_at(raw.bus, raw.address) or ""
        try:
            look_at(handle, found, system_name=name)
            active = backend().get_configuration(handle)
        except usb_errors() as error:
            raise TransportError(f"file descriptor {fd}: {error}") from None
        if found.broken and not found.readers:
            raise found.broken[0].error
        readers = [one for one in found.readers if _is_active(one, active)]
        if not name:
            readers = [_with_strings(one, handle) for one in readers]
    finally:
        backend().close_device(handle)
    connect = partial(_connect, duplicate, os.getpid())
    return [
        replace(one, connect=connect, bus=0 if has_no_node(one) else one.bus) for one in readers
    ]


def select(fd: int, interface: int | None) -> ReaderInfo:
    """One reader of a device, by bInterfaceNumber; None for the first.

    Raises:
        ReaderNotFound: The device has no such CCID interface. And as :func:`readers_of`.
    """
    readers = readers_of(fd)
    if not readers:
        raise ReaderNotFound(f"the device of file descriptor {fd} has no CCID interface")
    for one in readers:
        if interface in (None, one.interface_number):
            return one
    there = ", ".join(str(one.interface_number) for one in readers)
    raise ReaderNotFound(
        f"the device of file descriptor {fd} has no CCID interface {short(interface)}; "
        f"it has {there}"
    )


def _is_active(info: ReaderInfo, active: int) -> bool:
    """The reader is part of the active configuration, or none is."""
    return active in (0, info.configuration.bConfigurationValue)


def _connect(duplicate: Descriptor, owner: int, info: ReaderInfo) -> Transport:
    if owner != os.getpid():
        raise ReaderForked(
            f"{info.name}: process {owner} was given its file descriptor; call ccid.open_fd here",
            reader=info.name,
        )
    return UsbTransport(info, duplicate)


def _with_strings(info: ReaderInfo, handle: GivenHandle) -> ReaderInfo:
    """The reader with the strings that the device tells, where the system does not."""
    ask: Callable[[int], str | None] = partial(_string, handle)
    device, interface = info.device, info.reader.interface
    maker, product = ask(device.iManufacturer), ask(device.iProduct)
    return replace(
        info,
        manufacturer=maker,
        product=product,
        serial=ask(device.iSerialNumber),
        interface_name=ask(interface.iInterface),
    )


def _string(handle: GivenHandle, index: int) -> str | None:
    """A string descriptor (USB 2.0, 9.6.7); None if the device has none, or does not tell."""
    if not index:
        return None
    buffer, wValue = array.array("B", bytes(255)), DescriptorType.STRING << 8 | index
    with suppress(*usb_errors()):
        got = backend().ctrl_transfer(handle, 0x80, 0x06, wValue, ENGLISH_US, buffer, STRING_MS)
        return buffer.tobytes()[2:got].decode("utf-16-le", "replace") or None
    return None
