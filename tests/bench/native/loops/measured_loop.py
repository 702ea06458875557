"""What the loops in Python have in common; ``loop.h`` has the same for those in C.

A line ``run COUNT`` on standard input has a loop send COUNT APDUs, and a line of JSON on standard
output says what that took. Times are seconds, p50 and p99 microseconds; ``reply`` is the last
response, hexadecimal.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise


def read_apdu(text: str) -> bytes:
    """An APDU from its hexadecimal text, or ``to:SIZE``: an extended one with SIZE bytes."""
    if text.startswith("to:"):
        size = int(text.removeprefix("to:"))
        return bytes.fromhex("0020000000") + size.to_bytes(2, "big") + b"\xa5" * size
    return bytes.fromhex(text)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def report(times: Sequence[float], cpu: float, response: bytes) -> None:
    """Say what a run took.

    Args:
        times: Before the first APDU, and after each, in seconds.
        cpu: CPU time of all, in seconds.
        response: The last one.
    """
    took = sorted(b - a for a, b in pairwise(times))
    say(
        wall=times[-1] - times[0],
        cpu=cpu,
        p50=took[len(took) // 2] * 1e6,
        p99=took[len(took) * 99 // 100] * 1e6,
        reply=response.hex(),
    )


def counts() -> Iterator[int]:
    """The numbers of APDUs asked for, until standard input ends."""
    say(ready=True)
    for line in sys.stdin:
        word, number = line.split()
        assert word == "run"
        yield int(number)


def serve(once: Callable[[], Iterable[int]]) -> None:
    """Send as often as asked; ``once()`` sends one APDU and returns the response."""
    clock = time.perf_counter
    for count in counts():
        response: Iterable[int] = b""
        times = [0.0] * (count + 1)
        cpu = time.process_time()
        times[0] = clock()
        for i in range(1, count + 1):
            response = once()
            times[i] = clock()
        cpu = time.process_time() - cpu
        report(times, cpu, bytes(response))


def serve_threads(acts: Sequence[Callable[[], bytes]]) -> None:
    """As :func:`serve` for all of ``acts`` at the same time, a thread each. Only the rate is
    told."""
    replies: dict[int, bytes] = {}

    def run(index: int, count: int) -> None:
        once = acts[index]
        for _ in range(count):
            reply = once()
        replies[index] = reply

    for count in counts():
        replies.clear()
        cpu, start = time.process_time(), time.perf_counter()
        threads = [threading.Thread(target=run, args=(i, count)) for i in range(len(acts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        assert len(replies) == len(acts)
        (reply,) = set(replies.values())
        say(wall=wall, cpu=cpu, p50=0, p99=0, reply=reply.hex())
