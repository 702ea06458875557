"""What an APDU costs through our PC/SC, beside pcscd with a C driver that does nothing.

=====  =========================================================================
C p    a C client, libpcsclite, pcscd, the driver that does nothing (``plug/floor.c``)
C s    the same client, libpcsclite, ccid-pcscd
P p    pyscard, libpcsclite, pcscd, the driver that does nothing
P s    pyscard, libpcsclite, ccid-pcscd
P i    pyscard, ``ccid.pcsc.scard`` in its own process
C e    C s, but our thread only reads and writes the same bytes
P n    P i, but SCardTransmit returns at once: pyscard's own Python
P d    P i, but SCardTransmit is ``Card.transmit``: no resource manager
=====  =========================================================================

Our reader is a virtual one that answers at once (``instant_pcsc.py``): CCID messages are made and
read, and there is hardly a reader. Rounds of all ways are interleaved, and of each way the best
counts. pcscd is a private one. It needs root, Debian's pcscd, libpcsclite-dev and python3-pyscard.

C e, P n and P d are the floors: what is above them is our service's or our manager's. The goals are
C s at most twice C p, and P i at least three times as many APDUs as P p. They are told; what is
asserted is what was reached, with room for a busy machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.bench.native.programs import LOOPS, PYSCARD_PYTHON, compiled, flags
from tests.conftest import Tell
from tests.integration.private_pcscd import private_pcscd

ROOT = Path(__file__).parents[2]
FLOOR = Path(__file__).parent / "plug" / "floor.c"
INSTANT = str(Path(__file__).parent / "instant_pcsc.py")
APDU = "00A4000C023F00"
COUNT, ROUNDS = 500, 28
FULL_ROUNDS = 100
WARM = 300
STARTS = 5
MAX_RSS_MB, MAX_START_S = 40.0, 0.3


@dataclass
class Loop:
    """A client that runs, and is asked for rounds.

    Attributes:
        command: It.
        environment: Its own.
        best_us: The least mean of a round, µs an APDU.
    """

    command: list[str]
    environment: dict[str, str]
    means_us: list[float] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._said() == {"ready": True}
        self.run(WARM)
        self.means_us.clear()

    def _said(self) -> dict[str, object]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.command} ended with status {self.process.wait()}"
        said: dict[str, object] = json.loads(line)
        return said

    def run(self, count: int) -> None:
        """A round."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"run {count}\n")
        self.process.stdin.flush()
        said = self._said()
        assert said["reply"] == "9000"
        self.means_us.append(float(str(said["wall"])) / count * 1e6)

    def end(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.communicate(timeout=20)

    @property
    def best_us(self) -> float:
        return min(self.means_us)


@contextmanager
def served(how: str, folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The service of ``instant_pcsc.py``; the environment in which a client finds it."""
    socket = folder / how
    ready, told = os.pipe()
    command = [sys.executable, INSTANT, how, "--socket", str(socket), "--virtual"]
    server = subprocess.Popen([*command, "--ready-fd", str(told)], env=environment, pass_fds=[told])
    os.close(told)
    try:
        assert os.read(ready, 1)
        os.close(ready)
        yield {**os.environ, "PCSCLITE_CSOCK_NAME": str(socket)}
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Loop]]:
    folder = tmp_path_factory.mktemp("ways")
    in_c = folder / "pcsc_loop"
    compiled(in_c, [LOOPS / "pcsc_loop.c"], *flags("libpcsclite", "--cflags", "--libs"))
    floor = folder / "floor.so"
    compiled(floor, [FLOOR], "-shared", "-fPIC")
    readers = f'FRIENDLYNAME "Floor"\nDEVICENAME floor:\nLIBPATH {floor}\nCHANNELID 0\n'
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    ours = {**os.environ, "PYTHONPATH": path}
    words = {
        "C": [str(in_c), APDU, "0"],
        "P": [PYSCARD_PYTHON, str(LOOPS / "pyscard_loop.py"), APDU, "0"],
    }
    under, nothing, driver = (
        [PYSCARD_PYTHON, INSTANT, how, "--virtual", "--", *words["P"][1:]]
        for how in ("under", "nothing", "driver")
    )
    with ExitStack() as stack:
        pcscd = private_pcscd(folder, readers, [*words["C"][:1], "connect", "0"])
        inside = stack.enter_context(pcscd)
        by_socket = stack.enter_context(served("serve", folder, ours))
        by_echo = stack.enter_context(served("echo", folder, ours))
        made = {
            "C p": Loop([*inside, *words["C"]], dict(os.environ)),
            "C s": Loop(words["C"], by_socket),
            "P p": Loop([*inside, *words["P"]], dict(os.environ)),
            "P s": Loop(words["P"], by_socket),
            "P i": Loop(under, ours),
            "C e": Loop(words["C"], by_echo),
            "P n": Loop(nothing, ours),
            "P d": Loop(driver, ours),
        }
        for loop in made.values():
            loop.begin()
            stack.callback(loop.end)
        yield made


@pytest.fixture(scope="module")
def measured(loops: dict[str, Loop], full: bool) -> dict[str, Loop]:
    for _ in range(FULL_ROUNDS if full else ROUNDS):
        for loop in loops.values():
            loop.run(COUNT)
    return loops


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_memory_in_process(measured: dict[str, Loop], tell: Tell) -> None:
    process = measured["P i"].process
    assert process is not None
    memory = rss_mb(process.pid)
    tell(f"pyscard on ccid.pcsc.scard: {memory:.1f} MB, a virtual reader and its card included")
    assert memory < MAX_RSS_MB


FIRST_LIST = """\
import time
began = time.monotonic()
from ccid.pcsc import under_pyscard
under_pyscard([""])
from smartcard.System import readers
assert len(readers()) == 1
print(time.monotonic() - began, time.process_time())
"""


def test_first_list_in_process(tell: Tell) -> None:
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    took = []
    for _ in range(STARTS):
        said = subprocess.check_output(
            [PYSCARD_PYTHON, "-c", FIRST_LIST], env={**os.environ, "PYTHONPATH": path}, text=True
        )
        took.append(tuple(map(float, said.split())))
    best, processor = min(one[0] for one in took), min(one[1] for one in took)
    tell(
        f"pyscard on ccid.pcsc.scard: {best * 1000:.0f} ms from the first import to the first list "
        f"of readers (best of {STARTS}), {processor * 1000:.0f} ms of processor time with Python's "
        "start"
    )
    assert min(best, processor) < MAX_START_S


def test_ways(measured: dict[str, Loop], tell: Tell) -> None:
    us = {name: loop.best_us for name, loop in measured.items()}
    rows = [f"{name}   {value:8.1f} µs   {1e6 / value:8.0f} APDUs/s" for name, value in us.items()]
    by_socket, in_process = us["C s"] / us["C p"], us["P p"] / us["P i"]
    least, most = us["C e"] / us["C p"], us["P p"] / us["P n"]
    without = us["P p"] / us["P d"]
    tell(
        "PC/SC, an APDU that is answered at once (C client or pyscard; p: pcscd, s: ccid-pcscd, "
        "i: in process):\n"
        + "\n".join(rows)
        + f"\nC by socket: {by_socket:.1f} times pcscd (goal 2); pyscard in process: "
        f"{in_process:.2f} times as many APDUs as through pcscd (goal 3)\n"
        f"floors: C by socket {least:.1f} times pcscd with nothing done in between; pyscard "
        f"{most:.2f} times as many with nothing below it, {without:.2f} times with our driver and "
        "no resource manager"
    )
    assert us["P i"] < us["P s"]
