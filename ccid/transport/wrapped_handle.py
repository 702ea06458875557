"""libusb's handle on a USB device whose node is open already, as a file descriptor."""

from __future__ import annotations

import ctypes
import os

from ccid.errors import TransportError, UsbUnavailable
from ccid.ground.safe_text import short
from ccid.transport.libusb import Status, backend, function, status_text

SINCE = "1.0.23"
"""The libusb that takes descriptors."""


class Descriptor:
    """A duplicate of a file descriptor, closed with the last reference to this object.

    Args:
        fd: The descriptor.

    Raises:
        TransportError: It is not open.
    """

    def __init__(self, fd: int) -> None:
        self.number = -1
        try:
            self.number = os.dup(fd)
        except (OSError, OverflowError) as error:
            raise TransportError(f"file descriptor {short(fd)} cannot be used: {error}") from None

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class GivenHandle:
    """libusb's handle on a descriptor, in the form of pyusb's handles.

    Args:
        duplicate: The descriptor.
        context: Address of the context of libusb's that is to handle its events; 0 for that which
            finds devices.

    Attributes:
        handle: Pointer to libusb's handle.
        devid: Pointer to libusb's device.
        descriptor: The duplicate, which must stay open as long as the handle.

    Raises:
        TransportError, UsbUnavailable: libusb does not take it.
    """

    def __init__(self, duplicate: Descriptor, context: int = 0) -> None:
        pointer = ctypes.c_void_p
        wrap = function(
            "libusb_wrap_sys_device", ctypes.c_int, *(pointer, ctypes.c_ssize_t, pointer),
            since=SINCE,
        )  # fmt: skip
        get_device = function("libusb_get_device", pointer, pointer)
        handle = pointer()
        status: int = wrap(context or backend().ctx, duplicate.number, ctypes.addressof(handle))
        if status == Status.NOT_SUPPORTED:
            raise UsbUnavailable("libusb takes no file descriptors on this system")
        if status != Status.SUCCESS:
            raise TransportError(f"the file descriptor is of no USB device: {status_text(status)}")
        self.handle = handle
        self.devid = pointer(get_device(handle))
        self.descriptor = duplicate
