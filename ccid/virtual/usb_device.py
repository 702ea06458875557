"""A USB device without hardware: USB 2.0 chapter 9 and the endpoints, pure.

A :class:`UsbDevice` has functions, one for each interface; a CCID reader is a function. The caller
passes time in, seconds of any monotonic clock; nothing in this module waits. The code at the edge,
in this process (:mod:`ccid.virtual.virtual_transport`) or over USB/IP (:mod:`ccid.virtual.usbip`),
asks :meth:`next_due` when to look again.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from ccid.codec.descriptors import (
    ClassControl,
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
)
from ccid.codec.descriptors.standard import DescriptorType, TransferType
from ccid.codes import ENGLISH_US

MAX_STRING_BYTES = 252
"""The longest text of a string descriptor, bytes: bLength is one byte (USB 2.0, 9.6.7)."""


class Request(IntEnum):
    """bRequest of the standard requests (USB 2.0, table 9-4)."""

    GET_STATUS = 0x00
    CLEAR_FEATURE = 0x01
    SET_FEATURE = 0x03
    SET_ADDRESS = 0x05
    GET_DESCRIPTOR = 0x06
    GET_CONFIGURATION = 0x08
    SET_CONFIGURATION = 0x09
    GET_INTERFACE = 0x0A
    SET_INTERFACE = 0x0B


class To(IntEnum):
    """Recipient, bits 0 to 4 of bmRequestType (USB 2.0, table 9-2)."""

    DEVICE = 0
    INTERFACE = 1
    ENDPOINT = 2


class Stall(Exception):
    """The device answers with a STALL handshake."""


class InPipe:
    """The messages of a device for an IN endpoint, each with the time from which it is available.

    Args:
        packet_size: wMaxPacketSize.
    """

    def __init__(self, packet_size: int) -> None:
        self.packet_size = packet_size
        self.halted = False
        self.ends_full_packets = True
        """An empty packet ends a message whose last packet is full, as USB 2.0 demands."""
        self._endless: Iterator[tuple[bytes, float]] | None = None
        self._is_open = False
        self._queue: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        self._current: bytes | None = None
        self._empty_packet = False

    def push(self, message: bytes, due: float) -> None:
        """Make ``message`` available from time ``due``."""
        heapq.heappush(self._queue, (due, next(self._order), message))

    def drop_all(self) -> None:
        """Drop all messages."""
        self._endless, self._is_open = None, False
        self._queue.clear()
        self._current = None

    def go_on(self, messages: Iterator[tuple[bytes, float]], is_open: bool = False) -> None:
        """Have messages without end instead of those that are there.

        Args:
            messages: The messages, each with the time from which it is available. One is taken when
                the host has fetched the one before.
            is_open: No empty packet ends one whose last packet is full: they are one transfer.
        """
        self.drop_all()
        self._endless, self._is_open = messages, is_open

    def stop(self) -> None:
        """End what :meth:`go_on` began."""
        if self._endless is not None:
            self.drop_all()

    @property
    def is_endless(self) -> bool:
        """True from :meth:`go_on` on."""
        return self._endless is not None

    def _is_there(self) -> bool:
        """True if there is a message, now or later."""
        if not self._queue and self._endless is not None:
            self.push(*next(self._endless))
        return bool(self._queue)

    def drop_if(self, unwanted: Callable[[bytes], bool]) -> list[bytes]:
        """Drop the messages for which ``unwanted`` is true; return them in their order."""
        dropped = [entry for entry in self._queue if unwanted(entry[2])]
        self._queue = [entry for entry in self._queue if not unwanted(entry[2])]
        heapq.heapify(self._queue)
        return [entry[2] for entry in sorted(dropped)]

    @property
    def is_silent(self) -> bool:
        """True if there is no message, now or later."""
        return self._current is None and not self._queue and self._endless is None

    def next_due(self) -> float | None:
        """When the next message is available; None without a message."""
        if self._current is not None:
            return 0.0
        return self._queue[0][0] if self._is_there() else None

    def pull(self, size: int, now: float) -> tuple[bytes, bool] | None:
        """The bytes for a transfer of ``size`` bytes; None if no message is available yet.

        Returns:
            The bytes, and True if the transfer is over: ``size`` is reached, or a packet was not
            full. The transfer stays open after a message of full packets without an empty packet.
        """
        if self._current is None:
            if not self._is_there() or self._queue[0][0] > now:
                return None
            message = heapq.heappop(self._queue)[2]
            length = len(message)
            full = length % self.packet_size == 0
            if length < size and not full:
                return message, True
            self._current = message
            self._empty_packet = (
                full and length > 0 and self.ends_full_packets and not self._is_open
            )
        part, rest = self._current[:size], self._current[size:]
        at_end = not rest
        filled = len(part) == size
        if at_end and not (filled and self._empty_packet):
            self._current = None
        else:
            self._current = rest
        short = len(part) % self.packet_size != 0 or part == b""
        return part, filled or short or self._empty_packet


@dataclass(frozen=True, slots=True)
class EndpointPlan:
    """An endpoint that a function needs: transfer type, direction, packet size, interval."""

    transfer_type: TransferType
    is_in: bool
    wMaxPacketSize: int
    bInterval: int = 0


class Function(Protocol):
    """One interface of a device.

    Attributes:
        interface_number: bInterfaceNumber, set by the device.
        is_unplugged: The device is unplugged.
        on_change: Called when the host should look for new messages.
    """

    interface_number: int
    is_unplugged: bool
    on_change: Callable[[], None]

    @property
    def bulk_in(self) -> InPipe | None:
        """The messages for bulk-IN; None without such an endpoint."""

    @property
    def interrupt_in(self) -> InPipe | None:
        """The messages for interrupt-IN; None without such an endpoint."""

    def interface(self) -> tuple[InterfaceDescriptor, bytes, bytes]:
        """The interface descriptor, the bytes after it, and the bytes after the last endpoint. The
        device fills in bInterfaceNumber and bNumEndpoints."""

    def endpoints(self) -> Sequence[EndpointPlan]:
        """The endpoints that the function needs, in the order of their descriptors."""

    def bulk_out(self, data: bytes, now: float) -> None:
        """Take one bulk-OUT transfer. Raises Stall."""

    def control(self, request: ClassControl, data: bytes, now: float) -> bytes:
        """Take a class-specific request. Raises Stall."""

    def reset(self, now: float) -> None:
        """Bus reset or SET_CONFIGURATION."""


class UsbDevice:
    """A USB device.

    Args:
        functions: The interfaces.
        idVendor, idProduct, bcdDevice: Identity of the device.
        manufacturer, product, serial: String descriptors; empty for none.
        bcdUSB, bMaxPacketSize0: Fields of the device descriptor.
    """

    def __init__(
        self,
        functions: Sequence[Function],
        *,
        idVendor: int,
        idProduct: int,
        bcdDevice: int = 0x0100,
        manufacturer: str = "",
        product: str = "",
        serial: str = "",
        bcdUSB: int = 0x0200,
        bMaxPacketSize0: int = 64,
    ) -> None:
        self.functions = tuple(functions)
        self.strings = [s for s in (manufacturer, product, serial) if s]
        for number, function in enumerate(self.functions):
            function.interface_number = number
        self.descriptor = DeviceDescriptor(
            bcdUSB=bcdUSB,
            bMaxPacketSize0=bMaxPacketSize0,
            idVendor=idVendor,
            idProduct=idProduct,
            bcdDevice=bcdDevice,
            iManufacturer=self._string(manufacturer),
            iProduct=self._string(product),
            iSerialNumber=self._string(serial),
        )
        self.bConfigurationValue = 0
        self._in: dict[int, InPipe] = {}
        self._out: dict[int, Function] = {}
        self._halted_out: set[int] = set()
        self.raw_configuration = self._configuration()

    def _string(self, text: str) -> int:
        return self.strings.index(text) + 1 if text else 0

    def _configuration(self) -> bytes:
        parts = []
        address = itertools.count(1)
        for function in self.functions:
            plans = function.endpoints()
            interface, behind, at_end = function.interface()
            endpoints = b""
            for plan in plans:
                endpoint = EndpointDescriptor(
                    bEndpointAddress=next(address) | plan.is_in << 7,
                    bmAttributes=plan.transfer_type,
                    wMaxPacketSize=plan.wMaxPacketSize,
                    bInterval=plan.bInterval,
                )
                endpoints += endpoint.build()
                self._connect(function, endpoint)
            own = bytearray(interface.build())
            own[2], own[4] = function.interface_number, len(plans)
            parts.append(bytes(own) + behind + endpoints + at_end)
        body = b"".join(parts)
        head = ConfigurationDescriptor(
            wTotalLength=9 + len(body), bNumInterfaces=len(self.functions)
        )
        return head.build() + body

    def _connect(self, function: Function, endpoint: EndpointDescriptor) -> None:
        pipe = function.bulk_in
        if endpoint.transfer_type is TransferType.INTERRUPT:
            pipe = function.interrupt_in
        if not endpoint.is_in:
            self._out[endpoint.bEndpointAddress] = function
        elif pipe is not None:
            self._in[endpoint.bEndpointAddress] = pipe

    @property
    def is_unplugged(self) -> bool:
        """True if the device is unplugged."""
        for function in self.functions:  # noqa: SIM110 - at every transfer: any() takes thrice that
            if function.is_unplugged:
                return True
        return False

    # Endpoints --------------------------------------------------------------------------------

    def submit_out(self, endpoint: int, data: bytes, now: float) -> None:
        """One OUT transfer. Raises Stall for a halted or unknown endpoint."""
        function = self._out.get(endpoint)
        if function is None or endpoint in self._halted_out:
            raise Stall
        try:
            function.bulk_out(data, now)
        except Stall:
            self._halted_out.add(endpoint)
            raise

    def submit_in(self, endpoint: int, size: int, now: float) -> tuple[bytes, bool] | None:
        """One IN transfer, as :meth:`InPipe.pull`. Raises Stall."""
        pipe = self._in.get(endpoint)
        if pipe is None or pipe.halted:
            raise Stall
        return pipe.pull(size, now)

    def pipe(self, endpoint: int) -> InPipe:
        """The messages for an IN endpoint."""
        return self._in[endpoint]

    def next_due(self, endpoint: int | None = None) -> float | None:
        """When an IN endpoint has its next message; None without a message.

        Without ``endpoint``: the earliest of all IN endpoints.
        """
        pipes = self._in.values() if endpoint is None else [self._in[endpoint]]
        times = [due for pipe in pipes if (due := pipe.next_due()) is not None]
        return min(times, default=None)

    # The control pipe -------------------------------------------------------------------------

    def control(self, request: ClassControl, data: bytes, now: float) -> bytes:
        """A request on the default control pipe (USB 2.0, 9.3 and 9.4). Raises Stall."""
        kind, recipient = request.bmRequestType >> 5 & 3, request.bmRequestType & 0x1F
        if kind == 0:
            return self._standard(request, recipient, now)[: request.wLength]
        number = request.wIndex & 0xFF
        if kind == 1 and recipient == To.INTERFACE and number < len(self.functions):
            return self.functions[number].control(request, data, now)[: request.wLength]
        raise Stall

    def _standard(self, request: ClassControl, recipient: int, now: float) -> bytes:
        match request.bRequest, recipient:
            case Request.GET_DESCRIPTOR, To.DEVICE:
                return self._get_descriptor(request.wValue)
            case Request.GET_STATUS, To.DEVICE | To.INTERFACE:
                return b"\0\0"
            case Request.GET_STATUS, To.ENDPOINT:
                return bytes((self._is_halted(request.wIndex), 0))
            case Request.CLEAR_FEATURE, To.ENDPOINT:
                self._set_halted(request.wIndex, False)
                return b""
            case Request.SET_FEATURE, To.ENDPOINT:
                self._set_halted(request.wIndex, True)
                return b""
            case Request.GET_CONFIGURATION, To.DEVICE:
                return bytes((self.bConfigurationValue,))
            case Request.SET_CONFIGURATION, To.DEVICE:
                self.reset(now)
                self.bConfigurationValue = request.wValue & 0xFF
                return b""
            case Request.SET_ADDRESS | Request.CLEAR_FEATURE | Request.SET_FEATURE, To.DEVICE:
                return b""
            case Request.GET_INTERFACE, To.INTERFACE:
                return b"\0"
            case Request.SET_INTERFACE, To.INTERFACE if request.wValue == 0:
                return b""
        raise Stall

    def _get_descriptor(self, wValue: int) -> bytes:
        kind, index = wValue >> 8, wValue & 0xFF
        match kind:
            case DescriptorType.DEVICE:
                return self.descriptor.build()
            case DescriptorType.CONFIGURATION if index == 0:
                return self.raw_configuration
            case DescriptorType.STRING if index == 0:
                return bytes((4, DescriptorType.STRING)) + ENGLISH_US.to_bytes(2, "little")
            case DescriptorType.STRING if index <= len(self.strings):
                text = self.strings[index - 1].encode("utf-16-le", "surrogatepass")
                text = text[:MAX_STRING_BYTES]
                return bytes((2 + len(text), DescriptorType.STRING)) + text
        raise Stall

    def _is_halted(self, endpoint: int) -> bool:
        if endpoint in self._in:
            return self._in[endpoint].halted
        return endpoint in self._halted_out

    def _set_halted(self, endpoint: int, halted: bool) -> None:
        if endpoint in self._in:
            self._in[endpoint].halted = halted
        elif not halted:
            self._halted_out.discard(endpoint)
        else:
            self._halted_out.add(endpoint)

    def reset(self, now: float) -> None:
        """Bus reset or SET_CONFIGURATION: clear all halts and drop all messages."""
        self.bConfigurationValue = 0
        self._halted_out.clear()
        for pipe in self._in.values():
            pipe.halted = False
        for function in self.functions:
            function.reset(now)
