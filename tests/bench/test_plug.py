"""What the plug costs: SCardTransmit from a C client through pcscd, with our driver and an
in-process reader, against a C driver that does nothing; one pcscd, rounds interleaved.

The goal is that plug, helper and driver add at most 40 µs, with a reader that answers at once
(``plug/instant.py``). The virtual reader, which computes like a reader with a card, is measured
too, and beside it, in this process, what driver and virtual reader take without any plug. Of each
way the round counts that was disturbed least; the least difference within a round would be that
with the most disturbed floor.

Everything is measured twice. With client, pcscd and helper all on one CPU the figures say what
there is to compute, and come out the same again: they are what the goal is held against. Free to
run anywhere, each change of process may wake another CPU, which costs what that costs on this
machine (on a virtual one often more than all the rest), or nothing if the scheduler keeps them
together. ``pytest tests/bench -s`` prints the tables; ``tools/full`` takes the full counts.
It needs root (a mount namespace of its own for /run/pcscd) and Debian's pcscd and libpcsclite-dev
(tools/prepare-lab).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ccid.pcsc.ifd import Action, Code, IFDHandler
from tests.conftest import Tell
from tests.integration.plug import build

HERE = Path(__file__).parent / "plug"
SELECT = bytes.fromhex("00A4000C023F00")
GOAL_US = 40.0
MOST_MB = 25.0
"""Of a helper, resident."""


def compiled(folder: Path, source: str, *options: str) -> Path:
    made = folder / source.removesuffix(".c")
    command = ["cc", "-O2", "-Wall", str(HERE / source), "-o", str(made), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\nrun tools/prepare-lab"
    return made


def build_instant(folder: Path) -> Path:
    """The plug, with a helper whose reader answers at once."""
    folder.mkdir()
    script = folder / "helper"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -P {HERE / "instant.py"} "$@"\n')
    script.chmod(0o755)
    made = build(folder)
    (folder / "interpreter").write_text(f"{script}\n")
    return made


class Daemon:
    """pcscd in a mount namespace of its own, with all readers."""

    def __init__(self, folder: Path) -> None:
        self.times = compiled(folder, "times.c", "-I/usr/include/PCSC", "-lpcsclite")
        floor = compiled(folder, "floor.c", "-shared", "-fPIC")
        plug, instant = build(folder), build_instant(folder / "instant")
        self.configuration = folder / "readers"
        self.configuration.mkdir()
        (self.configuration / "both").write_text(
            f'FRIENDLYNAME "Floor"\nDEVICENAME floor:\nLIBPATH {floor}\nCHANNELID 0\n\n'
            f'FRIENDLYNAME "Plug"\nDEVICENAME virtual:\nLIBPATH {plug}\nCHANNELID 0\n\n'
            f'FRIENDLYNAME "Instant"\nDEVICENAME virtual:\nLIBPATH {instant}\nCHANNELID 0\n'
        )
        script = (
            "mount -t tmpfs tmpfs /run && mkdir /run/pcscd && "
            f"exec pcscd --foreground -c {self.configuration}"
        )
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script], stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                assert len(self.measure("Plug", 10)) == len(self.measure("Instant", 10)) == 10
                return
            except (AssertionError, subprocess.CalledProcessError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.end()
                    self.log.seek(0)
                    pytest.fail(f"pcscd does not serve both readers:\n{self.log.read()}")
                time.sleep(0.2)

    def measure(self, reader: str, count: int) -> list[float]:
        """Microseconds of each call."""
        where = f"/proc/{self.process.pid}/ns/mnt"
        command = ["nsenter", f"--mount={where}", str(self.times), reader, str(count)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return [float(line) for line in said.stdout.split()]

    @contextmanager
    def on(self, cpus: Set[int]) -> Iterator[None]:
        """Have pcscd, its helpers, this process and the clients that it starts run there alone."""
        before = os.sched_getaffinity(0)
        self._move(cpus)
        try:
            yield
        finally:
            self._move(before)

    def _move(self, cpus: Set[int]) -> None:
        for pid in (os.getpid(), self.process.pid, *self.helpers):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(ProcessLookupError):  # a client's thread that has just ended
                    os.sched_setaffinity(int(task.name), cpus)

    @property
    def helpers(self) -> list[int]:
        """Their process numbers."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        children: list[str] = []
        for task in tasks:
            with suppress(FileNotFoundError, ProcessLookupError):
                children += (task / "children").read_text().split()
        return list(map(int, children))

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    @property
    def helper_rss_mb(self) -> float:
        """Of the one that pcscd starts everywhere."""
        (pid,) = (
            pid
            for pid in self.helpers
            if b"instant.py" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("daemon"))
    yield made
    made.end()
    made.log.close()


