"""However a helper is ended, and in the middle of whatever, no card keeps its power.

``systemctl stop`` signals pcscd and all its helpers, so a helper gets SIGTERM while its control
socket ends, or before, or twice. In the first test pcscd is played by threads of the test; in the
second it is the real one.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ccid.pcsc.numbers.ifd_numbers import Action
from ccid.pcsc.plug.frames import ALIVE, CONNECTION, CONTROL_FD, REQUEST, Operation
from tests.conftest import Tell
from tests.integration.private_pcscd import HAS_CARD, private_pcscd, virtual_reader

PROGRAM = Path(__file__).with_name("helper_on_a_wire.py")
END_S = 20.0
LUNS = (0x0001_0000, 0x0001_0001)
TAKES_50_MS = bytes.fromhex("00500032")
AT_ONCE = bytes.fromhex("0010000004")
STEPS = [
    (Operation.OPEN, 0, b"virtual:"),
    (Operation.PRESENCE, 0, b""),
    (Operation.POWER, Action.POWER_UP, b""),
    (Operation.PROTOCOL, 2, bytes(4)),
    (Operation.TRANSMIT, 1, AT_ONCE),
    (Operation.TRANSMIT, 1, TAKES_50_MS),
    (Operation.POWER, Action.RESET, b""),
    (Operation.TRANSMIT, 1, AT_ONCE),
    (Operation.POWER, Action.POWER_DOWN, b""),
    (Operation.POWER, Action.POWER_UP, b""),
    (Operation.CLOSE, 0, b""),
]
"""What pcscd asks of each slot, again and again."""
LONGEST = 3 * len(STEPS)


class Pcscd:
    """A helper with two slots in use, and pcscd's ends of its sockets."""

    def __init__(self, folder: Path) -> None:
        self.power = folder / "power"
        self.power.write_text("0000")
        self.control, theirs = socket.socketpair()
        self._steps = threading.Semaphore(0)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", START, str(theirs.fileno()), str(PROGRAM),
                 str(self.power)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()], text=True,
            )  # fmt: skip
        self._ends = [self._joined(lun) for lun in LUNS]
        self._threads = [threading.Thread(target=self._use, args=(end,)) for end in self._ends]
        for thread in self._threads:
            thread.start()

    def _joined(self, lun: int) -> socket.socket:
        ours, requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        events, their_events = socket.socketpair()
        with requests, events, their_events:
            fds = [requests.fileno(), their_events.fileno()]
            socket.send_fds(self.control, [CONNECTION.pack(lun)], fds)
        return ours

    def _use(self, requests: socket.socket) -> None:
        try:
            while True:
                for operation, argument, data in STEPS:
                    self._steps.release()
                    requests.send(REQUEST.pack(operation, argument, 300, len(data)) + data)
                    while (answer := requests.recv(1 << 10)) == ALIVE:
                        pass
                    if not answer:
                        return
        except OSError:
            return

    def wait(self, steps: int) -> None:
        """Until so many requests have begun."""
        for _ in range(steps):
            assert self._steps.acquire(timeout=END_S)

    def hang_up(self) -> None:
        """As when pcscd has ended."""
        for end in (self.control, *self._ends):
            end.shutdown(socket.SHUT_RDWR)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def hup(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def ended(self) -> tuple[int, str]:
        """The exit status of the helper, and what it wrote to standard error."""
        try:
            _, said = self.process.communicate(timeout=END_S)
        finally:
            self.process.kill()
            self.hang_up()
            for thread in self._threads:
                thread.join(END_S)
            for end in (self.control, *self._ends):
                end.close()
        return self.process.returncode, said


START = f"""
import os, sys
os.dup2(int(sys.argv[1]), {CONTROL_FD})
os.set_inheritable({CONTROL_FD}, True)
os.execv(sys.executable, [sys.executable, "-I", *sys.argv[2:]])
"""
ENDS: dict[str, list[Callable[[Pcscd], None]]] = {
    "SIGTERM": [Pcscd.terminate],
    "SIGTERM twice": [Pcscd.terminate, Pcscd.terminate],
    "SIGHUP": [Pcscd.hup],
    "pcscd": [Pcscd.hang_up],
    "pcscd, SIGTERM": [Pcscd.hang_up, Pcscd.terminate],
    "SIGTERM, pcscd": [Pcscd.terminate, Pcscd.hang_up],
    "SIGTERM, pcscd, SIGTERM": [Pcscd.terminate, Pcscd.hang_up, Pcscd.terminate],
}


def moments(count: int) -> Iterator[tuple[str, int, float]]:
    """How a helper is ended, after how many requests, and how many seconds later."""
    chance = random.Random(14)
    for number in range(count):
        how = list(ENDS)[number % len(ENDS)]
        yield how, chance.choice([0, *range(1, LONGEST)]), chance.uniform(0, 0.03)


def test_no_card_keeps_its_power(tmp_path: Path, full: bool, tell: Tell) -> None:
    count = 350 if full else 35
    had_power = early = 0
    for how, steps, seconds in moments(count):
        pcscd = Pcscd(tmp_path)
        try:
            pcscd.wait(steps)
            time.sleep(seconds)
            had_power += "1" in pcscd.power.read_text()[1:3]
            for do in ENDS[how]:
                do(pcscd)
                time.sleep(seconds / 10)
        finally:
            status, said = pcscd.ended()
        where = f"{how}, {steps} requests and {seconds:.4f} s after the start"
        has_handler, *power, own_end = list(pcscd.power.read_text())
        assert said == "", where
        assert power == ["0", "0"], where
        assert own_end == "0", where
        if has_handler == "1":
            assert status == 0, where
        else:  # the interpreter starts: there is nothing to end in an orderly way
            early += 1
            assert status in (0, -signal.SIGTERM, -signal.SIGHUP), where
    assert had_power > count / 4, "most of the moments are those that matter"
    tell(f"{count} helpers ended, {had_power} with a card in use, {early} while Python started")


def test_pcscd_is_answered_until_it_has_ended(tmp_path: Path) -> None:
    """The signal was for both, and pcscd takes longer."""
    pcscd = Pcscd(tmp_path)
    try:
        pcscd.wait(LONGEST)
        pcscd.terminate()
        time.sleep(0.5)  # by then the cards have no power
        assert pcscd.power.read_text()[1:3] == "00"
        while pcscd._steps.acquire(blocking=False):
            pass
        pcscd.wait(4)
        assert pcscd.process.poll() is None
        pcscd.hang_up()
    finally:
        status, said = pcscd.ended()
    assert (status, said) == (0, "")


# A real pcscd ---------------------------------------------------------------------------------

PYTHON = "/usr/bin/python3"
"""Has Debian's pyscard."""
USES_CARD = """
from smartcard.System import readers
from smartcard.Exceptions import SmartcardException
try:
    while True:
        card = readers()[0].createConnection()
        card.connect()
        for _ in range(3):
            card.transmit([0, 0x50, 0, 20])
        card.disconnect()
except (SmartcardException, IndexError):
    pass  # pcscd has ended
"""


def helpers_of(program: Path) -> list[int]:
    """The processes that run ``program`` by Python."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if os.fsencode(program) in words and b"-I" in words:
                    found.append(int(entry.name))
    return found


def test_a_stop_of_pcscd_and_its_helpers(tmp_path: Path, full: bool) -> None:
    """As the service manager does: SIGTERM to all processes at once, in the middle of APDUs."""
    chance = random.Random(2)
    for turn in range(20 if full else 3):
        stop_all(tmp_path / str(turn), chance.uniform(0, 0.2))


def stop_all(folder: Path, after_s: float) -> None:
    """Run pcscd with a client, and end pcscd and its helper ``after_s`` seconds after the card got
    power."""
    (folder / "plug").mkdir(parents=True)
    (folder / "pcscd").mkdir()
    power, program, start = folder / "power", folder / PROGRAM.name, folder / "python"
    power.write_text("0000")
    program.write_text(PROGRAM.read_text())
    readers = virtual_reader(folder / "plug", "Reader")
    start.write_text(f"#!/bin/sh\nexec {sys.executable} -I {program} {power}\n")
    start.chmod(0o755)
    (folder / "plug" / "interpreter").write_text(f"{start}\n")
    with private_pcscd(folder / "pcscd", readers, [PYTHON, "-c", HAS_CARD]) as inside:
        client = subprocess.Popen([*inside, PYTHON, "-c", USES_CARD], stderr=subprocess.DEVNULL)
        try:
            until(lambda: "1" in power.read_text()[1:3])
            time.sleep(after_s)
            (helper,) = helpers_of(program)
            pcscd = int(inside[1].split("/")[2])
            for pid in (helper, pcscd):
                os.kill(pid, signal.SIGTERM)
            until(lambda: helpers_of(program) == [])
        finally:
            client.kill()
            client.wait()
    assert power.read_text() == "1000"
    log = (folder / "pcscd" / "log").read_text()
    assert "Traceback" not in log
    assert "ccid[" not in log


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + END_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
