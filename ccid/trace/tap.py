"""The tap: a transport around another transport, which tells sinks of every transfer."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum

from ccid.codec.descriptors import ClassControl
from ccid.codec.messages import (
    MESSAGE_HEADER,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_DataBlock,
)
from ccid.codes import DIRECTION_IN, Chain, ClassRequest, IccdRequest, InterfaceProtocol, Level
from ccid.errors import CcidError
from ccid.ground.records import record
from ccid.ground.signal_safe_locks import new_rlock
from ccid.link.iccd_commands import DATA_EXPECTED, FAILED, POLLING
from ccid.masking.censor import Censor, all_masked, notification
from ccid.masking.exchange_watch import Framing
from ccid.transport import ReaderInfo, Returns, Transport
from ccid.transport.separate_transfers import SeparateTransfers

logger = logging.getLogger("ccid.trace")


class Kind(IntEnum):
    """Kind of a USB transfer, with the numbers of Linux's usbmon."""

    INTERRUPT = 1
    CONTROL = 2
    BULK = 3


@record
class Transfer:
    """One completed USB transfer.

    Attributes:
        kind: Bulk, interrupt or control.
        endpoint: bEndpointAddress; bit 7 is set from device to host.
        began, ended: Seconds since the epoch.
        error: The error that the transfer ended with; None for success.
        data: The bytes that were transferred, secrets masked.
        asked: Number of bytes that were requested.
        setup: The setup packet of a control transfer; None for the other kinds.
        is_masked: True if some of ``data`` is masked.
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
    """Receives the transfers of traced readers.

    The methods are called from any thread, one at a time for each reader. They must not use that
    reader. A sink that raises gets no more transfers of that reader.
    """

    @abstractmethod
    def begin(self, info: ReaderInfo) -> None:
        """A trace begins.

        Args:
            info: The reader.
        """

    @abstractmethod
    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        """A transfer is complete.

        Args:
            info: The reader.
            transfer: The transfer.
        """

    @abstractmethod
    def end(self) -> None:
        """The trace of one reader ends."""


Listener = tuple[Sink, bool]
"""A sink, and True if the sink gets PINs and keys."""
LISTS = (ClassRequest.GET_CLOCK_FREQUENCIES, ClassRequest.GET_DATA_RATES)
"""Control requests whose data are never secret."""
STATUS_LENGTH = 3
"""Bytes of an ICCD's SLOT_STATUS, and of a DATA_BLOCK that has no data."""


