"""A USB/IP server: virtual readers for a Linux kernel, the far end of ``usbip attach``.

A client sends one request on a connection: for the list of readers, or for one reader. After the
import of a reader the connection serves this reader (:mod:`ccid.virtual.usbip_cable`). Each
connection has a thread.

The protocol has no authentication. Therefore the server listens on loopback addresses only, and
limits the cost of a client: a request has a time limit as a whole. If too many connections have no
reader yet, the server closes the oldest, so that a new client can always send a request. If the
system has no thread or no file descriptor left, the server closes a connection and goes on.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import select
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, Self

from ccid.codec.descriptors import parse_configuration
from ccid.errors import MalformedMessage, ReaderBusy
from ccid.ground.signal_safe_locks import new_lock
from ccid.virtual.usbip_cable import Cable, hang_up, is_attached, serve_connection, speed_of
from ccid.virtual.usbip_messages import (
    BUSID_LENGTH,
    OP_HEADER_LENGTH,
    DeviceList,
    ExportedDevice,
    ExportedInterface,
    ImportRequest,
    ListedDevice,
    Op,
    OpHeader,
    OpStatus,
)
from ccid.virtual.virtual_reader import VirtualReader

__all__ = ["DEFAULT_PORT", "UsbIpServer", "serve_connection", "speed_of"]

DEFAULT_PORT = 3240
"""IANA's number for USB/IP."""
QUESTION_TIMEOUT_S = 10.0
"""The server closes a connection whose request, or whose answer, takes longer than this."""
MAX_ASKING = 32
"""The largest number of connections without a reader; the server closes the oldest beyond."""
RETRY_S = 0.5
"""Pause after a failed accept."""
ROOM_S = 1.0
"""How long a client waits for connections that were closed for it, until they have ended."""

logger = logging.getLogger("ccid.virtual.usbip")


