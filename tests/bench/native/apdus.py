"""Part ``apdus``: one short APDU after the other, all ways in turns: rate, latency, CPU time of all
processes, transfers, memory."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from .bench import Bench, median, ratio
from .client import Client, Round
from .daemon import Daemon
from .processes import memory
from .profiles import Profile
from .ways import COMPARED, WAYS, Driver, Way


@dataclass(frozen=True, slots=True)
class Row:
    """A way: medians of the rounds, but ``least``.

    Args:
        rate: APDUs a second.
        p50, least, p99: Microseconds an APDU; ``least`` is the p50 of the best round.
        cpu, client_cpu: Microseconds an APDU, of all processes and of the client alone.
        transfers: Bulk transfers an APDU.
        polls, waits: How often libusb waited in poll(), or for another thread, an APDU.
        rss: MB of the client, pcscd and its helpers.
        p50s, cpus: ``p50`` and ``cpu`` of each round.
    """

    way: str
    title: str
    rate: float
    p50: float
    least: float
    p99: float
    cpu: float
    client_cpu: float
    transfers: float
    polls: float
    waits: float
    rss: tuple[float, ...]
    p50s: tuple[float, ...]
    cpus: tuple[float, ...]

    def times_as_fast_as(self, other: Row) -> float:
        """By p50."""
        return ratio(other.p50s, self.p50s)

    def cpu_beside(self, other: Row) -> float:
        """CPU time as a multiple of the other's."""
        return ratio(self.cpus, other.cpus)


def row(name: str, title: str, client: Client, rounds: list[Round]) -> Row:
    return Row(
        name,
        title,
        rate=median(r.rate for r in rounds),
        p50=median(r.p50 for r in rounds),
        least=min(r.p50 for r in rounds),
        p99=median(r.p99 for r in rounds),
        cpu=median(r.cpu_us for r in rounds),
        client_cpu=median(r.client_cpu / r.count * 1e6 for r in rounds),
        transfers=median((r.counted.out + r.counted.in_) / r.count for r in rounds),
        polls=median(r.counted.polls / r.count for r in rounds),
        waits=median(r.counted.waits / r.count for r in rounds),
        rss=tuple(memory(pid).rss for pid in (client.pid, *client.daemons)),
        p50s=tuple(r.p50 for r in rounds),
        cpus=tuple(r.cpu_us for r in rounds),
    )


def versions_of(way: Way, bench: Bench) -> list[str]:
    """The versions of ccid that the way is measured with; the empty name is the project's own."""
    is_ours = way.driver is Driver.CCID or way.name == "B"
    return ["", *bench.options.beside] if is_ours else [""]


def label(name: str, version: str) -> str:
    return f"{name}@{version}" if version else name


def measure(bench: Bench, profile: Profile) -> list[Row]:
    """All ways, in turns."""
    settings, count = profile.environment, bench.count(profile)
    ways = [WAYS[name] for name in bench.options.ways]
    with ExitStack() as stack:
        daemons: dict[tuple[Driver, str], Daemon] = {}
        clients: dict[tuple[str, str], Client] = {}
        for way in ways:
            for version in versions_of(way, bench):
                daemon = None
                if way.driver is not None:
                    key = way.driver, version
                    if key not in daemons:
                        made = bench.daemon(way.driver, settings, version=version)
                        daemons[key] = stack.enter_context(made)
                    daemon = daemons[key]
                clients[way.name, version] = stack.enter_context(
                    bench.client(way, settings, daemon, version=version)
                )
        for client in clients.values():
            client.run(max(5, min(50, count // 5)))
        seen: dict[tuple[str, str], list[Round]] = {key: [] for key in clients}
        for number in range(bench.options.rounds):
            keys = list(clients)
            for one in keys if number % 2 == 0 else reversed(keys):
                seen[one].append(clients[one].run(count))
        return [
            row(label(name, version), WAYS[name].title, clients[name, version], rounds)
            for (name, version), rounds in seen.items()
        ]


def pairs(names: list[str]) -> list[tuple[str, str]]:
    """What is compared: the known pairs, and each other version with the project's own."""
    found = [pair for pair in COMPARED if set(pair) <= set(names)]
    others = [name for name in names if "@" in name]
    return found + [(name.split("@")[0], name) for name in others]


def lines(rows: list[Row]) -> list[str]:
    """The table."""
    titles = (
        f"{'APDU/s':>8}{'p50 µs':>9}{'least':>9}{'p99':>9}{'CPU µs':>9}{'client':>9}"
        f"{'transfers':>10}{'polls':>7}{'waits':>7}  RSS MB"
    )
    width = max(len(x.way) for x in rows)
    found = [f"  {'':{width}} {'':24}{titles}"]
    found += [
        f"  {x.way:{width}} {x.title:24}{x.rate:8.0f}{x.p50:9.1f}{x.least:9.1f}{x.p99:9.1f}"
        f"{x.cpu:9.1f}{x.client_cpu:9.1f}{x.transfers:10.2f}{x.polls:7.2f}{x.waits:7.2f}"
        f"  {' + '.join(map(str, x.rss))}"
        for x in rows
    ]
    by_name = {x.way: x for x in rows}
    told = [
        f"{a}/{b} {by_name[a].times_as_fast_as(by_name[b]):.2f} "
        f"(CPU {by_name[a].cpu_beside(by_name[b]):.2f})"
        for a, b in pairs(list(by_name))
    ]
    if told:
        found.append(f"  speed (by p50) as a multiple, and CPU: {', '.join(told)}")
    return found
