"""A USB/IP server with clients that behave as Linux never does: each costs little, and other
clients are served."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.virtual import usbip, usbip_cable
from ccid.virtual.control_socket import MAX_CLIENTS, ControlCommands, ControlSocket
from ccid.virtual.usbip import UsbIpServer
from ccid.virtual.usbip_messages import DeviceList, ImportRequest, Op, OpHeader

SUBMIT = struct.Struct(">6I4i8s")
IMPORTED = 8 + 312
IN, OUT = 1, 0
ASK = OpHeader(code=Op.REQ_DEVLIST).build()


@pytest.fixture
def server() -> Iterator[UsbIpServer]:
    with UsbIpServer([ccid.VirtualReader(), ccid.VirtualReader()], port=0) as made:
        yield made


@pytest.fixture
def connect(server: UsbIpServer) -> Iterator[Callable[[], socket.socket]]:
    with contextlib.ExitStack() as stack:

        def make() -> socket.socket:
            return stack.enter_context(socket.create_connection(server.address, timeout=10))

        yield make


def receive(sock: socket.socket, size: int = 1 << 20) -> bytes:
    """Receive ``size`` bytes, or all bytes until the end."""
    got = b""
    while len(got) < size and (more := sock.recv(size - len(got))):
        got += more
    return got


def is_served(sock: socket.socket) -> bool:
    """True if the client gets the list of readers."""
    sock.sendall(ASK)
    return len(DeviceList.parse(receive(sock)[8:]).devices) == 2


def attach(sock: socket.socket, busid: str = "1-1") -> socket.socket:
    sock.sendall(OpHeader(code=Op.REQ_IMPORT).build() + ImportRequest(busid=busid).build())
    assert len(receive(sock, IMPORTED)) == IMPORTED
    return sock


def submit(
    number: int, ep: int, direction: int = IN, length: int = 64, packets: int = 0, flags: int = 0
) -> bytes:
    return SUBMIT.pack(1, number, 0, direction, ep, flags, length, 0, packets, 0, bytes(8))


def is_hung_up_on(sock: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        receive(sock)
    return True


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.002)


# The system has no resources left ---------------------------------------------------------------


def test_no_thread_for_a_client(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "usbip client":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert is_hung_up_on(connect())
    monkeypatch.undo()
    assert is_served(connect())
    server.close()


def test_no_thread_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    made = UsbIpServer([ccid.VirtualReader()], port=0)
    with pytest.raises(OSError, match="no thread"):
        made.start()
    monkeypatch.undo()
    made.close()
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(made.address)


def test_no_file_descriptor_for_a_client(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server closes the oldest connection that has sent no request."""
    monkeypatch.setattr(usbip, "RETRY_S", 0.01)
    idle = connect()
    until(lambda: server._asking)
    accept, failing = socket.socket.accept, [1]

    def fail(sock: socket.socket) -> Any:
        if failing:
            failing.pop()
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", fail)
    assert is_served(connect())
    assert is_hung_up_on(idle)


