"""The PC/SC service with many clients: what waits costs nothing, and hears of all at once."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ccid.pcsc.service.client_messages import Command
from tests.conftest import Tell

SERVED = Path(__file__).parent / "pcsc_served.py"
SERVE = [sys.executable, "-m", "ccid.pcsc.service", "--socket"]
ROOT = Path(__file__).parents[2]
CLIENTS, WAITING = 200, 100
ARRAY = 16 * 184
IDLE_S = 2.0
EVENTS = 10
MAX_EVENT_MS = 50.0
MAX_RSS_MB = 40.0
MAX_START_S = 0.3
STARTS = 5
APDUS = 1000


class Client:
    """A client, as libpcsclite 1.9.9 is one (4:4)."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.settimeout(30)
        self.ask(Command.VERSION, struct.pack("=III", 4, 4, 0), 12)
        reply = self.ask(Command.ESTABLISH, struct.pack("=III", 2, 0, 0), 12)
        self.context = struct.unpack("=III", reply)[1]

    def ask(self, command: Command, body: bytes, size: int) -> bytes:
        self.socket.sendall(struct.pack("=II", len(body), command) + body)
        return self.take(size)

    def take(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self.socket.recv(size - len(got))
            assert more, "hung up"
            got += more
        return got

    def apdu(self) -> bytes:
        """A SCardTransmit to the first reader, connected to for it: the request."""
        body = struct.pack("=I128sIIIII", self.context, self.names()[0], 2, 3, 0, 0, 0)
        reply = self.ask(Command.CONNECT, body, 152)
        card, protocol, rv = struct.unpack("=III", reply[140:])
        assert rv == 0
        apdu = bytes.fromhex("00A4000C023F00")
        body = struct.pack("=8I", card, protocol, 16, len(apdu), 3, 16, 300, 0)
        return struct.pack("=II", 32, Command.TRANSMIT) + body + apdu

    def transmit(self, request: bytes) -> None:
        """Send it, and take the reply."""
        self.socket.sendall(request)
        assert self.take(34)[-2:] == bytes.fromhex("9000")

    def names(self) -> list[bytes]:
        array = self.ask(Command.GETSTATE, b"", ARRAY)
        entries = [array[at : at + 128].rstrip(b"\0") for at in range(0, ARRAY, 184)]
        return [name for name in entries if name]


Connect = Callable[[Path], Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients, which are hung up on in the end."""
    with ExitStack() as stack:

        def made(path: Path) -> Client:
            client = Client(path)
            stack.callback(client.socket.close)
            return client

        yield made


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    path = tmp_path / "pcscd.comm"
    with subprocess.Popen(
        [sys.executable, str(SERVED), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process, path
        process.kill()


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def switches(pid: int) -> int:
    """How often the threads of a process went to sleep of their own accord."""
    tasks = [task / "status" for task in Path(f"/proc/{pid}/task").iterdir()]
    texts = [task.read_text() for task in tasks]
    return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in texts)


def test_many_that_wait(
    served: tuple[subprocess.Popen[str], Path], connect: Connect, tell: Tell
) -> None:
    process, path = served
    assert process.stdin is not None
    assert process.stdout is not None
    clients = [connect(path) for _ in range(CLIENTS)]
    for client in clients:
        assert len(client.names()) == 1
    waiting = clients[:WAITING]
    selector = selectors.SelectSelector()
    for client in waiting:
        client.ask(Command.WAIT, b"", ARRAY)
        selector.register(client.socket, selectors.EVENT_READ, client)
    time.sleep(6)  # the card, which nobody needs, loses its power: that is told to nobody
    before = switches(process.pid)
    assert selector.select(IDLE_S) == []
    woken = switches(process.pid) - before
    times = []
    for number in range(EVENTS):
        process.stdin.write("in\n" if number % 2 else "out\n")
        process.stdin.flush()
        done = float(process.stdout.readline())
        rest = set(waiting)
        while rest:
            ready = selector.select(5)
            assert ready, f"{len(rest)} have heard nothing"
            for key, _ in ready:
                assert key.data.take(8) == bytes(8)
                rest.discard(key.data)
        times.append((time.monotonic() - done) * 1000)
        for client in waiting:
            client.ask(Command.WAIT, b"", ARRAY)
    memory = rss_mb(process.pid)
    times.sort()
    tell(
        f"PC/SC service, {CLIENTS} clients: {woken} wake-ups in {IDLE_S:.0f} s without events; an "
        f"event has reached {WAITING} that wait after {times[0]:.1f} to {times[-1]:.1f} ms, median "
        f"{times[len(times) // 2]:.1f}; {memory:.1f} MB"
    )
    assert woken == 0
    assert times[len(times) // 2] < MAX_EVENT_MS
    assert memory < MAX_RSS_MB


def test_many_that_have_sent_apdus(
    served: tuple[subprocess.Popen[str], Path], connect: Connect, tell: Tell
) -> None:
    """Threads of their own cost nothing when they have nothing to do."""
    process, path = served
    clients = [connect(path) for _ in range(CLIENTS)]
    requests = [client.apdu() for client in clients]
    for client, request in zip(clients, requests, strict=True):
        client.transmit(request)
    for client, request in zip(clients, requests, strict=True):
        client.socket.sendall(request)
    for client in clients:
        assert client.take(34)[-2:] == bytes.fromhex("9000")
    time.sleep(1)  # who says nothing for a while has no thread of its own any more
    before = switches(process.pid)
    time.sleep(IDLE_S)
    woken, memory = switches(process.pid) - before, rss_mb(process.pid)
    tell(
        f"PC/SC service, {CLIENTS} clients that have sent APDUs: {woken} wake-ups in {IDLE_S:.0f} "
        f"s of silence; {memory:.1f} MB"
    )
    assert woken == 0
    assert memory < MAX_RSS_MB


def test_start_to_the_first_list(tmp_path: Path, connect: Connect, tell: Tell) -> None:
    times, processor = [], []
    for number in range(STARTS):
        path = tmp_path / f"{number}"
        begun = time.monotonic()
        ready, told = os.pipe()
        with subprocess.Popen(
            [*SERVE, str(path), "--virtual", "--ready-fd", str(told)],
            pass_fds=[told],
        ) as process:
            os.close(told)
            assert os.read(ready, 1)
            os.close(ready)
            assert len(connect(path).names()) == 1
            times.append(time.monotonic() - begun)
            stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            processor.append((int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"))
            process.terminate()
    best = min(times)
    tell(
        f"PC/SC service: {best * 1000:.0f} ms from its start to the first list of readers "
        f"(best of {STARTS}), {min(processor) * 1000:.0f} ms of processor time"
    )
    assert min(best, min(processor)) < MAX_START_S


def test_an_apdu(served: tuple[subprocess.Popen[str], Path], connect: Connect, tell: Tell) -> None:
    """Through the service, by a client that waits for each answer."""
    _, path = served
    client = connect(path)
    request = client.apdu()
    times = []
    for _ in range(APDUS):
        begun = time.perf_counter()
        client.transmit(request)
        times.append(time.perf_counter() - begun)
    times.sort()
    tell(f"PC/SC service: an APDU to a virtual card takes {times[APDUS // 2] * 1e6:.0f} µs")
    assert times[APDUS // 2] < 0.01
