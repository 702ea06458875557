"""The transport to a virtual reader in this process."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ccid.codec.descriptors import ClassControl, EndpointDescriptor
from ccid.codec.descriptors.standard import DescriptorType
from ccid.codes import DIRECTION_IN, ENGLISH_US
from ccid.errors import (
    CcidError,
    ReaderBusy,
    ReaderForked,
    ReaderUnsupported,
    TransportError,
    TransportStall,
    TransportTimeout,
)
from ccid.ground.mailbox import Mailbox
from ccid.ground.signal_safe_locks import new_rlock
from ccid.transport import (
    IN_CAPACITY,
    OUT_CAPACITY,
    ReaderInfo,
    nothing_to_end,
    tell_first,
)
from ccid.transport.lifetime import Life
from ccid.transport.separate_transfers import SeparateTransfers
from ccid.virtual.port import LONGEST_S, Port, Unplugged, WasReset
from ccid.virtual.usb_device import Request, Stall

TOLD_S = 2.0
"""How long that may take: an interruption may have ended the thread that tells of a reset."""


class VirtualTransport(SeparateTransfers, Life):
    """An open interface of a virtual device: a :class:`ccid.transport.Transport`.

    Raises:
        ReaderBusy: The interface is open already.
    """

    def __init__(self, port: Port, info: ReaderInfo) -> None:
        super().__init__(info.name)
        self.port = port
        self.info = info
        self._events = new_rlock()
        self._inbox: deque[bytes] = deque()
        self._came: list[Mailbox[None]] = []
        """One queue for each thread that waits for events; an item wakes the thread. Not a
        :class:`threading.Event`: a signal handler that raises may leave its lock held."""
        self._tell: Callable[[bytes], None] | None = None
        """Takes each notification; None before :meth:`listen`."""
        self.out = memoryview(bytearray(OUT_CAPACITY))
        self.inp = memoryview(bytearray(IN_CAPACITY))
        self._out_endpoint = self._in_endpoint = 0
        if not info.reader.is_iccd:
            self._out_endpoint = self._address(info.reader.bulk_out)
            self._in_endpoint = self._address(info.reader.bulk_in)
        interrupt = info.reader.interrupt_in
        self._event_endpoint = interrupt.bEndpointAddress if interrupt else 0
        self._event_size = interrupt.max_packet_size if interrupt else 0
        self._resets_told = port.resets
        """How many resets the reader knows of."""
        inp = info.reader.bulk_in
        self.packet_size = (inp.max_packet_size if inp else 0) or 64
        try:
            self._claim()
        except BaseException:
            self._unclaim()
            raise

    def _claim(self) -> None:
        """Claim the interface. A transport that was garbage-collected has no claim any more."""
        claims, number = self.port.claims, self.info.interface_number
        with self.port.changed:
            holder = claims.get(number)
            if holder is None or holder() is None:
                claims[number] = weakref.ref(self)
                return
        raise ReaderBusy(
            f"{self.name} is open already",
            holder="this process",
            cure="close the other ccid.Reader first",
            reader=self.name,
        )

    def _unclaim(self) -> None:
        """Release the interface, if this transport has the claim."""
        claims, number = self.port.claims, self.info.interface_number
        with self.port.changed:
            holder = claims.get(number)
            if holder is not None and holder() is self:
                del claims[number]

    def _address(self, endpoint: EndpointDescriptor | None) -> int:
        if endpoint is None:
            raise ReaderUnsupported(f"{self.name} has no bulk endpoints", reader=self.name)
        return endpoint.bEndpointAddress

    def send(self, length: int, timeout_ms: int, /) -> None:
        self.check()
        try:
            self.port.out(self._out_endpoint, self.out[:length].tobytes())
        except Stall:
            raise self._stalled(self._out_endpoint) from None
        except Unplugged:
            raise self.removed() from None

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        self.check()
        try:
            came = self.port.receive(self._in_endpoint, size, timeout_ms / 1000)
        except TimeoutError:
            raise TransportTimeout(f"{self.name}: nothing came", reader=self.name) from None
        except Stall:
            raise self._stalled(self._in_endpoint) from None
        except WasReset:
            self._await_told()
            raise self.reset_or_dead() from None
        except Unplugged:
            raise self.removed() from None
        got = len(came)
        self.inp[offset : offset + got] = came
        return got

    # Resets -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """The device was reset: the reader is open again at once."""
        try:
            if self._tell_reset is None:
                self.removed()
            else:
                self._open_again(self._tell_reset, self.info)
        finally:
            self._reset_was_told()

    def returned(self, info: ReaderInfo) -> None:
        """The device left, and came back as ``info``."""
        try:
            if self._tell_reset is None or self._returns is None:
                self._unclaim()
                self.removed()
                return
            with self._returns(info):
                self._open_again(self._tell_reset, info)
        finally:
            self._reset_was_told()

    def _reset_was_told(self) -> None:
        self._resets_told = self.port.resets
        if self._tell is not None:
            self._look()

    def _await_told(self) -> None:
        """Wait until the reader knows of the reset, and so that its cards are reset. The thread
        that resets the device tells that, after it has woken those who wait for the device."""
        until = time.monotonic() + TOLD_S
        while self._resets_told != self.port.resets and time.monotonic() < until:
            time.sleep(0.001)

    def _open_again(self, tell: Callable[[ReaderInfo], None], info: ReaderInfo) -> None:
        self.info = info
        with self._events:  # another thread may be telling of the first one
            self._inbox.clear()
        # A command is perhaps under way, between its two transfers: no reply to it will come.
        self.__dict__.update(send=self._send_anew, receive=self._receive_no_more)
        tell(info)

    def _send_anew(self, length: int, timeout_ms: int, /) -> None:
        """The first :meth:`send` after a reset."""
        for name in ("send", "receive"):
            self.__dict__.pop(name, None)
        self.send(length, timeout_ms)

    def _receive_no_more(self, offset: int, size: int, timeout_ms: int, /) -> int:
        """:meth:`receive` of what was sent before a reset."""
        self.check()
        raise self.reset_or_dead()

    # Notifications ----------------------------------------------------------------------------

    def listen(self, tell: Callable[[bytes], None]) -> None:
        if not self._event_endpoint:
            return
        self.check()
        self._tell = tell
        self.when_dead(self._no_more_events)
        self.port.armed.append(self._look)
        if self.dead is not None:  # the transport died since the check above
            self._no_more_events(self.dead)

    def take_events(self, wait_ms: int = 0, /) -> None:
        tell, number, inbox = self._tell, self._event_endpoint, self._inbox
        if tell is None or self.dead is not None:
            return
        try:
            if wait_ms:
                self.port.wait(number, wait_ms / 1000, self._has_events)
            if not self.port.device.pipe(number).is_silent:
                self._complete()
        except Stall:
            self._stalled(number)
        except Unplugged:
            self.removed()
        if inbox:
            with self._events:
                while inbox:
                    tell_first(inbox, tell)

    def _has_events(self) -> bool:
        return len(self._inbox) > 0

    def _complete(self) -> None:
        """Complete the interrupt transfer as often as the device has a notification."""
        while self.dead is None:
            with self.port.changed:  # several threads do this: the order is that of the device
                if self._resets_told != self.port.resets:
                    return  # what it says since the reset comes after the reset
                message = self.port.poll(self._event_endpoint, self._event_size)
                if message is None:
                    return
                self._inbox.append(message)

    def _look(self) -> None:
        """The device may have a notification."""
        if self.port.device.pipe(self._event_endpoint).is_silent:
            if self._inbox or self.port.device.is_unplugged:
                self._wake()
            return
        with suppress(Stall, Unplugged):  # take_events meets the same error
            self._complete()
        self._wake()  # a message is here, or comes later

    def _no_more_events(self, reason: CcidError) -> None:
        self._tell = None
        with suppress(ValueError):  # removed before
            self.port.armed.remove(self._look)
        if not isinstance(reason, ReaderForked):  # the state of the parent's lock is unknown
            self._wake()

    def _wake(self) -> None:
        for came in tuple(self._came):
            if came.empty():
                came.put(None)

    def attend(self) -> Callable[[], None]:
        number = self._event_endpoint
        if not number:
            return nothing_to_end
        ended, device, came = False, self.port.device, Mailbox[None]()
        came.put(None)  # a message may be there already
        self._came.append(came)

        def wait() -> None:
            while not ended and self.dead is None:
                with self.port.changed:  # another thread may take the message
                    due = device.next_due(number)
                wait_s = LONGEST_S if due is None else max(0.0, due - self.port.now())
                with suppress(queue.Empty):
                    came.get(timeout=min(wait_s, LONGEST_S))
                self.take_events()
                if device.is_unplugged:
                    self.removed()

        thread = threading.Thread(target=wait, name=f"events of {self.name}", daemon=True)

        def end() -> None:
            nonlocal ended
            ended = True
            came.put(None)
            with suppress(ValueError):  # removed before
                self._came.remove(came)
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join()

        try:
            thread.start()
        except RuntimeError as error:
            end()
            raise TransportError(
                f"{self.name}: no thread can be started that waits for events: {error}",
                reader=self.name,
            ) from None
        except BaseException:
            end()
            raise
        return end

    def control(self, request: ClassControl, timeout_ms: int = 0, data: bytes = b"") -> bytes:
        self.check()
        try:
            return self.port.control(request, data)
        except Stall:
            raise TransportStall(
                f"{self.name} refuses request 0x{request.bRequest:02X}", reader=self.name
            ) from None
        except Unplugged:
            raise self.removed() from None

    def _stalled(self, endpoint: int) -> CcidError:
        """Clear the halt, as a host does; return TransportStall, or a removed reader's error."""
        try:
            self.port.control(ClassControl(0x02, Request.CLEAR_FEATURE, 0, endpoint))
        except Unplugged:
            return self.removed()
        return TransportStall(f"{self.name} halted endpoint 0x{endpoint:02X}", reader=self.name)

    def string(self, index: int) -> str | None:
        """A string descriptor, None for index 0."""
        if not index:
            return None
        wValue = DescriptorType.STRING << 8 | index & 0xFF
        descriptor = self.control(
            ClassControl(DIRECTION_IN, Request.GET_DESCRIPTOR, wValue, ENGLISH_US, 255)
        )
        return descriptor[2:].decode("utf-16-le", "replace")

    def close(self) -> None:
        self._unclaim()
        self.closed()
