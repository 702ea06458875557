"""The way to a virtual reader in this process."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ccid.descriptors import ClassControl, EndpointDescriptor
from ccid.descriptors.standard import DescriptorType
from ccid.errors import (
    CcidError,
    ReaderBusy,
    ReaderForked,
    ReaderUnsupported,
    TransportStall,
    TransportTimeout,
)
from ccid.transport import IN_CAPACITY, OUT_CAPACITY, ReaderInfo, no_events, nothing_to_end
from ccid.transport.life import Life, refusal
from ccid.virtual.port import Port, Unplugged
from ccid.virtual.usb import Request, Stall

_claimed: dict[tuple[int, int], object] = {}
"""By port and interface, what its holder put there."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_claimed.clear)  # those are the parent's


class VirtualTransport(Life):
    """An open interface of a virtual device: a :class:`ccid.transport.Transport`.

    Raises:
        ReaderBusy: It is open already.
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
        self._came: list[threading.Event] = []
        """For each who waits for events: he should look."""
        self.take_events = no_events
        self.out = memoryview(bytearray(OUT_CAPACITY))
        self.inp = memoryview(bytearray(IN_CAPACITY))
        if not info.reader.is_iccd:
            self.send = self._make_send(self._address(info.reader.bulk_out))
            self.receive = self._make_receive(self._address(info.reader.bulk_in))
        self.packet_size = info.reader.bulk_in.max_packet_size if info.reader.bulk_in else 64
        self._claim = (id(port), info.interface_number)
        mine = object()
        if _claimed.setdefault(self._claim, mine) is not mine:
            raise ReaderBusy(
                f"{info.name} is open already",
                holder="this process",
                cure="close the other ccid.Reader first",
                reader=info.name,
            )
        self._holds_claim = True
        self.when_dead(self._refuse_all)

    def _address(self, endpoint: EndpointDescriptor | None) -> int:
        if endpoint is None:
            raise ReaderUnsupported(f"{self.name} has no bulk endpoints", reader=self.name)
        return endpoint.bEndpointAddress

    def _refuse_all(self, reason: CcidError) -> None:
        """From now on nothing reaches the device."""
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
                        tell(inbox.popleft())

        self.take_events = take_events

        def look() -> None:
            if events.is_silent:
                if inbox or port.device.is_unplugged:
                    self._wake()
                return
            with suppress(Stall, Unplugged):  # take_events will see it
                complete()
            self._wake()  # it is here, or will be

        def no_more(reason: CcidError) -> None:
            self.take_events = no_events
            with suppress(ValueError):  # told twice
                port.armed.remove(look)
            if not isinstance(reason, ReaderForked):  # of the parent's lock nothing is known
                self._wake()

        port.armed.append(look)
        self.when_dead(no_more)

    def _wake(self) -> None:
        for came in tuple(self._came):
            came.set()

    def attend(self) -> Callable[[], None]:
        endpoint = self.info.reader.interrupt_in
        if endpoint is None:
            return nothing_to_end
        number = endpoint.bEndpointAddress
        ended, device, came = False, self.port.device, threading.Event()
        came.set()  # there may be something already
        self._came.append(came)

        def wait() -> None:
            while not ended and self.dead is None:
                with self.port.changed:  # another thread may take it
                    due = device.next_due(number)
                came.wait(None if due is None else max(0.0, due - self.port.now()))
                came.clear()
                self.take_events()
                if device.is_unplugged:
                    self.removed()

        thread = threading.Thread(target=wait, name=f"events of {self.name}", daemon=True)
        thread.start()

        def end() -> None:
            nonlocal ended
            ended = True
            came.set()
            with suppress(ValueError):  # called twice
                self._came.remove(came)
            if thread is not threading.current_thread():
                thread.join()

        return end

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
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
        """Clear the halt, as a host does, and say that it was; or that the reader is gone."""
        try:
            self.port.control(ClassControl(0x02, Request.CLEAR_FEATURE, 0, endpoint))
        except Unplugged:
            return self.removed()
        return TransportStall(f"{self.name} halted endpoint 0x{endpoint:02X}", reader=self.name)

    def string(self, index: int) -> str | None:
        """A string descriptor, None for index 0."""
        if not index:
            return None
        wValue = DescriptorType.STRING << 8 | index
        return self.port.control(ClassControl(0x80, Request.GET_DESCRIPTOR, wValue, 0x0409, 255))[
            2:
        ].decode("utf-16-le")

    def close(self) -> None:
        if self._holds_claim and not isinstance(self.dead, ReaderForked):
            _claimed.pop(self._claim, None)
        self._holds_claim = False
        self.closed()
