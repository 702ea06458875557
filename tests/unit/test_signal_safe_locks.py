"""Locks with no signal between their ``__enter__`` and the block of ``with``."""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import ccid
from ccid.device import open_readers
from ccid.ground.signal_safe_locks import SignalSafeLock, new_lock, new_rlock

KINDS: dict[str, Callable[[], Any]] = {
    "Lock": new_lock,
    "RLock": new_rlock,
    "Lock of CPython 3.14": lambda: SignalSafeLock(threading.Lock()),
    "RLock of CPython 3.14": lambda: SignalSafeLock(threading.RLock()),
}
TIMES = 60
AFTER_S = 0.0003


def is_free(lock: Any) -> bool:
    """As another thread sees it."""

    def taken() -> bool:
        got: bool = lock.acquire(False)
        if got:
            lock.release()
        return got

    with ThreadPoolExecutor(1) as another:
        return another.submit(taken).result(10)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timer of signals")
@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_never_leaves_it_held(kind: str) -> None:
    """A threading.Lock of CPython 3.14.8 is held after four of ten signals here."""
    lock, count = KINDS[kind](), 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(TIMES):
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, AFTER_S)
                while True:
                    with lock:
                        count += 1
            assert is_free(lock)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert count


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_lock(kind: str) -> None:
    lock = KINDS[kind]()
    known: Any = weakref.ref(lock)()
    assert known is lock
    with lock as got:
        assert got is True
        assert not is_free(lock)
    assert is_free(lock)
    assert lock.acquire(timeout=1) is True
    assert not is_free(lock)
    lock.release()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert is_free(lock)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("R")])
def test_an_rlock_is_entered_twice(kind: str) -> None:
    lock = KINDS[kind]()
    with lock, lock:
        assert lock._is_owned()
    assert not lock._is_owned()
    assert is_free(lock)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("L")])
def test_a_lock_tells_whether_it_is_held(kind: str) -> None:
    lock = KINDS[kind]()
    with lock:
        assert lock.locked()
    assert not lock.locked()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("R")])
def test_the_lock_of_a_reader_is_one_while_a_thread_holds_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found by a weak reference, and ``with`` keeps only the inner one of two in memory."""
    monkeypatch.setattr(open_readers, "new_rlock", KINDS[kind])
    opened, info = open_readers.Opened(), ccid.VirtualReader().info
    key = open_readers.key_of(info)
    left: list[Any] = []

    def is_held() -> None:
        lock: Any = opened._locks.get(key)
        assert lock is not None
        assert lock._is_owned()
        left.append(opened._lock(key))
        assert left[-1] is lock

    def open_it(_: Any) -> Any:
        is_held()
        return SimpleNamespace(info=info, close=is_held)

    reader, _ = opened.borrow(info, open_it)
    assert reader is not None
    opened.give_back(reader)
    opened.borrow(info, open_it)
    with opened.opening(info):  # closes the one that was lent
        assert len(left) == 4
