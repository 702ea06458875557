"""CPU time, memory and context switches of running processes, as the kernel counts them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CPUCLOCK_SCHED = 2


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of the processes, of all their threads, also of those that have ended."""
    return sum(time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED) for pid in pids)


def threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def children(pid: int) -> list[int]:
    """Of all threads of the process."""
    found: list[int] = []
    for thread in threads(pid):
        with suppress(OSError):  # a thread that has just ended
            found += map(int, (thread / "children").read_text().split())
    return found


def context_switches(pids: Iterable[int]) -> tuple[int, int]:
    """Voluntary and involuntary ones of all threads that run now."""
    voluntary = involuntary = 0
    for pid in pids:
        for thread in threads(pid):
            lines = (thread / "status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            voluntary += int(status["voluntary_ctxt_switches"])
            involuntary += int(status["nonvoluntary_ctxt_switches"])
    return voluntary, involuntary


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, MB (2**20 bytes): resident, and with shared pages divided by their users."""

    rss: float
    pss: float


def memory(pid: int) -> Memory:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = dict(line.split(":", 1) for line in lines)
    rss, pss = (round(int(sizes[name].split()[0]) / 1024, 1) for name in ("Rss", "Pss"))
    return Memory(rss, pss)


def cpus() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))
