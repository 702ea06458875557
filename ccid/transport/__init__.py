"""Transports: bytes to a reader on USB, or to a virtual reader in this process.

The rooms above use a :class:`Transport`; ``usb`` and ``virtual`` implement it,
:class:`ccid.trace.Tap` wraps one. A :class:`ReaderInfo` describes a reader that is not opened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import field
from typing import Protocol

from ccid.codec.descriptors import (
    ClassControl,
    ConfigurationDescriptor,
    DeviceDescriptor,
    SmartCardDescriptor,
    SmartCardInterface,
)
from ccid.errors import CcidError
from ccid.ground.records import record
from ccid.ground.safe_text import printable
from ccid.known.quirks import Quirks, lookup

OUT_CAPACITY = 10 + 65556
"""Bytes of the longest message sent: a header and the longest extended APDU, with room."""
IN_CAPACITY = 128 * 1024
"""Bytes of the longest message received, and whole packets of any size beyond it."""


def nothing_to_end() -> None:
    """Ends the wait for events where none can come."""


def tell_first(inbox: deque[bytes], tell: Callable[[bytes], None]) -> None:
    """Take the first message out of ``inbox`` once ``tell`` was called with it. If a signal handler
    raises in between, it is told again: twice is better than not at all."""
    try:
        tell(inbox[0])
    except Exception:
        inbox.popleft()
        raise
    inbox.popleft()


Returns = Callable[["ReaderInfo"], AbstractContextManager[None]]
"""A context in which a reader that left USB, and came back as this, is opened again."""


class Transport(Protocol):
    """An open CCID interface. One thread at a time sends, one at a time receives.

    The caller builds the next message in ``out``, and received bytes land in ``inp``: the path of
    every APDU allocates no buffer.

    Attributes:
        out: Where the next message is built.
        inp: Where received bytes land.
        packet_size: Bytes of a full bulk-IN packet; a shorter one ends a transfer.
    """

    out: memoryview
    inp: memoryview
    packet_size: int

    @property
    def dead(self) -> CcidError | None:
        """Why it can do no more; None while it can."""

    def exchange(self, length: int, size: int, write_ms: int, wait_ms: int, /) -> int:
        """Send a command and receive the first transfer of its reply: :meth:`send` and
        :meth:`wait` in one, with both transfers under way at once where that is possible.

        Args:
            length: Bytes of ``out`` to send.
            size: Bytes to receive into ``inp`` at most, whole packets.
            write_ms: Milliseconds that sending may take.
            wait_ms: Milliseconds to wait for the reply after that.

        Returns:
            The bytes received; 0 for an empty packet, or if nothing came in time. A reply that has
            not come goes on waiting: call :meth:`wait`.

        Raises:
            As :meth:`send`; TransportTimeout only if the command was not sent.
        """

    def expect(self, size: int, /) -> None:
        """Have the transfer for a reply wait at the reader already, where that is possible, before
        the command is sent. The next :meth:`wait` for ``size`` bytes is that transfer.

        Raises:
            As :meth:`send`, but no TransportTimeout.
        """

    def wait(self, size: int, wait_ms: int, /) -> int:
        """Wait for a reply, or go on waiting for it, as :meth:`exchange` does.

        Raises:
            As :meth:`send`, but no TransportTimeout.
        """

    def send(self, length: int, timeout_ms: int, /) -> None:
        """Send the first ``length`` bytes of ``out`` as one bulk-OUT transfer.

        Raises:
            ReaderRemoved, ReaderClosed, ReaderForked, ReaderReset (:meth:`on_reset`),
            TransportTimeout, TransportStall (the halt is cleared), TransportError.
        """

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        """Receive one bulk-IN transfer into ``inp`` at ``offset``, ``size`` bytes at most. One that
        :meth:`exchange` or :meth:`wait` has left waiting at ``offset`` is that transfer. It ends
        here.

        Returns:
            The bytes received, fewer than asked if the time ran out in between.

        Raises:
            As :meth:`send`; TransportTimeout only if not a byte came.
        """

    def listen(self, tell: Callable[[bytes], None]) -> None:
        """Have an interrupt-IN transfer wait from now on, always. ``tell`` is called with each
        notification: by :meth:`take_events`, or see :meth:`attend`. Without such an endpoint it is
        never called. ``tell`` must not call this transport."""

    def take_events(self, wait_ms: int = 0, /) -> None:
        """Pass on the notifications that came. Does nothing for a reader that is gone.

        Args:
            wait_ms: How long to wait for something to come; 0 for not at all.
        """

    def attend(self) -> Callable[[], None]:
        """Have notifications passed on as soon as they come, from a thread of its own, and the end
        of the reader too (:meth:`when_dead`). Returns a function that ends this at once."""

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        """Send a class-specific request, with ``data`` to the reader or none, and return the bytes
        that the reader sent.

        Raises:
            As :meth:`send`; TransportStall if the reader refuses it.
        """

    def close(self) -> None:
        """Give the interface back. Never raises for a reader that is gone."""

    def when_dead(self, tell: Callable[[CcidError], None]) -> None:
        """Have ``tell`` called with the reason as soon as this transport can do no more: it was
        closed, or this process is a fork of the one that opened it."""

    def on_reset(self, tell: Callable[[ReaderInfo], None], returns: Returns | None = None) -> None:
        """Have the interface opened again by itself if the device is reset, loses its power or
        leaves USB for a moment. Without this, that is the end of the transport.

        Args:
            tell: Called, before any other transfer, with the reader as it is now. What was under
                way raises ReaderReset.
            returns: Entered while a device that left USB is opened at its new address; None not to
                wait for one that left.
        """

    def is_away(self) -> bool:
        """The device is not there, and may be opened again yet."""


@record
class ReaderInfo:
    """A reader that is there, not opened.

    Its name and strings are printable, whatever the device says
    (:func:`ccid.ground.safe_text.printable`).

    Attributes:
        name: For people: the table's name, or what the device calls itself.
        path: Where it is: ``usb:1-2:1.0`` (bus, ports, configuration, interface) or
            ``virtual:…``. Stays the same as long as it stays plugged in.
        device: Its device descriptor.
        configuration: The configuration descriptor that it is part of.
        reader: Its interface, endpoints and class descriptor.
        bus: USB bus number.
        address: USB device address.
        speed: ``low``, ``full``, ``high``, ``super``, or empty.
        manufacturer, product, serial, interface_name: The device's strings, None where the
            system does not tell them without opening it.
        siblings: How many readers its device has, itself included.
        raw_configuration: All bytes of the configuration.
        model: The name that all readers like it have; ``name`` may have its interface, its serial
            number or its place behind that, to tell it from others that are there.
        connect: Opens it; :func:`ccid.open_reader` calls this.
    """

    name: str
    path: str
    device: DeviceDescriptor
    configuration: ConfigurationDescriptor
    reader: SmartCardInterface
    connect: Callable[[ReaderInfo], Transport] = field(repr=False, compare=False)
    bus: int = 0
    address: int = 0
    speed: str = ""
    manufacturer: str | None = None
    product: str | None = None
    serial: str | None = None
    interface_name: str | None = None
    siblings: int = 1
    raw_configuration: bytes = field(default=b"", repr=False)
    model: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            object.__setattr__(self, "model", self.name)
        for string in ("name", "model", "manufacturer", "product", "serial", "interface_name"):
            text = getattr(self, string)
            if text is not None and not text.isprintable():
                object.__setattr__(self, string, printable(text))

    @property
    def descriptor(self) -> SmartCardDescriptor:
        """The class descriptor."""
        return self.reader.smart_card

    @property
    def vendor_id(self) -> int:
        """idVendor."""
        return self.device.idVendor

    @property
    def product_id(self) -> int:
        """idProduct."""
        return self.device.idProduct

    @property
    def interface_number(self) -> int:
        """bInterfaceNumber."""
        return self.reader.interface.bInterfaceNumber

    @property
    def id(self) -> str:
        """``vvvv:pppp``, as lsusb writes it."""
        return f"{self.vendor_id:04x}:{self.product_id:04x}"

    def quirks(self, slot: int = 0) -> Quirks:
        """What the table of readers knows of this interface.

        Args:
            slot: bSlot: some quirks are those of one slot.

        Raises:
            ReaderTableError: The user's file is wrong.
        """
        release, interface = self.device.bcdDevice, self.interface_number
        return lookup(self.vendor_id, self.product_id, release, slot=slot, interface=interface)

    def __str__(self) -> str:
        return f"{self.name} ({self.id} at {self.path})"
