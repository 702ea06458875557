"""Readers on USB: claimed and talked to."""

from __future__ import annotations

import array
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from ccid.descriptors import ClassControl, EndpointDescriptor
from ccid.errors import (
    CcidError,
    ReaderForked,
    ReaderUnsupported,
    TransportError,
    TransportStall,
    TransportTimeout,
)
from ccid.transport import (
    IN_CAPACITY,
    OUT_CAPACITY,
    ReaderInfo,
    cures,
    linux,
    no_events,
    nothing_to_end,
)
from ccid.transport.asynchronous import Interrupt, attendants, event_handler
from ccid.transport.libusb import (
    Buffer,
    Status,
    backend,
    bulk_transfer,
    status_of,
    status_text,
    usb_error,
)
from ccid.transport.life import Life, refusal

FIRST_RETRY_S, LAST_RETRY_S = 0.02, 1.0
"""After a failed interrupt transfer: pauses before it is armed again, each twice the one before."""
GONE_S = 1.0
"""How long after an input/output error to look whether the device is gone. Hubs are asked four
times a second."""
MICROFRAME_S = 0.000125
INTERVAL_MORE_S = 0.02
"""A notification is fetched so long after its time at the latest."""
LINUX = sys.platform.startswith("linux")

logger = logging.getLogger("ccid.transport")


