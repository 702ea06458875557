"""A queue whose wait ends in time."""

from __future__ import annotations

import ast
import queue
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ccid.ground.mailbox import Mailbox
from tests.interruptions import Places, interrupt_everywhere
from tests.unit.test_layers import MODULES, parsed

LONG_S = 30.0
TIMES = 20_000


def ends(work: Callable[[], object]) -> bool:
    """It does, in a thread that holds nothing up if it does not."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LONG_S)
    return not thread.is_alive()


def test_items_come_in_their_order() -> None:
    box = Mailbox[int]()
    assert box.empty()
    for item in range(5):
        box.put(item)
    assert (box.empty(), box.qsize()) == (False, 5)
    assert [box.get(), box.get(0), box.get(1), box.get_nowait(), box.get()] == [0, 1, 2, 3, 4]
    assert (box.empty(), box.qsize()) == (True, 0)
    with pytest.raises(queue.Empty):
        box.get_nowait()


@pytest.mark.parametrize("timeout", [0.0, 1e-7, 1e-6, 3e-6, 1e-5])
def test_a_short_wait_ends(timeout: float) -> None:
    """That of a queue.SimpleQueue does not, where the time runs out between two of its steps."""
    count = 0

    def wait() -> None:
        nonlocal count
        for turn in range(TIMES):
            box = Mailbox[int]()
            if turn % 2:
                box.put(turn)
                box.get()
            try:
                box.get(timeout=timeout)
            except queue.Empty:
                count += 1

    assert ends(wait)
    assert count == TIMES


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timer of signals")
def test_a_wait_ends_whose_time_is_over_when_a_signal_was_handled() -> None:
    """The wait goes on after the handler, with a time that is left of less than nothing."""
    box = Mailbox[int]()
    handled: list[int] = []

    def handle(number: int, _: object) -> None:
        handled.append(number)
        time.sleep(0.1)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        began = time.monotonic()
        with pytest.raises(queue.Empty):
            box.get(timeout=0.05)
        assert time.monotonic() - began >= 0.1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert handled


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timer of signals")
def test_a_handler_puts_what_the_thread_waits_for() -> None:
    box = Mailbox[str]()
    before = signal.signal(signal.SIGALRM, lambda *_: box.put("rang"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert box.get(timeout=LONG_S) == "rang"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_wait_lasts_until_something_comes() -> None:
    box = Mailbox[int]()
    with ThreadPoolExecutor(2) as threads:
        for timeout in (None, LONG_S):
            waits = threads.submit(box.get, timeout)
            time.sleep(0.02)
            assert not waits.done()
            box.put(7)
            assert waits.result(LONG_S) == 7


def test_a_wait_of_no_item_takes_its_time() -> None:
    box = Mailbox[int]()
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        box.get(timeout=0.05)
    assert 0.05 <= time.monotonic() - began < LONG_S


@pytest.mark.parametrize("getters", [1, 3])
@pytest.mark.parametrize("putters", [1, 3])
def test_no_item_is_lost_and_nobody_waits_beside_one(putters: int, getters: int) -> None:
    box, each = Mailbox[int | None](), 3_000

    def put(first: int) -> None:
        chance = random.Random(first)
        for item in range(first, first + each):
            box.put(item)
            if chance.random() < 0.01:
                time.sleep(0.0001)

    def get(timed: bool) -> list[int]:
        got: list[int] = []
        while (item := box.get(LONG_S if timed else None)) is not None:
            got.append(item)
        return got

    with ThreadPoolExecutor(putters + getters) as threads:
        takes = [threads.submit(get, bool(n % 2)) for n in range(getters)]
        puts = [threads.submit(put, n * each) for n in range(putters)]
        for one in puts:
            one.result(LONG_S)
        for _ in takes:
            box.put(None)
        got = [item for one in takes for item in one.result(LONG_S)]
    assert sorted(got) == list(range(putters * each))
    if putters == getters == 1:
        assert got == sorted(got)


def test_put_is_interrupted_as_a_whole_or_not_at_all() -> None:
    """An item that is there wakes the thread that waits."""
    boxes: list[Mailbox[int]] = []

    def work() -> None:
        box = Mailbox[int]()
        boxes.append(box)
        box.put(1)

    def check() -> None:
        box = boxes[-1] if boxes else Mailbox[int]()
        if not box.empty():
            assert box._bell.acquire(blocking=False), "the thread sleeps on"

    assert interrupt_everywhere(work, check, ("ground/mailbox.py",), Places.SIGNALS) > 2


def names(name: str) -> set[str | None]:
    """The names in a module."""
    return {
        getattr(node, "attr", getattr(node, "id", getattr(node, "name", None)))
        for node in ast.walk(parsed(MODULES[name]))
        if isinstance(node, ast.Attribute | ast.Name | ast.alias)
    }


def test_nobody_uses_the_queue_that_may_wait_for_ever() -> None:
    assert [name for name in MODULES if "SimpleQueue" in names(name)] == []
    assert "Empty" in names("ground.mailbox")
