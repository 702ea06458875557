"""What all parts of a measurement have in common: options, the stand-in, clients and daemons."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import programs
from .client import Client
from .counters import Counters
from .daemon import Daemon, configuration_text
from .profiles import Profile
from .ways import WAYS, Driver, Way

FIRST = bytes.fromhex("0010000002")
FIRST_REPLY = bytes.fromhex("00019000")
PYUSB_BUFFER = 300
"""Bytes of each read of pyusb's: a short APDU's reply fits."""
BUNDLE_LIBRARY = "ifd-ccid-python.bundle/Contents/Linux/libccid-python.so"
IDS = {"tpdu": "08e6/3437", "short": "076b/6622", "extended": "04e6/5810"}
"""Of the stand-in's reader at each level, as ``descriptors.c`` has them."""
CALIBRATION_US = 200


@dataclass(slots=True)
class Options:
    """What is measured, and how long.

    Args:
        work: A folder with the programs that were built.
        python: An interpreter that has ccid.
        ways: Names of ways.
        rounds: How often each way is measured, in turns with the others.
        scale: APDUs in a round, as a multiple of the profile's.
        pin: Everything runs on this CPU; None: anywhere.
        protocol: Of the card, 0 or 1.
        level: Of exchange: tpdu, short or extended.
        readers: How many are used at once.
        sizes: Values of dwMaxCCIDMessageLength for 64 KiB APDUs, bytes.
        idle_s: How long nothing happens.
        beside: Other versions of ccid to measure: a name and an interpreter that has it.
    """

    work: Path
    python: Path
    ways: tuple[str, ...] = tuple(WAYS)
    rounds: int = 15
    scale: float = 1.0
    pin: int | None = None
    protocol: int = 0
    level: str = "tpdu"
    readers: int = 8
    sizes: tuple[int, ...] = (271, 1024, 3072, 65556)
    idle_s: float = 60.0
    beside: Mapping[str, Path] = field(default_factory=dict)


def t1_block(apdu: bytes, sequence: int = 0) -> bytes:
    """An I-block with LRC and N(S) ``sequence``: what a way that speaks no T=1 sends instead."""
    block = bytes([0, sequence << 6, len(apdu)]) + apdu
    check = 0
    for byte in block:
        check ^= byte
    return block + bytes([check])


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def ratio(dividends: Iterable[float], divisors: Iterable[float]) -> float:
    """Of figures that were measured in turns: the median of what each round says, for what
    disturbs a machine comes and goes."""
    return median(a / b for a, b in zip(dividends, divisors, strict=True))


