"""libusb: found once, called in two ways.

pyusb finds and loads the library and serves discovery, descriptors, claims and control
transfers, through its backend interface: its :class:`usb.core.Device` opens devices unasked.
The two calls of every APDU, one bulk-OUT and one bulk-IN, go to the same loaded library by a
ctypes prototype with buffers that are made once: pyusb's own read and write cost three times as
much Python. What pyusb does not have is in :mod:`ccid.transport.asynchronous`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from ccid.errors import UsbUnavailable


class Status(IntEnum):
    """Return codes of libusb."""

    SUCCESS = 0
    IO = -1
    INVALID_PARAM = -2
    ACCESS = -3
    NO_DEVICE = -4
    NOT_FOUND = -5
    BUSY = -6
    TIMEOUT = -7
    OVERFLOW = -8
    PIPE = -9
    INTERRUPTED = -10
    NO_MEM = -11
    NOT_SUPPORTED = -12
    OTHER = -99


STATUS_TEXT = {
    Status.IO: "input/output error",
    Status.INVALID_PARAM: "invalid parameter",
    Status.ACCESS: "access denied",
    Status.NO_DEVICE: "no such device",
    Status.NOT_FOUND: "not found",
    Status.BUSY: "busy",
    Status.TIMEOUT: "timed out",
    Status.OVERFLOW: "the device sent more than was asked for",
    Status.PIPE: "stalled",
    Status.INTERRUPTED: "interrupted",
    Status.NO_MEM: "out of memory",
    Status.NOT_SUPPORTED: "not supported on this system",
    Status.OTHER: "unspecified error",
}

SPEEDS = {1: "low", 2: "full", 3: "high", 4: "super", 5: "super+"}

Transfer = Callable[[int, int, int, int, int, int], int]
"""libusb_bulk_transfer(handle, endpoint, address, length, address of the count, timeout in ms)"""


def status_text(status: int) -> str:
    """A return code in words."""
    try:
        return STATUS_TEXT[Status(status)]
    except (KeyError, ValueError):
        return f"libusb error {status}"


def usb_error() -> type[Exception]:
    """What pyusb raises."""
    import usb.core

    error: type[Exception] = usb.core.USBError
    return error


def status_of(error: Exception) -> int:
    """libusb's return code behind one of pyusb's errors; the error itself if it is another."""
    if isinstance(error, NotImplementedError):
        return Status.NOT_SUPPORTED
    if isinstance(error, usb_error()):
        code: int | None = getattr(error, "backend_error_code", None)
        return Status.OTHER if code is None else code
    raise error


@functools.cache
def backend() -> Any:
    """pyusb's backend on the system's libusb, or on libusb-package's where there is none.

    Raises:
        UsbUnavailable: Neither can be loaded.
    """
    import usb.backend.libusb1

    found = usb.backend.libusb1.get_backend()
    if found is None:
        import libusb_package

        found = usb.backend.libusb1.get_backend(find_library=libusb_package.find_library)
    if found is None:
        raise UsbUnavailable(
            "libusb 1.0 cannot be loaded, neither the system's nor that of the package "
            "libusb-package: reinstall the latter with pip, or see whether USB is there at all"
        )
    return found


def library_name() -> str:
    """Which libusb is loaded."""
    return str(backend().lib._name)


def callback_type(result: Any, *arguments: Any) -> Any:
    """The type of a function that libusb calls, or is called by."""
    make = "WINFUNCTYPE" if sys.platform == "win32" else "CFUNCTYPE"
    return getattr(ctypes, make)(result, *arguments)


def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of libusb. Our own prototype: pyusb has declared some for itself."""
    found: Callable[..., Any] = callback_type(result, *arguments)((name, backend().lib))
    return found


@functools.cache
def bulk_transfer() -> Transfer:
    """``libusb_bulk_transfer``, all pointers as integers."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    arguments = (pointer, ctypes.c_ubyte, pointer, integer, pointer, ctypes.c_uint)
    return function("libusb_bulk_transfer", integer, *arguments)


class Buffer:
    """Memory that libusb reads or writes, made once.

    Attributes:
        view: The bytes.
        address: Where they are.
        count: How many the last transfer moved.
        count_address: Where libusb writes that.
    """

    def __init__(self, size: int) -> None:
        self._memory = (ctypes.c_ubyte * size)()
        self.view = memoryview(self._memory).cast("B")
        self.address = ctypes.addressof(self._memory)
        self.count = ctypes.c_int()
        self.count_address = ctypes.addressof(self.count)


def _renew_context() -> None:
    """In a forked child: a libusb context of its own. The parent's is shared memory of nothing,
    pipes and timers of the parent's event handling."""
    if backend.cache_info().currsize:
        found = backend()
        context = ctypes.c_void_p()
        if found.lib.libusb_init(ctypes.byref(context)) == Status.SUCCESS:
            found.ctx = context


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_context)
