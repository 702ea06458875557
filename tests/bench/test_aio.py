"""What a command of a task costs more than one without tasks, and how well tasks use many readers.

Goals: at most 60 µs more for each command; 64 virtual readers whose cards take 5 ms at 60 times the
rate of one. Beside the second stands what 64 threads reach without asyncio: both are bound by one
interpreter, which simulates the readers as well.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import aio
from ccid.virtual import EchoCard
from tests.bench.native import programs
from tests.bench.native.bench import Bench, Options
from tests.bench.native.client import Round
from tests.bench.native.profiles import PROFILES
from tests.bench.native.ways import WAYS, Way
from tests.conftest import Tell

FAST, SLOW = bytes.fromhex("00400000"), bytes.fromhex("00500005")
"""Commands that take the card no time, and 5 ms."""
OK = b"\x90\x00"
GOAL_US, GOAL_TIMES = 60.0, 60.0
READERS = 64
ROUNDS = 7


def of_a_command(rounds: int, count: int) -> list[tuple[float, float]]:
    """In turns, seconds a command takes in a task, and without."""

    async def main() -> list[tuple[float, float]]:
        took = []
        async with aio.open_reader(ccid.VirtualReader(EchoCard())) as reader:
            async with reader.slots[0].connect() as card:
                for _ in range(rounds):
                    began = time.perf_counter()
                    for _ in range(count):
                        await card.transmit(FAST)
                    between = time.perf_counter()
                    for _ in range(count):
                        card._card.transmit(FAST)
                    ended = time.perf_counter()
                    took.append(((between - began) / count, (ended - between) / count))
        return took

    return asyncio.run(main())


@pytest.mark.benchmark(group="aio")
def test_what_a_command_costs_more(benchmark: Any, full: bool, tell: Tell) -> None:
    took: list[tuple[float, float]] = []
    count = 5000 if full else 1000
    benchmark.pedantic(lambda: took.extend(of_a_command(ROUNDS, count)), rounds=1)
    more = [(task - without) * 1e6 for task, without in took]
    task, without = (statistics.median(column) * 1e6 for column in zip(*took, strict=True))
    benchmark.extra_info["us"] = more
    tell(
        f"a command in a task: {task:.1f} µs, without {without:.1f} µs: "
        f"{statistics.median(more):.1f} µs more, {min(more):.1f} at best (goal {GOAL_US:.0f})"
    )


def rate_of_tasks(count: int, seconds: float) -> float:
    """Commands a second of ``count`` readers, each in a task."""

    async def main() -> float:
        virtual = [ccid.VirtualReader(EchoCard()) for _ in range(count)]
        readers = await asyncio.gather(*(aio.open_reader(one) for one in virtual))
        cards = await asyncio.gather(*(reader.slots[0].connect() for reader in readers))
        began = time.perf_counter()
        until = began + seconds

        async def send(card: aio.Card) -> int:
            sent = 0
            while time.perf_counter() < until:
                assert await card.transmit(SLOW) == OK
                sent += 1
            return sent

        sent = sum(await asyncio.gather(*map(send, cards)))
        rate = sent / (time.perf_counter() - began)
        await asyncio.gather(*(reader.close() for reader in readers))
        return rate

    return asyncio.run(main())


def rate_of_threads(count: int, seconds: float) -> float:
    """The same, each in a thread, without asyncio."""
    readers = [ccid.open_reader(ccid.VirtualReader(EchoCard())) for _ in range(count)]
    cards = [reader.slots[0].connect() for reader in readers]
    sent: list[int] = []
    began = time.perf_counter()
    until = began + seconds

    def send(card: ccid.Card) -> None:
        mine = 0
        while time.perf_counter() < until:
            assert card.transmit(SLOW) == OK
            mine += 1
        sent.append(mine)

    threads = [threading.Thread(target=send, args=[card]) for card in cards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sum(sent) / (time.perf_counter() - began)
    for reader in readers:
        reader.close()
    return rate


def times(rate_of: Callable[[int, float], float], rounds: int, seconds: float) -> Sequence[float]:
    """How many times the rate of one reader the rate of all is; the best of each, and the ratio."""
    one = max(rate_of(1, seconds) for _ in range(rounds))
    all_of_them = max(rate_of(READERS, seconds) for _ in range(rounds))
    return one, all_of_them, all_of_them / one


TASK = Way("T", "Python, ccid.aio", "aio_loop.py")
"""``await card.transmit``, on the stand-in for libusb."""


@pytest.mark.benchmark(group="aio")
@pytest.mark.parametrize("profile", ["0", "hs"])
def test_over_libusb(
    native: None, benchmark: Any, full: bool, tell: Tell, tmp_path: Path, profile: str
) -> None:
    """With the system calls and the threads of a real reader: natively, as tools/bench-native
    measures all ways without tasks."""
    programs.build(tmp_path)
    bench = Bench(Options(tmp_path, Path(sys.executable), scale=1.0 if full else 0.2))
    bench.calibrate()
    chosen = PROFILES[profile]
    rounds: dict[str, list[Round]] = {"B": [], "T": []}

    def measure() -> None:
        with ExitStack() as stack:
            clients = {
                way.name: stack.enter_context(bench.client(way, chosen.environment))
                for way in (WAYS["B"], TASK)
            }
            for number in range(ROUNDS + 1):
                for name, client in clients.items():
                    made = client.run(bench.count(chosen))
                    if number:  # the first is for warmth
                        rounds[name].append(made)

    benchmark.pedantic(measure, rounds=1)
    without, task = (statistics.median(one.p50 for one in rounds[name]) for name in "BT")
    best = min(one.p50 for one in rounds["T"]) - min(one.p50 for one in rounds["B"])
    cpu = [statistics.median(one.cpu_us for one in rounds[name]) for name in "BT"]
    tell(
        f"over libusb, {chosen.name}: in a task {task:.1f} µs, without {without:.1f}: "
        f"{task - without:.1f} µs more, {best:.1f} between the best rounds (goal {GOAL_US:.0f}); "
        f"CPU {cpu[1]:.1f} and {cpu[0]:.1f} µs"
    )


def switches() -> int:
    """How often a thread of this process went to sleep and was woken, so far."""
    return sum(
        int(line.split()[1])
        for status in Path("/proc/self/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


@pytest.mark.benchmark(group="aio")
def test_nothing_happens(benchmark: Any, full: bool, tell: Tell) -> None:
    """No thread wakes while 64 readers with a card, and a watch, are open."""
    seconds = 10.0 if full else 1.0
    woken: list[int] = []

    async def main() -> None:
        virtual = [ccid.VirtualReader(EchoCard()) for _ in range(READERS)]
        readers = await asyncio.gather(*(aio.open_reader(one) for one in virtual))
        await asyncio.gather(*(reader.slots[0].connect() for reader in readers))
        async with aio.watch() as events:
            for _ in range(2 * READERS):
                await anext(events)
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(1.0)
            before = switches()
            await asyncio.sleep(seconds)
            woken.append(switches() - before)
            waiting.cancel()
        await asyncio.gather(*(reader.close() for reader in readers))

    benchmark.pedantic(lambda: asyncio.run(main()), rounds=1)
    tell(
        f"{READERS} readers and a watch, when nothing happens for {seconds:.0f} s: "
        f"{woken[0]} context switches, of which the measure itself is one"
    )


@pytest.mark.benchmark(group="aio")
def test_64_readers(benchmark: Any, full: bool, tell: Tell) -> None:
    seconds = 5.0 if full else 0.2
    figures: list[Sequence[float]] = []

    def measure() -> None:
        figures.extend(times(rate_of, 3, seconds) for rate_of in (rate_of_tasks, rate_of_threads))

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info["figures"] = figures
    for what, (one, all_of_them, ratio) in zip(("tasks", "threads"), figures, strict=True):
        tell(
            f"{READERS} readers with a card of 5 ms, in {what}: {all_of_them:,.0f} commands/s, "
            f"{ratio:.1f} times one ({one:,.0f}); goal {GOAL_TIMES:.0f} times"
        )
