"""A USB/IP server: virtual readers for a Linux kernel, the far end of ``usbip attach``.

A client asks one thing on a connection: what readers there are, or for one of them. If it gets
one, the connection is the reader's cable from then on (:mod:`ccid.virtual.usbip_cable`). Each
connection has a thread.

Nothing here knows who asks. Therefore the server listens on loopback addresses only.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import select
import selectors
import socket
import threading
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self

from ccid.descriptors import parse_configuration
from ccid.errors import MalformedMessage, ReaderBusy
from ccid.virtual.reader import VirtualReader
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

__all__ = ["DEFAULT_PORT", "UsbIpServer", "serve_connection", "speed_of"]

DEFAULT_PORT = 3240
"""IANA's number for USB/IP."""
QUESTION_TIMEOUT_S = 10.0
"""A client that says this long nothing before it has a device is hung up on."""
RETRY_S = 0.5
"""After an accept that failed."""

logger = logging.getLogger("ccid.virtual.usbip")


class UsbIpServer:
    """Readers that a Linux host may attach: ``usbip attach -r 127.0.0.1 -b 1-1``.

    Args:
        readers: Their bus ids are 1-1, 1-2, and so on.
        host, port: Where to listen; port 0 for any that is free.

    Raises:
        ValueError: ``host`` is not a loopback address.
        OSError: ``host`` is unknown; of :meth:`start`, the port is taken.
    """

    def __init__(
        self, readers: Sequence[VirtualReader], host: str = "127.0.0.1", port: int = DEFAULT_PORT
    ) -> None:
        self.readers = {f"1-{number}": reader for number, reader in enumerate(readers, 1)}
        """The readers by bus id."""
        self._family, self.address = _loopback(host, port)
        """Host and port; once started, those it listens on."""
        self._listener: socket.socket | None = None
        self._threads: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()

    def is_attached(self, busid: str) -> bool:
        """A host has the reader."""
        return is_attached(self.readers[busid].port)

    def start(self) -> Self:
        """Listen, in a thread of its own."""
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # elsewhere the option lets others steal the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self.address)
            listener.listen()
        except OSError:
            listener.close()
            raise
        self.address = listener.getsockname()[:2]
        self._listener = listener
        self._end, ended = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept, args=(listener, ended), name="usbip", daemon=True
        )
        self._acceptor.start()
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
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    logger.debug("a client hung up first")
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
                    # Out of file descriptors, perhaps: it will be there again at once.
                    select.select([ended], [], [], RETRY_S)
                    continue
                thread = threading.Thread(
                    target=self._client, args=(sock,), name="usbip client", daemon=True
                )
                with self._lock:
                    self._threads[thread] = sock
                thread.start()

    def _client(self, sock: socket.socket) -> None:
        try:
            with closing(sock):
                self._answer(sock)
        finally:
            with self._lock:
                del self._threads[threading.current_thread()]

    def _answer(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(QUESTION_TIMEOUT_S)
            self._question(sock)
        except MalformedMessage as error:
            logger.warning("%s; the connection ends", error)
        except (ConnectionError, TimeoutError) as error:
            logger.info("a connection broke: %s", error)

    def _question(self, sock: socket.socket) -> None:
        """One question a connection, as of Linux's own server."""
        first = sock.recv(OP_HEADER_LENGTH)
        if not first:
            return
        header = OpHeader.parse(first + _exactly(sock, OP_HEADER_LENGTH - len(first)))
        if header.code == Op.REQ_DEVLIST:
            sock.sendall(OpHeader(code=Op.REP_DEVLIST).build() + self._list().build())
            hang_up(sock)
        elif header.code == Op.REQ_IMPORT:
            self._import(sock, ImportRequest.parse(_exactly(sock, BUSID_LENGTH)).busid)
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
            device = ExportedDevice(**_description(busid, reader))
            sock.sendall(OpHeader(code=Op.REP_IMPORT).build() + device.build())
            cable.serve()

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


def _exactly(sock: socket.socket, size: int) -> bytes:
    """The next ``size`` bytes of a question. Raises MalformedMessage if it breaks off."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise MalformedMessage("USB/IP: a question breaks off")
        data += more
    return data


def _loopback(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Where to listen. Raises ValueError for what others than this machine can reach."""
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
