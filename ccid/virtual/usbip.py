"""Virtual readers for a Linux kernel: a USB/IP server, the far end of ``usbip attach``.

A host that imports a device holds one connection to it, and the connection is the cable: it
opens, the device is reset as by being plugged in; it closes, the device is free again. A reader
that is pulled out closes it from this end.

One thread serves a connection, so nothing is handed over on an APDU's way. It sleeps until the
host sends something, until the time of the next thing the device has to say, or until another
thread changes the device (a card is put in) and wakes it. IN transfers wait, first come first
served at each endpoint, until there is something for them, a stall, or an unlink.

Two flags of a URB matter. ZERO_PACKET: an empty packet follows an OUT transfer of full packets,
and the device gets it as a transfer of its own. SHORT_NOT_OK: an IN transfer that is not filled
fails, and so does the larger transfer that the host cut into URBs: all of it but the last has the
flag. What is left of it stays unfilled until the host unlinks it, or it would swallow the next
message.

Nothing here knows who asks. Therefore the server listens on loopback addresses only.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self

from ccid.descriptors import ClassControl, parse_configuration
from ccid.descriptors.standard import TransferType
from ccid.errors import MalformedMessage, ReaderBusy
from ccid.virtual.port import Port, Unplugged
from ccid.virtual.reader import VirtualReader
from ccid.virtual.usb import Function, Stall
from ccid.virtual.usbip_messages import (
    BUSID_LENGTH,
    ECONNRESET,
    EPIPE,
    EREMOTEIO,
    OP_HEADER_LENGTH,
    SHORT_NOT_OK,
    ZERO_PACKET,
    CommandStream,
    DeviceList,
    ExportedDevice,
    ExportedInterface,
    ImportRequest,
    ListedDevice,
    Op,
    OpHeader,
    OpStatus,
    Speed,
    Submit,
    Unlink,
    ret_submit,
    ret_unlink,
)

DEFAULT_PORT = 3240
"""IANA's number for USB/IP."""
QUESTION_TIMEOUT_S = 10.0
"""A client that says this long nothing before it has a device is hung up on."""
CHUNK = 1 << 16

logger = logging.getLogger("ccid.virtual.usbip")

_setup = struct.Struct("<BBHHH")
_served: set[Port] = set()
_served_lock = threading.Lock()


class _Waiting:
    """An IN transfer that is not over."""

    __slots__ = ("data", "submit")

    def __init__(self, submit: Submit) -> None:
        self.submit = submit
        self.data = b""