def in_process(count: int) -> list[float]:
    """What driver and virtual reader cost without any daemon."""
    took = []
    handler = IFDHandler()
    assert handler.create_channel_by_name(0, "virtual:") is Code.SUCCESS
    assert handler.power_icc(0, Action.POWER_UP)[0] is Code.SUCCESS
    assert handler.set_protocol_parameters(0, 2) is Code.SUCCESS
    for _ in range(count):
        began = time.perf_counter()
        code, _ = handler.transmit_to_icc(0, 1, SELECT)
        took.append((time.perf_counter() - began) * 1e6)
        assert code is Code.SUCCESS
    handler.close()
    return took


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


class Figures:
    """What was measured in one way, round by round."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {}
        self.least: dict[str, float] = {}

    def round(self, daemon: Daemon, count: int) -> None:
        """Measure everything once."""
        values = {
            "floor": daemon.measure("Floor", count),
            "plug, no CCID": daemon.measure("Plug", -count),
            "floor, no APDU": daemon.measure("Floor", -count),
            "plug, instant reader": daemon.measure("Instant", count),
            "plug, virtual reader": daemon.measure("Plug", count),
            "driver, in process": in_process(count),
        }
        for name, times in values.items():
            self.seen.setdefault(name, []).extend(times)
            median = statistics.median(times)
            self.least[name] = min(median, self.least.get(name, median))

    def lines(self, goal: str) -> list[str]:
        """A table, and what follows from it."""
        least = self.least
        bare = least["plug, no CCID"] - least["floor, no APDU"]
        added = least["plug, instant reader"] - least["floor"]
        whole = least["plug, virtual reader"] - least["floor"]
        left = whole - least["driver, in process"]
        table = [
            f"  {name:22} {statistics.median(times):7.1f} {p99(times):7.1f} {least[name]:7.1f}"
            for name, times in self.seen.items()
        ]
        summary = (
            f"  added: {bare:.1f} µs to a call without a card, {added:.1f} µs to an APDU{goal}; "
            f"{whole:.1f} µs with the virtual reader, of which its and the driver's time in "
            f"process leaves {left:.1f}"
        )
        return [*table, summary]


def test_what_the_plug_costs(daemon: Daemon, full: bool, benchmark: Any, tell: Tell) -> None:
    rounds, count = (7, 5000) if full else (5, 1500)
    cpus = os.sched_getaffinity(0)
    one, free = Figures(), Figures()

    def one_round() -> None:
        with daemon.on({max(cpus)}):
            one.round(daemon, count)
        if len(cpus) > 1:
            free.round(daemon, count)

    benchmark.pedantic(one_round, rounds=rounds, iterations=1)
    for figures, how in ((one, ""), (free, ", free")):
        for name, times in figures.seen.items():
            assert len(times) == rounds * count
            benchmark.extra_info[f"{name}{how}"] = statistics.median(times)
    lines = [
        f"through pcscd, {rounds} rounds of {count} calls, µs: median, p99, best round's",
        f"all on CPU {max(cpus)}: what there is to compute",
        *one.lines(f" (goal {GOAL_US:.0f})"),
    ]
    if free.seen:
        lines += [
            f"free to run on {len(cpus)}: and what it costs to wake another",
            *free.lines(""),
        ]
    tell("\n".join([*lines, f"its helper has {daemon.helper_rss_mb:.1f} MB"]))


def test_memory_of_a_helper(daemon: Daemon) -> None:
    assert daemon.helper_rss_mb <= MOST_MB


AS_A_HELPER = """
from ccid.pcsc.plug import helper
helper.load_lazily(*helper.UNUSED)
from ccid.pcsc.ifd import IFDHandler
from ccid.transport import asynchronous, libusb
handler = IFDHandler()
code = handler.create_channel_by_name(0, "usb:ffff/ffff")
assert libusb.library_name()
print(int(code), open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
"""


def test_memory_with_libusb(tell: Tell) -> None:
    """All that a helper loads for a reader on USB: there is none here, it looks for one."""
    said = subprocess.run(
        [sys.executable, "-I", "-c", AS_A_HELPER], capture_output=True, text=True, check=True
    )
    code, kb = map(int, said.stdout.split())
    assert code == Code.NO_SUCH_DEVICE
    tell(f"with libusb a helper has {kb / 1024:.1f} MB")
    assert kb / 1024 <= MOST_MB
