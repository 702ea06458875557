"""What the helper of pcscd's plug keeps: nothing of openings that fail, nor of readers that go."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import ccid
from ccid.pcsc.ifd import Code
from ccid.pcsc.plug.frames import Operation
from tests.unit.test_helper import SLOT, Plug, ask, told, virtual  # noqa: F401

SMALL = 10_000
"""Bytes; a reader that is kept costs twenty times as many."""


def rounds_cost(count: int, one: Callable[[], object]) -> float:
    """Bytes that a round of ``one`` leaves behind, after some."""
    for _ in range(2):
        one()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            one()
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()


def test_openings_that_fail_leave_nothing(
    virtual: ccid.VirtualReader,  # noqa: F811
) -> None:
    """The plug asks each second while the reader cannot be had. Nothing is frozen by it, and what
    it leaves does not wait for the collector, which may not run."""
    with Plug(lambda name, taken: virtual.info) as plug:
        request, _ = plug.join(SLOT)
        gc.disable()
        with ccid.open_reader(virtual):

            def fail() -> None:
                assert told(request, Operation.OPEN, b"virtual:")[0] == Code.COMMUNICATION_ERROR

            assert rounds_cost(5, fail) < SMALL
            assert gc.get_freeze_count() == 0
            assert plug.handler.last_error is None
        plug.helper.settle()
        assert gc.get_freeze_count() == 0
        ask(request, Operation.OPEN, b"virtual:")
        plug.helper.settle()
        frozen = gc.get_freeze_count()
        assert frozen > 0
        assert gc.isenabled()


def test_openings_that_fail_by_our_fault_leave_nothing() -> None:
    def find(name: object, taken: object) -> Any:
        made = ccid.open_reader(ccid.VirtualReader())
        made.close()
        raise ArithmeticError(made, bytearray(100_000))

    with Plug(find) as plug:
        request, _ = plug.join(SLOT)
        gc.disable()

        def fail() -> None:
            assert told(request, Operation.OPEN, b"virtual:")[0] == Code.COMMUNICATION_ERROR

        assert rounds_cost(5, fail) < SMALL


def test_readers_that_come_and_go_leave_nothing() -> None:
    """Only what there is when the first one opens is frozen."""
    made: list[ccid.VirtualReader] = []

    def find(name: object, taken: object) -> Any:
        made[:] = [ccid.VirtualReader()]
        return made[0].info

    with Plug(find) as plug:
        request, _ = plug.join(SLOT)

        def come_and_go() -> None:
            ask(request, Operation.OPEN, b"virtual:")
            ask(request, Operation.CLOSE)

        come_and_go()
        plug.helper.settle()
        frozen, threads = gc.get_freeze_count(), threading.active_count()
        assert rounds_cost(20, come_and_go) < SMALL

        def be_pulled_out() -> None:
            ask(request, Operation.OPEN, b"virtual:")
            made[0].unplug()
            assert told(request, Operation.PRESENCE)[0] == Code.ICC_NOT_PRESENT
            ask(request, Operation.CLOSE)

        assert rounds_cost(20, be_pulled_out) < SMALL
        assert gc.get_freeze_count() <= frozen
        assert threading.active_count() <= threads

        def be_joined_again() -> None:
            again, _ = plug.join(SLOT + 1)
            ask(again, Operation.OPEN, b"virtual:")
            del again
            plug.leave(SLOT + 1)

        assert rounds_cost(10, be_joined_again) < SMALL
