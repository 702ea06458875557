"""Part ``large``: 64 KiB in one APDU, to the card and from the card, at extended APDU level."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from .apdus import label, versions_of
from .bench import Bench, median, ratio
from .client import Client, Round
from .daemon import Daemon
from .profiles import Profile
from .ways import WAYS, Driver

DATA = 65535
MOST_ROUNDS = 7
"""64 KiB take long."""
DIRECTIONS = {
    "to": (f"to:{DATA}", b"\x90\0"),
    "from": ("00100000000000", bytes(range(256)) * 256 + b"\x90\0"),
}
"""An APDU for the loops, and the response that the card gives."""


@dataclass(frozen=True, slots=True)
class Row:
    """A way at one dwMaxCCIDMessageLength, and one direction: medians of the rounds.

    Args:
        most: dwMaxCCIDMessageLength, bytes.
        direction: ``to`` or ``from`` the card.
        ms: p50 of an APDU.
        cpu: Microseconds of all processes for an APDU.
        transfers: Bulk transfers for an APDU.
        rounds_ms: p50 of each round.
    """

    most: int
    way: str
    title: str
    direction: str
    ms: float
    cpu: float
    transfers: float
    rounds_ms: tuple[float, ...]


def measure_size(bench: Bench, profile: Profile, most: int) -> list[Row]:
    """All ways but pyusb, which has no such loop; libusb only where one message is enough."""
    settings = {**profile.environment, "STANDIN_MAX": most}
    names = [n for n in bench.options.ways if n not in ("A", "A1") and (n != "A2" or most > DATA)]
    count = 2 if profile.is_slow else 4
    with ExitStack() as stack:
        daemons: dict[tuple[Driver, str], Daemon] = {}
        clients: dict[tuple[str, str, str], Client] = {}
        for name in names:
            way = WAYS[name]
            for version in versions_of(way, bench):
                daemon = None
                if way.driver is not None:
                    key = way.driver, version
                    if key not in daemons:
                        made = bench.daemon(way.driver, settings, version=version)
                        daemons[key] = stack.enter_context(made)
                    daemon = daemons[key]
                for direction, (apdu, reply) in DIRECTIONS.items():
                    client = bench.client(way, settings, daemon, apdu, reply, version=version)
                    clients[name, version, direction] = stack.enter_context(client)
        for running in clients.values():
            running.run(1)
        seen: dict[tuple[str, str, str], list[Round]] = {key: [] for key in clients}
        for _ in range(min(MOST_ROUNDS, bench.options.rounds)):
            for one, running in clients.items():
                seen[one].append(running.run(count))
    return [
        Row(
            most,
            label(name, version),
            WAYS[name].title,
            direction,
            ms=median(r.p50 for r in rounds) / 1e3,
            cpu=median(r.cpu_us for r in rounds),
            transfers=median((r.counted.out + r.counted.in_) / r.count for r in rounds),
            rounds_ms=tuple(r.p50 / 1e3 for r in rounds),
        )
        for (name, version, direction), rounds in seen.items()
    ]


def measure(bench: Bench, profile: Profile) -> list[Row]:
    """All sizes."""
    before, bench.level = bench.level, "extended"
    try:
        return [row for most in bench.options.sizes for row in measure_size(bench, profile, most)]
    finally:
        bench.level = before


def lines(rows: list[Row]) -> list[str]:
    """The table."""
    titles = "".join(
        f"{f'ms {direction} card':>14}{'CPU µs':>9}{'transfers':>10}{'speed/C2':>10}"
        for direction in DIRECTIONS
    )
    width = max(len(x.way) for x in rows)
    found = [f"  {'dwMax':>6} {'':{width}} {'':24}{titles}"]
    by_name = {(x.most, x.way, x.direction): x for x in rows}
    for most, way, title in dict.fromkeys((x.most, x.way, x.title) for x in rows):
        line = f"  {most:6} {way:{width}} {title:24}"
        for x in (x for x in rows if (x.most, x.way) == (most, way)):
            c2 = by_name.get((most, "C2", x.direction))
            beside = f"{ratio(c2.rounds_ms, x.rounds_ms):10.2f}" if c2 else " " * 10
            line += f"{x.ms:14.2f}{x.cpu:9.0f}{x.transfers:10.0f}{beside}"
        found.append(line)
    return found
