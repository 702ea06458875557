"""``tools/bench-native``: measures, and prints tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import apdus, connect, idle, large, parallel, programs, readme
from .bench import IDS, Bench, Options
from .client import WrongAnswerError
from .daemon import DaemonError
from .profiles import PROFILES, Profile
from .programs import MissingError
from .ways import WAYS


@dataclass(frozen=True, slots=True)
class Part:
    """What is measured, and how that is told.

    Args:
        title: For a person.
        profiles: At which it is measured, if none are named.
        measure: Returns the rows.
        lines: Tells them as a table.
        row: Makes a row of what ``asdict`` made of one.
    """

    title: str
    profiles: tuple[str, ...]
    measure: Callable[[Bench, Profile], list[Any]]
    lines: Callable[[list[Any]], list[str]]
    row: Callable[..., Any]


BUS_ALONE = ("0", "hs", "fs")
"""A card that takes time is no news where all wait for the card, and here takes minutes."""

PARTS = {
    "apdus": Part(
        "short APDUs, one after the other", tuple(PROFILES), apdus.measure, apdus.lines, apdus.Row
    ),
    "connect": Part(
        "to the first response", BUS_ALONE, connect.measure, connect.lines, connect.Row
    ),
    "parallel": Part(
        "many readers at once", BUS_ALONE, parallel.measure, parallel.lines, parallel.Row
    ),
    "large": Part(
        "64 KiB APDUs at extended APDU level", BUS_ALONE, large.measure, large.lines, large.Row
    ),
    "idle": Part("nothing happens", ("hs",), idle.measure, idle.lines, idle.row),
}

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"

Results = dict[str, dict[str, list[Any]]]
"""Rows by part and profile."""


def run(
    options: Options,
    profiles: Sequence[str] | None,
    parts: Sequence[str],
    say: Callable[[str], None],
) -> Results:
    """Build, measure, and tell each table when it is there.

    Args:
        options: What is measured.
        profiles: At which; None: at each part's own.
        parts: Names of parts.
        say: Is given each table.

    Raises:
        MissingError: Something is not on this machine.
        DaemonError: A pcscd does not serve.
        WrongAnswerError: A way gave a wrong answer.
    """
    programs.build(options.work)
    bench = Bench(options)
    late = bench.calibrate()
    say(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; a sleeping thread wakes "
        f"{late:.0f} µs late here, which is taken off each delay"
    )
    found: Results = {}
    for part in parts:
        for name in profiles or PARTS[part].profiles:
            profile = PROFILES[name]
            rows = PARTS[part].measure(bench, profile)
            found.setdefault(part, {})[name] = rows
            how = f"T={options.protocol}, {options.level}"
            if part == "idle":
                how += f", {options.idle_s:g} s"
            else:
                most = large.MOST_ROUNDS if part == "large" else options.rounds
                how += f", {min(most, options.rounds)} rounds"
            if part in ("apdus", "parallel"):
                how += f" of {bench.count(profile, 0.5 if part == 'parallel' else 1.0)}"
            if options.pin is not None:
                how += f", all on CPU {options.pin}"
            head = f"\n{part} · {name} · {PARTS[part].title} ({profile.title}; {how})"
            say("\n".join([head, *PARTS[part].lines(rows)]))
    return found


def calibration(work: Path) -> str:
    """The real libusb on a usbfs that answers at once, beside which the stand-in can be held."""
    done = subprocess.run([str(work / "calibrate"), "20000"], capture_output=True, text=True)
    if done.returncode:
        return f"the system's libusb cannot be measured: {done.stderr.strip()}"
    return f"the system's libusb, with a usbfs that answers at once: {done.stdout.splitlines()[4]}"


def where() -> str:
    """On what and of what the figures are."""
    python = ".".join(map(str, sys.version_info[:2]))
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return (
        f"on {os.cpu_count()} CPUs ({model}), Linux {platform.release().split('-')[0]}, "
        f"Python {python}, at {readme.version(ROOT)}"
    )


def text_of(found: Results, where: str) -> str:
    """All rows, as ``--json`` writes them.

    Args:
        found: Rows by part and profile.
        where: On what and of what the figures are, in words.
    """
    rows = {
        part: {name: [asdict(row) for row in of] for name, of in by_profile.items()}
        for part, by_profile in found.items()
    }
    return json.dumps({"where": where, **rows}, indent=1) + "\n"


def results_of(text: str) -> tuple[Results, str]:
    """What :func:`text_of` was told.

    Raises:
        ValueError: The text is of another kind.
    """
    told = json.loads(text)
    if not isinstance(told, dict) or not isinstance(told.get("where"), str):
        raise ValueError("not what --json wrote")
    found: Results = {}
    for part in (name for name in PARTS if name in told):
        try:
            found[part] = {
                name: [PARTS[part].row(**values) for values in rows]
                for name, rows in told[part].items()
            }
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{part}: {error}") from None
    return found, told["where"]


def words(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """A list of names, separated by commas, each of them known."""
    found = tuple(text.split(","))
    for word in found:
        if word not in known:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench-native",
        description="Measure ccid beside libusb, pyusb, and pcscd with libccid, natively, on a "
        "stand-in for libusb-1.0. Needs root, a C compiler and Debian's packages "
        "(tools/prepare-lab --packages-only).",
    )
    add = parser.add_argument

    def several(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
        return lambda text: words(text, known)

    profiles, parts, ways = list(PROFILES), list(PARTS), list(WAYS)
    add(
        "--profiles",
        type=several(profiles),
        metavar="P,P",
        help=f"times on the bus: {', '.join(profiles)} (those that tell something)",
    )
    add(
        "--parts",
        type=several(parts),
        default=tuple(parts),
        metavar="P,P",
        help=f"what is measured: {', '.join(parts)} (all)",
    )
    add(
        "--ways",
        type=several(ways),
        default=tuple(ways),
        metavar="W,W",
        help="; ".join(f"{way.name} {way.title}" for way in WAYS.values()),
    )
    add("--rounds", type=int, default=15, metavar="N", help="each way so often, in turns (15)")
    add("--scale", type=float, default=1.0, metavar="X", help="APDUs in a round, as a multiple")
    add(
        "--pin",
        type=int,
        metavar="CPU",
        help="all on one CPU: what there is to compute, without what waking another costs",
    )
    add("--protocol", type=int, default=0, choices=[0, 1], help="of the card: T=0, T=1 (0)")
    add("--level", default="tpdu", choices=list(IDS), help="of exchange (tpdu)")
    add("--idle", type=float, default=60, metavar="S", help="seconds in which nothing happens (60)")
    add(
        "--beside",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="measure another version of ccid, too: that of an interpreter",
    )
    add("--json", type=Path, metavar="FILE", help="write all rows there")
    add("--readme", action="store_true", help="write README's table: that needs all parts")
    add(
        "--from",
        dest="measured",
        type=Path,
        metavar="FILE",
        help="measure nothing: with --readme, write README's table of what --json wrote",
    )
    return parser.parse_args(given)


def main() -> None:
    """Measure what was asked for."""
    given = arguments()
    if given.measured:
        if not given.readme:
            sys.exit("tools/bench-native: --from is for --readme")
        try:
            readme.write(README, readme.block(*results_of(given.measured.read_text("utf-8"))))
        except (OSError, ValueError, readme.ReadmeError) as error:
            sys.exit(f"tools/bench-native: {given.measured}: {error}")
        return
    trouble = programs.cannot_run() or programs.missing()
    if trouble:
        sys.exit(f"tools/bench-native: {trouble}")
    beside = {name: Path(path) for name, path in (text.split("=", 1) for text in given.beside)}
    with tempfile.TemporaryDirectory(prefix="bench-native-") as folder:
        options = Options(
            work=Path(folder),
            python=Path(sys.executable),
            ways=given.ways,
            rounds=given.rounds,
            scale=given.scale,
            pin=given.pin,
            protocol=given.protocol,
            level=given.level,
            idle_s=given.idle,
            beside=beside,
        )
        try:
            found = run(options, given.profiles, given.parts, lambda text: print(text, flush=True))
            print(f"\n{calibration(options.work)}")
            if given.readme:
                readme.write(README, readme.block(found, where()))
        except (MissingError, DaemonError, WrongAnswerError, readme.ReadmeError) as error:
            sys.exit(f"tools/bench-native: {error}")
    if given.json:
        given.json.write_text(text_of(found, where()))


if __name__ == "__main__":
    main()