class UsbIpServer:
    """Readers that a Linux host may attach: ``usbip attach -r 127.0.0.1 -b 1-1``.

    Args:
        readers: The readers, with the bus ids 1-1, 1-2, and so on.
        host, port: The address to listen on; port 0 for any free port.

    Raises:
        ValueError: ``host`` is not a loopback address.
        OSError: ``host`` is unknown; from :meth:`start`: the port is in use.
    """

    def __init__(
        self, readers: Sequence[VirtualReader], host: str = "127.0.0.1", port: int = DEFAULT_PORT
    ) -> None:
        self.readers = {f"1-{number}": reader for number, reader in enumerate(readers, 1)}
        """The readers by bus id."""
        self._family, self.address = _loopback(host, port)
        """Host and port; after :meth:`start` with the real port."""
        self._listener: socket.socket | None = None
        self._threads: dict[threading.Thread, socket.socket] = {}
        self._asking: dict[socket.socket, None] = {}
        """Connections without a reader, the oldest first."""
        self._lock = new_lock()

    def is_attached(self, busid: str) -> bool:
        """True if a host has imported the reader."""
        return is_attached(self.readers[busid].port)

    def start(self) -> Self:
        """Listen, in a new thread."""
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # on other systems the option lets another process take the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self.address)
            listener.listen()
        except OSError:
            listener.close()
            raise
        self.address = listener.getsockname()[:2]
        end, ended = socket.socketpair()
        acceptor = threading.Thread(
            target=self._accept, args=(listener, ended), name="usbip", daemon=True
        )
        try:
            acceptor.start()
        except RuntimeError as error:
            for sock in (listener, end, ended):
                sock.close()
            raise OSError(f"no thread can be started to listen: {error}") from None
        self._listener, self._end, self._acceptor = listener, end, acceptor
        return self

    def close(self) -> None:
        """Stop listening, and detach every reader."""
        if self._listener is None:
            return
        self._end.close()
        self._acceptor.join()
        self._listener = None
        with self._lock:
            threads = dict(self._threads)
            for sock in threads.values():
                _cut(sock)
        for thread in threads:
            thread.join()

    def __enter__(self) -> Self:
        return self if self._listener is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self, listener: socket.socket, ended: socket.socket) -> None:
        with closing(listener), closing(ended), selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while True:
                if any(key.fileobj is ended for key, _ in selector.select()):
                    return
                try:
                    sock, _ = listener.accept()
                except OSError as error:
                    logger.warning("a client could not be accepted: %s", error)
                    with self._lock:
                        self._cut_oldest(len(self._asking) - 1)
                    # Without free file descriptors the same client would come again at once.
                    select.select([ended], [], [], RETRY_S)
                    continue
                try:
                    self._serve(sock, ended)
                except (RuntimeError, MemoryError) as error:
                    sock.close()
                    logger.warning("a client cannot be served: %s", error)

    def _make_room(self) -> bool:
        """Close the oldest connections without a reader if there are too many; True if another
        thread may start. It may not as long as too many of closed connections have not ended."""
        with self._lock:
            self._cut_oldest(MAX_ASKING - 1)
            return len(self._threads) < len(self.readers) + 2 * MAX_ASKING

    def _serve(self, sock: socket.socket, ended: socket.socket) -> None:
        """Serve a client in a new thread. Raises RuntimeError if no thread can start."""
        until = time.monotonic() + ROOM_S
        while not self._make_room():
            if select.select([ended], [], [], 0.01)[0] or time.monotonic() > until:
                raise RuntimeError("there are too many")
        thread = threading.Thread(
            target=self._client, args=(sock,), name="usbip client", daemon=True
        )
        with self._lock:
            thread.start()
            self._threads[thread] = sock
            self._asking[sock] = None

    def _cut_oldest(self, most: int) -> None:
        """Close the oldest connections without a reader, until ``most`` are left."""
        for oldest in tuple(self._asking)[: max(0, len(self._asking) - max(0, most))]:
            del self._asking[oldest]
            _cut(oldest)

    def _client(self, sock: socket.socket) -> None:
        try:
            with closing(sock):
                self._answer(sock)
        finally:
            with self._lock:
                del self._threads[threading.current_thread()]
                self._asking.pop(sock, None)

    def _answer(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._question(sock)
        except MalformedMessage as error:
            logger.warning("%s; the connection ends", error)
        except (OSError, MemoryError) as error:
            logger.info("a connection broke: %s", error)

    def _question(self, sock: socket.socket) -> None:
        """Answer the one request of a connection, as the server of Linux does."""
        until = time.monotonic() + QUESTION_TIMEOUT_S
        first = _next(sock, OP_HEADER_LENGTH, until)
        if not first:
            return
        header = OpHeader.parse(first + _exactly(sock, OP_HEADER_LENGTH - len(first), until))
        if header.code == Op.REQ_DEVLIST:
            sock.sendall(OpHeader(code=Op.REP_DEVLIST).build() + self._list().build())
            hang_up(sock)
        elif header.code == Op.REQ_IMPORT:
            self._import(sock, ImportRequest.parse(_exactly(sock, BUSID_LENGTH, until)).busid)
        else:
            raise MalformedMessage(f"USB/IP: no question 0x{header.code:04X}", field="code")

    def _import(self, sock: socket.socket, busid: str) -> None:
        reader = self.readers.get(busid)
        if reader is None or reader.device.is_unplugged:
            _refuse(sock, OpStatus.NODEV)
            return
        try:
            cable = Cable(sock, reader.port)
        except ReaderBusy:
            _refuse(sock, OpStatus.DEV_BUSY)
            return
        with closing(cable):
            with self._lock:
                self._asking.pop(sock, None)
            device = ExportedDevice(**_description(busid, reader))
            sock.sendall(OpHeader(code=Op.REP_IMPORT).build() + device.build())
            cable.serve()
            with self._lock:
                self._asking[sock] = None  # the connection has no reader any more

    def _list(self) -> DeviceList:
        devices = [
            ListedDevice(**_description(busid, reader), interfaces=_interfaces(reader))
            for busid, reader in self.readers.items()
            if not reader.device.is_unplugged
        ]
        return DeviceList(devices=devices)


def _refuse(sock: socket.socket, status: OpStatus) -> None:
    sock.sendall(OpHeader(code=Op.REP_IMPORT, status=status).build())
    hang_up(sock)


def _description(busid: str, reader: VirtualReader) -> dict[str, Any]:
    """The fields of :class:`ExportedDevice`."""
    device = reader.device
    busnum, devnum = map(int, busid.split("-"))
    return {
        "path": f"/sys/devices/virtual/usb{busnum}/{busid}",
        "busid": busid,
        "busnum": busnum,
        "devnum": devnum,
        "speed": speed_of(reader.port),
        "idVendor": device.descriptor.idVendor,
        "idProduct": device.descriptor.idProduct,
        "bcdDevice": device.descriptor.bcdDevice,
        "bDeviceClass": device.descriptor.bDeviceClass,
        "bDeviceSubClass": device.descriptor.bDeviceSubClass,
        "bDeviceProtocol": device.descriptor.bDeviceProtocol,
        "bConfigurationValue": device.bConfigurationValue,
        "bNumConfigurations": device.descriptor.bNumConfigurations,
        "bNumInterfaces": len(device.functions),
    }


def _interfaces(reader: VirtualReader) -> list[ExportedInterface]:
    return [
        ExportedInterface(
            bInterfaceClass=interface.descriptor.bInterfaceClass,
            bInterfaceSubClass=interface.descriptor.bInterfaceSubClass,
            bInterfaceProtocol=interface.descriptor.bInterfaceProtocol,
        )
        for interface in parse_configuration(reader.device.raw_configuration).interfaces
    ]


def _next(sock: socket.socket, size: int, until: float) -> bytes:
    """Up to ``size`` received bytes. Raises TimeoutError at the time ``until``."""
    sock.settimeout(max(0.001, until - time.monotonic()))
    return sock.recv(size)


def _exactly(sock: socket.socket, size: int, until: float) -> bytes:
    """The next ``size`` bytes of a request. Raises MalformedMessage if the request is incomplete,
    TimeoutError at the time ``until``."""
    data = b""
    while len(data) < size:
        more = _next(sock, size - len(data), until)
        if not more:
            raise MalformedMessage("USB/IP: a question breaks off")
        data += more
        if time.monotonic() > until:
            raise TimeoutError("a question takes too long")
    return data


def _cut(sock: socket.socket) -> None:
    """Make the thread that serves ``sock`` end."""
    with suppress(OSError):  # the client closed the connection first
        sock.shutdown(socket.SHUT_RDWR)


def _loopback(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The address to listen on. Raises ValueError for an address that is not loopback."""
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in places:
        if not ipaddress.ip_address(place[0]).is_loopback:
            raise ValueError(
                f"{host} is not a loopback address: whoever reaches a USB/IP server can use the "
                "cards in its readers, so it listens on 127.0.0.1 or ::1 only; for a host "
                "elsewhere, tunnel it (ssh -R)"
            )
    family, *_, place = places[0]
    return family, (str(place[0]), port)