class Bench:
    """Starts what is measured.

    Args:
        options: What is measured.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.level = options.level
        self._early_us = 0

    def folder(self) -> Path:
        """A new, empty one."""
        return Path(tempfile.mkdtemp(dir=self.options.work))

    def count(self, profile: Profile, scale: float = 1.0) -> int:
        """APDUs in a round."""
        return max(5, int(profile.count * self.options.scale * scale))

    def python(self, version: str) -> str:
        return str(self.options.beside[version] if version else self.options.python)

    def counters(self) -> Counters:
        return Counters(self.folder() / "counters")

    def environment(
        self, settings: Mapping[str, object], counters: Counters, readers: int = 1
    ) -> dict[str, str]:
        """For a process that uses the stand-in."""
        ignored = ("STANDIN_", "PYTHON")
        found = {k: v for k, v in os.environ.items() if not k.startswith(ignored)}
        delays = ("STANDIN_OUT_US", "STANDIN_IN_US", "STANDIN_CARD_US")
        standin: dict[str, object] = {
            "STANDIN_LEVEL": self.level,
            "STANDIN_T": self.options.protocol,
            "STANDIN_READERS": readers,
            "STANDIN_EARLY_US": self._early_us if any(d in settings for d in delays) else 0,
            "STANDIN_COUNTERS": counters.path,
            **settings,
        }
        found |= {name: str(value) for name, value in standin.items()}
        found["LD_LIBRARY_PATH"] = str(self.options.work)
        return found

    @property
    def prefix(self) -> list[str]:
        """What goes before a command that is measured."""
        pin = self.options.pin
        return [] if pin is None else ["taskset", "-c", str(pin)]

    def calibrate(self) -> float:
        """Find how late a sleeping thread is woken here, us; delays are that much shorter then."""
        settings = {"STANDIN_OUT_US": CALIBRATION_US, "STANDIN_IN_US": CALIBRATION_US}
        with self.client(WAYS["A2"], settings) as floor:
            floor.run(300)
            least = min(floor.run(300).p50 for _ in range(3))
        late = (least - 2 * CALIBRATION_US) / 2
        self._early_us = max(0, round(late) - 3)
        return late

    def command(self, way: Way, apdu: str, reader: int = 0, version: str = "") -> list[str]:
        """A loop, with its words."""
        if way.loop.endswith(".c"):
            program = [str(self.options.work / way.loop.removesuffix(".c"))]
        elif way.driver:
            program = [programs.PYSCARD_PYTHON, str(programs.LOOPS / way.loop)]
        else:
            program = [self.python(version), str(programs.LOOPS / way.loop)]
        words = [apdu]
        if way.driver:
            words.append(str(reader))
        elif way.name == "A":
            words.append(str(PYUSB_BUFFER))
        return program + words

    @contextmanager
    def client(
        self,
        way: Way,
        settings: Mapping[str, object],
        daemon: Daemon | None = None,
        apdu: str = FIRST.hex(),
        reply: bytes = FIRST_REPLY,
        reader: int = 0,
        threads: int | None = None,
        version: str = "",
        has_contexts: bool = False,
    ) -> Iterator[Client]:
        """A running loop.

        Args:
            way: Which.
            settings: Of the stand-in.
            daemon: That the loop talks to, where the way needs one.
            apdu, reply: What goes to the card, and what has to come back.
            reader: Number of the reader, through a daemon.
            threads: So many readers in one process, where the way has none but libusb.
            version: Of ccid: a key of ``Options.beside``, or empty.
            has_contexts: Each of the threads has a context of libusb's of its own (A1 alone).
        """
        is_raw = way.name[0] == "A" and self.options.protocol == 1 and self.level == "tpdu"
        replies = {reply}
        if is_raw:  # these ways speak no T=1: they send a block as it is
            apdu = t1_block(bytes.fromhex(apdu)).hex()
            replies = {t1_block(reply, sequence) for sequence in (0, 1)}
        command = self.command(way, apdu, reader, version)
        counters = daemon.counters if daemon else self.counters()
        if threads is not None:
            command.append(str(threads))
        if has_contexts:
            command.append("contexts")
        if daemon:
            command = daemon.inside(command)
        environment = self.environment(settings, counters, threads or 1)
        pids = daemon.pids if daemon else ()
        made = Client(self.prefix + command, environment, counters, replies, threads or 1, pids)
        try:
            yield made
        finally:
            made.end()

    def library(self, driver: Driver, version: str = "") -> Path:
        """The driver for pcscd; ours is built once for each level and version."""
        if driver is Driver.LIBCCID:
            return programs.LIBCCID
        dropdir = self.options.work / f"drop-{self.level}-{version}"
        made = dropdir / BUNDLE_LIBRARY
        if not made.exists():
            reader = IDS[self.level].replace("/", ":") + ":Ours"
            words = ["--dropdir", str(dropdir), "--force", "--reader", reader]
            installer = [self.python(version), "-m", "ccid.pcsc.plug.install", *words]
            done = subprocess.run(installer, capture_output=True, text=True)
            if done.returncode:
                raise programs.MissingError(done.stdout + done.stderr)
        return made

    @contextmanager
    def daemon(
        self,
        driver: Driver,
        settings: Mapping[str, object],
        readers: int = 1,
        version: str = "",
    ) -> Iterator[Daemon]:
        """A pcscd whose readers have all answered."""
        folder = self.folder()
        counters = Counters(folder / "counters")
        library = self.library(driver, version)
        made = Daemon(
            folder,
            configuration_text(library, IDS[self.level], readers),
            self.environment(settings, counters, readers),
            counters,
            [str(self.options.work / "pcsc_loop"), "connect", str(readers - 1)],
            self.prefix,
        )
        try:
            yield made
        finally:
            made.end()
