"""A command and its reply: two bulk transfers that libusb has at the same time.

Theory of operation. Each endpoint has one transfer, made when the reader is opened and submitted
again for every message. Both are submitted before the first event is handled, so bulk-IN already
waits at the reader when the command arrives, and no time passes between the two. Neither has a
time limit of libusb's: that saves a timer and an allocation per transfer. Time is kept here, by
the clock.

No callback is needed. libusb writes two numbers into a transfer when it ends, ``status`` and then
``actual_length``. Before each submission ``status`` is set to :data:`PENDING`, which no status is,
and ``actual_length`` to 0. libusb looks at ``actual_length`` as the *completed* flag of
``libusb_handle_events_timeout_completed``, so a thread does not begin to wait for bytes that
another thread has fetched. An end without bytes (an empty packet, a failure) does not set that
flag; such an end is noticed after the round of events that brings it, or one slice of time later.

A reply that does not come in time goes on waiting at the reader: :meth:`BulkPair.wait` finds it
there. Nothing is cancelled, so a slow card costs nothing, and no reply can be lost between two
transfers. :meth:`BulkPair.receive` ends its transfer when the time is over, and returns what came:
so it serves for the last wait for a reply. Only then the end of a message is seen that fills its
last packet and has no empty packet behind it.

Signals. The handler of a signal may raise right after a submission, before its result is stored.
So submission and storing are one step in C: ``codes.extend(map(submit, pointers))``. ``codes`` is
empty for a transfer that is not in use, and has the return code of the submission until the end of
the transfer was seen. A wait that a signal ends leaves ``codes`` filled. The next call then takes
over: it lets an old command end before it touches the buffer, and an old reply goes on waiting.
The path of every APDU, in :meth:`BulkPair.exchange`, is taken only if nothing is left.

Threads. A call of libusb's leaves Python's lock (the GIL) to other threads, and must get it back.
With one reader that costs nothing. With several, each in a thread, another thread has the lock by
then: that takes longer than a submission does. So readers with a further context
(:mod:`ccid.transport.contexts`) submit without leaving the lock: eight of them in eight threads
send 1.3 times the APDUs, for half of the CPU time. libusb calls nothing of Python's while it holds
what a submission waits for. The kernel lets a submission wait while another process resets the
device; all threads of the program wait then, a fraction of a second. A program with one reader
never does.

Without a GIL (free-threaded Python) nothing here rests on it. Each transfer belongs to the thread
that has the turn; the sets and deques that threads share are asked and changed in one step. To keep
"the lock" then means that Python cannot stop all threads, to collect garbage, for as long.

The memory of a transfer is freed when Python forgets the transfer, not when the reader is closed:
another thread may still look at its numbers then.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from abc import abstractmethod
from typing import NoReturn

from ccid.errors import ReaderUnsupported, TransportError
from ccid.transport import IN_CAPACITY, OUT_CAPACITY, ReaderInfo, asynchronous, libusb
from ccid.transport.asynchronous import OUTCOMES, Attendants, EventHandler, Timeval, Transfer
from ccid.transport.libusb import Buffer, Status, at, status_text
from ccid.transport.lifetime import Life

BULK = 2
"""Type of a transfer."""
PENDING = -1
"""``status`` of a transfer until libusb writes it. No status of libusb's is negative."""
SUBMITTED = 0
"""The return code of a submission that succeeded."""
SLICE_S = 0.25
"""A wait handles events so long before it looks at the clock again."""
ROUND_S = 0.1
"""The path of every APDU handles events for so long, twice, before it looks at the clock."""
SHORTEST_MS = int(2 * ROUND_S * 1000)
"""Where there is less time, the clock is looked at first."""
END_S = 2.0
"""How long a cancelled transfer may take to end. Only a broken system takes any time."""
CANCEL_S = 0.01
"""How often a transfer is cancelled until it ends."""
SETTLE_S = 0.001
"""How long to handle events once more after an end without bytes: another thread may have written
``status``, and not yet ``actual_length``."""

logger = logging.getLogger("ccid.transport")


