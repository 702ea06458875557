"""Several contexts of libusb without USB: each has events of its own."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from ccid.errors import UsbUnavailable
from ccid.transport import asynchronous, contexts
from ccid.transport.asynchronous import Calls, Transfer
from tests.unit.fake_events import FakeEvents, address_of
from tests.unit.fake_usb import FakeBackend, FakeDevice

FIRST = 1
"""Address of the context that finds devices."""


class FurtherContexts:
    """What :func:`ccid.transport.libusb.another_context` makes.

    Attributes:
        made: Addresses of the contexts.
        devices: What they list; None for what the first one lists.
        fails: libusb does not begin.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[int] = []
        self.devices: list[FakeDevice] | None = None
        self.fails = False
        monkeypatch.setattr(contexts, "another_context", self._make)

    def _make(self) -> Any:
        if self.fails:
            raise UsbUnavailable("libusb does not begin once more")
        address = FIRST + 1 + len(self.made)
        self.made.append(address)
        return SimpleNamespace(
            ctx=ctypes.c_void_p(address), enumerate_devices=lambda: self._listed(address)
        )

    def _listed(self, address: int) -> Iterable[FakeDevice]:
        devices = contexts.backend().enumerate_devices() if self.devices is None else self.devices
        for device in devices:
            one = copy.copy(device)
            one.context = address
            yield one


class ContextBackend(FakeBackend):
    """pyusb's backend. The address of a handle is that of the context in which it was opened."""

    def open_device(self, device: FakeDevice) -> Any:
        super().open_device(device)
        return SimpleNamespace(handle=SimpleNamespace(value=device.context))


class ManyEvents:
    """libusb's functions for several contexts.

    Attributes:
        of: The events of each context, by its address.
        handled: The contexts whose events were handled, in order.
    """

    def __init__(self, *addresses: int) -> None:
        self.of = {address: FakeEvents() for address in addresses}
        self.handled: list[int] = []

    def calls(self) -> Calls:
        first = self.of[FIRST].calls()

        def at(address: int) -> FakeEvents:
            return self.of[Transfer.from_address(address).dev_handle]

        def handle(context: Any, wait: Any, completed: Any) -> int:
            self.handled.append(address_of(context))
            return self.of[address_of(context)]._handle(context, wait, completed)

        def submit(pointer: Any) -> int:
            return at(address_of(pointer))._submit(pointer)

        return first._replace(
            submit=submit,
            submit_keeping_gil=submit,
            handle_events=handle,
            cancel_transfer=lambda address: at(address)._cancel(address),
            interrupt_event_handler=lambda context: self.of[context]._interrupt(context),
        )

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asynchronous, "calls", self.calls)
        monkeypatch.setattr(asynchronous, "context", lambda: FIRST)