class Cable:
    """A device attached to a host that talks USB/IP over ``sock``.

    Args:
        sock: Connected, the import behind it. :meth:`close` closes it.
        port: The port of the device.

    Raises:
        ReaderBusy: The device is attached to another host; ``sock`` stays open.
    """

    def __init__(self, sock: socket.socket, port: Port) -> None:
        self._packet_sizes = _packet_sizes(port)
        with _served_lock:
            if port in _served:
                raise ReaderBusy(
                    "this virtual reader is attached already",
                    holder="another USB/IP connection",
                    cure="detach it there (usbip detach)",
                )
            _served.add(port)
        self.port = port
        self.device = port.device
        self._sock = sock
        self._stream = CommandStream()
        self._answers: list[bytes] = []
        self._waiting: dict[int, dict[int, _Waiting]] = {}
        self._left_over: set[int] = set()
        self._thread = 0
        self._alarm, self._alarmed = socket.socketpair()
        self._alarm.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)
        self._selector.register(self._alarmed, selectors.EVENT_READ)
        self._hooks: list[tuple[Function, Callable[[], None]]] = []
        with port.changed:
            for function in self.device.functions:
                self._hooks.append((function, function.on_change))
                function.on_change = self._hook(function.on_change)
            self.device.bConfigurationValue = 0
            self.device.reset(port.now())

    def _hook(self, others: Callable[[], None]) -> Callable[[], None]:
        def changed() -> None:
            others()
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
                return  # so many alarms are unheard that one more tells nothing

    def close(self) -> None:
        """Detach the device, then close the connection."""
        with self.port.changed:
            for function, others in self._hooks:
                function.on_change = others
            self._hooks.clear()
        self._selector.close()
        self._alarm.close()
        self._alarmed.close()
        with _served_lock:
            _served.discard(self.port)
        _hang_up(self._sock)

    def serve(self) -> None:
        """Answer the host until it hangs up, breaks the protocol, or the reader is unplugged."""
        self._thread = threading.get_ident()
        try:
            while not self.device.is_unplugged and self._turn():
                pass
        except Unplugged:
            self._flush()
        except MalformedMessage as error:
            self._flush()
            logger.warning("%s; the connection ends", error)
        except (ConnectionError, TimeoutError) as error:
            logger.info("the connection broke: %s", error)

    def _turn(self) -> bool:
        """Sleep, then do all there is to do; False if the host hung up."""
        for key, _ in self._selector.select(self._sleep_s()):
            if key.fileobj is self._alarmed:
                self._alarmed.recv(CHUNK)
                continue
            data = self._sock.recv(CHUNK)
            if not data:
                return False
            for command in self._stream.feed(data):
                if isinstance(command, Submit):
                    self._submit(command)
                else:
                    self._unlink(command)
        self._serve_waiting()
        self._flush()
        return True

    def _sleep_s(self) -> float | None:
        """Seconds until the device has something new to say; None for no telling."""
        if not any(self._waiting.values()):
            return None
        with self.port.changed:
            now = self.port.now()
            pipes = (p for f in self.device.functions for p in (f.bulk_in, f.interrupt_in))
            times = [due for p in pipes if p is not None and (due := p.next_due()) is not None]
        # What is due already is for an endpoint that no transfer waits at.
        return min((due - now for due in times if due > now), default=None)

    def _flush(self) -> None:
        if self._answers:
            answers, self._answers = b"".join(self._answers), []
            self._sock.sendall(answers)

    # Commands ---------------------------------------------------------------------------------

    def _submit(self, submit: Submit) -> None:
        endpoint = submit.endpoint
        if not endpoint & 0x0F:
            self._control(submit)
        elif endpoint & 0x80:
            queue = self._waiting.setdefault(endpoint, {})
            if submit.seqnum in queue:
                raise MalformedMessage(
                    f"USB/IP: URB {submit.seqnum} was submitted twice", field="seqnum"
                )
            queue[submit.seqnum] = _Waiting(submit)
        else:
            self._out(submit)

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
        if submit.endpoint & 0x80:
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
        """Give the transfers that wait what the device has to say to them."""
        with self.port.changed:
            now = self.port.now()
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
        """Take what there is for a transfer: its status, None while it is not over."""
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
        """Return an IN transfer. True if it is too short for its SHORT_NOT_OK."""
        short = not status and submit.flags & SHORT_NOT_OK and len(data) < submit.length
        if short:
            status = EREMOTEIO
        self._answers.append(ret_submit(submit.seqnum, status, len(data), submit.packets))
        self._answers.append(data)
        return bool(short)

    def _leave_rest(self, queue: dict[int, _Waiting]) -> None:
        """The host will unlink the rest of the transfer whose beginning was too short."""
        for seqnum, waiting in tuple(queue.items()):
            del queue[seqnum]
            self._left_over.add(seqnum)
            if not waiting.submit.flags & SHORT_NOT_OK:
                return


def serve_connection(sock: socket.socket, port: Port) -> None:
    """Serve a device over a connection on which it was imported already, until its end.

    Args:
        sock: One end of it, closed at the end. The other may be written, with the speed of
            :func:`speed_of`, to ``/sys/devices/platform/vhci_hcd.0/attach``. ``shutdown`` of
            either end ends it.
        port: :attr:`VirtualReader.port <ccid.virtual.VirtualReader.port>`.

    Raises:
        ReaderBusy: The device is served already.
    """
    with closing(sock), closing(Cable(sock, port)) as cable:
        cable.serve()


def speed_of(port: Port) -> Speed:
    """The speed of a device: high if its bulk packets are those of high speed."""
    return Speed.HIGH if max(_packet_sizes(port).values(), default=0) > 64 else Speed.FULL


def _packet_sizes(port: Port) -> dict[int, int]:
    """wMaxPacketSize of the bulk endpoints, by address."""
    return {
        endpoint.descriptor.bEndpointAddress: endpoint.descriptor.max_packet_size
        for interface in parse_configuration(port.device.raw_configuration).interfaces
        for endpoint in interface.endpoints
        if endpoint.descriptor.transfer_type is TransferType.BULK
    }


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        logger.debug("the other end hung up first")
    sock.close()


# The server -----------------------------------------------------------------------------------


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
        return self.readers[busid].port in _served

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
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(QUESTION_TIMEOUT_S)
                self._question(sock)
        except MalformedMessage as error:
            logger.warning("%s; the connection ends", error)
        except (ConnectionError, TimeoutError) as error:
            logger.info("a connection broke: %s", error)
        finally:
            with self._lock:
                del self._threads[threading.current_thread()]

    def _question(self, sock: socket.socket) -> None:
        """One question a connection, as of Linux's own server."""
        first = sock.recv(OP_HEADER_LENGTH)
        if not first:
            return
        header = OpHeader.parse(first + _exactly(sock, OP_HEADER_LENGTH - len(first)))
        if header.code == Op.REQ_DEVLIST:
            sock.sendall(OpHeader(code=Op.REP_DEVLIST).build() + self._list().build())
            _hang_up(sock)
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
            sock.settimeout(None)
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
    _hang_up(sock)


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
