"""Sockets of the PC/SC service that are lent to threads: whatever happens meanwhile, the client's
thread and the service's know who holds the socket, and nobody else waits for either."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

import ccid
from ccid.codes import ExchangeLevel
from ccid.iso7816.apdu import CommandApdu
from ccid.pcsc.manager.scard_codes import ScardCode
from ccid.pcsc.service import lent_sockets
from ccid.pcsc.service.client_messages import Command
from ccid.pcsc.service.service_thread import ServiceThread
from ccid.pcsc.service.socket_server import SocketServer
from ccid.virtual import Answer, EchoCard, faults
from tests.unit.pcsc_clients import connect_body, request, transmit_body

pytestmark = pytest.mark.skipif(
    not lent_sockets.CAN_LEND, reason="no socket is lent on this system: it needs Linux's epoll"
)

WORK = bytes.fromhex("00400000")
SLOW_S = 20.0
SLOW = bytes.fromhex("00380014")
SOON_S = 5.0
"""Within this what should happen at once has happened, on a busy machine too."""
TAKEN_OUT = (ScardCode.E_NO_SMARTCARD, ScardCode.W_REMOVED_CARD)


class Noting(EchoCard):
    """Notes who sent a command with INS 40 (P1), and when a slow one begins."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.is_slow = threading.Event()

    def process(self, command: CommandApdu) -> Answer:
        if command.ins == WORK[1]:
            self.seen.append(command.p1)
        if command.ins == SLOW[1]:
            self.is_slow.set()
        return super().process(command)


