"""The transport to a virtual reader in this process."""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ccid.codec.descriptors import ClassControl, EndpointDescriptor
from ccid.codec.descriptors.standard import DescriptorType
from ccid.errors import (
    CcidError,
    ReaderBusy,
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
    no_events,
    nothing_to_end,
    tell_first,
)
from ccid.transport.lifetime import Life, refusal
from ccid.virtual.port import LONGEST_S, Port, Unplugged
from ccid.virtual.usb_device import Request, Stall


class VirtualTransport(Life):
    """An open interface of a virtual device: a :class:`ccid.transport.Transport`.

    Raises:
        ReaderBusy: The interface is open already.
    """

    send: Callable[[int, int], None]
    receive: Callable[[int, int, int], int]
    take_events: Callable[..., None]

    def __init__(self, port: Port, info: ReaderInfo) -> None:
        super().__init__(info.name)
        self.port = port
        self.info = info
        self._events = threading.RLock()
        self._inbox: deque[bytes] = deque()
        self._came: list[queue.SimpleQueue[None]] = []
        """One queue for each thread that waits for events; an item wakes the thread. Not a
        :class:`threading.Event`: a signal handler that raises may leave its lock held."""
        self.take_events = no_events
        self.out = memoryview(bytearray(OUT_CAPACITY))
        self.inp = memoryview(bytearray(IN_CAPACITY))
        if not info.reader.is_iccd:
            self.send = self._make_send(self._address(info.reader.bulk_out))
            self.receive = self._make_receive(self._address(info.reader.bulk_in))
        inp = info.reader.bulk_in
        self.packet_size = (inp.max_packet_size if inp else 0) or 64
        try:
            self._claim()
            self.when_dead(self._refuse_all)
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

    def _refuse_all(self, reason: CcidError) -> None:
        """Make :attr:`send` and :attr:`receive` raise ``reason`` from now on."""
        self.send = self.receive = refusal(reason)

    def _make_send(self, endpoint: int) -> Callable[[int, int], None]:
        submit, out = self.port.out, self.out

        def send(length: int, timeout_ms: int) -> None:
            try:
                submit(endpoint, out[:length].tobytes())
            except Stall:
                raise self._stalled(endpoint) from None
            except Unplugged:
                raise self.removed() from None

        return send

    def _make_receive(self, endpoint: int) -> Callable[[int, int, int], int]:
        take, inp = self.port.receive, self.inp

        def receive(offset: int, size: int, timeout_ms: int) -> int:
            try:
                came = take(endpoint, size, timeout_ms / 1000)
            except TimeoutError:
                raise TransportTimeout(f"{self.name}: nothing came", reader=self.name) from None
            except Stall:
                raise self._stalled(endpoint) from None
            except Unplugged:
                raise self.removed() from None
            got = len(came)
            inp[offset : offset + got] = came
            return got

        return receive

    def listen(self, tell: Callable[[bytes], None]) -> None:
        endpoint = self.info.reader.interrupt_in
        if endpoint is None:
            return
        self.check()
        number, size, port = endpoint.bEndpointAddress, endpoint.max_packet_size, self.port
        events, inbox = port.device.pipe(number), self._inbox

        def complete() -> None:
            while self.dead is None and (message := port.poll(number, size)) is not None:
                inbox.append(message)

        def take_events(wait_ms: int = 0, /) -> None:
            try:
                if wait_ms:
                    port.wait(number, wait_ms / 1000, lambda: bool(inbox))
                if not events.is_silent:
                    complete()
            except Stall:
                self._stalled(number)
            except Unplugged:
                self.removed()
            if inbox:
                with self._events:
                    while inbox:
                        tell_first(inbox, tell)

        self.take_events = take_events

        def look() -> None:
            if events.is_silent:
                if inbox or port.device.is_unplugged:
                    self._wake()
                return
            with suppress(Stall, Unplugged):  # take_events meets the same error
                complete()
            self._wake()  # a message is here, or comes later

        def no_more(reason: CcidError) -> None:
            self.take_events = no_events
            with suppress(ValueError):  # removed before
                port.armed.remove(look)
            if not isinstance(reason, ReaderForked):  # the state of the parent's lock is unknown
                self._wake()

        self.when_dead(no_more)
        port.armed.append(look)
        if self.dead is not None:  # the transport died since the check above
            no_more(self.dead)

    def _wake(self) -> None:
        for came in tuple(self._came):
            if came.empty():
                came.put(None)

    def attend(self) -> Callable[[], None]:
        endpoint = self.info.reader.interrupt_in
        if endpoint is None:
            return nothing_to_end
        number = endpoint.bEndpointAddress
        ended, device, came = False, self.port.device, queue.SimpleQueue[None]()
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
        descriptor = self.control(ClassControl(0x80, Request.GET_DESCRIPTOR, wValue, 0x0409, 255))
        return descriptor[2:].decode("utf-16-le", "replace")

    def close(self) -> None:
        self._unclaim()
        self.closed()
