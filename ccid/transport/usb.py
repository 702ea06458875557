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

from ccid.codec.descriptors import ClassControl, EndpointDescriptor
from ccid.codes import DIRECTION_IN
from ccid.errors import (
    CcidError,
    ReaderForked,
    ReaderUnsupported,
    TransportError,
    TransportStall,
    TransportTimeout,
)
from ccid.ground import at_exit
from ccid.ground.once import Once
from ccid.transport import (
    IN_CAPACITY,
    OUT_CAPACITY,
    ReaderInfo,
    access_problems,
    libusb,
    linux,
    no_events,
    nothing_to_end,
    tell_first,
)
from ccid.transport.asynchronous import Interrupt, attendants, event_handler
from ccid.transport.libusb import (
    Buffer,
    Status,
    backend,
    bulk_transfer,
    status_of,
    status_text,
    usb_errors,
)
from ccid.transport.lifetime import Life, living, refusal

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


class _InputOutput(TransportError):
    """The first transfer failed with an input/output error, and is worth another attempt."""


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
        self._handle: Any = None
        self._driver_detached = False
        self._events, self._controls = threading.RLock(), threading.Lock()
        self._interrupt: Interrupt | None = None
        self._retry_s, self._retry_at = FIRST_RETRY_S, 0.0
        out, inp = info.reader.bulk_out, info.reader.bulk_in
        if not info.reader.is_iccd and (out is None or inp is None):
            raise ReaderUnsupported(f"{info.name} has no bulk endpoints", reader=info.name)
        self.packet_size = (inp.max_packet_size if inp else 0) or 64
        self._is_asleep = info.reader.is_iccd
        """No request was made yet of a device that has but the control pipe: it may sleep."""
        self._is_waking = False
        """A transfer is under way that may be tried again if it fails."""
        try:
            self._handle = self._twice(lambda: backend().open_device(device))
        except Exception as error:
            raise self._open_error(error) from None
        try:
            self._claim()
            self.take_events = no_events
            self._out, self._in = Buffer(OUT_CAPACITY), Buffer(IN_CAPACITY)
            self.out, self.inp = self._out.view, self._in.view
            if out is not None and inp is not None:
                self.send = self._first_send(self._make_send(out))
                self.receive = self._make_receive(inp)
        except BaseException:
            handle, self._handle = self._handle, None
            backend().close_device(handle)
            raise
        _close_at_end()
        self.when_dead(self._refuse_all)

    def _refuse_all(self, reason: CcidError) -> None:
        """From now on nothing reaches libusb: the handle may be freed any time."""
        self.send = self.receive = refusal(reason)
        self.take_events = no_events

    # Opening and closing ----------------------------------------------------------------------

    def _open_error(self, error: Exception) -> CcidError:
        if isinstance(error, CcidError):
            return error
        status = status_of(error)
        match status:
            case Status.ACCESS | Status.NOT_SUPPORTED:
                return access_problems.access_denied(self.info)
            case Status.BUSY:
                return access_problems.busy(self.info)
            case Status.NO_DEVICE | Status.NOT_FOUND:
                return self.removed()
        return TransportError(
            f"{self.name} cannot be opened: {status_text(status)}", reader=self.name
        )

    def _twice(self, do: Callable[[], Any]) -> Any:
        """``do`` it; once more if an input/output error was all that came of it. The first thing
        asked of a device that slept (autosuspend) may fail so."""
        try:
            return do()
        except Exception as error:
            if status_of(error) != Status.IO or self._has_no_node():
                raise
            logger.info("%s: an input/output error on opening; once more", self.name)
            return do()

    def _claim(self) -> None:
        """Configure the device if nobody has, send a kernel driver away, claim the interface."""
        number = self.info.interface_number
        try:
            active = self._configure()
            with suppress(NotImplementedError):  # only Linux and macOS have drivers to detach
                if backend().is_kernel_driver_active(self._handle, number):
                    backend().detach_kernel_driver(self._handle, number)
                    self._driver_detached = True
            try:
                self._claim_interface()
            except Exception as error:
                if active or status_of(error) != Status.NOT_FOUND:
                    raise
                # "configuration 0" was not the one of that number, but none
                self._set_configuration()
                self._claim_interface()
        except Exception as error:
            told = self._open_error(error)  # while it can be seen who holds it
            self._give_back(self._handle)
            raise told from None
        except BaseException:
            self._give_back(self._handle)
            raise

    def _claim_interface(self) -> None:
        number = self.info.interface_number
        self._twice(lambda: backend().claim_interface(self._handle, number))

    def _configuration(self) -> int:
        """bConfigurationValue of the active configuration. 0 for none, and for one that has that
        number, against USB 2.0, 9.6.3."""
        value: int = self._twice(lambda: backend().get_configuration(self._handle))
        return value

    def _configure(self) -> int:
        """Set the reader's configuration if none is set, never another: others may be at work in
        the active one, and setting even the same resets the device. Returns the active one."""
        wanted, active = self.info.configuration.bConfigurationValue, self._configuration()
        if active == wanted:
            return active
        if active == 0:
            try:
                self._set_configuration()
            except Exception as error:  # busy: another has just set it, and claimed an interface
                if status_of(error) != Status.BUSY or self._configuration() != wanted:
                    raise
            return wanted
        raise ReaderUnsupported(
            f"{self.name} is part of configuration {wanted}, and its device has configuration "
            f"{active} set, which other programs may be using",
            reader=self.name,
        )

    def _set_configuration(self) -> None:
        value = self.info.configuration.bConfigurationValue
        self._twice(lambda: backend().set_configuration(self._handle, value))

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
        handle, interrupt = self._handle, self._interrupt
        if handle is None:
            return
        if libusb.is_over():  # and the handle with it
            self._handle = self._interrupt = None
            return
        if interrupt is not None and not interrupt.end():
            logger.error("%s: a transfer does not end; its handle stays open", self.name)
            self._handle = self._interrupt = None
            return
        self._interrupt = None
        with suppress(*usb_errors()):
            backend().release_interface(handle, self.info.interface_number)
        self._give_back(handle)
        close = backend().close_device
        self._handle = None  # before: what is closed twice is freed twice
        close(handle)

    def _give_back(self, handle: Any) -> None:
        """Give the interface back to the kernel driver it was taken from."""
        if self._driver_detached:
            self._driver_detached = False
            with suppress(*usb_errors()):
                backend().attach_kernel_driver(handle, self.info.interface_number)

    # Bulk -------------------------------------------------------------------------------------

    def _first_send(self, send: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """What stands in for ``send`` until it succeeded once. A device that wakes up may lose
        its first transfer, or the answer to it: what fails so is tried once more, that is, the
        command that a reader is opened with. No later one is."""

        def first_send(length: int, timeout_ms: int) -> None:
            again = self._try_twice(lambda: send(length, timeout_ms))[1]
            if not again:
                self.receive = self._first_receive(self.receive)
            self.send = send
            self._unless_dead()

        return first_send

    def _first_receive(
        self, receive: Callable[[int, int, int], int]
    ) -> Callable[[int, int, int], int]:
        def first_receive(offset: int, size: int, timeout_ms: int) -> int:
            count: int = self._try_twice(lambda: receive(offset, size, timeout_ms))[0]
            self.receive = receive
            self._unless_dead()
            return count

        return first_receive

    def _try_twice(self, transfer: Callable[[], Any]) -> tuple[Any, bool]:
        """What comes of a transfer that may be tried twice, and whether it was."""
        self._is_waking = True
        try:
            return transfer(), False
        except _InputOutput as error:
            logger.info("%s: on opening: %s; once more", self.name, error)
        finally:
            self._is_waking = False
        return transfer(), True

    def _unless_dead(self) -> None:
        """After ``send`` or ``receive`` was replaced: by a refusal, if this died meanwhile."""
        if self.dead is not None:
            self._refuse_all(self.dead)

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
            case Status.IO if self._is_waking and not self._has_no_node():
                raise _InputOutput(f"{self.name}: {status_text(status)}", reader=self.name)
            case Status.PIPE:
                with suppress(*usb_errors()):
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
                tell_first(interrupt.inbox, self._tell)
            if not interrupt.is_armed:
                self._mend(interrupt)
            return self.dead is None and not interrupt.is_armed

    def _mend(self, interrupt: Interrupt) -> None:
        """Arm a transfer that failed, after a pause; or notice that the device is gone."""
        gone, now = self._has_no_node(), time.monotonic()
        if interrupt.failure != Status.NO_DEVICE and not gone and now >= self._retry_at:
            logger.info("%s: event: %s", self.name, status_text(interrupt.failure))
            if interrupt.failure == Status.PIPE and self.info.reader.interrupt_in is not None:
                with suppress(*usb_errors()):
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
        is_in = bool(request.bmRequestType & DIRECTION_IN)
        buffer = array.array("B", bytes(request.wLength) if is_in else data)

        def transfer() -> int:
            count: int = backend().ctrl_transfer(
                self._handle,
                request.bmRequestType,
                request.bRequest,
                request.wValue,
                request.wIndex,
                buffer,
                timeout_ms,
            )
            return count

        try:
            with self._controls:
                self.check()
                is_asleep, self._is_asleep = self._is_asleep, False
                count = self._twice(transfer) if is_asleep else transfer()
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


def _close_all() -> None:
    """Python ends: no interface stays claimed."""
    for transport in living():
        if isinstance(transport, UsbTransport):
            try:
                transport.close()
            except Exception:
                logger.exception("%s cannot be closed", transport.name)


_close_at_end = Once(lambda: at_exit.add(_close_all))