class Tap(SeparateTransfers):
    """A transport that passes every call to another transport, and tells sinks of every transfer.

    A reader that is traced has one tap, for all its traces.

    Args:
        inner: The transport of the reader.
        info: The reader.
        framings: Called with bSlot; returns what the blocks of that slot may contain.

    Attributes:
        inner: The transport of the reader.
        info: The reader.
        framings: Called with bSlot; returns what the blocks of that slot may contain.
        sinks: The sinks, and which of them get PINs and keys. A change replaces the tuple.
        out, inp, packet_size: As in :class:`ccid.transport.Transport`.
    """

    def __init__(
        self,
        inner: Transport,
        info: ReaderInfo,
        framings: Callable[[int], tuple[Framing, ...]],
    ) -> None:
        self.inner = inner
        self.info = info
        self.framings = framings
        self.sinks: tuple[Listener, ...] = ()
        self.out, self.inp, self.packet_size = inner.out, inner.inp, inner.packet_size
        reader = info.reader
        bulk_out, bulk_in, interrupt_in = reader.bulk_out, reader.bulk_in, reader.interrupt_in
        self._out = bulk_out.bEndpointAddress if bulk_out else 0
        self._in = bulk_in.bEndpointAddress if bulk_in else DIRECTION_IN
        self._events = interrupt_in.bEndpointAddress if interrupt_in else DIRECTION_IN
        self._censor = Censor(numbered=not info.reader.is_iccd)
        self._lock = new_rlock()  # a sink may end its own trace
        self._expected = False
        self._part_began = 0.0

    def add(self, listener: Listener) -> None:
        """Tell a sink of every transfer from now on.

        Args:
            listener: The sink, and True if it gets PINs and keys.
        """
        with self._lock:
            self.sinks = (*self.sinks, listener)

    def drop(self, listener: Listener) -> None:
        """Tell a sink of no more transfers.

        Args:
            listener: The same object that :meth:`add` got.
        """
        with self._lock:
            self._drop(listener)

    def _drop(self, listener: Listener) -> None:
        self.sinks = tuple(one for one in self.sinks if one is not listener)

    # Secrets ----------------------------------------------------------------------------------

    def _mask(self, kind: Kind, endpoint: int, setup: ClassControl | None, data: bytes) -> bytes:
        """``data`` of a transfer, secrets masked. If masking fails, all of ``data`` is masked: the
        reader goes on working."""
        try:
            if kind is Kind.INTERRUPT:
                return notification(data)
            if setup is not None:
                return self._mask_control(setup, data)
            if endpoint & DIRECTION_IN:
                return self._censor.reply(data)
            return self._mask_out(data)
        except Exception as error:  # the text of the error may hold secrets
            name = type(error).__name__
            logger.error("%s: what may be seen of this is not known: %s", self.info.name, name)
            return all_masked(data)

    def _mask_out(self, message: bytes) -> bytes:
        """A bulk-OUT message."""
        if len(message) < MESSAGE_HEADER:
            return all_masked(message)
        return self._censor.command(message, self.framings(message[5]))

    def _mask_control(self, request: ClassControl, data: bytes) -> bytes:
        """The data of a control transfer, masked. An ICCD device gets its blocks by control
        transfers (USB ICCD rev 1.0, 6.4): they are masked like the equivalent CCID messages."""
        if not self.info.reader.is_iccd:
            return data if request.bRequest in LISTS else all_masked(data)
        is_a = self.info.reader.protocol is InterfaceProtocol.ICCD_A
        match request.bRequest:
            case IccdRequest.ICC_POWER_ON:
                self._mask_out(PC_to_RDR_IccPowerOn().build())
                return self._mask_answer(data, Chain.WHOLE)
            case IccdRequest.GET_ICC_STATUS:
                self._expected = bool(data and data[0] & DATA_EXPECTED)
                return data[:1] + all_masked(data[1:])
            case IccdRequest.SLOT_STATUS:
                return data[:STATUS_LENGTH] + all_masked(data[STATUS_LENGTH:])
            case IccdRequest.XFR_BLOCK:
                level = request.wValue >> 8
                if is_a:  # a header, or the data that the header announced
                    level = Level.CONTINUES if self._expected else Level.WHOLE
                command = PC_to_RDR_XfrBlock(wLevelParameter=level, abData=data)
                return self._mask_out(command.build())[MESSAGE_HEADER:]
            case IccdRequest.DATA_BLOCK if is_a:
                return self._mask_answer(
                    data, Chain.BEGINS
                )  # data or SW1 SW2: the host cannot tell which
            case IccdRequest.DATA_BLOCK if data[:1] in (bytes((FAILED,)), bytes((POLLING,))):
                return data[:STATUS_LENGTH] + all_masked(data[STATUS_LENGTH:])
            case IccdRequest.DATA_BLOCK if data and data[0] in tuple(Chain):
                return data[:1] + self._mask_answer(data[1:], data[0])
        return all_masked(data)

    def _mask_answer(self, data: bytes, chain: int) -> bytes:
        """The data of a response, with the bChainParameter of the equivalent message."""
        if not data:
            return data
        reply = RDR_to_PC_DataBlock(bChainParameter=chain, abData=data)
        return self._censor.reply(reply.build())[MESSAGE_HEADER:]

    # Methods of Transport ---------------------------------------------------------------------

    def send(self, length: int, timeout_ms: int, /) -> None:
        """:meth:`Transport.send`, told to the sinks."""
        with self._telling(Kind.BULK, self._out, length) as note:
            note.data = bytes(self.out[:length])
            with self._lock:  # before the reply comes, which another thread may receive
                note.masked = self._mask(Kind.BULK, self._out, None, note.data)
            self.inner.send(length, timeout_ms)

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        """:meth:`Transport.receive`, told to the sinks. A message that comes in several parts is
        told once, when it is complete."""
        with self._telling(Kind.BULK, self._in, offset + size) as note:
            if offset:
                note.began = self._part_began
            got = self.inner.receive(offset, size, timeout_ms)
            note.data = bytes(self.inp[: offset + got])
            if (
                got
                and len(note.data) % self.packet_size == 0
                and len(note.data) < _announced(note.data)
            ):
                self._part_began, note.is_complete = note.began, False
        return got

    def event(self, message: bytes) -> None:
        """Tell the sinks of a notification.

        Args:
            message: The transfer on the interrupt endpoint (USB CCID rev 1.1, 6.3).
        """
        with self._telling(Kind.INTERRUPT, self._events, len(message)) as note:
            note.data = message

    def listen(self, tell: Callable[[bytes], None]) -> None:
        """:meth:`Transport.listen`."""
        self.inner.listen(tell)

    def take_events(self, wait_ms: int = 0, /) -> None:
        """:meth:`Transport.take_events`."""
        self.inner.take_events(wait_ms)

    def attend(self) -> Callable[[], None]:
        """:meth:`Transport.attend`."""
        return self.inner.attend()

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        """:meth:`Transport.control`, told to the sinks."""
        endpoint = request.bmRequestType & DIRECTION_IN
        with self._telling(Kind.CONTROL, endpoint, request.wLength, request) as note:
            if not endpoint:
                note.data = data
            came = self.inner.control(request, timeout_ms, data)
            if endpoint:
                note.data = came
        return came

    def close(self) -> None:
        """:meth:`Transport.close`."""
        self.inner.close()

    @property
    def dead(self) -> CcidError | None:
        """:attr:`Transport.dead`."""
        return self.inner.dead

    def when_dead(self, tell: Callable[[CcidError], None]) -> None:
        """:meth:`Transport.when_dead`."""
        self.inner.when_dead(tell)

    def on_reset(self, tell: Callable[[ReaderInfo], None], returns: Returns | None = None) -> None:
        """:meth:`Transport.on_reset`."""
        self.inner.on_reset(tell, returns)

    def is_away(self) -> bool:
        """:meth:`Transport.is_away`."""
        return self.inner.is_away()

    @contextmanager
    def _telling(
        self, kind: Kind, endpoint: int, asked: int, setup: ClassControl | None = None
    ) -> Iterator[_Note]:
        """A context for one transfer: tells the sinks of the transfer, with its times, even if the
        transfer fails."""
        note, error = _Note(time.time()), None
        try:
            yield note
        except CcidError as failed:
            error = failed
            raise
        finally:
            if note.is_complete:
                with self._lock:
                    self._tell(kind, endpoint, note, error, asked, setup)

    def _tell(
        self,
        kind: Kind,
        endpoint: int,
        note: _Note,
        error: CcidError | None,
        asked: int,
        setup: ClassControl | None,
    ) -> None:
        masked, ended = note.masked, time.time()
        if masked is None:
            masked = self._mask(kind, endpoint, setup, note.data)
        for listener in self.sinks:
            sink, secrets = listener
            data = note.data if secrets else masked
            transfer = Transfer(
                kind,
                endpoint,
                note.began,
                ended,
                error,
                data,
                asked,
                setup,
                is_masked=data != note.data,
            )
            try:
                sink.transfer(self.info, transfer)
            except Exception as failed:  # the reader goes on working without this trace
                self._drop(listener)
                logger.warning("%s: the trace ends here: %s", self.info.name, failed)


@dataclass(slots=True)
class _Note:
    """What a context of :meth:`Tap._telling` records of its transfer.

    Attributes:
        began: Seconds since the epoch.
        data: The bytes that were transferred.
        masked: The same bytes, secrets masked; None if they are to be masked later.
        is_complete: False for a part of a message whose rest is still to come.
    """

    began: float
    data: bytes = field(default=b"", repr=False)
    masked: bytes | None = None
    is_complete: bool = True


def _announced(part: bytes) -> int:
    """Length in bytes of the message that begins with ``part``; 0 if ``part`` is shorter than a
    header."""
    if len(part) < MESSAGE_HEADER:
        return 0
    return MESSAGE_HEADER + int.from_bytes(part[1:5], "little")
