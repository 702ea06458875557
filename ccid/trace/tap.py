"""The tap: a transport around the transport that tells sinks of every transfer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from ccid.codes import IccdRequest, InterfaceProtocol
from ccid.descriptors import ClassControl
from ccid.errors import CcidError
from ccid.messages import HEADER_LENGTH
from ccid.trace.secrets import (
    DATA_BLOCK,
    SECURE,
    SECURE_COMMAND,
    XFR_BLOCK,
    masked,
    masked_block,
)
from ccid.transport import ReaderInfo, Transport
from ccid.visible import Visible


class Kind(IntEnum):
    """The kind of a transfer, as Linux's usbmon numbers it."""

    INTERRUPT = 1
    CONTROL = 2
    BULK = 3


@dataclass(frozen=True, slots=True)
class Transfer:
    """One USB transfer, done.

    Attributes:
        kind: Bulk, interrupt or control.
        endpoint: bEndpointAddress, bit 7 set for device to host.
        began, ended: Seconds since the epoch.
        error: What became of it; None for success.
        data: The bytes that went over, secrets masked.
        asked: Bytes asked for.
        setup: The setup packet of a control transfer.
        is_masked: Some of ``data`` is masked.
    """

    kind: Kind
    endpoint: int
    began: float
    ended: float
    error: CcidError | None
    data: bytes
    asked: int
    setup: ClassControl | None = None
    is_masked: bool = False


class Sink(ABC):
    """Where transfers are told to. Calls come from any thread, one at a time for a reader."""

    @abstractmethod
    def begin(self, info: ReaderInfo) -> None:
        """A trace of this reader begins."""

    @abstractmethod
    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        """A transfer of this reader is done."""

    @abstractmethod
    def end(self) -> None:
        """The trace of one reader ends."""


class Tap:
    """A transport that does what ``inner`` does and tells it.

    Args:
        inner: The transport itself.
        info: The reader it goes to.
        sinks: Who is told, and whether with secrets.
    """

    def __init__(self, inner: Transport, info: ReaderInfo, sinks: list[tuple[Sink, bool]]) -> None:
        self.inner = inner
        self.info = info
        self.sinks = sinks
        self.out, self.inp, self.packet_size = inner.out, inner.inp, inner.packet_size
        endpoints = info.reader
        self._out = endpoints.bulk_out.bEndpointAddress if endpoints.bulk_out else 0
        self._in = endpoints.bulk_in.bEndpointAddress if endpoints.bulk_in else 0x80
        self._events = endpoints.interrupt_in.bEndpointAddress if endpoints.interrupt_in else 0x80
        self._secret: dict[int, Visible] = {}
        self._fresh: set[int] = set()
        self._secure: dict[int, int] = {}
        self._part_began = 0.0

    # Secrets ----------------------------------------------------------------------------------

    @contextmanager
    def secret(self, slot: int, visible: Visible) -> Iterator[None]:
        """Mask the blocks of ``slot`` meanwhile, but for what is ``visible``."""
        self._secret[slot] = visible
        self._fresh.add(slot)
        try:
            yield
        finally:
            del self._secret[slot]

    def _hide_out(self, message: bytes) -> bytes:
        kind, slot, bSeq = message[0], message[5], message[6]
        if kind == SECURE:
            self._secure[slot] = bSeq
            return masked(message, SECURE_COMMAND.first_out, 0)
        visible = self._secret.get(slot)
        if kind != XFR_BLOCK or visible is None:
            return message
        head = visible.first_out if slot in self._fresh else visible.head
        self._fresh.discard(slot)
        return masked(message, head, 0)

    def _hide_in(self, message: bytes) -> bytes:
        if len(message) < HEADER_LENGTH or message[0] != DATA_BLOCK:
            return message
        slot, bSeq = message[5], message[6]
        visible = self._secret.get(slot)
        if visible is None and self._secure.get(slot) == bSeq:
            visible = SECURE_COMMAND
        if visible is None:
            return message
        return masked(message, visible.head, visible.tail_in)

    # The transport ----------------------------------------------------------------------------

    def send(self, length: int, timeout_ms: int) -> None:
        with self._telling(Kind.BULK, self._out, length) as note:
            note.data = bytes(self.out[:length])
            note.shown = self._hide_out(note.data)
            self.inner.send(length, timeout_ms)

    def receive(self, offset: int, size: int, timeout_ms: int) -> int:
        with self._telling(Kind.BULK, self._in, offset + size) as note:
            if offset:
                note.began = self._part_began
            got = self.inner.receive(offset, size, timeout_ms)
            note.data = bytes(self.inp[: offset + got])
            note.shown = self._hide_in(note.data)
            if (
                got
                and len(note.data) % self.packet_size == 0
                and len(note.data) < _announced(note.data)
            ):
                self._part_began, note.whole = note.began, False
        return got

    def receive_event(self, timeout_ms: int) -> bytes:
        with self._telling(Kind.INTERRUPT, self._events, 64) as note:
            note.data = note.shown = self.inner.receive_event(timeout_ms)
        return note.data

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        endpoint = request.bmRequestType & 0x80
        with self._telling(Kind.CONTROL, endpoint, request.wLength, request) as note:
            if not endpoint:
                note.data, note.shown = data, self._hide_control(request, data)
            came = self.inner.control(request, timeout_ms, data)
            if endpoint:
                note.data, note.shown = came, self._hide_control(request, came)
        return came

    def _hide_control(self, request: ClassControl, data: bytes) -> bytes:
        """The blocks of an ICCD device go by control requests; version B puts a byte before."""
        visible = self._secret.get(0)
        if visible is None or not self.info.reader.is_iccd:
            return data
        if request.bRequest == IccdRequest.XFR_BLOCK:
            head = visible.first_out if 0 in self._fresh else visible.head
            self._fresh.discard(0)
            return masked_block(data, head, 0)
        if request.bRequest == IccdRequest.DATA_BLOCK:
            own = self.info.reader.protocol is InterfaceProtocol.ICCD_B
            return masked_block(data, own + visible.head, visible.tail_in)
        return data

    def close(self) -> None:
        self.inner.close()

    @property
    def dead(self) -> CcidError | None:
        """Why the transport can do no more."""
        return self.inner.dead

    def when_dead(self, tell: Callable[[CcidError], None]) -> None:
        self.inner.when_dead(tell)

    @contextmanager
    def _telling(
        self, kind: Kind, endpoint: int, asked: int, setup: ClassControl | None = None
    ) -> Iterator[_Note]:
        """Time what is done meanwhile and tell the sinks of it, failed or not."""
        note, error = _Note(time.time()), None
        try:
            yield note
        except CcidError as failed:
            error = failed
            raise
        finally:
            if note.whole:
                for sink, secrets in self.sinks:
                    data = note.data if secrets else note.shown
                    transfer = Transfer(
                        kind,
                        endpoint,
                        note.began,
                        time.time(),
                        error,
                        data,
                        asked,
                        setup,
                        is_masked=data != note.data,
                    )
                    sink.transfer(self.info, transfer)


@dataclass(slots=True)
class _Note:
    """What is to be told of a transfer under way.

    Attributes:
        began: Seconds since the epoch.
        data: Its bytes.
        shown: The same, masked.
        whole: False for a part of a message whose rest is still to come: the message is told
            of once, when it is whole.
    """

    began: float
    data: bytes = b""
    shown: bytes = b""
    whole: bool = True


def _announced(part: bytes) -> int:
    """Length of the message that begins with ``part``; 0 if that is no header."""
    if len(part) < HEADER_LENGTH:
        return 0
    return HEADER_LENGTH + int.from_bytes(part[1:5], "little")
