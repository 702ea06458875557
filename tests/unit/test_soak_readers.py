"""Eight readers at once, each attended by a thread, and all watched: an hour of that leaves nothing
behind. ``--full`` takes the hour, a short run the same rounds without pauses."""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import ccid
from ccid.codes import ExchangeLevel, Protocol
from ccid.device import watching
from ccid.iso7816.apdu import CommandApdu
from ccid.virtual import EchoCard
from tests.conftest import Tell
from tests.unit.test_soak import BLOCKS, BYTES, HEAP, OBJECTS, SEED, there_is
from tests.unit.test_watch import Bus, bus  # noqa: F401

WAYS = [(level, protocol) for level in ExchangeLevel for protocol in (Protocol.T0, Protocol.T1)]
PARTS, FULL_PARTS = 3, 60
"""All readers rest after each part, and what there is is counted."""
ROUNDS, FULL_ROUNDS = 2, 40
"""Of each reader in a part."""
PAUSE_S, FULL_PAUSE_S = 0.0, 1.5
"""After each round."""
APDUS = 10
"""In each round."""
LONGEST_WAIT_S = 60.0
"""An event that does not come by then does not come."""


class Attendant:
    """Uses one reader: APDUs, resets, insertions, closing and opening again.

    Args:
        number: Which of ``WAYS``. Every other reader has two slots; the last slot is used.
        left: Blocks of memory that a leak of this test's own adds in each round.
    """

    def __init__(self, number: int, leak: list[object] | None = None) -> None:
        self.level, self.protocol = WAYS[number]
        self.slot = number % 2
        cards = [EchoCard() for _ in range(self.slot + 1)]
        self.virtual = ccid.VirtualReader(cards, level=self.level, slots=self.slot + 1)
        self.events: queue.SimpleQueue[tuple[str, int | None]] = queue.SimpleQueue()
        self.did: Counter[str] = Counter()
        self._rng = random.Random(f"{SEED} {number}")
        self._rounds = 0
        self._leak = leak
        self._open()

    def _open(self) -> None:
        self.reader = ccid.open_reader(self.virtual)
        self.card = self.reader.slots[self.slot].connect(self.protocol)
        self.did["opens"] += 1

    def hear(self, kind: str) -> None:
        """Wait for an event of the slot."""
        assert self.events.get(timeout=LONGEST_WAIT_S) == (kind, self.slot)

    def round(self) -> None:
        """APDUs and a reset; in every third round an insertion, in every fifth a new opening."""
        self._rounds += 1
        for _ in range(APDUS):
            said = self._rng.randbytes(self._rng.choice((1, 8, 255)))
            answer = self.card.transmit(CommandApdu(0, 0x30, data=said, ne=256).build())
            if len(answer) == 2:  # 61 XX: T=0, TPDU by TPDU
                answer = self.card.transmit(b"\0\xc0\0\0" + answer[1:])
            assert answer == said + b"\x90\0"
            self.did["APDUs"] += 1
        self.card.reset()
        self.did["resets"] += 1
        if self._rounds % 3 == 0:
            self.card.disconnect()
            out = self.virtual.remove(self.slot)
            assert out is not None
            self.hear("card left")
            self.virtual.insert(out, self.slot)
            self.hear("card arrived")
            self.card = self.reader.slots[self.slot].connect(self.protocol)
            self.did["insertions"] += 1
        if self._rounds % 5 == 0:
            self.reader.close()
            self._open()
        if self._leak is not None:
            self._leak.extend([] for _ in range(OBJECTS))

    def close(self) -> None:
        """The end of it."""
        self.reader.close()


def dispatch(told: Iterator[ccid.Event], attendants: list[Attendant]) -> None:
    """Give each event of a card to who uses its reader."""
    to = defaultdict[str, list[queue.SimpleQueue[tuple[str, int | None]]]](list)
    for one in attendants:
        to[one.virtual.info.path].append(one.events)
    for event in told:
        if event.slot is not None:
            for events in to[event.reader.path]:
                events.put((event.kind.value, event.slot))


