"""A virtual reader behind a fake libusb: the USB transport, with a real reader at its end."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest

import ccid
from ccid.codec.descriptors import ClassControl
from ccid.transport import asynchronous, discovery, linux
from ccid.transport.asynchronous import Transfer
from ccid.transport.libusb import Status
from ccid.virtual.port import Unplugged, WasReset
from ccid.virtual.usb_device import Stall
from tests.unit.fake_events import DONE, GONE, STALLED, FakeEvents
from tests.unit.fake_usb import FakeBackend, FakeDevice, error, use_backend

ROUND_S = 0.005
"""A round ends after so long: nothing wakes it when another thread submits a transfer."""


class PortEvents(FakeEvents):
    """libusb's functions; transfers go to the port of a virtual device."""

    def __init__(self, virtual: ccid.VirtualReader) -> None:
        super().__init__()
        self.port = virtual.port
        self._events = threading.RLock()
        """Held by the thread that handles events; others wait, as in libusb."""

    def _play(self, address: int) -> int:
        transfer = Transfer.from_address(address)
        if self._is_in(address):
            return 0  # when events are handled
        self._fresh.remove(address)
        status = DONE
        try:
            self.port.out(transfer.endpoint, ctypes.string_at(transfer.buffer, transfer.length))
        except Stall:
            status = STALLED
        except Unplugged:
            status = GONE
        self._done.append((address, status, b""))
        return 0

    def _handle(self, context: Any, wait: Any, completed: Any) -> int:
        with self._events:
            if completed is not None and completed._obj.value:
                return 0
            return self._handle_all(context, wait, completed)

    def _handle_all(self, context: Any, wait: Any, completed: Any) -> int:
        with self._happened:
            waiting, done = tuple(self._fresh), bool(self._done)
        seconds = asynchronous.Timeval.from_address(ctypes.addressof(wait._obj))
        wait_s = 0.0 if done else min(seconds.tv_sec + seconds.tv_usec / 1e6, ROUND_S)
        for address in waiting:
            self._receive(address, wait_s)
        for address in tuple(self._armed):
            self._notify(address)
        return super()._handle(context, ctypes.byref(asynchronous.Timeval()), completed)

    def _answer(self) -> None:
        """The port does."""

    def _receive(self, address: int, wait_s: float) -> None:
        transfer, status, data = Transfer.from_address(address), DONE, b""
        try:
            data = self.port.receive(transfer.endpoint, transfer.length, wait_s)
        except TimeoutError:
            return
        except Stall:
            status = STALLED
        except (Unplugged, WasReset):
            status = GONE
        if address not in self._fresh:  # it was lost meanwhile
            return
        self._fresh.remove(address)
        self._done.append((address, status, data))

    def _notify(self, address: int) -> None:
        transfer, status, data = Transfer.from_address(address), DONE, b""
        try:
            came = self.port.poll(transfer.endpoint, transfer.length)
        except Stall:
            status = STALLED
        except Unplugged:
            status = GONE
        else:
            if came is None:
                return
            data = came
        if address not in self._armed:  # it was lost meanwhile
            return
        self._armed.remove(address)
        self._done.append((address, status, data))

    def lose(self, status: int = GONE) -> None:
        """All transfers that wait end so, as after a reset of the device."""
        with self._happened:
            for waiting in (self._fresh, self._armed):
                self._done += [(address, status, b"") for address in waiting]
                waiting.clear()
            self._happened.notify_all()


class PortBackend(FakeBackend):
    """pyusb's backend; control requests go to the port."""

    def __init__(self, virtual: ccid.VirtualReader) -> None:
        device = virtual.info.device
        super().__init__(
            FakeDevice(
                virtual.info.raw_configuration,
                idVendor=device.idVendor,
                idProduct=device.idProduct,
                bcdDevice=device.bcdDevice,
            )
        )
        self.port = virtual.port

    def ctrl_transfer(self, handle: Any, *request: Any) -> int:
        kind, what, value, index, data = request[:5]
        is_in = bool(kind & 0x80)
        setup = ClassControl(kind, what, value, index, len(data))
        try:
            came = self.port.control(setup, b"" if is_in else bytes(data))
        except Stall:
            raise error(Status.PIPE) from None
        except Unplugged:
            raise error(Status.NO_DEVICE) from None
        for i, byte in enumerate(came[: len(data)]):
            data[i] = byte
        return len(came) if is_in else len(data)

    def clear_halt(self, handle: Any, endpoint: int) -> None:
        self.port.control(ClassControl(0x02, 1, 0, endpoint))


def over_usb(virtual: ccid.VirtualReader, monkeypatch: pytest.MonkeyPatch) -> ccid.ReaderInfo:
    """``virtual`` as a reader on USB."""
    events, backend = PortEvents(virtual), PortBackend(virtual)
    monkeypatch.setattr(asynchronous, "calls", events.calls)
    monkeypatch.setattr(asynchronous, "context", lambda: 1)
    use_backend(monkeypatch, backend)
    monkeypatch.setattr(linux, "attribute", lambda *_: None)
    (info,) = discovery.discover().readers
    return info
