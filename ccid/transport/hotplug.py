"""Hot-plug events of libusb: a USB device came or went."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

from ccid.transport import asynchronous
from ccid.transport.libusb import callback_type, is_fork

HAS_HOTPLUG = 1
"""libusb_has_capability: LIBUSB_CAP_HAS_HOTPLUG."""
ARRIVED, LEFT = 1, 2
ANY = -1


class _Happened:
    """A device came or went, and one waiting function was not called yet. A plain flag: a
    :class:`threading.Event` has a lock, which a signal handler that raises may leave held."""

    is_set = False


_happened: list[_Happened] = []
"""One for each function that waits for devices."""


def _happens(*_: Any) -> int:
    """libusb calls this, from any thread."""
    try:
        for happened in tuple(_happened):
            happened.is_set = True
    except BaseException as error:
        asynchronous.attendants.interrupted.append(error)
        for happened in tuple(_happened):
            happened.is_set = True
    asynchronous.attendants.came = True
    return 0


_callback = callback_type(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)(_happens)
"""One for all, never freed: a thread of libusb may be about to call it when it is deregistered."""


def on_hotplug(tell: Callable[[], None]) -> Callable[[], None] | None:
    """Have ``tell`` called after a device came or went. Returns a function that ends that; None
    where this libusb has no hot-plug events."""
    made, where = asynchronous.calls(), asynchronous.context()
    if is_fork() or not made.has_capability(HAS_HOTPLUG):
        return None
    happened, number = _Happened(), ctypes.c_int()
    wanted = (ARRIVED | LEFT, 0, ANY, ANY, ANY)
    address = ctypes.cast(_callback, ctypes.c_void_p).value
    _happened.append(happened)
    if made.hotplug_register_callback(where, *wanted, address, None, ctypes.addressof(number)):
        _happened.remove(happened)
        return None

    def take() -> bool:
        if happened.is_set:
            happened.is_set = False
            tell()
        return False

    try:
        leave = asynchronous.attendants.add(take)
    except BaseException:
        asynchronous.attendants.leave(take)
        _happened.remove(happened)
        made.hotplug_deregister_callback(where, number.value)
        raise

    def end() -> None:
        leave()
        if happened in _happened:  # else it was ended, or is the parent's
            _happened.remove(happened)
            made.hotplug_deregister_callback(where, number.value)

    return end


def _after_fork() -> None:
    """The waiting functions belong to the parent process."""
    _happened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
