"""Part ``connect``: how long from nothing to the first response."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass

from .apdus import label
from .bench import Bench, median
from .client import WrongAnswerError
from .counters import Counters, Counts
from .daemon import Daemon
from .profiles import Profile
from .programs import LOOPS
from .ways import Driver

MOST_STARTS = 7
"""A daemon's start takes long: so many rounds at most."""
IN_PROCESS = "B after its imports"
WITH_PYTHON = "B with Python's start and imports"
KINDS = {Driver.LIBCCID: "C2", Driver.CCID: "D2"}


@dataclass(frozen=True, slots=True)
class Row:
    """ms to the first response, and what went over USB for that in the last round."""

    title: str
    ms: float
    least: float
    most: float
    out: int
    in_: int
    control: int


class Times:
    """What was measured, by title."""

    def __init__(self) -> None:
        self._ms: dict[str, list[float]] = {}
        self._counted: dict[str, Counts] = {}

    def add(self, title: str, ms: float, counted: Counts) -> None:
        self._ms.setdefault(title, []).append(ms)
        self._counted[title] = counted

    def rows(self) -> list[Row]:
        return [
            Row(title, median(ms), min(ms), max(ms), counted.out, counted.in_, counted.control)
            for title, ms in self._ms.items()
            for counted in (self._counted[title],)
        ]


class InProcess:
    """A program that uses the library, started anew each time.

    Args:
        bench: Starts it.
        profile: The time on the bus.
        version: Of ccid.
    """

    def __init__(self, bench: Bench, profile: Profile, version: str) -> None:
        self._bench = bench
        self._profile = profile
        self._version = version
        self._modules = self._run("modules", bench.counters())["modules"]

    def _run(self, *words: str | Counters) -> dict[str, object]:
        *told, counters = words
        assert isinstance(counters, Counters)
        command = [*self._bench.prefix, self._bench.python(self._version)]
        done = subprocess.run(
            [*command, str(LOOPS / "ccid_loop.py"), *map(str, told)],
            capture_output=True,
            text=True,
            env=self._bench.environment(self._profile.environment, counters),
        )
        if done.returncode:
            raise WrongAnswerError(done.stderr)
        return dict(json.loads(done.stdout))

    def measure(self, times: Times) -> None:
        """Once: what an application that has been running sees, and one that starts for this."""
        counters = self._bench.counters()
        names = self._modules
        assert isinstance(names, list)
        said = self._run("connect", ",".join(names), counters)
        times.add(label(IN_PROCESS, self._version), float(str(said["ms"])), counters.now())
        counters = self._bench.counters()
        began = time.monotonic()
        self._run("modules", counters)
        whole = (time.monotonic() - began) * 1e3
        times.add(label(WITH_PYTHON, self._version), whole, counters.now())


def measure_running(bench: Bench, daemon: Daemon, title: str, times: Times) -> None:
    """A client of a pcscd that runs, with a card that has no power."""
    counters = bench.counters()
    before = daemon.counters.now()
    command = daemon.inside([str(bench.options.work / "pcsc_loop"), "connect", "0"])
    done = subprocess.run(
        [*bench.prefix, *command],
        capture_output=True,
        text=True,
        env=bench.environment({}, counters),
    )
    if done.returncode:
        raise WrongAnswerError(done.stderr)
    times.add(title, json.loads(done.stdout)["ms"], daemon.counters.now().since(before))


def measure(bench: Bench, profile: Profile) -> list[Row]:
    """All, in turns."""
    settings, times = profile.environment, Times()
    versions = ["", *bench.options.beside]
    drivers = [(Driver.LIBCCID, ""), *((Driver.CCID, version) for version in versions)]
    programs = [InProcess(bench, profile, version) for version in versions]
    with ExitStack() as stack:
        daemons = {
            (driver, version): stack.enter_context(bench.daemon(driver, settings, version=version))
            for driver, version in drivers
        }
        for _ in range(bench.options.rounds):
            for program in programs:
                program.measure(times)
            for (driver, version), daemon in daemons.items():
                title = label(f"{KINDS[driver]} a client of a pcscd that runs", version)
                measure_running(bench, daemon, title, times)
    for _ in range(min(MOST_STARTS, bench.options.rounds)):
        for driver, version in drivers:
            with bench.daemon(driver, settings, version=version) as daemon:
                title = label(f"{KINDS[driver]} with pcscd's start", version)
                times.add(title, daemon.start_ms, daemon.start_counted)
    return times.rows()


def lines(rows: list[Row]) -> list[str]:
    """The table."""
    found = [
        f"  {'ms to the first response':40}{'median':>8}{'range':>16}   bulk-OUT, -IN, control"
    ]
    for x in rows:
        spread = f"{x.least:.1f} to {x.most:.1f}"
        found.append(f"  {x.title:40}{x.ms:8.1f}{spread:>16}   {x.out}, {x.in_}, {x.control}")
    return found
