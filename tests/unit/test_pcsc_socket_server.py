"""The service at a socket, with clients that lie, take nothing, or are too many: over real sockets
on this machine, in this process."""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid.pcsc.service import service_thread, socket_server
from ccid.pcsc.service.client_messages import Command
from ccid.pcsc.service.service_thread import ServiceThread
from ccid.pcsc.service.socket_place import SOCKET_VARIABLE, Peer, listen
from ccid.pcsc.service.socket_server import SocketServer
from ccid.virtual import EchoCard
from tests.unit.pcsc_clients import connect_body, request, transmit_body

VERSION = request(Command.VERSION, struct.pack("=III", 4, 4, 0))
ESTABLISH = request(Command.ESTABLISH, struct.pack("=III", 2, 0, 0))
NO_MEMORY = 0x8010_0006
Connect = Callable[[], socket.socket]


@pytest.fixture
def reader() -> ccid.VirtualReader:
    return ccid.VirtualReader(EchoCard())


@pytest.fixture
def service(reader: ccid.VirtualReader) -> Iterator[ServiceThread]:
    made = ServiceThread([reader])
    yield made
    made.end()
    assert not made.path.parent.exists()


@pytest.fixture
def server(service: ServiceThread) -> SocketServer:
    return service._server


@pytest.fixture
def connect(service: ServiceThread) -> Iterator[Connect]:
    with ExitStack() as stack:

        def make() -> socket.socket:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(10)
            sock.connect(str(service.path))
            return sock

        yield make


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, f"hung up after {len(data)} of {size} bytes"
        data += more
    return data


def established(sock: socket.socket) -> tuple[int, int]:
    """A context, and the code."""
    sock.sendall(VERSION)
    exactly(sock, 12)
    sock.sendall(ESTABLISH)
    _, context, rv = struct.unpack("=III", exactly(sock, 12))
    return context, rv


def is_served(sock: socket.socket) -> bool:
    """A client gets a card and an APDU."""
    context, rv = established(sock)
    assert rv == 0
    name = ""
    until = time.monotonic() + 10
    while not name:  # until the reader is found
        assert time.monotonic() < until
        sock.sendall(request(Command.GETSTATE))
        name = exactly(sock, 16 * 184)[:128].rstrip(b"\0").decode()
    sock.sendall(request(Command.CONNECT, connect_body(context, name, 2)))
    *_, card, _, rv = struct.unpack("=I128sIIIII", exactly(sock, 152))
    assert rv == 0, hex(rv)
    apdu = bytes.fromhex("0010000002")
    sock.sendall(request(Command.TRANSMIT, transmit_body(card, len(apdu)), apdu))
    head = exactly(sock, 32)
    return exactly(sock, struct.unpack("=8I", head)[6])[-2:] == b"\x90\0"


def is_hung_up(sock: socket.socket) -> bool:
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


def test_a_client_is_served(service: ServiceThread, connect: Connect) -> None:
    assert is_served(connect())
    assert service.environment()[SOCKET_VARIABLE] == str(service.path)


@pytest.mark.parametrize(
    "said", [b"\xff" * 64, request(0x4242, bytes(12)), request(Command.ESTABLISH, bytes(11))],
    ids=["noise", "no command", "another size"],
)  # fmt: skip
def test_a_client_that_says_nonsense_is_hung_up_on(said: bytes, connect: Connect) -> None:
    sock = connect()
    sock.sendall(said)
    assert is_hung_up(sock)
    assert is_served(connect())


def test_a_client_that_says_half_of_it_costs_nothing(connect: Connect) -> None:
    half = connect()
    half.sendall(VERSION[:5])
    assert is_served(connect())
    half.sendall(VERSION[5:])
    assert exactly(half, 12)


def test_a_process_has_so_many_connections(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "MAX_CLIENTS_OF_PROCESS", 3)
    first = [connect() for _ in range(3)]
    assert [established(sock)[1] for sock in first] == [0, 0, 0]
    assert is_hung_up(connect())
    first.pop().close()
    assert is_served_in_time(connect)


