"""libusb's list of devices, where nobody tells libusb that a device came or went.

On Linux libusb reads the list once, and then keeps it by what udev says. In a container, in WSL
without udev and in some sandboxes udev says nothing, and in a forked process libusb's thread that
listens is missing: the list stays as it was. Linux's /sys still
shows what is there. If the two differ, a second context of libusb reads the list anew, and is ended
at once. A device of it is opened by its node (``libusb_wrap_sys_device``), in the context that the
reader uses (:mod:`ccid.transport.contexts`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ccid.ground.once import Once
from ccid.transport import linux
from ccid.transport.libusb import Status, is_fork, usb_error, usb_errors
from ccid.transport.wrapped_handle import Descriptor, GivenHandle

CODES = {errno.EACCES: Status.ACCESS, errno.ENOENT: Status.NO_DEVICE}
"""What libusb makes of errors when it opens a node itself; all others are input/output errors."""


@Once
def why_deaf() -> str:
    """Why nobody may tell this process of devices; empty if somebody does."""
    from ccid.transport.access_cures import deaf
    from ccid.transport.access_facts import gather

    return deaf(gather())


class _Read:
    """libusb has read its list for the first time: it is as old as this process, or younger."""

    has_begun = False


@contextmanager
def listed(libusb: Any) -> Iterator[tuple[list[Any], bool]]:
    """The devices on USB, and True if they are of a context that ends with the block: then they
    have to be opened by :func:`open_node`.

    Args:
        libusb: pyusb's backend.
    """
    devices = list(libusb.enumerate_devices())
    is_first, _Read.has_begun = not _Read.has_begun, True
    is_kept = is_first or not linux.LINUX or not (is_fork() or why_deaf())
    if is_kept or not is_stale(libusb, devices):
        yield devices, False
        return
    scan = type(libusb)(libusb.lib)
    listing = scan.enumerate_devices()
    devices = list(listing)
    try:
        yield devices, True
    finally:  # devices first: their context must outlive them
        for one in (*devices, listing, scan):
            one.finalize()


def is_stale(libusb: Any, devices: list[Any]) -> bool:
    """True if Linux shows other devices than libusb. Without /sys nothing is known."""
    there, known = linux.addresses(), set()
    for device in devices:
        with suppress(*usb_errors()):
            raw = libusb.get_device_descriptor(device)
            known.add((raw.bus, raw.address))
    return bool(there) and known != there


def open_node(path: Path, context: int) -> GivenHandle:
    """A handle on a device that libusb's list does not have.

    Args:
        path: The device node.
        context: Address of the context of libusb's that is to handle its events.

    Raises:
        usb.core.USBError: As of pyusb, where the node cannot be opened.
        TransportError, UsbUnavailable: libusb does not take it.
    """
    try:
        number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        code = CODES.get(error.errno or 0, Status.IO)
        raise usb_error()(str(error), code, error.errno) from None
    try:
        return GivenHandle(Descriptor(number), context)
    finally:
        os.close(number)
