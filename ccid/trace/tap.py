"""The tap: a transport around the transport that tells sinks of every transfer."""

from __future__ import annotations

import functools
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from ccid.link.iccd_commands import DATA_EXPECTED, FAILED, POLLING
from ccid.masking.censor import Censor, all_masked, notification
from ccid.masking.exchange_watch import Framing
from ccid.transport import ReaderInfo, Transport

logger = logging.getLogger("ccid.trace")


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
    """Where transfers are told to. Calls come from any thread, one at a time for a reader, which
    must be left alone meanwhile. A sink that raises is told no more."""

    @abstractmethod
    def begin(self, info: ReaderInfo) -> None:
        """A trace of this reader begins."""

    @abstractmethod
    def transfer(self, info: ReaderInfo, transfer: Transfer) -> None:
        """A transfer of this reader is done."""

    @abstractmethod
    def end(self) -> None:
        """The trace of one reader ends."""


Listener = tuple[Sink, bool]
"""Who is told, and whether with secrets."""
LISTS = (ClassRequest.GET_CLOCK_FREQUENCIES, ClassRequest.GET_DATA_RATES)
STATUS_LENGTH = 3
"""Bytes of an ICCD's SLOT_STATUS, and of a DATA_BLOCK that has no data."""


class Tap:
    """A transport that does what ``inner`` does and tells it. There is one as long as a reader
    has traces, for all of them.

    Args:
        inner: The transport itself.
        info: The reader it goes to.
        framings: Tells what the blocks of a slot may be.

    Attributes:
        sinks: Who is told, and whether with secrets. Replaced, never changed.
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
        self._lock = threading.RLock()  # a sink may end its own trace
        self._expected = False
        self._part_began = 0.0

    def add(self, listener: Listener) -> None:
        """Tell a sink, too."""
        with self._lock:
            self.sinks = (*self.sinks, listener)

    def drop(self, listener: Listener) -> None:
        """Tell a sink no more."""
        with self._lock:
            self._drop(listener)

    def _drop(self, listener: Listener) -> None:
        self.sinks = tuple(one for one in self.sinks if one is not listener)

    # Secrets ----------------------------------------------------------------------------------

    def _hide_out(self, message: bytes) -> bytes:
        if len(message) < MESSAGE_HEADER:
            return all_masked(message)
        return self._censor.command(message, self.framings(message[5]))

    def _hide_control(self, request: ClassControl, data: bytes) -> bytes:
        """The blocks of an ICCD device go by control requests: they are judged as the messages
        that a reader would have for them."""
        if not self.info.reader.is_iccd:
            return data if request.bRequest in LISTS else all_masked(data)
        is_a = self.info.reader.protocol is InterfaceProtocol.ICCD_A
        match request.bRequest:
            case IccdRequest.ICC_POWER_ON:
                self._hide_out(PC_to_RDR_IccPowerOn().build())
                return self._hide_answer(data, Chain.WHOLE)
            case IccdRequest.GET_ICC_STATUS:
                self._expected = bool(data and data[0] & DATA_EXPECTED)
                return data[:1] + all_masked(data[1:])
            case IccdRequest.SLOT_STATUS:
                return data[:STATUS_LENGTH] + all_masked(data[STATUS_LENGTH:])
            case IccdRequest.XFR_BLOCK:
                level = request.wValue >> 8
                if is_a:  # a header, or the data that it announced
                    level = Level.CONTINUES if self._expected else Level.WHOLE
                command = PC_to_RDR_XfrBlock(wLevelParameter=level, abData=data)
                return self._hide_out(command.build())[MESSAGE_HEADER:]
            case IccdRequest.DATA_BLOCK if is_a:
                return self._hide_answer(data, Chain.BEGINS)  # or SW1 SW2: nothing tells which
            case IccdRequest.DATA_BLOCK if data[:1] in (bytes((FAILED,)), bytes((POLLING,))):
                return data[:STATUS_LENGTH] + all_masked(data[STATUS_LENGTH:])
            case IccdRequest.DATA_BLOCK if data and data[0] in tuple(Chain):
                return data[:1] + self._hide_answer(data[1:], data[0])
        return all_masked(data)

    def _hide_answer(self, data: bytes, chain: int) -> bytes:
        if not data:
            return data
        reply = RDR_to_PC_DataBlock(bChainParameter=chain, abData=data)
        return self._censor.reply(reply.build())[MESSAGE_HEADER:]

    def _hidden(self, hide: Callable[[bytes], bytes], data: bytes) -> bytes:
        """``data`` as they may be seen. The reader works on whatever happens here."""
        try:
            return hide(data)
        except Exception as error:  # whose text may hold what may not be seen
            name = type(error).__name__
            logger.error("%s: what may be seen of this is not known: %s", self.info.name, name)
            return all_masked(data)

    # The transport ----------------------------------------------------------------------------

    def send(self, length: int, timeout_ms: int) -> None:
        with self._telling(Kind.BULK, self._out, length) as note:
            note.data = bytes(self.out[:length])
            with self._lock:  # before the reply can come, which another thread may read
                note.shown = self._hidden(self._hide_out, note.data)
            self.inner.send(length, timeout_ms)

    def receive(self, offset: int, size: int, timeout_ms: int) -> int:
        with self._telling(Kind.BULK, self._in, offset + size) as note:
            note.hide = self._censor.reply
            if offset:
                note.began = self._part_began
            got = self.inner.receive(offset, size, timeout_ms)
            note.data = bytes(self.inp[: offset + got])
            if (
                got
                and len(note.data) % self.packet_size == 0
                and len(note.data) < _announced(note.data)
            ):
                self._part_began, note.whole = note.began, False
        return got

    def event(self, message: bytes) -> None:
        """Tell of a notification that came."""
        with self._telling(Kind.INTERRUPT, self._events, len(message)) as note:
            note.hide = notification
            note.data = message

    def listen(self, tell: Callable[[bytes], None]) -> None:
        self.inner.listen(tell)

    def take_events(self, wait_ms: int = 0, /) -> None:
        self.inner.take_events(wait_ms)

    def attend(self) -> Callable[[], None]:
        return self.inner.attend()

    def control(self, request: ClassControl, timeout_ms: int, data: bytes = b"") -> bytes:
        endpoint = request.bmRequestType & DIRECTION_IN
        with self._telling(Kind.CONTROL, endpoint, request.wLength, request) as note:
            note.hide = functools.partial(self._hide_control, request)
            if not endpoint:
                note.data = data
            came = self.inner.control(request, timeout_ms, data)
            if endpoint:
                note.data = came
        return came

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
        shown, ended = note.shown, time.time()
        if shown is None:
            shown = self._hidden(note.hide, note.data)
        for listener in self.sinks:
            sink, secrets = listener
            data = note.data if secrets else shown
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
            except Exception as failed:  # the reader works on, traced or not
                self._drop(listener)
                logger.warning("%s: the trace ends here: %s", self.info.name, failed)


def _as_it_is(data: bytes) -> bytes:
    return data


@dataclass(slots=True)
class _Note:
    """What is to be told of a transfer under way.

    Attributes:
        began: Seconds since the epoch.
        data: Its bytes.
        hide: What masks them.
        shown: They, masked already.
        whole: False for a part of a message whose rest is still to come: the message is told
            of once, when it is whole.
    """

    began: float
    data: bytes = b""
    hide: Callable[[bytes], bytes] = _as_it_is
    shown: bytes | None = None
    whole: bool = True


def _announced(part: bytes) -> int:
    """Length of the message that begins with ``part``; 0 if that is no header."""
    if len(part) < MESSAGE_HEADER:
        return 0
    return MESSAGE_HEADER + int.from_bytes(part[1:5], "little")
