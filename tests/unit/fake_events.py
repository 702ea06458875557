"""libusb's asynchronous functions without USB: a test says what happens, and sees the calls."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

from ccid.transport.asynchronous import Calls, _Transfer
from ccid.transport.libusb import Status, callback_type

DONE, FAILED, CANCELLED, STALLED, GONE = 0, 1, 3, 4, 5
"""Statuses of a transfer."""


class FakeEvents:
    """The functions of :class:`Calls`.

    Attributes:
        submit_status: The return code of submitting a transfer.
        submitted: How often a transfer was submitted.
        can_hotplug: The result of libusb_has_capability.
    """

    def __init__(self) -> None:
        self.submit_status: int = Status.SUCCESS
        self.submitted = 0
        self.freed = 0
        self.ends = True
        """True if a cancelled transfer ends."""
        self.can_hotplug = True
        self.callbacks: list[int] = []
        """The function to call when a device comes or goes."""
        self._happened = threading.Condition(threading.RLock())
        self._armed: list[int] = []
        self._done: list[tuple[int, int, bytes]] = []
        self._kept: dict[int, ctypes.Structure] = {}
        self._interrupted = False
        self._hotplug: Callable[..., int] | None = None
        self._plugged = 0

    def calls(self) -> Calls:
        return Calls(
            self._alloc,
            self._free,
            self._submit,
            self._cancel,
            self._handle,
            self._interrupt,
            lambda _: int(self.can_hotplug),
            self._register,
            self._deregister,
        )

    # Called by tests ------------------------------------------------------------------------------

    def comes(self, data: bytes = b"", status: int = DONE) -> None:
        """The waiting transfer completes, or fails."""
        with self._happened:
            self._done.append((self._armed.pop(0), status, data))
            self._happened.notify_all()

    def plug(self) -> None:
        """A device comes or goes."""
        with self._happened:
            self._plugged += 1
            self._happened.notify_all()

    @property
    def is_armed(self) -> bool:
        return bool(self._armed)

    @property
    def hears_hotplug(self) -> bool:
        return self._hotplug is not None

    # Functions of libusb --------------------------------------------------------------------------

    def _alloc(self, _packets: int) -> int:
        made = _Transfer()
        address = ctypes.addressof(made)
        self._kept[address] = made
        return address

    def _free(self, address: int) -> None:
        assert address not in self._armed
        del self._kept[address]
        self.freed += 1

    def _submit(self, address: int) -> int:
        with self._happened:
            if self.submit_status:
                return self.submit_status
            self.submitted += 1
            self._armed.append(address)
        return 0

    def _cancel(self, address: int) -> int:
        with self._happened:
            if address not in self._armed:
                return Status.NOT_FOUND
            if self.ends:
                self._armed.remove(address)
                self._done.append((address, CANCELLED, b""))
                self._happened.notify_all()
        return 0

    def _handle(self, _context: int, wait: int, completed: int | None) -> int:
        seconds, micro = (ctypes.c_long * 2).from_address(wait)
        with self._happened:

            def is_called() -> bool:  # libusb checks this whenever a waiter is woken
                return bool(completed and ctypes.c_int.from_address(completed).value)

            if is_called():
                return 0
            self._happened.wait_for(
                lambda: self._done or self._interrupted or self._plugged or is_called(),
                seconds + micro / 1e6,
            )
            self._interrupted = False
            done, self._done = self._done, []
            plugged, self._plugged = self._plugged, 0
        for address, status, data in done:
            transfer = _Transfer.from_address(address)
            ctypes.memmove(transfer.buffer, data, len(data))
            transfer.status, transfer.actual_length = status, len(data)
            callback_type(None, ctypes.c_void_p)(transfer.callback)(address)
        for _ in range(plugged):
            if self._hotplug is not None:
                self._hotplug(None, None, 1, None)
        return 0

    def _interrupt(self, _context: int) -> None:
        with self._happened:
            self._interrupted = True
            self._happened.notify_all()

    def _register(self, *words: int) -> int:
        callback, number = words[6], words[8]
        self.callbacks.append(callback)
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        self._hotplug = callback_type(integer, pointer, pointer, integer, pointer)(callback)
        ctypes.c_int.from_address(number).value = 7
        return 0

    def _deregister(self, _context: int, number: int) -> None:
        assert number == 7
        self._hotplug = None