def test_no_file_descriptor_for_a_cable(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", fail)
    sock = connect()
    sock.sendall(OpHeader(code=Op.REQ_IMPORT).build() + ImportRequest(busid="1-1").build())
    assert is_hung_up_on(sock)
    monkeypatch.undo()
    assert not server.is_attached("1-1")
    attach(connect())


# Clients that send no request -------------------------------------------------------------------


def test_of_many_who_ask_nothing_the_oldest_go(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip, "MAX_ASKING", 4)
    held = attach(connect())
    idle = [connect() for _ in range(20)]
    for sock in idle[:10]:
        assert is_hung_up_on(sock)
    until(lambda: len(server._threads) <= 1 + 4)
    assert is_served(connect())
    assert server.is_attached("1-1")
    held.sendall(submit(1, 0, length=0))
    assert len(receive(held, 48)) == 48, "who has a reader keeps it"


def test_connections_are_bounded_even_if_none_ends(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip, "MAX_ASKING", 2)
    monkeypatch.setattr(usbip, "ROOM_S", 0.05)
    stays, go_on = server._answer, threading.Event()

    def answer(sock: socket.socket) -> None:
        go_on.wait(10)
        stays(sock)

    monkeypatch.setattr(server, "_answer", answer)
    socks = [connect() for _ in range(12)]
    assert is_hung_up_on(socks[-1])
    assert len(server._threads) == 2 + 2 * 2
    go_on.set()
    until(lambda: len(server._threads) <= 2)
    assert is_served(connect())


def test_a_client_waits_for_the_end_of_connections_that_were_closed_for_it(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip, "MAX_ASKING", 2)
    answer = server._answer

    def slow(sock: socket.socket) -> None:
        answer(sock)
        time.sleep(0.1)

    monkeypatch.setattr(server, "_answer", slow)
    idle = [connect() for _ in range(12)]
    assert is_served(connect())
    assert all(is_hung_up_on(sock) for sock in idle[:10])


def test_a_question_has_a_limit_as_a_whole(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for the whole request; a single byte does not extend it."""
    monkeypatch.setattr(usbip, "QUESTION_TIMEOUT_S", 0.15)
    sock, began = connect(), time.monotonic()
    sock.sendall(ASK[:2])
    with contextlib.suppress(ConnectionError):
        for byte in (*ASK[2:], *bytes(30)):
            if not server._threads and time.monotonic() > began + 0.15:
                break
            sock.sendall(bytes((byte,)))
            time.sleep(0.03)
    until(lambda: not server._threads)


# A client that does not behave like a host ------------------------------------------------------


@pytest.mark.parametrize("ep", [2, 9])
def test_urbs_that_wait_are_counted(
    server: UsbIpServer, connect: Callable[[], socket.socket], ep: int
) -> None:
    sock = attach(connect())
    many = usbip_cable.MAX_WAITING
    sock.sendall(b"".join(submit(1 + i, ep) for i in range(many)))
    sock.sendall(submit(many + 1, 0, length=0))
    if ep != 9:  # a transfer to an endpoint that does not exist stalls at once
        assert len(receive(sock, 48)) == 48
        assert server.is_attached("1-1")
        sock.sendall(submit(many + 2, ep))
        assert is_hung_up_on(sock)
        until(lambda: not server.is_attached("1-1"))
    else:
        assert len(receive(sock, 48 * (many + 1))) == 48 * (many + 1)
        assert server.is_attached("1-1")


def test_urbs_that_were_taken_back_count_no_more(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip_cable, "MAX_WAITING", 10)
    sock = attach(connect())
    for number in range(1, 100):
        sock.sendall(
            submit(number, 2) + SUBMIT.pack(2, 1000 + number, 0, 0, 0, number, *[0] * 4, bytes(8))
        )
        answer = receive(sock, 48)
        assert struct.unpack_from(">5Ii", answer)[-1] == -104
    assert server.is_attached("1-1")


def test_what_is_left_of_a_short_transfer_counts(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip_cable, "MAX_WAITING", 10)
    sock = attach(connect())
    status = bytes.fromhex("65000000000000000000")
    sock.sendall(b"".join(submit(10 + i, 2, flags=1) for i in range(10)))
    sock.sendall(submit(1, 1, OUT, len(status)) + status)
    assert len(receive(sock, 48 + 48 + 10)) == 106
    sock.sendall(b"".join(submit(30 + i, 2, flags=1) for i in range(2)))
    assert is_hung_up_on(sock)


def test_a_command_that_does_not_get_complete(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip_cable, "STALLED_S", 0.1)
    sock = attach(connect())
    sock.sendall(submit(1, 1, OUT, 1 << 20) + bytes(1000))
    assert is_hung_up_on(sock)
    attach(connect())


def test_a_host_that_says_nothing_keeps_its_reader(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip_cable, "STALLED_S", 0.05)
    sock = attach(connect())
    sock.sendall(submit(1, 3) + submit(2, 0, length=0))
    assert len(receive(sock, 48)) == 48
    time.sleep(0.15)
    assert server.is_attached("1-1")


def test_a_host_that_takes_no_answer(
    server: UsbIpServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbip_cable, "STALLED_S", 0.1)
    monkeypatch.setattr(usbip_cable, "LINGER_IDLE_S", 0.05)
    sock = attach(connect())
    sock.setblocking(False)
    unlinks = b"".join(SUBMIT.pack(2, i, 0, 0, 0, 7, *[0] * 4, bytes(8)) for i in range(1000))

    def gave_up() -> bool:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sock.send(unlinks)
        return not server.is_attached("1-1")

    until(gave_up)
    attach(connect())


@pytest.mark.parametrize(
    "command",
    [
        submit(1, 2, packets=1),
        submit(1, 2, packets=1 << 30),
        submit(1, 2, packets=-2),
        submit(1, 2, length=-1),
        submit(1, 2, length=(1 << 31) - 1),
        submit(1, 1, OUT, length=(16 << 20) + 1),
        submit(1, 16),
        submit(1, 2, direction=2),
        bytes(48),
        b"\xff" * 48,
    ],
)
def test_commands_out_of_order(
    server: UsbIpServer, connect: Callable[[], socket.socket], command: bytes
) -> None:
    sock = attach(connect())
    sock.sendall(command)
    assert is_hung_up_on(sock)
    until(lambda: not server.is_attached("1-1"))
    attach(connect())


@pytest.mark.parametrize("busid", [b"\xff\xfe", b"1-1\xff", b"1" * 32, b"", b"../../etc"])
def test_names_that_no_reader_has(
    server: UsbIpServer, connect: Callable[[], socket.socket], busid: bytes
) -> None:
    sock = connect()
    sock.sendall(OpHeader(code=Op.REQ_IMPORT).build() + busid.ljust(32, b"\0"))
    assert is_hung_up_on(sock)
    assert is_served(connect())


# The control socket -----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_clients_of_the_control_socket(
    server: UsbIpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of too many clients the oldest is closed; an error of the system ends nothing."""
    path = str(tmp_path / "control")
    accept, failing = socket.socket.accept, list[OSError]()

    def fail(sock: socket.socket) -> Any:
        if failing:
            raise failing.pop()
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", fail)
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        control = ControlSocket(path, ControlCommands(server), selector)
        stack.callback(control.close)

        def turn() -> None:
            for key, _ in selector.select(0):
                key.data()

        def connect() -> socket.socket:
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.settimeout(10)
            made.connect(path)
            turn()
            return made

        clients = [connect() for _ in range(MAX_CLIENTS)]
        failing.append(BlockingIOError(errno.EAGAIN, "it hung up"))
        connect()
        assert len(control._clients) == MAX_CLIENTS
        turn()
        assert len(control._clients) == MAX_CLIENTS
        assert is_hung_up_on(clients[0])
        failing.append(OSError(errno.EMFILE, "Too many open files"))
        last = connect()
        assert is_hung_up_on(clients[1])
        turn()
        last.sendall(b"status\n")
        turn()
        assert last.recv(100).startswith(b"ok 1-1=free:")
        (tmp_path / "control").unlink()
