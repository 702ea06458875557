"""An interface of a virtual device that is not a smart-card reader, without a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ccid.codec.descriptors import ClassControl, InterfaceDescriptor
from ccid.codes import CLASS_VENDOR
from ccid.virtual.usb_device import EndpointPlan, InPipe, Stall


class OtherInterface:
    """A placeholder for a keyboard, a serial port or the like of a real device: the interfaces
    after the placeholder have the numbers of the real device. The placeholder has no endpoints,
    and a class that no driver takes."""

    interface_number = 0
    is_unplugged = False
    bulk_in: InPipe | None = None
    interrupt_in: InPipe | None = None

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None

    def interface(self) -> tuple[InterfaceDescriptor, bytes, bytes]:
        """The interface descriptor, without other descriptors."""
        return InterfaceDescriptor(bInterfaceClass=CLASS_VENDOR), b"", b""

    def endpoints(self) -> Sequence[EndpointPlan]:
        """No endpoints."""
        return ()

    def bulk_out(self, data: bytes, now: float) -> None:
        """Raise Stall: there is no bulk-OUT endpoint."""
        raise Stall

    def control(self, request: ClassControl, data: bytes, now: float) -> bytes:
        """Raise Stall: there is no class-specific request."""
        raise Stall

    def reset(self, now: float) -> None:
        """Do nothing: the placeholder has no state."""
