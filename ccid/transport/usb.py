"""Readers on USB: opening and claiming, notifications, control requests, failures."""

from __future__ import annotations

import array
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ccid.codec.descriptors import ClassControl
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
    ReaderInfo,
    access_problems,
    libusb,
    linux,
    nothing_to_end,
    tell_first,
)
from ccid.transport.asynchronous import Interrupt, attendants
from ccid.transport.bulk import BulkPair
from ccid.transport.libusb import Status, backend, status_of, status_text, usb_errors
from ccid.transport.lifetime import living
from ccid.transport.stale_list import NodeHandle

FIRST_RETRY_S, LAST_RETRY_S = 0.02, 1.0
"""After a failed interrupt transfer: pauses before it is armed again, each twice the one before."""
GONE_S = 1.0
"""How long after an input/output error to look whether the device is gone. Hubs are asked four
times a second."""
MICROFRAME_S = 0.000125
FRESH_S = 0.0005
"""So long after a transfer ended, no command looks for notifications: that transfer has
fetched them, and the next one fetches what came since."""
INTERVAL_MORE_S = 0.02
"""A notification is fetched so long after its time at the latest."""
LINUX = sys.platform.startswith("linux")

logger = logging.getLogger("ccid.transport")


def _open(device: Any) -> Any:
    """A handle on a device of libusb's list, or of which there is only the path of its node."""
    return NodeHandle(device) if isinstance(device, Path) else backend().open_device(device)


def _close(handle: Any) -> None:
    if isinstance(handle, NodeHandle):
        handle.close()
    else:
        backend().close_device(handle)


class UsbTransport(BulkPair):
    """An open interface on USB: a :class:`ccid.transport.Transport`.

    Args:
        device: pyusb's device, or the path of its node.
        info: The reader.

    Raises:
        AccessDenied, ReaderBusy, ReaderRemoved, TransportError.
    """

    def __init__(self, device: Any, info: ReaderInfo) -> None:
        super().__init__(info)
        self._handle: Any = None
        self._driver_detached = False
        self._events, self._controls = threading.RLock(), threading.Lock()
        self._interrupt: Interrupt | None = None
        self._retry_s, self._retry_at = FIRST_RETRY_S, 0.0
        self._longest_rest_s = self._interval_s() + INTERVAL_MORE_S
        self._taken_at = 0.0
        self._is_asleep = info.reader.is_iccd
        """No request was made yet of a device that has but the control pipe: it may sleep."""
        try:
            self._handle = self._twice(lambda: _open(device))
        except Exception as error:
            raise self._open_error(error) from None
        try:
            self._claim()
            self._open_bulk(self._handle.handle.value)
        except BaseException:
            handle, self._handle = self._handle, None
            _close(handle)
            raise
        _close_at_end()

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
            case Status.NO_DEVICE | Status.IO if access_problems.is_denied(self.info):
                return access_problems.access_denied(self.info)
            case Status.NO_DEVICE | Status.NOT_FOUND:
                return self.removed()
        return TransportError(
            f"{self.name} cannot be opened: {status_text(status)}", reader=self.name
        )

    def _twice(self, do: Callable[[], Any]) -> Any:
        """Call ``do``; once more after an input/output error. The first request to a device that
        slept (autosuspend) may fail so."""
        try:
            return do()
        except Exception as error:
            if status_of(error) != Status.IO or self._has_no_node():
                raise
            logger.info("%s: an input/output error on opening; once more", self.name)
            return do()

    def _claim(self) -> None:
        """Configure the device if it is not, detach a kernel driver, claim the interface."""
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
            told = self._open_error(error)  # while the holder can still be seen
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
        """Set the reader's configuration if none is set, and never replace another: other programs
        may use the active one, and setting even the same one resets the device. Returns the active
        one."""
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
        ended = self._end_bulk()
        if interrupt is not None:
            ended = interrupt.end() and ended
        if not ended:
            logger.error("%s: a transfer does not end; its handle stays open", self.name)
            self._handle = self._interrupt = None
            return
        self._interrupt = None
        with suppress(*usb_errors()):
            backend().release_interface(handle, self.info.interface_number)
        self._give_back(handle)
        self._handle = None  # before closing: a handle that is closed twice is freed twice
        _close(handle)

    def _give_back(self, handle: Any) -> None:
        """Give the interface back to the kernel driver it was taken from."""
        if self._driver_detached:
            self._driver_detached = False
            with suppress(*usb_errors()):
                backend().attach_kernel_driver(handle, self.info.interface_number)

    # Failures ---------------------------------------------------------------------------------

    def _fail(self, status: int, endpoint: int) -> NoReturn:
        """Raise what a failed transfer means; a halt is cleared first."""
        match status:
            case Status.TIMEOUT:
                raise TransportTimeout(f"{self.name}: nothing came or went", reader=self.name)
            case Status.NO_DEVICE:
                raise self.removed()
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
            self._tell, self._taken_at = tell, time.monotonic()
            self._interrupt = interrupt
            interrupt.arm()

    def take_events(self, wait_ms: int = 0, /) -> None:
        interrupt = self._interrupt
        if interrupt is None or self.dead is not None:
            return
        if attendants.thread is not None:
            attendants.make_way()
        now = time.monotonic()
        is_fresh = now - self._handled_at < FRESH_S
        if is_fresh and not wait_ms and interrupt.is_armed and not interrupt.inbox:
            self._taken_at = now
            return
        self._rounds.handle(wait_ms / 1000)
        now = time.monotonic()
        rested_s, self._taken_at = now - self._taken_at, now
        if interrupt.inbox or not interrupt.is_armed:
            came = len(interrupt.inbox) > 0
            self._deliver()
            if came and rested_s > self._longest_rest_s:  # the reader may have more to say
                self._take_more(interrupt)
        if attendants.came:
            attendants.take()

    def _take_more(self, interrupt: Interrupt) -> None:
        """Wait, for the polling interval, for the notification that the reader may have held back
        while no transfer waited for it."""
        until = self._taken_at + self._longest_rest_s
        while not interrupt.inbox and interrupt.is_armed:
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            self._rounds.handle(left_s)
        self._deliver()

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

        transfer = partial(
            backend().ctrl_transfer,
            self._handle,
            request.bmRequestType,
            request.bRequest,
            request.wValue,
            request.wIndex,
            buffer,
            timeout_ms,
        )
        thread = threading.get_ident()
        try:
            attendants.under_way.add(thread)
            with self._controls:
                self.check()
                is_asleep, self._is_asleep = self._is_asleep, False
                count: int = self._twice(transfer) if is_asleep else transfer()
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
            attendants.under_way.discard(thread)
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


@Once
def _close_at_end() -> None:
    at_exit.add(_close_all)
