"""Objects that are made once, even if several threads request one at the same time."""

from __future__ import annotations

import os
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.device import reader_link
from ccid.ground.once import Once
from ccid.transport import libusb
from ccid.virtual.cards import EchoCard

THREADS = 6


def at_once(do: Any) -> list[Any]:
    """The results of ``do`` in several threads that begin together."""
    ready, got = threading.Barrier(THREADS), list[Any]()

    def work() -> None:
        ready.wait(10)
        got.append(do())

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return got


class Slow:
    """Makes a value slowly, and counts."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> object:
        self.made += 1
        time.sleep(0.02)
        return object()


def test_threads_that_ask_at_once_get_the_same() -> None:
    slow = Slow()
    once = Once(slow)
    assert not once.is_made
    assert len(set(at_once(once))) == 1
    assert slow.made == 1
    assert once.is_made


def test_what_failed_is_tried_again() -> None:
    answers: Iterator[Exception | int] = iter([errors.UsbUnavailable("not yet"), 7])

    def make() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    once = Once(make)
    with pytest.raises(errors.UsbUnavailable):
        once()
    assert [once(), once()] == [7, 7]


def test_a_signal_handler_that_asks_meanwhile_throws_nothing_away() -> None:
    made: list[object] = []

    def make() -> object:
        if not made:
            made.append(None)
            made[0] = once()  # as a signal handler does that interrupts the first call
        return object()

    once: Once[object] = Once(make)
    assert once() is made[0]
    assert len(once._made) == 2, "both are kept"


def test_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyusb's get_backend makes two backends, and functools.cache would call get_backend twice."""
    import usb.backend.libusb1

    class Backend:
        lib = types.SimpleNamespace(_name="libusb")

    def get_backend(find_library: object = None) -> Backend:
        time.sleep(0.02)
        return Backend()

    monkeypatch.setattr(usb.backend.libusb1, "get_backend", get_backend)
    monkeypatch.setattr(libusb, "_loaded", Once(libusb._loaded._make))
    monkeypatch.setattr(libusb._State, "is_parents", False)
    assert len(set(at_once(libusb.backend))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_waits_until_it_is_made() -> None:
    begun, slow = threading.Event(), Slow()

    def make() -> object:
        begun.set()
        return slow()

    once = Once(make)
    thread = threading.Thread(target=once)
    thread.start()
    assert begun.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(7 if once.is_made and once() is not None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    thread.join(10)


def test_interfaces_that_take_turns_share_them_however_they_are_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []

    class Turns:
        def __init__(self) -> None:
            made.append(self)
            time.sleep(0.005)

    monkeypatch.setattr(reader_link, "SharedTurns", Turns)
    info: Any = types.SimpleNamespace(path="usb:250-77:1.0", interface_number=0)
    quirks: Any = types.SimpleNamespace(interfaces_take_turns=True)
    assert len(set(at_once(lambda: reader_link.shared_turns(info, quirks)))) == 1


def test_readers_opened_at_once_share_the_trace_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from ccid.device import tracing
    from ccid.trace import PcapngSink

    made: list[str] = []

    class Sink(PcapngSink):
        def __init__(self, path: str, keep_open: bool) -> None:
            made.append(path)
            time.sleep(0.02)
            super().__init__(path, keep_open)

    monkeypatch.setattr(tracing, "PcapngSink", Sink)
    sinks = at_once(lambda: tracing._file_of(str(tmp_path / "trace.pcapng")))
    assert len(set(sinks)) == 1
    assert len(made) == 1
    sinks[0].close()


def test_asking_a_reader_for_its_pin_pad_holds_no_lock_of_all_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def features(quirks: object, escape: Any) -> None:
        if escape.__self__.reader is slow:
            begun.set()
            assert go_on.wait(20)

    monkeypatch.setattr("ccid.pin.pad_structures.features", features)
    virtuals = [ccid.VirtualReader(EchoCard()) for _ in range(2)]
    with ccid.open_reader(virtuals[0]) as slow, ccid.open_reader(virtuals[1]) as other:
        threads = [threading.Thread(target=lambda one=one: one.pin_features) for one in (slow,)]
        threads[0].start()
        assert begun.wait(10)
        threads += [threading.Thread(target=lambda: other.pin_features)]
        threads[1].start()
        threads[1].join(10)
        waits = threads[1].is_alive()
        go_on.set()
        for thread in threads:
            thread.join(10)
    assert not waits


def test_a_libusb_that_lacks_a_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    lib = ctypes.CDLL(None) if sys.platform != "win32" else ctypes.CDLL("msvcrt")
    monkeypatch.setattr(libusb, "backend", lambda: types.SimpleNamespace(lib=lib))
    with pytest.raises(errors.UsbUnavailable, match="it lacks libusb_of_tomorrow"):
        libusb.function("libusb_of_tomorrow", None)
