"""A virtual reader attached to a host over USB/IP: the URBs of one connection.

The connection is the cable. When the connection opens, the device is reset as if it were plugged
in; when the connection closes, the device is free again. Unplugging the reader closes the
connection from this end.

One thread serves a connection, so no APDU passes from thread to thread. The thread sleeps until the
host sends something, until the device has its next message, or until another thread changes the
device (inserts a card) and wakes the thread. IN transfers wait in order at each endpoint, until
there is a message for them, a stall, or an unlink.

Two flags of a URB matter. ZERO_PACKET: an empty packet follows an OUT transfer of full packets; the
device gets the empty packet as a separate transfer. SHORT_NOT_OK: an IN transfer that is not filled
fails, and with it the larger transfer that the host cut into URBs (all of these URBs but the last
have the flag). The remaining URBs of the larger transfer stay unfilled until the host unlinks them:
otherwise they would take the next message.

A hostile client has limits: the server counts waiting URBs, and a command that stays incomplete, or
an answer that the client does not take, ends the connection after a while.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from weakref import WeakKeyDictionary

from ccid.codec.descriptors import ClassControl, parse_configuration
from ccid.codec.descriptors.standard import TransferType
from ccid.codes import DIRECTION_IN
from ccid.errors import MalformedMessage, ReaderBusy
from ccid.ground.signal_safe_locks import new_rlock
from ccid.virtual.port import Port, Unplugged
from ccid.virtual.usb_device import Function, Stall
from ccid.virtual.usbip_messages import (
    ECONNRESET,
    EPIPE,
    EREMOTEIO,
    SHORT_NOT_OK,
    ZERO_PACKET,
    CommandStream,
    Speed,
    Submit,
    Unlink,
    ret_submit,
    ret_unlink,
)

CHUNK = 1 << 16
MAX_WAITING = 4096
"""The largest number of waiting URBs. Programs on Linux use a few, and 16 MB in all at most."""
LINGER_S, LINGER_IDLE_S = 10.0, 2.0
"""After an error of protocol: how long the host may go on sending, and how long it may pause, s."""
STALLED_S = 30.0
"""A command that is incomplete, or an answer not taken, for this time ends the connection."""

logger = logging.getLogger("ccid.virtual.usbip")

_setup = struct.Struct("<BBHHH")
_served: WeakKeyDictionary[Port, Cable] = WeakKeyDictionary()
"""The cable that serves a port, by port."""
_served_lock = new_rlock()


def _claim(port: Port, cable: Cable) -> None:
    with _served_lock:
        if _served.setdefault(port, cable) is not cable:
            raise ReaderBusy(
                "this virtual reader is attached already",
                holder="another USB/IP connection",
                cure="detach it there (usbip detach)",
            )


def _release(port: Port, cable: Cable) -> None:
    """Undo :func:`_claim`, if ``cable`` has the port."""
    with _served_lock:
        if _served.get(port) is cable:
            del _served[port]


def _after_fork() -> None:
    """Forget the cables: they belong to the parent process."""
    global _served_lock
    _served_lock = new_rlock()
    _served.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Waiting:
    """An IN transfer that is not complete."""

    __slots__ = ("data", "submit")

    def __init__(self, submit: Submit) -> None:
        self.submit = submit
        self.data = b""


class Cable:
    """A device attached to a host that talks USB/IP over ``sock``.

    Args:
        sock: A connection on which the import is done. :meth:`close` closes ``sock``.
        port: The port of the device.

    Raises:
        ReaderBusy: The device is attached to another host; ``sock`` stays open.
    """

    def __init__(self, sock: socket.socket, port: Port) -> None:
        self.port = port
        self.device = port.device
        self._sock = sock
        self._packet_sizes = _packet_sizes(port)
        self._stream = CommandStream()
        self._answers: list[bytes] = []
        self._waiting: dict[int, dict[int, _Waiting]] = {}
        self._left_over: set[int] = set()
        self._waiting_count = 0
        self._is_broken = False
        """The host broke the protocol, and may go on sending."""
        self._partial_until: float | None = None
        """The time by which the incomplete command must be complete; None without one."""
        self._looked = 0.0
        self._thread = 0
        self._is_unplugged = self.device.is_unplugged
        """The device is or was unplugged: the host must see that even if it is plugged in again."""
        self._hooks: list[tuple[Function, Callable[[], None]]] = []
        with ExitStack() as stack:
            stack.callback(_release, port, self)
            _claim(port, self)
            self._alarm, self._alarmed = socket.socketpair()
            stack.callback(self._alarmed.close)
            stack.callback(self._alarm.close)
            self._alarm.setblocking(False)
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._selector.register(sock, selectors.EVENT_READ)
            self._selector.register(self._alarmed, selectors.EVENT_READ)
            stack.callback(self._unhook)
            self._plug_in()
            self._held = stack.pop_all()

    def _plug_in(self) -> None:
        """Reset the device, and register for its changes."""
        with self.port.changed:
            for function in self.device.functions:
                self._hooks.append((function, function.on_change))
                function.on_change = self._hook(function.on_change)
            self.device.bConfigurationValue = 0
            self.device.reset(self.port.now())

    def _hook(self, others: Callable[[], None]) -> Callable[[], None]:
        def changed() -> None:
            others()
            self._is_unplugged = self._is_unplugged or self.device.is_unplugged
            if threading.get_ident() != self._thread:
                self._wake()

        return changed

    def _wake(self) -> None:
        with self.port.changed:
            if not self._hooks:  # closed
                return
            try:
                self._alarm.send(b"\0")
            except BlockingIOError:
                return  # the full buffer wakes the thread anyway

    def _unhook(self) -> None:
        with self.port.changed:
            for function, others in self._hooks:
                function.on_change = others
            self._hooks.clear()

    def close(self) -> None:
        """Detach the device, then close the connection."""
        self._held.close()
        if self._is_broken:
            linger(self._sock)
        hang_up(self._sock)

    def serve(self) -> None:
        """Answer the host until the connection closes, the host breaks the protocol, or the reader
        is unplugged."""
        self._thread = threading.get_ident()
        self._sock.settimeout(STALLED_S)
        try:
            try:
                while not self._is_unplugged and self._turn():
                    pass
            except Unplugged:
                self._flush()
            except MalformedMessage as error:
                logger.warning("%s; the connection ends", error)
                self._is_broken = True
                self._flush()
        except (OSError, MemoryError) as error:
            logger.info("the connection broke: %s", error)

    def _turn(self) -> bool:
        """Sleep, then do all pending work; False if the host closed the connection."""
        for key, _ in self._selector.select(self._sleep_s()):
            if key.fileobj is self._alarmed:
                self._alarmed.recv(CHUNK)
                continue
            data = self._sock.recv(CHUNK)
            if not data:
                return False
            for command in self._stream.feed(data):
                self._partial_until = None  # a following command begins now
                if isinstance(command, Submit):
                    self._submit(command)
                else:
                    self._unlink(command)
        self._serve_waiting()
        self._flush()
        self._watch_partial()
        return True

    def _watch_partial(self) -> None:
        """Raise MalformedMessage if a command stays incomplete for too long."""
        if not self._stream.is_partial:
            self._partial_until = None
        elif self._partial_until is None:
            self._partial_until = time.monotonic() + STALLED_S
        elif time.monotonic() > self._partial_until:
            raise MalformedMessage(f"USB/IP: a command breaks off for {STALLED_S:g} s")

    def _sleep_s(self) -> float | None:
        """Seconds until there is work by the clock; None if only an event can bring work."""
        times = [t for t in (self._device_s(), self._partial_s()) if t is not None]
        return min(times, default=None)

    def _partial_s(self) -> float | None:
        """Seconds until the incomplete command takes too long; None without one."""
        if self._partial_until is None:
            return None
        return max(0.0, self._partial_until - time.monotonic()) + 0.001

    def _device_s(self) -> float | None:
        """Seconds until the device has a new message; None without a message."""
        if not any(self._waiting.values()):
            return None
        with self.port.changed:
            pipes = (p for f in self.device.functions for p in (f.bulk_in, f.interrupt_in))
            times = [due for p in pipes if p is not None and (due := p.next_due()) is not None]
        # A message that was due at the last look is for an endpoint without a waiting transfer.
        due = min((due for due in times if due > self._looked), default=None)
        return None if due is None else max(0.0, due - self.port.now())

    def _flush(self) -> None:
        if self._answers:
            answers, self._answers = b"".join(self._answers), []
            self._sock.sendall(answers)

    # Commands ---------------------------------------------------------------------------------

    def _submit(self, submit: Submit) -> None:
        endpoint = submit.endpoint
        if not endpoint & 0x0F:
            self._control(submit)
        elif endpoint & DIRECTION_IN:
            queue = self._waiting.setdefault(endpoint, {})
            if submit.seqnum in queue:
                raise MalformedMessage(
                    f"USB/IP: URB {submit.seqnum} was submitted twice", field="seqnum"
                )
            self._make_room()
            queue[submit.seqnum] = _Waiting(submit)
        else:
            self._out(submit)

    def _make_room(self) -> None:
        """Count a URB. Raises MalformedMessage if too many URBs wait."""
        self._waiting_count += 1
        if self._waiting_count > MAX_WAITING:  # an upper bound: some URBs have returned since
            self._waiting_count = 1 + len(self._left_over) + sum(map(len, self._waiting.values()))
            if self._waiting_count > MAX_WAITING:
                raise MalformedMessage(f"USB/IP: more than {MAX_WAITING} URBs wait")

    def _out(self, submit: Submit) -> None:
        endpoint, data = submit.endpoint, submit.data
        status, length = 0, len(data)
        try:
            self.port.out(endpoint, data)
            if submit.flags & ZERO_PACKET and data and not length % self._packet_sizes[endpoint]:
                self.port.out(endpoint, b"")
        except Stall:
            status, length = EPIPE, 0
        self._answers.append(ret_submit(submit.seqnum, status, length, submit.packets))

    def _control(self, submit: Submit) -> None:
        request = ClassControl(*_setup.unpack(submit.setup))
        try:
            data = self.port.control(request, submit.data)
        except Stall:
            self._answers.append(ret_submit(submit.seqnum, EPIPE, 0, submit.packets))
            return
        if submit.endpoint & DIRECTION_IN:
            self._answer_in(submit, data[: submit.length])
        else:
            length = len(submit.data)
            self._answers.append(ret_submit(submit.seqnum, 0, length, submit.packets))

    def _unlink(self, unlink: Unlink) -> None:
        status = 0
        for queue in self._waiting.values():
            if queue.pop(unlink.unlink_seqnum, None) is not None:
                status = ECONNRESET
        if unlink.unlink_seqnum in self._left_over:
            self._left_over.discard(unlink.unlink_seqnum)
            status = ECONNRESET
        self._answers.append(ret_unlink(unlink.seqnum, status))

    # IN transfers -----------------------------------------------------------------------------

    def _serve_waiting(self) -> None:
        """Give the waiting transfers the messages of the device."""
        with self.port.changed:
            self._looked = now = self.port.now()
            for endpoint, queue in self._waiting.items():
                while queue:
                    seqnum, first = next(iter(queue.items()))
                    status = self._collect(first, now)
                    if status is None:
                        break
                    del queue[seqnum]
                    if not status:
                        self.port.transfers[endpoint] += 1
                    if self._answer_in(first.submit, first.data, status):
                        self._leave_rest(queue)

    def _collect(self, waiting: _Waiting, now: float) -> int | None:
        """Collect data for a transfer; return its status, None while the transfer is incomplete."""
        submit = waiting.submit
        try:
            while True:
                room = submit.length - len(waiting.data)
                pulled = self.device.submit_in(submit.endpoint, room, now)
                if pulled is None:
                    return None
                part, over = pulled
                waiting.data += part
                if over:
                    return 0
        except Stall:
            return EPIPE

    def _answer_in(self, submit: Submit, data: bytes, status: int = 0) -> bool:
        """Return an IN transfer. True if the transfer has SHORT_NOT_OK and is short."""
        short = not status and submit.flags & SHORT_NOT_OK and len(data) < submit.length
        if short:
            status = EREMOTEIO
        self._answers.append(ret_submit(submit.seqnum, status, len(data), submit.packets))
        self._answers.append(data)
        return bool(short)

    def _leave_rest(self, queue: dict[int, _Waiting]) -> None:
        """Set aside the rest of a larger transfer that failed: the host will unlink it."""
        for seqnum, waiting in tuple(queue.items()):
            del queue[seqnum]
            self._left_over.add(seqnum)
            if not waiting.submit.flags & SHORT_NOT_OK:
                return


def serve_connection(sock: socket.socket, port: Port) -> None:
    """Serve a device over a connection on which the import is done, until the connection ends.

    Args:
        sock: One end of the connection; this function closes it. The other end may go, with the
            speed of :func:`speed_of`, to ``/sys/devices/platform/vhci_hcd.0/attach``.
            ``shutdown`` of either end ends the connection.
        port: :attr:`VirtualReader.port <ccid.virtual.VirtualReader.port>`.

    Raises:
        ReaderBusy: Another connection serves the device.
    """
    with closing(sock), closing(Cable(sock, port)) as cable:
        cable.serve()


def speed_of(port: Port) -> Speed:
    """The speed of a device: high if its bulk packets are longer than 64 bytes."""
    return Speed.HIGH if max(_packet_sizes(port).values(), default=0) > 64 else Speed.FULL


def _packet_sizes(port: Port) -> dict[int, int]:
    """wMaxPacketSize of the bulk endpoints, by address."""
    return {
        endpoint.descriptor.bEndpointAddress: endpoint.descriptor.max_packet_size
        for interface in parse_configuration(port.device.raw_configuration).interfaces
        for endpoint in interface.endpoints
        if endpoint.descriptor.transfer_type is TransferType.BULK
    }


def is_attached(port: Port) -> bool:
    """True if a host has attached the device."""
    return port in _served


def linger(sock: socket.socket) -> None:
    """End the sending direction, and read what the other end still sends, for a limited time:
    closing a connection with unread data loses the data sent last."""
    until = time.monotonic() + LINGER_S
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(LINGER_IDLE_S)
        while sock.recv(CHUNK) and time.monotonic() < until:
            pass


def hang_up(sock: socket.socket) -> None:
    """Close a connection in order: data sent before arrive."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        logger.debug("the other end closed the connection first")
    sock.close()
