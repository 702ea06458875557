"""Part ``idle``: who wakes up when nothing happens. A reader with a card is open, or watched."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from .bench import FIRST_REPLY, Bench
from .client import Client
from .counters import Counters
from .processes import Memory, context_switches, cpu_seconds, memory
from .profiles import Profile
from .programs import LOOPS
from .ways import Driver

SETTLE_S = 8.0
"""pcscd powers an unused card off after 5 s."""


@dataclass(frozen=True, slots=True)
class Row:
    """Processes, while nothing happens.

    Args:
        voluntary, involuntary: Context switches of all their threads.
        cpu_us: CPU time, microseconds.
        transfers: Submitted to the reader, of any kind.
    """

    title: str
    voluntary: int
    involuntary: int
    cpu_us: float
    transfers: int
    memory: tuple[Memory, ...]


def row(memory: Iterable[Mapping[str, float]], **others: Any) -> Row:
    """The row that ``asdict`` made this of."""
    memories = tuple(Memory(**one) for one in memory)
    return Row(memory=memories, **others)


@dataclass(frozen=True, slots=True)
class Watched:
    """Processes to look at, and what their stand-in counts."""

    title: str
    pids: tuple[int, ...]
    counters: Counters


def measure(bench: Bench, profile: Profile) -> list[Row]:
    """All at the same time."""
    settings = profile.environment
    with ExitStack() as stack:
        theirs = stack.enter_context(bench.daemon(Driver.LIBCCID, settings))
        ours = stack.enter_context(bench.daemon(Driver.CCID, settings))
        counters = bench.counters()
        watcher = Client(
            [bench.python(""), str(LOOPS / "ccid_loop.py"), "watch"],
            bench.environment(settings, counters),
            counters,
            {FIRST_REPLY},
        )
        stack.callback(watcher.end)
        watched = [
            Watched("ccid.watch()", (watcher.pid,), counters),
            Watched("pcscd with libccid", (theirs.pid,), theirs.counters),
            Watched("pcscd with ccid", (ours.pid,), ours.counters),
            Watched("  and its helper", tuple(ours.helpers), ours.counters),
        ]
        time.sleep(min(SETTLE_S, bench.options.idle_s * 8))
        before = [
            (context_switches(w.pids), cpu_seconds(w.pids), w.counters.now()) for w in watched
        ]
        time.sleep(bench.options.idle_s)
        rows = []
        for w, (switched, cpu, counted) in zip(watched, before, strict=True):
            voluntary, involuntary = context_switches(w.pids)
            rows.append(
                Row(
                    w.title,
                    voluntary - switched[0],
                    involuntary - switched[1],
                    (cpu_seconds(w.pids) - cpu) * 1e6,
                    w.counters.now().since(counted).submits,
                    tuple(memory(pid) for pid in w.pids),
                )
            )
        return rows


def lines(rows: list[Row]) -> list[str]:
    """The table."""
    found = [
        f"  {'':22}{'voluntary':>10}{'not':>6}{'CPU µs':>9}{'transfers':>11}  RSS, PSS MB",
    ]
    for x in rows:
        sizes = ", ".join(f"{m.rss} {m.pss}" for m in x.memory)
        counted = f"{x.voluntary:10}{x.involuntary:6}{x.cpu_us:9.0f}{x.transfers:11}"
        found.append(f"  {x.title:22}{counted}  {sizes}")
    return found
