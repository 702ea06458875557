"""A claim: a device that is open, and its interface that belongs to this process."""

from __future__ import annotations

import array
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from ccid.errors import CcidError, ReaderRemoved, ReaderUnsupported, TransportError
from ccid.transport import ReaderInfo, access_problems, libusb, linux
from ccid.transport.libusb import Status, backend, status_of, status_text, usb_errors

LINUX = sys.platform.startswith("linux")

logger = logging.getLogger("ccid.transport")


CHECK_MS = 1000
"""How long a device may take to answer after a reset."""
GET_STATUS = (0x81, 0x00, 0)
"""bmRequestType, bRequest, wValue of GET_STATUS of an interface (USB 2.0, 9.4.5)."""


def has_no_node(info: ReaderInfo) -> bool:
    """Linux has taken away the node of the reader's device. Where this process sees no nodes, bus
    is 0, and nothing tells."""
    return LINUX and info.bus > 0 and not os.path.exists(linux.node(info.bus, info.address))


class Claim:
    """Opens a device, configures it if it is not, detaches a kernel driver, claims the interface.

    Args:
        info: The reader.
        open_handle: Opens the device: pyusb's handle.
        configures: A device without a configuration is given the reader's.

    Attributes:
        handle: pyusb's handle; None before :meth:`take` and after :meth:`release`.
        has_configured: The device had no configuration, and was given the reader's.
    """

    def __init__(
        self, info: ReaderInfo, open_handle: Callable[[], Any], configures: bool = True
    ) -> None:
        self.info = info
        self.name = info.name
        self.handle: Any = None
        self.has_configured = False
        self._open_handle = open_handle
        self._configures = configures
        self._driver_detached = False

    def take(self) -> Self:
        """Open the device and claim the interface.

        Raises:
            AccessDenied, ReaderBusy, ReaderRemoved, ReaderUnsupported, TransportError.
        """
        try:
            self.handle = self.twice(self._open_handle)
            self._claim()
        except BaseException as error:
            told = self._told(error)  # while the holder can still be seen
            self._close()
            raise told from None
        return self

    @property
    def address(self) -> int:
        """Address of libusb's handle."""
        value: int = self.handle.handle.value
        return value

    def _told(self, error: BaseException) -> BaseException:
        """The error of this library for one of pyusb's."""
        if isinstance(error, CcidError) or not isinstance(error, Exception):
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
                return ReaderRemoved(f"{self.name} was unplugged", reader=self.name)
        return TransportError(
            f"{self.name} cannot be opened: {status_text(status)}", reader=self.name
        )

    def twice(self, do: Callable[[], Any]) -> Any:
        """Call ``do``; once more after an input/output error. The first request to a device that
        slept (autosuspend) may fail so."""
        try:
            return do()
        except Exception as error:
            if status_of(error) != Status.IO or has_no_node(self.info):
                raise
            logger.info("%s: an input/output error on opening; once more", self.name)
            return do()

    def _claim(self) -> None:
        number = self.info.interface_number
        active = self._configure()
        with suppress(NotImplementedError):  # only Linux and macOS have drivers to detach
            if backend().is_kernel_driver_active(self.handle, number):
                backend().detach_kernel_driver(self.handle, number)
                self._driver_detached = True
        try:
            self._claim_interface()
        except Exception as error:
            if active or not self._configures or status_of(error) != Status.NOT_FOUND:
                raise
            # "configuration 0" was not the one of that number, but none
            self._set_configuration()
            self._claim_interface()

    def _claim_interface(self) -> None:
        number = self.info.interface_number
        self.twice(lambda: backend().claim_interface(self.handle, number))

    def _configuration(self) -> int:
        """bConfigurationValue of the active configuration. 0 for none, and for one that has that
        number, against USB 2.0, 9.6.3."""
        value: int = self.twice(lambda: backend().get_configuration(self.handle))
        return value

    def _configure(self) -> int:
        """Set the reader's configuration if none is set, and never replace another: other programs
        may use the active one, and setting even the same one resets the device. Returns the active
        one."""
        wanted, active = self.info.configuration.bConfigurationValue, self._configuration()
        if active == wanted:
            return active
        if active == 0 and not self._configures:
            raise TransportError(f"{self.name} has no configuration", reader=self.name)
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
        self.twice(lambda: backend().set_configuration(self.handle, value))
        self.has_configured = True

    def renew(self) -> Self:
        """Claim the interface again, for a device that was reset and cannot be opened again.

        libusb may count the interface as claimed still, and does nothing then; but Linux claims an
        interface with the first request to it.

        Raises:
            ReaderBusy, ReaderRemoved, TransportError: The device is not ready.
        """
        number = self.info.interface_number
        self.let_go()
        try:
            backend().claim_interface(self.handle, number)
            answer = array.array("B", bytes(2))
            backend().ctrl_transfer(self.handle, *GET_STATUS, number, answer, CHECK_MS)
        except Exception as error:
            if status_of(error) != Status.PIPE:  # a device that does not know the request is there
                told = self._told(error)
                raise told from None
        return self

    # Its end ----------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Release the interface, and keep the device open. An interface whose claim was lost by a
        reset cannot be released: that is no error."""
        if self.handle is not None and not libusb.is_over():
            with suppress(*usb_errors()):
                backend().release_interface(self.handle, self.info.interface_number)

    def release(self) -> None:
        """Release the interface, give it back to the kernel driver it was taken from, and close the
        device. A second call has no effect."""
        self.let_go()
        self._close()

    def forget(self) -> None:
        """Keep the device open for good: a transfer does not end."""
        self.handle = None

    def _close(self) -> None:
        handle = self.handle
        if handle is None or libusb.is_over():  # and the handle with it
            self.handle = None
            return
        if self._driver_detached:
            self._driver_detached = False
            with suppress(*usb_errors()):
                backend().attach_kernel_driver(handle, self.info.interface_number)
        close = backend().close_device
        self.handle = None  # before closing: a handle that is closed twice is freed twice
        close(handle)

    def pass_driver_to(self, other: Claim) -> None:
        """``other`` is a later claim of the same interface, and gives it back to the kernel
        driver."""
        other._driver_detached |= self._driver_detached
        self._driver_detached = False