class Parts:
    """All attendants do their rounds, each in a thread, and rest between two parts.

    Args:
        attendants: Who does them.
        rounds: In a part.
        pause_s: Seconds after each round.
    """

    def __init__(self, attendants: list[Attendant], rounds: int, pause_s: float) -> None:
        self._rounds, self._pause_s = rounds, pause_s
        self._begin = threading.Barrier(len(attendants) + 1)
        self._end = threading.Barrier(len(attendants) + 1)
        self._is_over = False
        self.failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=partial(self._work, one), daemon=True) for one in attendants
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, one: Attendant) -> None:
        try:
            while True:
                self._begin.wait()
                if self._is_over:
                    return
                for _ in range(self._rounds):
                    one.round()
                    time.sleep(self._pause_s)
                self._end.wait()
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            self.failures.append(error)
            self._end.abort()

    def do_one(self) -> None:
        """One part; raises what a thread raised."""
        self._begin.wait()
        try:
            self._end.wait()
        except threading.BrokenBarrierError:
            raise self.failures[0] from None

    def end(self) -> None:
        """End the threads."""
        self._is_over = True
        for barrier in (self._end, self._begin):
            if self.failures:
                barrier.abort()
        if not self.failures:
            self._begin.wait()
        for thread in self._threads:
            thread.join()


def use_eight(
    bus: Bus,  # noqa: F811
    parts: int,
    rounds: int,
    pause_s: float,
    leak: list[object] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[dict[str, int]], Counter[str]]:
    """What there was after each part, and what was done in all."""
    attendants = [Attendant(number, leak) for number in range(len(WAYS))]
    bus.plug(*(one.virtual.info for one in attendants))
    told, stop = watching.stoppable_watch(None)
    listening = threading.Thread(target=dispatch, args=(told, attendants), daemon=True)
    listening.start()
    try:
        for one in attendants:
            for slot in range(one.slot + 1):
                assert one.events.get(timeout=LONGEST_WAIT_S) == ("card arrived", slot)
        running = Parts(attendants, rounds, pause_s)
        samples: list[dict[str, int]] = []
        try:
            for number in range(parts):
                running.do_one()
                samples.append(there_is())
                say(f"part {number + 1} of {parts}: {samples[-1]}")
        finally:
            running.end()
        assert all(one.events.empty() for one in attendants)
        return samples, sum((one.did for one in attendants), Counter())
    finally:
        stop()
        listening.join()
        for one in attendants:
            one.close()


def grown(samples: list[dict[str, int]]) -> dict[str, int]:
    """How much more there was in the end than after the first tenth, at least a part."""
    before, after = samples[max(0, len(samples) // 10 - 1)], samples[-1]
    return {what: after[what] - before[what] for what in before}


pytestmark = pytest.mark.usefixtures("collects_little")
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@linux
def test_eight_readers(
    bus: Bus,  # noqa: F811
    full: bool,
    tell: Tell,
) -> None:
    counts = (FULL_PARTS, FULL_ROUNDS, FULL_PAUSE_S) if full else (PARTS, ROUNDS, PAUSE_S)
    began, began_cpu = time.monotonic(), time.process_time()
    say: Callable[[str], None] = partial(print, flush=True)
    samples, did = use_eight(bus, *counts, say=say)
    more = grown(samples)
    if full:
        tell(
            f"soak, {len(WAYS)} readers for {time.monotonic() - began:.0f} s "
            f"({time.process_time() - began_cpu:.0f} s of CPU), seed {SEED}: "
            + ", ".join(f"{count} {what}" for what, count in did.items())
            + "; more than before: "
            + ", ".join(f"{count} {what}" for what, count in more.items())
        )
    assert did["APDUs"] == len(WAYS) * counts[0] * counts[1] * APDUS
    assert more["threads"] <= 0
    assert more["descriptors"] <= 0
    assert more["objects"] <= OBJECTS
    assert more["blocks"] <= BLOCKS
    assert more["bytes"] <= (BYTES if full else HEAP)


@linux
def test_what_eight_readers_leave_behind_is_noticed(bus: Bus) -> None:  # noqa: F811
    """The test above can fail."""
    samples, _ = use_eight(bus, 2, 1, 0.0, leak=[])
    assert grown(samples)["objects"] > OBJECTS


@linux
def test_what_a_reader_does_wrong_is_raised(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def wrong(self: Attendant) -> None:
        raise KeyError("wrong")

    monkeypatch.setattr(Attendant, "round", wrong)
    with pytest.raises(KeyError, match="wrong"):
        use_eight(bus, 1, 1, 0.0)