class BulkTransfer:
    """The transfer of one bulk endpoint.

    Args:
        handle: Address of libusb's handle on the device.
        endpoint: bEndpointAddress.
        buffer: The bytes to send, or room for those received.

    Attributes:
        codes: The return code of the submission whose end was not seen yet; empty if there is
            none.
        pointers: The transfer, as ``libusb_submit_transfer`` takes it.
        status, length, actual: Fields of libusb's structure.
        came: ``actual`` as libusb's *completed* flag.
        offset: Where in the buffer the transfer begins.
    """

    def __init__(self, handle: int, endpoint: int, buffer: Buffer) -> None:
        self.codes: list[int] = []
        self.offset = 0
        self.endpoint = endpoint
        self._buffer = buffer
        self._calls = asynchronous.calls()
        self._owner = os.getpid()
        self._address = 0
        address = self._calls.alloc_transfer(0)
        if not address:
            raise TransportError("libusb has no memory for a transfer")
        self._address = address
        self._made = made = Transfer.from_address(address)
        made.dev_handle, made.endpoint, made.type = handle, endpoint, BULK
        made.buffer, made.status = buffer.address, PENDING
        self.pointers = (at(address),)
        self.status = self._number("status")
        self.length = self._number("length")
        self.actual = self._number("actual_length")
        self.came = ctypes.byref(self.actual)

    def _number(self, field: str) -> ctypes.c_int:
        return ctypes.c_int.from_address(self._address + getattr(Transfer, field).offset)

    @property
    def is_pending(self) -> bool:
        """It was submitted, and has not ended."""
        return self.codes == [SUBMITTED] and self.status.value == PENDING

    @property
    def has_failed(self) -> bool:
        """It has ended, and not well."""
        return not self.is_pending and self.failure != Status.SUCCESS

    @property
    def failure(self) -> int:
        """The return code of libusb's that its end amounts to; 0 for success."""
        status = self.codes[0] if self.codes else SUBMITTED
        if status == SUBMITTED and self.status.value:
            return OUTCOMES.get(self.status.value, Status.OTHER)
        return status

    def submit(self, offset: int, length: int) -> None:
        """Submit it for ``length`` bytes of the buffer from ``offset`` on. It must not be
        pending."""
        self.codes.clear()
        self.offset = offset
        self._made.buffer = self._buffer.address + offset
        self.length.value = length
        self.status.value = PENDING
        self.actual.value = 0
        self.codes.extend(map(self._calls.submit, self.pointers))

    def use(self, handle: int) -> None:
        """Be a transfer of ``handle`` from now on. It must not be pending."""
        self._made.dev_handle = handle

    def cancel(self) -> None:
        """Have it end."""
        self._calls.cancel_transfer(self._address)

    def __del__(self) -> None:
        if self._address and not self.is_pending and not libusb.is_over():
            if self._owner == os.getpid():
                self._made.dev_handle = None  # it may be closed
                self._calls.free_transfer(self._address)
            self._address = 0


_lost: list[BulkTransfer] = []
"""Transfers that never ended: libusb may write to them at any time, so they are kept."""