def is_served_in_time(connect: Connect) -> bool:
    """As soon as the service has seen that another client is gone."""
    for _ in range(100):
        try:
            return is_served(connect())
        except (AssertionError, OSError):
            time.sleep(0.02)
    return False


def test_a_process_has_so_many_contexts(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_server, "MAX_CONTEXTS_OF_PROCESS", 2)
    assert [established(connect())[1] for _ in range(3)] == [0, 0, NO_MEMORY]


def test_another_user_may_not_connect(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(pid=1, uid=os.geteuid() + 1)
    monkeypatch.setattr(socket_server, "peer_of", lambda connection: peer)
    assert is_hung_up(connect())


def test_a_peer_that_is_gone_already(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(connection: socket.socket) -> Peer:
        raise OSError("gone")

    monkeypatch.setattr(socket_server, "peer_of", gone)
    assert is_hung_up(connect())
    monkeypatch.undo()
    assert is_served(connect())


def test_without_a_descriptor_one_client_is_hung_up_on(
    connect: Connect, server: SocketServer
) -> None:
    listener = server._listener

    class Full:
        """No descriptor is left for the first that connects."""

        refused = 0

        def accept(self) -> Any:
            if not Full.refused:
                Full.refused += 1
                raise OSError(24, "too many open files")
            return listener.accept()

    server._listener = Full()  # type: ignore[assignment]
    try:
        server._accept()  # in this thread: the service's own looks at the real one
    finally:
        server._listener = listener
    assert Full.refused == 1
    assert is_served(connect())
    assert not server._spare.closed


def test_a_fault_of_ours_costs_one_client(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, data: bytes) -> None:
        raise KeyError("a fault of ours")

    victim = connect()
    established(victim)
    monkeypatch.setattr("ccid.pcsc.service.client_session.ClientSession.received", broken)
    victim.sendall(ESTABLISH)
    assert is_hung_up(victim)
    monkeypatch.undo()
    assert is_served(connect())


def test_a_fault_of_ours_does_not_end_the_service(
    connect: Connect, server: SocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    work, broken = server._work, threading.Event()

    def once() -> float | None:
        if not broken.is_set():
            broken.set()
            raise KeyError("a fault of ours")
        return work()

    server._work = once  # type: ignore[method-assign]
    assert is_served(connect())
    assert broken.is_set()
    assert "goes on after a fault" in caplog.text


def test_the_end_is_told(
    connect: Connect, service: ServiceThread, reader: ccid.VirtualReader
) -> None:
    """A client that waits for a change is answered, then hung up on; cards are powered off."""
    waiting = connect()
    established(waiting)
    waiting.sendall(request(Command.WAIT))
    exactly(waiting, 16 * 184)
    slot = reader.functions[0].slots[0]
    assert slot.powered
    service.end()
    assert is_hung_up(waiting)
    assert not slot.powered


def test_it_ends_with_a_pipe(service: ServiceThread, server: SocketServer) -> None:
    """As with the program that started it."""
    end, other = os.pipe()
    server.end_with(end)
    os.close(other)
    with suppress(OSError):  # it may have ended by then
        os.write(server.waker, b"\0")
    service._thread.join(10)
    assert not service._thread.is_alive()
    os.close(end)


def test_no_socket_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def refuse(path: Path) -> socket.socket:
        raise OSError("no socket")

    monkeypatch.setattr(service_thread, "listen", refuse)
    with pytest.raises(OSError, match="no socket"):
        ServiceThread([])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the umask is set")
def test_the_umask_of_other_threads_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two services that begin at the same time would put back each other's."""

    def refused(_mask: int) -> int:
        raise AssertionError("it is the umask of all threads")

    monkeypatch.setattr(os, "umask", refused)
    path = tmp_path / "socket"
    listen(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
