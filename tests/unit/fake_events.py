"""libusb's asynchronous functions without USB: a test says what happens, and sees the calls."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from ccid.transport.asynchronous import Calls, Timeval, Transfer
from ccid.transport.bulk import BULK
from ccid.transport.libusb import Status, callback_type

DONE, FAILED, CANCELLED, STALLED, GONE, TOO_LONG = 0, 1, 3, 4, 5, 6
"""Statuses of a transfer."""
STATUSES = {
    Status.SUCCESS: DONE,
    Status.IO: FAILED,
    Status.PIPE: STALLED,
    Status.NO_DEVICE: GONE,
    Status.OVERFLOW: TOO_LONG,
}
"""How a bulk transfer ends that has such a return code in a script."""


def address_of(pointer: Any) -> int:
    """Where a pointer points that was made by ``at`` or ``byref``."""
    return ctypes.addressof(pointer._obj)


class FakeBulk:
    """What the bulk endpoints do: return codes and data to play, one for each transfer in turn.

    Attributes:
        script: Return code and data of each. TIMEOUT has the transfer wait until it is cancelled,
            and then end with the data; a code that no transfer ends with is that of submitting it.
        sent: What was sent.
        most: Bytes a transfer to the device moves at most.
        calls: How many transfers were submitted.
        idle: What happens when there is nothing to play; the transfer waits then. Without it a
            transfer succeeds, and brings nothing.
        cancelled: Endpoints of the transfers that were cancelled.
        cancel_status: How a cancelled transfer ends.
        answer: Makes the reply to each command, instead of a script.
    """

    def __init__(self) -> None:
        self.script: list[tuple[int, bytes]] = []
        self.sent: list[bytes] = []
        self.most = 1 << 20
        self.calls = 0
        self.idle: Callable[[], None] | None = None
        self.cancelled: list[int] = []
        self.cancel_status = CANCELLED
        self.answer: Callable[[bytes], bytes] | None = None


class FakeEvents:
    """The functions of :class:`Calls`.

    Attributes:
        submit_status: The return code of submitting a transfer.
        submit_once: Return codes of the next submissions, before that.
        submitted: How often a transfer was submitted.
        can_hotplug: The result of libusb_has_capability.
    """

    def __init__(self) -> None:
        self.bulk = FakeBulk()
        self._waiting: dict[int, bytes] = {}
        """Bulk transfers that wait, and what they have brought so far."""
        self._fresh: list[int] = []
        """Those that have not played the script yet."""
        self._replies: list[bytes] = []
        self._has_failed = False
        """The last command did not reach the reader."""
        self._is_idle = False
        self.submit_status: int = Status.SUCCESS
        self.submit_once: list[int] = []
        self.submitted = 0
        self.freed = 0
        self.rounds: list[Callable[[], object]] = []
        """What a test does when events are handled, once each."""
        self.can_cancel = True
        """Cancelled transfers end."""
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
            self._submit,
            self._handle,
            self._alloc,
            self._free,
            self._cancel,
            self._interrupt,
            lambda _: int(self.can_hotplug),
            self._register,
            self._deregister,
            self._submit,
        )

    # Called by tests ------------------------------------------------------------------------------

    def comes(self, data: bytes = b"", status: int = DONE) -> None:
        """The waiting transfer completes, or fails."""
        with self._happened:
            self._done.append((self._armed.pop(0), status, data))
            self._happened.notify_all()

    def ends(self, endpoint: int, data: bytes = b"", status: int = DONE) -> None:
        """The bulk transfer that waits at ``endpoint`` is done, or fails."""
        with self._happened:
            waiting = (*self._waiting, *self._fresh)
            (address,) = (one for one in waiting if Transfer.from_address(one).endpoint == endpoint)
            self._waiting.pop(address, None)
            if address in self._fresh:
                self._fresh.remove(address)
            self._done.append((address, status, data))
            self._happened.notify_all()

    def waits(self, endpoint: int) -> bool:
        """A bulk transfer waits at ``endpoint``."""
        with self._happened:
            waiting = (*self._waiting, *self._fresh)
            return any(Transfer.from_address(one).endpoint == endpoint for one in waiting)

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
        made = Transfer()
        address = ctypes.addressof(made)
        self._kept[address] = made
        return address

    def _free(self, address: int) -> None:
        assert address not in self._armed
        assert address not in self._waiting
        del self._kept[address]
        self.freed += 1

    def _submit(self, pointer: Any) -> int:
        address = address_of(pointer)
        with self._happened:
            if Transfer.from_address(address).type == BULK:
                return self._submit_bulk(address)
            if status := self.submit_once.pop(0) if self.submit_once else self.submit_status:
                return status
            self.submitted += 1
            self._armed.append(address)
        return 0

    def _submit_bulk(self, address: int) -> int:
        transfer, bulk = Transfer.from_address(address), self.bulk
        if address in (*self._fresh, *self._waiting, *(one for one, _, _ in self._done)):
            return Status.BUSY
        bulk.calls += 1
        self._fresh.append(address)
        if not transfer.endpoint & 0x80:
            bulk.sent.append(ctypes.string_at(transfer.buffer, transfer.length))
            self._has_failed = False
            return self._play(address)
        return 0

    def _play(self, address: int) -> int:
        """Have a transfer do what the script says next."""
        bulk = self.bulk
        self._fresh.remove(address)
        if bulk.answer is not None and not self._is_in(address):
            self._replies.append(bulk.answer(bulk.sent[-1]))
            self._done.append((address, DONE, b""))
            return 0
        if not bulk.script and bulk.idle is not None:
            self._waiting[address], self._is_idle = b"", True
            return 0
        code, data = bulk.script.pop(0) if bulk.script else (Status.SUCCESS, b"")
        if code == Status.TIMEOUT:
            self._waiting[address] = data
            return 0
        self._has_failed = code != Status.SUCCESS and not self._is_in(address)
        status = STATUSES.get(Status(code)) if code in list(Status) else None
        if status is None and not self._is_in(address):
            return code
        self._done.append((address, 99 if status is None else status, data))
        return 0

    @staticmethod
    def _is_in(address: int) -> bool:
        return bool(Transfer.from_address(address).endpoint & 0x80)

    def _answer(self) -> None:
        """A reader answers a command that it got: bulk-IN plays the script after bulk-OUT."""
        if self.bulk.answer is not None:
            for address in (*self._waiting, *self._fresh):
                if self._is_in(address) and self._replies:
                    self._waiting.pop(address, None)
                    self._fresh[:] = [one for one in self._fresh if one != address]
                    self._done.append((address, DONE, self._replies.pop(0)))
            return
        is_sending = any(not self._is_in(one) for one in self._waiting)
        if not is_sending and not self._has_failed:
            for address in tuple(self._fresh):
                self._play(address)

    def _cancel(self, address: int) -> int:
        with self._happened:
            if address in self._fresh:
                self._fresh.remove(address)
                self._waiting[address] = b""
            if address in self._waiting:
                self.bulk.cancelled.append(Transfer.from_address(address).endpoint)
                if self.can_cancel:
                    data = self._waiting.pop(address)
                    failed = self.bulk.cancel_status != DONE
                    self._has_failed |= failed and not self._is_in(address)
                    self._done.append((address, self.bulk.cancel_status, data))
                    self._happened.notify_all()
                return 0
            if address not in self._armed:
                return Status.NOT_FOUND
            if self.can_cancel:
                self._armed.remove(address)
                self._done.append((address, CANCELLED, b""))
                self._happened.notify_all()
        return 0

    def _handle(self, _context: Any, wait: Any, completed: Any) -> int:
        time = Timeval.from_address(address_of(wait))
        if self.rounds:
            self.rounds.pop(0)()
        with self._happened:
            self._answer()
        if self._is_idle and self.bulk.idle is not None:
            self._is_idle = False
            self.bulk.idle()
        with self._happened:

            def is_called() -> bool:  # libusb checks this whenever a waiter is woken
                return completed is not None and completed._obj.value != 0

            if is_called():
                return 0
            self._happened.wait_for(
                lambda: self._done or self._interrupted or self._plugged or is_called(),
                time.tv_sec + time.tv_usec / 1e6,
            )
            self._interrupted = False
            done, self._done = self._done, []
            plugged, self._plugged = self._plugged, 0
        for address, status, data in done:
            self._complete(Transfer.from_address(address), status, data)
        for _ in range(plugged):
            if self._hotplug is not None:
                self._hotplug(None, None, 1, None)
        return 0

    def _complete(self, transfer: Any, status: int, data: bytes) -> None:
        if transfer.type == BULK and not transfer.endpoint & 0x80:
            moved = 0 if status else min(transfer.length, self.bulk.most)
        else:
            ctypes.memmove(transfer.buffer, data, len(data))
            moved = len(data)
        transfer.status = status
        transfer.actual_length = moved
        if transfer.callback:
            callback = callback_type(None, ctypes.c_void_p)(transfer.callback)
            callback(ctypes.addressof(transfer))

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