class BulkPair(Life):
    """The bulk endpoints of an open interface, and the transfer that waits at each.

    Args:
        info: The reader.
        those: Who wait for events of the context in which the device is opened.

    Attributes:
        out: Where the next message is built.
        inp: Where transfers land.
        packet_size: Bytes of a full bulk-IN packet.
    """

    _command: BulkTransfer
    _reply: BulkTransfer

    def __init__(self, info: ReaderInfo, those: Attendants) -> None:
        super().__init__(info.name)
        out, inp = info.reader.bulk_out, info.reader.bulk_in
        if not info.reader.is_iccd and (out is None or inp is None):
            raise ReaderUnsupported(f"{info.name} has no bulk endpoints", reader=info.name)
        self.info = info
        self._attendants = those
        self.packet_size = (inp.max_packet_size if inp else 0) or 64
        self._out, self._in = Buffer(OUT_CAPACITY), Buffer(IN_CAPACITY)
        self.out, self.inp = self._out.view, self._in.view
        self._bulk: tuple[BulkTransfer, ...] = ()
        self._is_waking = True
        """No reply came yet. A device that wakes up (autosuspend) may lose its first transfer, or
        the reply to it, so the transfers of the command that a reader is opened with, and no later
        ones, may be tried once more after an input/output error."""
        self._may_resend, self._may_rereceive = True, False
        self._handled_at = 0.0
        """When a transfer last ended, on the monotonic clock."""

    def _open_bulk(self, handle: int) -> None:
        """Make the transfers.

        Args:
            handle: Address of libusb's handle on the device.
        """
        calls, context = asynchronous.calls(), self._attendants.context()
        is_first = self._attendants is asynchronous.attendants
        self._submit = calls.submit if is_first else calls.submit_keeping_gil
        self._handle_events = calls.handle_events
        self._where, self._round = at(context), Timeval.of(ROUND_S)
        self._rounds = EventHandler(where=context)
        out, inp = self.info.reader.bulk_out, self.info.reader.bulk_in
        if out is not None and inp is not None:
            self._command = BulkTransfer(handle, out.bEndpointAddress, self._out)
            self._reply = BulkTransfer(handle, inp.bEndpointAddress, self._in)
            self._bulk = (self._command, self._reply)

    def _end_bulk(self) -> bool:
        """Have no transfer pending. False if one does not end: the handle must stay open then."""
        ended = True
        for transfer in self._bulk:
            ended = self._end(transfer) and ended
        return ended

    @abstractmethod
    def _fail(self, status: int, endpoint: int) -> NoReturn:
        """Raise what a failed transfer means; a halt is cleared first."""

    @abstractmethod
    def _has_no_node(self) -> bool:
        """The system says that the device is gone."""

    # Command and reply ------------------------------------------------------------------------

    def exchange(self, length: int, size: int, write_ms: int, wait_ms: int, /) -> int:
        """As :meth:`ccid.transport.Transport.exchange`, with both transfers under way at once."""
        if self._attendants.thread is None:
            return self._exchange(length, size, write_ms, wait_ms)
        under_way, thread = self._attendants.under_way, threading.get_ident()
        try:
            under_way.add(thread)
            got = self._exchange(length, size, write_ms, wait_ms)
        finally:
            under_way.discard(thread)
        return got

    def _exchange(self, length: int, size: int, write_ms: int, wait_ms: int) -> int:
        """:meth:`exchange`, the path of every APDU."""
        command, reply = self._command, self._reply
        if (
            command.codes
            or reply.codes
            or reply.offset
            or wait_ms < SHORTEST_MS
            or self._is_waking
            or self.dead is not None
        ):
            return self._exchange_after_all(length, size, write_ms, wait_ms)
        submit, handle_events = self._submit, self._handle_events
        command.length.value = length
        command.status.value = PENDING
        command.actual.value = 0
        reply.length.value = size
        reply.status.value = PENDING
        reply.actual.value = 0
        try:
            command.codes.extend(map(submit, command.pointers))
            reply.codes.extend(map(submit, reply.pointers))
            if command.codes[0] == SUBMITTED == reply.codes[0]:
                handle_events(self._where, self._round, reply.came)
                if not reply.actual.value:  # a round for each, unless the reader answers at once
                    handle_events(self._where, self._round, reply.came)
                got = reply.actual.value
                if (
                    got
                    and reply.status.value == 0
                    and command.status.value == 0
                    and command.actual.value == length
                ):
                    command.codes.clear()
                    reply.codes.clear()
                    self._handled_at = time.monotonic()
                    if self._attendants.came:
                        self._attendants.take()
                    return got
        except BaseException:
            self._drain_command(write_ms)
            raise
        return self._finish_exchange(length, write_ms, wait_ms - SHORTEST_MS)

    def _exchange_after_all(self, length: int, size: int, write_ms: int, wait_ms: int) -> int:
        """:meth:`exchange` where an earlier transfer is left; where no reply came yet; or where
        there is less time than two rounds may take."""
        self._begin_sending(length, write_ms)
        self._begin_receiving(0, size)
        return self._finish_exchange(length, write_ms, wait_ms)

    def _finish_exchange(self, length: int, write_ms: int, wait_ms: int) -> int:
        """The rest of :meth:`exchange`, once both transfers are submitted."""
        self._await_sent(length, write_ms)
        return self._await_received(wait_ms, keeps=True)

    def send(self, length: int, timeout_ms: int, /) -> None:
        """As :meth:`ccid.transport.Transport.send`."""
        under_way, thread = self._attendants.under_way, threading.get_ident()
        try:
            under_way.add(thread)
            self._begin_sending(length, timeout_ms)
            self._await_sent(length, timeout_ms)
        finally:
            under_way.discard(thread)

    def expect(self, size: int, /) -> None:
        """As :meth:`ccid.transport.Transport.expect`."""
        self._begin_receiving(0, size)

    def wait(self, size: int, wait_ms: int, /) -> int:
        """As :meth:`ccid.transport.Transport.wait`; the transfer stays at the reader."""
        return self._received(0, size, wait_ms, keeps=True)

    def receive(self, offset: int, size: int, timeout_ms: int, /) -> int:
        """As :meth:`ccid.transport.Transport.receive`; the transfer ends."""
        return self._received(offset, size, timeout_ms, keeps=False)

    def _received(self, offset: int, size: int, timeout_ms: int, keeps: bool) -> int:
        under_way, thread = self._attendants.under_way, threading.get_ident()
        try:
            under_way.add(thread)
            self._begin_receiving(offset, size)
            got = self._await_received(timeout_ms, keeps)
        finally:
            under_way.discard(thread)
        return got

    # One transfer -----------------------------------------------------------------------------

    def _begin_sending(self, length: int, timeout_ms: int) -> None:
        """Submit the command, once one whose wait a signal ended is over."""
        self.check()
        if self._command.is_pending:
            self._drain_command(timeout_ms)
            self._must_have_ended(self._command)
        self._command.submit(0, length)

    def _begin_receiving(self, offset: int, size: int) -> None:
        """Submit the reply, unless it waits at the reader already, or has come."""
        self.check()
        reply = self._reply
        if reply.codes and reply.offset == offset and not reply.has_failed:
            return
        if reply.is_pending:
            self._end(reply)
            self._must_have_ended(reply)
        reply.submit(offset, size)

    def _must_have_ended(self, transfer: BulkTransfer) -> None:
        """Raise TransportError if a cancelled transfer is still pending: its buffer is in use."""
        if transfer.is_pending:
            raise TransportError(f"{self.name}: a transfer does not end", reader=self.name)

    def _await_sent(self, length: int, timeout_ms: int) -> None:
        """Wait until the command went out, or raise why it did not."""
        command, until = self._command, time.monotonic() + timeout_ms / 1000
        try:
            self._await_end(command, until)
        except BaseException:
            self._drain_command(timeout_ms)
            raise
        if command.is_pending:
            self._end(command)
        failure, sent = command.failure, command.actual.value
        if failure == Status.IO and self._may_resend and not self._has_no_node():
            logger.info("%s: %s on opening; once more", self.name, status_text(failure))
            self._may_resend = False
            command.submit(0, length)
            reply = self._reply
            if reply.codes and reply.has_failed:  # for the same reason
                reply.submit(reply.offset, reply.length.value)
            self._await_sent(length, timeout_ms)
            return
        self._must_have_ended(command)
        command.codes.clear()
        if failure == Status.INTERRUPTED:  # cancelled: its time was over, or the reader closed
            self.check()
            failure = Status.TIMEOUT
        if failure:
            self._fail(failure, command.endpoint)
        if sent != length:
            raise TransportError(
                f"{self.name}: {sent} of {length} bytes were sent", reader=self.name
            )
        if self._may_resend:
            self._may_resend, self._may_rereceive = False, True

    def _drain_command(self, timeout_ms: int) -> None:
        """A signal ended the wait for a command that goes out: let it go out as a whole. A reader
        that got a part of a message would take the next one for the rest."""
        command, until = self._command, time.monotonic() + timeout_ms / 1000
        while command.is_pending and time.monotonic() < until and self.dead is None:
            self._rounds.handle(CANCEL_S, command.came)
        if self._end(command):
            command.codes.clear()

    def _await_received(self, timeout_ms: int, keeps: bool) -> int:
        """Wait for the reply; the bytes that came.

        Args:
            timeout_ms: How long.
            keeps: When the time is over, leave the transfer at the reader and return 0. Else end
                it, and raise TransportTimeout if it has brought nothing.
        """
        reply = self._reply
        self._await_end(reply, time.monotonic() + timeout_ms / 1000)
        if reply.is_pending:
            if keeps:
                return 0
            self._end(reply)
            self._must_have_ended(reply)
        failure, got = reply.failure, reply.actual.value
        if not got and failure in (Status.SUCCESS, Status.INTERRUPTED):
            self._rounds.handle(SETTLE_S, reply.came)
            got = reply.actual.value
        if failure == Status.IO and self._may_rereceive and not self._has_no_node():
            logger.info("%s: %s on opening; once more", self.name, status_text(failure))
            self._may_rereceive = False
            reply.submit(reply.offset, reply.length.value)
            return self._await_received(timeout_ms, keeps)
        reply.codes.clear()
        if failure == Status.INTERRUPTED:  # cancelled: its time was over, or the reader closed
            self.check()
            failure = Status.SUCCESS if got else Status.TIMEOUT
        if failure:
            self._fail(failure, reply.endpoint)
        self._is_waking = self._may_resend = self._may_rereceive = False
        return got

    def _await_end(self, transfer: BulkTransfer, until: float) -> None:
        """Handle events until ``transfer`` has ended, or the time is over, or the reader closed."""
        while transfer.is_pending:
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            self._rounds.handle(min(left_s, SLICE_S), transfer.came)
            if self._attendants.came:
                self._attendants.take()
            self.check()
        self._handled_at = time.monotonic()

    def _end(self, transfer: BulkTransfer) -> bool:
        """Cancel ``transfer`` until it has ended. False if it does not."""
        until = time.monotonic() + END_S
        while transfer.is_pending:
            if time.monotonic() > until:
                if transfer not in _lost:
                    _lost.append(transfer)
                return False
            transfer.cancel()
            self._rounds.handle(CANCEL_S, transfer.came)
        return True