class UsbTransport(Life):
    """An open interface on USB: a :class:`ccid.transport.Transport`.

    Args:
        device: pyusb's handle on the device.
        info: The reader.

    Raises:
        AccessDenied, ReaderBusy, ReaderRemoved, TransportError.
    """

    send: Callable[[int, int], None]
    receive: Callable[[int, int, int], int]
    take_events: Callable[..., None]

    def __init__(self, device: Any, info: ReaderInfo) -> None:
        super().__init__(info.name)
        self.info = info
        self._driver_detached = False
        self._events, self._controls = threading.RLock(), threading.Lock()
        self._interrupt: Interrupt | None = None
        self._retry_s, self._retry_at = FIRST_RETRY_S, 0.0
        out, inp = info.reader.bulk_out, info.reader.bulk_in
        if not info.reader.is_iccd and (out is None or inp is None):
            raise ReaderUnsupported(f"{info.name} has no bulk endpoints", reader=info.name)
        self.packet_size = inp.max_packet_size if inp else 64
        try:
            self._handle = backend().open_device(device)
        except Exception as error:
            raise self._open_error(error) from None
        try:
            self._claim()
        except BaseException:
            backend().close_device(self._handle)
            raise
        self.take_events = no_events
        self._out, self._in = Buffer(OUT_CAPACITY), Buffer(IN_CAPACITY)
        self.out, self.inp = self._out.view, self._in.view
        if out is not None and inp is not None:
            self.send, self.receive = self._make_send(out), self._make_receive(inp)
        self.when_dead(self._refuse_all)

    def _refuse_all(self, reason: CcidError) -> None:
        """From now on nothing reaches libusb: the handle may be freed any time."""
        self.send = self.receive = refusal(reason)
        self.take_events = no_events

    # Opening and closing ----------------------------------------------------------------------

    def _open_error(self, error: Exception) -> CcidError:
        status = status_of(error)
        match status:
            case Status.ACCESS | Status.NOT_SUPPORTED:
                return cures.access_denied(self.info)
            case Status.BUSY:
                return cures.busy(self.info)
            case Status.NO_DEVICE | Status.NOT_FOUND:
                return self.removed()
        return TransportError(
            f"{self.name} cannot be opened: {status_text(status)}", reader=self.name
        )

    def _claim(self) -> None:
        """Configure the device if nobody has, send a kernel driver away, claim the interface."""
        number, value = self.info.interface_number, self.info.configuration.bConfigurationValue
        try:
            if backend().get_configuration(self._handle) == 0:
                backend().set_configuration(self._handle, value)
            with suppress(NotImplementedError):  # only Linux and macOS have drivers to detach
                if backend().is_kernel_driver_active(self._handle, number):
                    backend().detach_kernel_driver(self._handle, number)
                    self._driver_detached = True
            backend().claim_interface(self._handle, number)
        except Exception as error:
            told = self._open_error(error)  # while it can be seen who holds it
            self._give_back(self._handle)
            raise told from None

    def close(self) -> None:
        """Release the interface and give it back to the kernel driver it was taken from."""
        forked = isinstance(self.dead, ReaderForked)
        self.closed()
        if not forked:  # else the claim is the parent's
            with self._events, self._controls:  # until none is under way
                self._release()
            attendants.leave(self._deliver)
            attendants.take()  # others' that were handled meanwhile

    def _release(self) -> None:
        handle, self._handle = self._handle, None
        interrupt, self._interrupt = self._interrupt, None
        if handle is None:
            return
        if interrupt is not None and not interrupt.end():
            logger.error("%s: a transfer does not end; its handle stays open", self.name)
            return
        with suppress(usb_error(), NotImplementedError):
            backend().release_interface(handle, self.info.interface_number)
        self._give_back(handle)
        backend().close_device(handle)

    def _give_back(self, handle: Any) -> None:
        """Give the interface back to the kernel driver it was taken from."""
        if self._driver_detached:
            self._driver_detached = False
            with suppress(usb_error(), NotImplementedError):
                backend().attach_kernel_driver(handle, self.info.interface_number)

    # Bulk -------------------------------------------------------------------------------------

    def _make_send(self, endpoint: EndpointDescriptor) -> Callable[[int, int], None]:
        bulk, handle = bulk_transfer(), self._handle.handle.value
        number, buffer = endpoint.bEndpointAddress, self._out
        address, count, count_address = buffer.address, buffer.count, buffer.count_address

        def send(length: int, timeout_ms: int) -> None:
            status = bulk(handle, number, address, length, count_address, timeout_ms)
            if attendants.came:
                attendants.take()
            if status:
                self._fail(status, number)
            if count.value != length:
                raise TransportError(
                    f"{self.name}: {count.value} of {length} bytes were sent", reader=self.name
                )

        return send

    def _make_receive(self, endpoint: EndpointDescriptor) -> Callable[[int, int, int], int]:
        bulk, handle = bulk_transfer(), self._handle.handle.value
        number, buffer = endpoint.bEndpointAddress, self._in
        address, count, count_address = buffer.address, buffer.count, buffer.count_address

        def receive(offset: int, size: int, timeout_ms: int) -> int:
            status = bulk(handle, number, address + offset, size, count_address, timeout_ms)
            if attendants.came:
                attendants.take()
            if status and not (status == Status.TIMEOUT and count.value):
                self._fail(status, number)
            return count.value

        return receive

    def _fail(self, status: int, endpoint: int) -> NoReturn:
        """Raise what a failed transfer means; a halt is cleared first."""
        match status:
            case Status.TIMEOUT:
                raise TransportTimeout(f"{self.name}: nothing came or went", reader=self.name)
            case Status.NO_DEVICE:
                raise self.removed()
            case Status.PIPE:
                with suppress(usb_error()):
                    backend().clear_halt(self._handle, endpoint)
                raise TransportStall(
                    f"{self.name} halted endpoint 0x{endpoint:02X}", reader=self.name
                )
            case Status.IO if self._is_gone():
                raise self.removed()
        raise TransportError(
            f"{self.name}: endpoint 0x{endpoint:02X}: {status_text(status)}", reader=self.name
        )

    def _is_gone(self) -> bool:
        """An unplugged device ends its last transfers with an input/output error, and it takes
        the hub some time to notice why."""
        until = time.monotonic() + GONE_S
        while LINUX and not self._has_no_node():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return LINUX

    def _has_no_node(self) -> bool:
        """Linux has taken the device's node away."""
        return LINUX and not os.path.exists(linux.node(self.info.bus, self.info.address))

    # Events -----------------------------------------------------------------------------------

    def listen(self, tell: Callable[[bytes], None]) -> None:
        endpoint = self.info.reader.interrupt_in
        if endpoint is None:
            return
        with self._events:
            self.check()
            interrupt = Interrupt(self._handle.handle.value, endpoint.bEndpointAddress)
            self._interrupt, self._tell = interrupt, tell
            interrupt.arm()
        self.take_events = self._make_take(interrupt)

    def _make_take(self, interrupt: Interrupt) -> Callable[..., None]:
        handle_events, inbox, clock = event_handler(), interrupt.inbox, time.monotonic
        interval_s = self._interval_s() + INTERVAL_MORE_S
        taken_at = clock()

        def take_events(wait_ms: int = 0, /) -> None:
            nonlocal taken_at
            attendants.make_way()
            handle_events(wait_ms / 1000)
            now = clock()
            rested_s, taken_at = now - taken_at, now
            if inbox or not interrupt.is_armed:
                came = bool(inbox)
                self._deliver()
                if came and rested_s > interval_s:  # the reader may have had more to say since
                    while not inbox and interrupt.is_armed and clock() < taken_at + interval_s:
                        handle_events(taken_at + interval_s - clock())
                    self._deliver()
            if attendants.came:
                attendants.take()

        return take_events

    def _interval_s(self) -> float:
        """How long a notification may wait to be fetched (USB 2.0, table 9-13)."""
        endpoint = self.info.reader.interrupt_in
        if endpoint is None:
            return 0.0
        if self.info.speed in ("low", "full"):
            return endpoint.bInterval / 1000
        return float(2 ** (min(max(endpoint.bInterval, 1), 16) - 1)) * MICROFRAME_S

    def _deliver(self) -> bool:
        """Tell of what came. True if the transfer is not armed, and is to be looked after."""
        with self._events:
            interrupt = self._interrupt
            if interrupt is None or self.dead is not None:
                return False
            while interrupt.inbox:
                self._retry_s, self._retry_at = FIRST_RETRY_S, 0.0
                self._tell(interrupt.inbox.popleft())
            if not interrupt.is_armed:
                self._mend(interrupt)
            return self.dead is None and not interrupt.is_armed

    def _mend(self, interrupt: Interrupt) -> None:
        """Arm a transfer that failed, after a pause; or notice that the device is gone."""
        gone, now = self._has_no_node(), time.monotonic()
        if interrupt.failure != Status.NO_DEVICE and not gone and now >= self._retry_at:
            logger.info("%s: event: %s", self.name, status_text(interrupt.failure))
            if interrupt.failure == Status.PIPE and self.info.reader.interrupt_in is not None:
                with suppress(usb_error()):
                    number = self.info.reader.interrupt_in.bEndpointAddress
                    backend().clear_halt(self._handle, number)
            self._retry_at = now + self._retry_s
            self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
            interrupt.arm()
        if gone or interrupt.failure == Status.NO_DEVICE:
            self.removed()

    def attend(self) -> Callable[[], None]:
        if self.dead is not None:  # in a forked child a thread of the parent's may hold the lock
            return nothing_to_end
        with self._events:
            if self._interrupt is None:
                return nothing_to_end
            return attendants.add(self._deliver)

    # The rest ---------------------------------------------------------------------------------

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        is_in = bool(request.bmRequestType & 0x80)
        buffer = array.array("B", bytes(request.wLength) if is_in else data)
        try:
            with self._controls:
                self.check()
                count = backend().ctrl_transfer(
                    self._handle,
                    request.bmRequestType,
                    request.bRequest,
                    request.wValue,
                    request.wIndex,
                    buffer,
                    timeout_ms,
                )
        except CcidError:
            raise
        except Exception as error:
            status = status_of(error)
            if status == Status.PIPE:
                raise TransportStall(
                    f"{self.name} refuses request 0x{request.bRequest:02X}", reader=self.name
                ) from None
            self._fail(status, 0)
        finally:
            if attendants.came:
                attendants.take()
        return buffer.tobytes()[:count] if is_in else b""
