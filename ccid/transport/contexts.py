"""Contexts of libusb: each open reader has one of its own, where that is possible.

Theory of operation. Threads that wait for transfers of one context get in each other's way: one of
them handles the events of all, the others sleep on a condition variable, and each event wakes every
one of them. Eight readers in eight threads take twice the CPU time so. Where each reader has
a context, the thread that waits for a reply sleeps in the kernel, and only that reply wakes it.

The first context is the one that finds devices and tells of hot-plug (:data:`first`). The first
reader that is opened uses it, too: so a program with one reader has one context, and pays for no
other. A reader that is opened while another one uses that context gets a further one. It is kept
for later readers when its reader is closed, because a thread may come back from libusb after that.
So there are as many contexts as readers were open at the same time. A context costs two file
descriptors, no thread, and once the time of libusb's look at all devices.

A device of libusb's list belongs to the context of that list. The device is looked for in the list
of the further context, by bus and address. If it is not there, or libusb makes no further context,
the reader uses the first one, however many others do. A device that is opened by its node or by a
file descriptor needs no list.

The events of a context, and who waits for them: :class:`ccid.transport.asynchronous.Attendants`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any
from weakref import WeakSet

from ccid.errors import UsbUnavailable
from ccid.ground import at_exit
from ccid.ground.once import Once
from ccid.ground.signal_safe_locks import new_rlock
from ccid.transport import asynchronous, stale_list
from ccid.transport.asynchronous import Attendants, EventHandler
from ccid.transport.libusb import Status, another_context, usb_error, usb_errors
from ccid.transport.libusb import backend as backend
from ccid.transport.wrapped_handle import Descriptor, GivenHandle

logger = logging.getLogger("ccid.transport")

Device = Any
"""What opens: a device of libusb's list, as pyusb has it; the path of a device node; or a
:class:`Descriptor`."""


class Context:
    """A context of libusb.

    Args:
        attendants: Those who wait for its events.
        lists: pyusb's backend with this context; None for the first one.
    """

    def __init__(self, attendants: Attendants, lists: Any = None) -> None:
        self.attendants = attendants
        self._lists = lists
        self._users = WeakSet[object]()

    @property
    def is_free(self) -> bool:
        """No reader uses it."""
        return not self._users

    def can_open(self, device: Device) -> bool:
        """Its list has the device, or the device needs no list."""
        return self._own(device) is not None

    def open(self, device: Device) -> Any:
        """pyusb's handle on a device.

        Args:
            device: The device, which another context may have listed.

        Raises:
            usb.core.USBError: As of pyusb.
            TransportError, UsbUnavailable: libusb does not take the node, or the descriptor.
        """
        if isinstance(device, Path):
            return stale_list.open_node(device, self.attendants.context())
        if isinstance(device, Descriptor):
            return GivenHandle(Descriptor(device.number), self.attendants.context())
        found = self._own(device)
        if found is None:
            raise usb_error()("this context does not list it", Status.NO_DEVICE, None)
        return backend().open_device(found)

    def leave(self, user: object) -> None:
        """A reader does not use it any more."""
        self._users.discard(user)

    def _own(self, device: Device) -> Device | None:
        """The device as this context lists it; None if it does not."""
        if self._lists is None or isinstance(device, Path | Descriptor):
            return device
        wanted = _place(device)
        for one in self._lists.enumerate_devices():
            try:
                if _place(one) == wanted:
                    return one
            except usb_errors():
                continue  # it was unplugged meanwhile
        return None

    def _settle(self) -> None:
        """Handle what is due: libusb notes for each context which devices come and go."""
        EventHandler(where=self.attendants.context()).handle(0)

    def _use(self, user: object) -> Context:
        self._users.add(user)
        return self


def _place(device: Device) -> tuple[int, ...]:
    raw = backend().get_device_descriptor(device)
    return raw.bus, raw.address, raw.idVendor, raw.idProduct


first = Context(asynchronous.attendants)
"""The one that finds devices."""
_further: list[Context] = []
_lock = new_rlock()


def taken_by(user: object, device: Device) -> Context:
    """The context that a reader is to use until it calls :meth:`Context.leave`, or is forgotten.

    Args:
        user: Who uses it.
        device: The reader's device.
    """
    with _lock:
        free = [one for one in (first, *_further) if one.is_free]
        if not free:
            free = _another()
        for one in free:
            if one is not first:
                one._settle()
        for one in free:
            if one.can_open(device):
                return one._use(user)
        return first._use(user)


def _another() -> list[Context]:
    """A further context, if there can be one."""
    try:
        lists = another_context()
    except UsbUnavailable as error:
        logger.info("one context of libusb has to do for several readers: %s", error)
        return []
    made = Context(Attendants(lists.ctx.value), lists)
    _end_at_exit()
    _further.append(made)
    return [made]


def _end() -> None:
    """Python ends: nobody waits for events any more."""
    for one in _further:
        one.attendants.end()


@Once
def _end_at_exit() -> None:
    at_exit.add(_end)


def _after_fork() -> None:
    """The contexts, and the readers that use them, are the parent's."""
    global _lock
    _lock = new_rlock()
    for one in _further:
        one.attendants.reset()
    _further.clear()
    first._users = WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