class Client:
    """A client, as libpcsclite is one (4:4)."""

    def __init__(self, service: ServiceThread) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SLOW_S / 2)
        self.socket.connect(str(service.path))
        self.ask(Command.VERSION, struct.pack("=III", 4, 4, 0))
        reply = self.ask(Command.ESTABLISH, struct.pack("=III", 2, 0, 0))
        self.context = struct.unpack("=III", reply)[1]
        self.card = 0

    def say(self, command: Command, body: bytes = b"", data: bytes = b"") -> None:
        self.socket.sendall(request(command, body, data))

    def take(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self.socket.recv(size - len(got))
            if not more:
                raise ConnectionError("hung up")
            got += more
        return got

    def ask(self, command: Command, body: bytes) -> bytes:
        self.say(command, body)
        return self.take(len(body))

    def rv(self, command: Command, *fields: int) -> int:
        body = struct.pack(f"={len(fields)}I", *fields)
        return int(struct.unpack("=I", self.ask(command, body)[-4:])[0])

    def connect(self, share: int = 2) -> int:
        """SCardConnect to the first reader: its code."""
        self.say(Command.GETSTATE)
        array = self.take(16 * 184)
        name = array[:128].split(b"\0")[0].decode()
        reply = self.ask(Command.CONNECT, connect_body(self.context, name, share))
        self.card, _, code = struct.unpack("=III", reply[140:])
        return int(code)

    def send(self, apdu: bytes = WORK) -> None:
        """The request of SCardTransmit."""
        self.say(Command.TRANSMIT, transmit_body(self.card, len(apdu)), apdu)

    def answer(self) -> int:
        """The code of its reply; the response is taken."""
        reply = self.take(32)
        length, code = struct.unpack("=II", reply[24:])
        if not code:
            assert self.take(length)[-2:] == bytes.fromhex("9000")
        return int(code)

    def transmit(self, apdu: bytes = WORK) -> int:
        self.send(apdu)
        return self.answer()


@pytest.fixture
def card() -> Noting:
    return Noting()


@pytest.fixture
def reader(card: Noting) -> ccid.VirtualReader:
    return ccid.VirtualReader(card, level=ExchangeLevel.EXTENDED_APDU)


@pytest.fixture
def service(reader: ccid.VirtualReader) -> Iterator[ServiceThread]:
    made = ServiceThread([reader])
    yield made
    made.end()


@pytest.fixture
def server(service: ServiceThread) -> SocketServer:
    return service._server


Connect = Callable[[], Client]


@pytest.fixture
def connect(service: ServiceThread) -> Iterator[Connect]:
    """Makes clients that are connected to the reader."""
    with ExitStack() as stack:

        def made() -> Client:
            client = Client(service)
            stack.callback(client.socket.close)
            assert client.connect() == 0
            return client

        yield made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket stays lent as long as nothing but silence speaks against it."""
    monkeypatch.setattr(lent_sockets, "PATIENCE_S", SLOW_S)


def until(is_so: Callable[[], object]) -> None:
    """Wait for what another thread is about to do."""
    limit = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.001)


# As it is meant -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_the_service_is_not_woken(server: SocketServer, connect: Connect, card: Noting) -> None:
    """From the second APDU on nothing but the client's own thread is at work."""
    client = connect()
    assert client.transmit() == 0
    until(lambda: not server._is_awake)
    rounds: list[object] = []
    server._take_back = lambda: rounds.append(None)  # type: ignore[method-assign]
    for _ in range(50):
        assert client.transmit() == 0
    del server._take_back
    assert rounds == []
    assert len(card.seen) == 51
    assert len(server.lent_to) == 1


@pytest.mark.usefixtures("patient")
def test_anything_else_is_answered_by_the_service(server: SocketServer, connect: Connect) -> None:
    client = connect()
    for _ in range(3):
        assert client.transmit() == 0
        assert len(server.lent_to) == 1
        assert client.rv(Command.STATUS, client.card, 0) == 0
        assert not server.lent_to


def test_silence_ends_it(
    server: SocketServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the thread is free, and the service hears the client."""
    monkeypatch.setattr(lent_sockets, "PATIENCE_S", 0.01)
    client = connect()
    for _ in range(3):
        assert client.transmit() == 0
        until(lambda: not server.lent_to)
    assert client.rv(Command.STATUS, client.card, 0) == 0
    assert server.lent is not None
    assert len(server.lent._threads) == 1


@pytest.mark.usefixtures("patient")
def test_requests_without_waiting_for_replies(connect: Connect, card: Noting) -> None:
    client = connect()
    one = request(Command.TRANSMIT, transmit_body(client.card, 4), WORK)
    status = request(Command.STATUS, struct.pack("=II", client.card, 0))
    for _ in range(20):
        client.socket.sendall(one + one + status + one)
        assert [client.answer(), client.answer()] == [0, 0]
        assert client.take(8) == struct.pack("=II", client.card, 0)
        assert client.answer() == 0
    assert len(card.seen) == 60


@pytest.mark.usefixtures("patient")
def test_half_messages(server: SocketServer, connect: Connect) -> None:
    client = connect()
    assert client.transmit() == 0
    one = request(Command.TRANSMIT, transmit_body(client.card, 4), WORK)
    for byte in one[:-1]:
        client.socket.sendall(bytes([byte]))
    assert len(server.lent_to) == 1
    client.socket.sendall(one[-1:])
    assert client.answer() == 0
    client.socket.sendall(one[:30])
    client.socket.close()
    until(lambda: not server.lent_to and not server._clients)


@pytest.mark.usefixtures("patient")
def test_long_apdus(connect: Connect) -> None:
    """Longer than what is read at once."""
    client = connect()
    long = bytes.fromhex("00400000") + b"\0\x80\0" + bytes(0x8000)
    for _ in range(3):
        assert client.transmit(long) == 0
        assert client.transmit() == 0


def test_who_does_not_read_waits_or_is_hung_up_on(connect: Connect, server: SocketServer) -> None:
    """A client that sends and sends, and takes no reply, keeps no thread from anybody."""
    client, other = connect(), connect()
    one = request(Command.TRANSMIT, transmit_body(client.card, 4), WORK)
    client.socket.settimeout(0.2)
    with pytest.raises((TimeoutError, ConnectionError)):
        while True:
            client.socket.sendall(one * 100)
    until(lambda: not server.lent_to)
    assert other.transmit() == 0


@pytest.mark.usefixtures("patient")
def test_more_clients_than_threads(
    server: SocketServer, service: ServiceThread, connect: Connect
) -> None:
    """200 clients that send APDUs, all at the same time: threads are few, and all are served."""
    clients = [connect() for _ in range(200)]
    for _ in range(3):
        for client in clients:
            client.send()
        assert [client.answer() for client in clients] == [0] * 200
    assert server.lent is not None
    assert len(server.lent._threads) <= lent_sockets.MAX_LENT
    for client in clients:
        client.socket.close()
    until(lambda: not server.lent_to and not server.engine.core.resources.contexts)


# What others do meanwhile -------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_a_transaction_of_another_begins_between_two(connect: Connect, card: Noting) -> None:
    client, other = connect(), connect()
    assert client.transmit() == 0
    assert other.rv(Command.BEGIN, other.card, 0) == 0
    seen = len(card.seen)
    client.send()
    assert other.transmit(bytes.fromhex("00400100")) == 0
    assert card.seen[seen:] == [1]
    assert other.rv(Command.END, other.card, 0, 0) == 0
    code = client.answer()
    assert code in (0, ScardCode.E_SHARING_VIOLATION)  # a busy machine: it has waited too long
    assert client.transmit() == 0


@pytest.mark.usefixtures("patient")
def test_nothing_slips_into_a_transaction(connect: Connect, card: Noting) -> None:
    limit = time.monotonic() + 0.7
    busy = int(ScardCode.E_SHARING_VIOLATION)

    def work(number: int) -> None:
        client = connect()
        while time.monotonic() < limit:
            while client.transmit(bytes((0, 0x40, 0, 0))) == busy:
                pass
            while client.rv(Command.BEGIN, client.card, 0) == busy:
                pass
            for _ in range(4):
                assert client.transmit(bytes((0, 0x40, number, 0))) == 0
            assert client.rv(Command.END, client.card, 0, 0) == 0

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, range(1, 5)))
    transactions = 0
    at = 0
    while at < len(card.seen):
        if card.seen[at]:
            assert len(set(card.seen[at : at + 4])) == 1
            transactions += 1
            at += 4
        else:
            at += 1
    assert transactions > 5


@pytest.mark.usefixtures("patient")
def test_exclusive_is_refused_and_then_granted(service: ServiceThread, connect: Connect) -> None:
    client = connect()
    assert client.transmit() == 0
    other = Client(service)
    assert other.connect(share=1) == ScardCode.E_SHARING_VIOLATION
    client.socket.close()
    until(lambda: other.connect(share=1) == 0)
    other.socket.close()


@pytest.mark.usefixtures("patient")
def test_a_cancellation_from_another_connection(connect: Connect, server: SocketServer) -> None:
    client, other = connect(), connect()
    assert client.transmit() == 0
    assert other.rv(Command.CANCEL, client.context, 0) == 0
    assert len(server.lent_to) == 1
    assert client.transmit() == 0
    client.say(Command.WAIT)
    assert client.take(16 * 184 + 8)[-8:] == struct.pack("=II", 0, ScardCode.E_CANCELLED)


@pytest.mark.usefixtures("patient")
def test_a_card_that_is_taken_out(reader: ccid.VirtualReader, connect: Connect) -> None:
    client = connect()
    assert client.transmit() == 0
    taken = reader.remove()
    assert client.transmit() in TAKEN_OUT
    assert taken is not None
    reader.insert(taken)
    assert client.transmit() == ScardCode.W_REMOVED_CARD


@pytest.mark.usefixtures("patient")
def test_a_reader_that_is_pulled_out_at_work(reader: ccid.VirtualReader, connect: Connect) -> None:
    client = connect()
    assert client.transmit() == 0
    reader.faults.append(faults.unplugged())
    gone = (ScardCode.E_READER_UNAVAILABLE, ScardCode.E_INVALID_VALUE)
    assert client.transmit() in gone
    until(lambda: client.transmit() == ScardCode.E_INVALID_VALUE)


# The end ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_lent_before", [True, False])
def test_a_client_that_is_killed_at_work(
    connect: Connect, card: Noting, server: SocketServer, *, is_lent_before: bool
) -> None:
    """What the card does for it is ended; the next one has the card."""
    client, other = connect(), connect()
    if is_lent_before:
        assert client.transmit() == 0
    begun = time.monotonic()
    client.send(SLOW)
    assert card.is_slow.wait(SOON_S)
    client.socket.close()
    until(lambda: len(server._clients) == 1)
    until(lambda: other.transmit() == 0)
    until(lambda: other.context in server.engine.core.resources.contexts and not server.lent_to)
    assert time.monotonic() - begun < SLOW_S / 2


@pytest.mark.usefixtures("patient")
def test_a_holder_of_a_transaction_that_is_killed_at_work(connect: Connect, card: Noting) -> None:
    client, other = connect(), connect()
    assert client.rv(Command.BEGIN, client.card, 0) == 0
    assert client.transmit() == 0
    resets = card.resets
    client.send(SLOW)
    assert card.is_slow.wait(SOON_S)
    client.socket.close()
    until(lambda: other.transmit() == ScardCode.W_RESET_CARD)
    assert other.rv(Command.RECONNECT, other.card, 2, 3, 0, 0, 0) == 0
    assert other.transmit() == 0
    assert card.resets > resets


@pytest.mark.usefixtures("patient")
def test_clients_that_go_at_any_moment(connect: Connect, server: SocketServer) -> None:
    """Between two APDUs, in one, before its reply: nothing of them stays."""
    for number in range(60):
        client = connect()
        for _ in range(number % 3):
            assert client.transmit() == 0
        for _ in range(number % 4):
            client.send()
        client.socket.close()
    until(lambda: not server._clients and not server.lent_to)
    until(lambda: not server.engine.core.resources.handles)
    assert connect().transmit() == 0


@pytest.mark.usefixtures("patient")
def test_the_end_of_the_service(service: ServiceThread, connect: Connect) -> None:
    """A client whose socket is lent hears of it at once, and no thread stays."""
    client = connect()
    assert client.transmit() == 0
    begun = time.monotonic()
    service.end()
    assert time.monotonic() - begun < SOON_S
    with pytest.raises(ConnectionError):
        client.transmit()
    assert not any(thread.name == "pcsc client" for thread in threading.enumerate())


@pytest.mark.usefixtures("patient")
def test_the_end_of_the_service_at_work(
    service: ServiceThread, connect: Connect, card: Noting
) -> None:
    client = connect()
    assert client.transmit() == 0
    client.send(SLOW)
    assert card.is_slow.wait(SOON_S)
    begun = time.monotonic()
    service.end()
    assert time.monotonic() - begun < SLOW_S / 2
    with pytest.raises(ConnectionError):
        client.answer()
    assert not any(thread.name == "pcsc client" for thread in threading.enumerate())


# Faults -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_a_fault_of_ours_costs_one_client(
    connect: Connect, server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = connect(), connect()

    def fails(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(server.engine, "transmit_now", fails)
        client.send()
        with pytest.raises(ConnectionError):
            client.answer()
    assert other.transmit() == 0


@pytest.mark.usefixtures("patient")
def test_without_a_thread(
    connect: Connect, server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no thread left, or no time limit, clients are served all the same."""
    client = connect()
    with monkeypatch.context() as patch:
        patch.setattr(lent_sockets, "MAX_LENT", 0)
        assert client.transmit() == 0
        assert not server.lent_to
    assert client.transmit() == 0
    assert len(server.lent_to) == 1
    monkeypatch.setattr(lent_sockets, "TIMES", ())
    other = connect()
    assert other.transmit() == 0
    assert len(server.lent_to) == 1
