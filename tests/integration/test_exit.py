"""Readers that are open when Python ends: they are closed before libusb ends, and not used
after."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.device.unclosed_readers import Unclosed, unclosed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

Ended = dict[str, dict[str, Any]]
IN_ORDER = ["open_device", "power off", "close_device", "exit"]
EXPECTED: dict[str, list[str]] = {
    "closed": IN_ORDER,
    "two_readers": [
        *("open_device", "open_device", "close_device", "close_device"),
        *("libusb_exit", "exit", "libusb_exit"),
    ],
    "in_a_global": IN_ORDER,
    "in_a_cycle": IN_ORDER,
    "an_exception": IN_ORDER,
    "a_thread_that_exits": IN_ORDER,
    "a_thread_that_outlasts_main": IN_ORDER,
    # a thread may be in libusb: its context is left to the end of the process
    "a_daemon_thread_that_exchanges": IN_ORDER[:-1],
    "a_daemon_thread_that_watches": ["open_device", "close_device"],
    "a_watch_that_is_suspended": ["open_device", "close_device", "exit"],
    "a_forgotten_reader_within_a_lock": [*IN_ORDER[:-1], "open_device", "close_device"],
    "exited_at_once": ["open_device"],
    "a_fork_that_ends": ["open_device", "child 0", "9000", *IN_ORDER[1:]],
    "a_fork_that_opens_its_own": [
        *IN_ORDER[:-1],
        "CHILD open_device",
        "power off",
        "CHILD close_device",
        "child 0",
        "exit",
    ],
    "last": [*IN_ORDER, "handler ReaderClosed", "handler UsbUnavailable"],
    "opens before pyusb ends": IN_ORDER,
    "opens first": IN_ORDER[:-1],
    "opens between": ["open_device", "close_device", *IN_ORDER],
}


@pytest.fixture(scope="module")
def ended() -> Ended:
    """The result of each program."""
    words = [sys.executable, "-m", "tests.unit.exit_bench"]
    output = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    made: Ended = json.loads(output)
    return made


def test_no_case_is_left_out(ended: Ended) -> None:
    assert ended.keys() == EXPECTED.keys()


@pytest.mark.parametrize("case", EXPECTED)
def test_python_ends(ended: Ended, case: str) -> None:
    lines = ended[case]["lines"]
    if case == "an_exception":
        start, end = lines.index("Traceback (most recent call last):"), lines.index("power off")
        assert lines[end - 1] == "RuntimeError: of CCID reader 1234:5678"
        del lines[start:end]
    if case == "a_forgotten_reader_within_a_lock" and lines[-1] == "exit":
        del lines[-1]  # the thread that was to close the reader had ended by then
    assert lines == EXPECTED[case]
    assert ended[case]["status"] == (1 if case == "an_exception" else 0)


# Readers that the application lost ------------------------------------------------------------


class Held:
    """A reader whose closing waits for a lock."""

    name = "held"

    def __init__(self, lock: Any) -> None:
        self.lock, self.closed_by = lock, list[str]()

    def close(self) -> None:
        with self.lock:
            self.closed_by.append(threading.current_thread().name)


def test_a_forgotten_reader_is_closed_by_another_thread() -> None:
    lock, ours = threading.Lock(), Unclosed()
    reader: Any = Held(lock)
    with lock:
        ours.forgotten(reader)  # closing the reader in this thread would wait for ever
        assert reader.closed_by == []
    ours.settle()
    for thread in threading.enumerate():
        if thread.name == "ccid forgotten":
            thread.join(10)
    assert len(reader.closed_by) == 1


def test_without_a_thread_the_next_who_opens_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    ours, reader = Unclosed(), Held(threading.Lock())
    ours.forgotten(reader)  # type: ignore[arg-type]
    assert reader.closed_by == []
    ours.before_opening()
    assert reader.closed_by == [threading.current_thread().name]


def test_the_collector_within_the_lock_of_another_reader() -> None:
    """Both readers share a lock. The thread that holds the lock waits for this thread."""
    virtual = ccid.VirtualReader(interrupt=False)  # else the traceback keeps the reader
    reader: Any = ccid.open_reader(virtual)
    reader.me = reader
    kept = [reader]
    del reader

    def forget() -> None:
        kept.clear()
        gc.collect()

    with virtual.port.changed, pytest.warns(ResourceWarning, match="never closed"):
        forget()
    ccid.open_reader(virtual).close()


def test_while_python_ends_other_threads_open_nothing() -> None:
    ours, raised = Unclosed(), list[str]()
    ours.close_all()
    ours.before_opening()  # the thread of the exit handlers may open a reader

    def open_one() -> None:
        try:
            ours.before_opening()
        except errors.ReaderClosed as error:
            raised.append(str(error))

    thread = threading.Thread(target=open_one)
    thread.start()
    thread.join(10)
    assert raised == ["Python ends: no reader is opened any more"]


def test_a_reader_that_was_closed_is_not_kept() -> None:
    before = len(unclosed._open)
    with ccid.open_reader(ccid.VirtualReader()):
        assert len(unclosed._open) == before + 1
    assert len(unclosed._open) == before
