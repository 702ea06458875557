"""Part ``parallel``: many readers at once beside one."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

from .apdus import label, versions_of
from .bench import Bench, median, ratio
from .client import Client, WrongAnswerError
from .counters import Counters, Counts
from .processes import cpu_seconds
from .profiles import Profile
from .ways import WAYS


@dataclass(frozen=True, slots=True)
class Row:
    """A way, with one reader and with ``many``: APDUs a second of all, CPU time of all processes
    for one APDU in microseconds. Medians of the rounds; ``rates_many`` has all."""

    way: str
    title: str
    many: int
    rate_one: float
    cpu_one: float
    rate_many: float
    cpu_many: float
    rates_many: tuple[float, ...]


class Group:
    """Loops that run at the same time.

    Args:
        clients: One for each process.
        readers: How many they use together.
        counters: Of all.
    """

    def __init__(self, clients: list[Client], readers: int, counters: list[Counters]) -> None:
        self._clients = clients
        self._readers = readers
        self._counters = counters
        self.rates: list[float] = []
        self.cpus: list[float] = []

    def _counted(self) -> list[Counts]:
        return [counters.now() for counters in self._counters]

    def run(self, count: int, is_warming_up: bool) -> None:
        """One round, of ``count`` APDUs for each reader; it counts unless all is warming up."""
        daemons = self._clients[0].daemons
        cpu, before = cpu_seconds(daemons), self._counted()
        began = time.perf_counter()
        for client in self._clients:
            client.start(count)
        said = [client.answer() for client in self._clients]
        wall = time.perf_counter() - began
        cpu = cpu_seconds(daemons) - cpu + sum(answer["cpu"] for answer in said)
        if len(said) == 1:  # the loop's own time: without what it takes to ask it
            wall = said[0]["wall"]
        whole = count * self._readers
        apdus = sum(a.apdus - b.apdus for a, b in zip(self._counted(), before, strict=True))
        if apdus != whole:
            raise WrongAnswerError(f"the cards saw {apdus} APDUs of {whole}")
        if not is_warming_up:
            self.rates.append(whole / wall)
            self.cpus.append(cpu / whole * 1e6)


def measure(bench: Bench, profile: Profile) -> list[Row]:
    """All groups, in turns."""
    settings, count = profile.environment, bench.count(profile, 0.5)
    many = bench.options.readers
    groups: dict[tuple[str, str], dict[int, Group]] = {}
    with ExitStack() as stack:
        for name in bench.options.ways:
            way = WAYS[name]
            if name == "A":
                continue
            for version in versions_of(way, bench):
                key = label(name, version)
                if way.driver is not None:
                    daemon = stack.enter_context(
                        bench.daemon(way.driver, settings, many, version=version)
                    )
                    clients = [
                        stack.enter_context(bench.client(way, settings, daemon, reader=i))
                        for i in range(many)
                    ]
                    groups[key, f"{way.title}: processes"] = {
                        n: Group(clients[:n], n, [daemon.counters]) for n in (1, many)
                    }
                    continue
                threads = groups[key, f"{way.title}: threads"] = {}
                for n in (1, many):
                    client = stack.enter_context(
                        bench.client(way, settings, threads=n, version=version)
                    )
                    threads[n] = Group([client], n, [client.counters])
                if name == "A1":
                    contexts = groups[key, f"{way.title}: contexts"] = {}
                    for n in (1, many):
                        client = stack.enter_context(
                            bench.client(way, settings, threads=n, has_contexts=True)
                        )
                        contexts[n] = Group([client], n, [client.counters])
                if name != "B":
                    continue
                clients = [
                    stack.enter_context(bench.client(way, settings, version=version))
                    for _ in range(many)
                ]
                groups[key, f"{way.title}: processes"] = {
                    n: Group(clients[:n], n, [client.counters for client in clients[:n]])
                    for n in (1, many)
                }
        for number in range(1 + bench.options.rounds):
            for group in groups.values():
                for n in (1, many):
                    group[n].run(count, is_warming_up=number == 0)
    return [
        Row(
            *key,
            many,
            median(group[1].rates),
            median(group[1].cpus),
            median(group[many].rates),
            median(group[many].cpus),
            tuple(group[many].rates),
        )
        for key, group in groups.items()
    ]


def lines(rows: list[Row]) -> list[str]:
    """The table."""
    many = f"{rows[0].many}: APDU/s"
    titles = f"{'1: APDU/s':>10}{'CPU µs':>8}{many:>11}{'CPU µs':>8}{'scaling':>9}{'rate/C2':>9}"
    width = max(len(x.way) for x in rows)
    found = [f"  {'':{width}} {'':38}{titles}"]
    c2 = next((x.rates_many for x in rows if x.way == "C2"), None)
    for x in rows:
        beside = f"{ratio(x.rates_many, c2):9.2f}" if c2 else ""
        found.append(
            f"  {x.way:{width}} {x.title:38}{x.rate_one:10.0f}{x.cpu_one:8.1f}{x.rate_many:11.0f}"
            f"{x.cpu_many:8.1f}{x.rate_many / x.rate_one:9.2f}{beside}"
        )
    return found
