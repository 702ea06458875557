"""An interface of a virtual device that is no smart-card reader: it is there, and does nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ccid.codec.descriptors import ClassControl, InterfaceDescriptor
from ccid.codes import CLASS_VENDOR
from ccid.virtual.usb_device import EndpointPlan, InPipe, Stall


class OtherInterface:
    """A keyboard, a serial port or the like of a real device, so that the interfaces behind it
    have the numbers they have there. It has no endpoints and a class no driver wants."""

    interface_number = 0
    is_unplugged = False
    bulk_in: InPipe | None = None
    interrupt_in: InPipe | None = None

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None

    def interface(self) -> tuple[InterfaceDescriptor, bytes, bytes]:
        """Its interface descriptor, nothing behind it."""
        return InterfaceDescriptor(bInterfaceClass=CLASS_VENDOR), b"", b""

    def endpoints(self) -> Sequence[EndpointPlan]:
        """None."""
        return ()

    def bulk_out(self, data: bytes, now: float) -> None:
        """It has no such endpoint. Raises Stall."""
        raise Stall

    def control(self, request: ClassControl, data: bytes, now: float) -> bytes:
        """It knows no request. Raises Stall."""
        raise Stall

    def reset(self, now: float) -> None:
        """There is nothing to reset."""
