"""A scheduler for tests of locks and queues: threads take turns as a seed says.

Real threads run the code under test, but only one at a time. It hands over to another at seeded
random places: at each operation of a lock, queue or thread, and between any two lines or opcodes of
the package (a trace function). The scheduler knows which threads wait, and for what. So it sees

- a deadlock: no thread can go on, and none waits for a time;
- a lost wake-up: no thread can go on, and a wait for another thread ends only because its time is
  over. Time is virtual. It passes only then, so no schedule really waits.

:func:`under_schedules` puts the scheduled locks, queues, threads and clock into the modules of the
package. :func:`run` runs one scenario by one seed, :func:`explore` runs it by many. The same seed
gives the same schedule in the same process. In another process it does where the order of no set
matters.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import importlib
import pkgutil
import queue
import random
import sys
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Generic, TypeVar

import pytest

import ccid
from ccid.device.open_readers import opened
from ccid.device.unclosed_readers import unclosed
from ccid.ground.mailbox import Mailbox
from ccid.ground.signal_safe_locks import SignalSafeLock

PACKAGE = str(Path(ccid.__file__).parent)
DEVICE = str(Path(PACKAGE, "virtual"))
"""Waits in here are the time that a virtual reader takes, and no lost wake-ups."""
ROOMS = ("ground", "transport", "link", "session", "trace", "virtual", "device", "pcsc.manager")
"""Their modules are all loaded before the scheduled things are put in."""
BEGIN_S = 1000.0
"""The clock at the begin of each schedule."""
SLOW_S, SLOWEST_S = (0.002, 0.05, 0.26), 1.0
"""Times that a thread which can go on may need until it does; and all of them in one schedule."""
LONGEST_S = 3600.0
"""Virtual time that a schedule may take."""
MOST_STEPS = 3_000_000
"""Lines and opcodes that a schedule may take."""
STUCK_S = 300.0
"""Real time after which a thread counts as stuck in something that is not scheduled."""

T = TypeVar("T")


class BadSchedule(AssertionError):
    """A schedule went wrong; the text has the seed and all stacks."""


class Deadlock(BadSchedule):
    """No thread can go on."""


class LostWakeUp(BadSchedule):
    """A wait for another thread ended only because its time was over."""


class Abandoned(BaseException):
    """Raised in the threads of a schedule that went wrong, so that they end."""


class Runner:
    """A thread of a schedule.

    Attributes:
        ready: What it waits for; None while it can go on.
        until: When its wait ends in any case; None for never.
        is_woken: Others are to end the wait. A sleep is no such wait.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.baton = _thread.allocate_lock()
        self.baton.acquire()
        self.ident = 0
        self.is_over = False
        self.ready: Callable[[], object] | None = None
        self.until: float | None = None
        self.is_woken = False

    def is_able(self, now: float) -> bool:
        if self.is_over:
            return False
        if self.ready is None or self.ready():
            return True
        return self.until is not None and self.until <= now


class Scheduler:
    """One schedule.

    Args:
        seed: Decides all.
        style: How often threads change; see :func:`run`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = BEGIN_S
        self.gap = self.random.choice((0, 3, 10, 30, 100, 300))
        """Mean number of steps between two changes; 0: only where threads meet."""
        self.by_opcode = self.random.random() < 0.25
        self.chance = self.random.choice((0.1, 0.5, 1.0))
        """Of a change where threads meet."""
        self.haste = self.random.choice((0.0, 0.0, 0.02))
        """How likely time passes at a change of threads, though one can go on: it is slow."""
        self.expired: list[str] = []
        """Waits that nobody ended."""
        self.changes: list[int] = []
        """The threads that came next, by their numbers."""
        self.failures: list[BaseException] = []
        self.told: list[str] = []
        """Jobs that failed, as a scenario may want."""
        self.locks: list[Lock] = []
        self.runners = [Runner("main")]
        self.current = self.runners[0]
        self.current.ident = _thread.get_ident()
        self.threads: list[threading.Thread] = []
        self._is_over = False
        self._calm = 0
        self._steps = 0
        self._left = self._draw()
        self._left_s = SLOWEST_S
        self._failure: BadSchedule | None = None

    # What a scenario calls ------------------------------------------------------------------------

    def spawn(self, work: Callable[[], T], name: str = "") -> Job[T]:
        """Do ``work`` in a thread."""
        return Job(work, name or f"job {len(self.runners)}")

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, which must call nothing that is scheduled."""
        self.wait(condition, None)

    @contextlib.contextmanager
    def calm(self) -> Iterator[None]:
        """Threads change only when they must: for what a test prepares."""
        self._calm += 1
        try:
            yield
        finally:
            self._calm -= 1

    # What the scheduled objects call --------------------------------------------------------------

    def point(self) -> None:
        """Threads meet here: another may go on."""
        if not self._calm and not self._is_over and self.random.random() < self.chance:
            self._change()

    def wait(self, ready: Callable[[], object], timeout: float | None) -> bool:
        """Wait until ``ready()``; False if the time is over before."""
        return self._wait(ready, timeout, is_woken=True)

    def sleep(self, seconds: float) -> None:
        self._wait(lambda: False, seconds, is_woken=False)

    def _wait(self, ready: Callable[[], object], timeout: float | None, is_woken: bool) -> bool:
        me = self.current
        with self.calm():
            if self._is_over:
                if ready():
                    return True
                raise Abandoned
        me.ready, me.is_woken = ready, is_woken
        me.until = None if timeout is None else self.now + max(0.0, timeout)
        try:
            self._change()
            with self.calm():
                return bool(ready())
        finally:
            me.ready = me.until = None

    def trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        """The global trace function of each thread."""
        if self._calm or not _is_ours(frame.f_code):
            return None
        frame.f_trace_opcodes = self.by_opcode
        return self._step

    def _step(self, _frame: FrameType, _event: str, _arg: object) -> Any:
        if not (self._calm or self._is_over):
            self._left -= 1
            if self._left <= 0:
                self._left = self._draw()
                self._change()
        return self._step

    def _draw(self) -> int:
        drawn = self.random.randint(1, 2 * self.gap) if self.gap else MOST_STEPS
        self._steps += min(drawn, 1000)
        return drawn

    # Threads --------------------------------------------------------------------------------------

    def body(self, runner: Runner, work: Callable[[], object]) -> None:
        """What a thread of the schedule runs."""
        runner.ident = _thread.get_ident()
        self._take(runner)
        try:
            if not self._is_over:
                if self.gap:
                    sys.settrace(self.trace)
                work()
        except Abandoned:
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            sys.settrace(None)
            runner.is_over = True
            if self._is_over:
                following = self.runners[0]
            else:
                try:
                    following = self._choose()
                except Abandoned:
                    following = self.runners[0]
            self._hand(following)

    def _take(self, runner: Runner) -> None:
        if not runner.baton.acquire(timeout=STUCK_S):
            raise BadSchedule(
                f"{self.current.name} is stuck in what is not scheduled; {self.report()}"
            )

    def _hand(self, following: Runner) -> None:
        self.current = following
        following.baton.release()

    def _change(self) -> None:
        me = self.current
        if _thread.get_ident() != me.ident:
            raise BadSchedule(f"{threading.current_thread().name} is no thread of the schedule")
        try:
            following = self._choose()
        except Abandoned:
            if me is self.runners[0]:
                raise
            following = self.runners[0]
        if following is not me:
            self._hand(following)
            self._take(me)
        if self._is_over and not me.is_over and (me.ready is not None or me is self.runners[0]):
            raise Abandoned

    def _choose(self) -> Runner:
        if self._steps > MOST_STEPS:
            self._fail(BadSchedule, "it does not end")
        if self.haste and not self._calm and self.random.random() < self.haste:
            passed = min(self._left_s, self.random.choice(SLOW_S))
            self.now, self._left_s = self.now + passed, self._left_s - passed
        while True:
            self._calm += 1
            able = [one for one in self.runners if one.is_able(self.now)]
            self._calm -= 1
            if able:
                chosen = able[self.random.randrange(len(able))] if len(able) > 1 else able[0]
                self.changes.append(self.runners.index(chosen))
                return chosen
            due = [one.until for one in self.runners if not one.is_over and one.until is not None]
            if not due or min(due) > BEGIN_S + LONGEST_S:
                self._fail(Deadlock, "no thread can go on")
            self.now = min(due)
            for one in self.runners:
                is_due = one.until is not None and one.until <= self.now
                if is_due and one.is_woken and not self._is_device(one):
                    self.expired.append(f"at {self.now - BEGIN_S:.3f} s {self._stack(one)}")

    def _fail(self, kind: type[BadSchedule], text: str) -> None:
        self._failure = kind(f"{text}; {self.report()}")
        self._is_over = True
        raise Abandoned

    @staticmethod
    def _is_device(runner: Runner) -> bool:
        """The thread waits in a virtual reader, or in what a test has instead of a device."""
        frame = sys._current_frames().get(runner.ident)
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        name = "" if frame is None else frame.f_code.co_filename
        return name.startswith(DEVICE) or "/test_" in name

    def _stack(self, runner: Runner) -> str:
        frame = sys._current_frames().get(runner.ident)
        lines = [] if frame is None else traceback.format_stack(frame)
        own = [line for line in lines if __file__ not in line]
        return f"{runner.name}:\n{''.join(own[-8:])}"

    def report(self) -> str:
        """The seed and all stacks."""
        alive = [self._stack(one) for one in self.runners if not one.is_over]
        return "\n".join([f"seed {self.seed}", *self.told, *alive])

    # All of it ------------------------------------------------------------------------------------

    def go(self, scenario: Callable[[Scheduler], object], expirations: int | None) -> None:
        failure: BaseException | None = None
        try:
            if self.gap:
                sys.settrace(self.trace)
            try:
                scenario(self)
            finally:
                sys.settrace(None)
            others = self.runners[1:]
            self._calm += 1
            self.until(lambda: all(one.is_over for one in others))
        except BaseException as error:
            failure = error
        finally:
            sys.settrace(None)
            self._end()
        if self._failure is not None:
            raise self._failure from failure
        if expirations is not None and len(self.expired) > expirations:
            found = "\n".join(self.expired)
            raise LostWakeUp(
                f"seed {self.seed}: {len(self.expired)} waits expired\n{found}"
            ) from failure
        if failure is not None:
            raise BadSchedule(f"seed {self.seed}: {failure!r}") from failure
        if self.failures:
            first = self.failures[0]
            raise BadSchedule(f"seed {self.seed}: a thread ended by {first!r}") from first
        held = [lock for lock in self.locks if lock.owner is not None]
        if held:
            raise BadSchedule(f"seed {self.seed}: {len(held)} locks are held in the end")

    def _end(self) -> None:
        """Have all threads end that are left."""
        main = self.runners[0]
        self._is_over = True
        for runner in self.runners[1:]:
            if not runner.is_over:
                self._hand(runner)
                self._take(main)
        for thread in self.threads:
            threading.Thread.join(thread)


_ours: dict[CodeType, bool] = {}
_running: Scheduler | None = None


def _is_ours(code: CodeType) -> bool:
    """It is code of the package, or of a variant in a test."""
    known = _ours.get(code)
    if known is None:
        name = code.co_filename
        known = name.startswith(PACKAGE) or "/test_" in name
        _ours[code] = known
    return known


def _point() -> None:
    if _running is not None:
        _running.point()


# Instead of the things of threading, queue and time -----------------------------------------------


class Lock:
    """Instead of :class:`threading.Lock`."""

    is_reentrant = False

    def __init__(self) -> None:
        self.owner: int | None = None
        self.depth = 0
        if _running is not None:
            _running.locks.append(self)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        _point()
        me = _thread.get_ident()
        if self.owner is None or (self.is_reentrant and self.owner == me):
            self.owner, self.depth = me, self.depth + 1
            return True
        if not blocking or timeout == 0:
            return False
        assert _running is not None, "nobody can release it"
        limit = None if timeout < 0 else timeout
        if not _running.wait(lambda: self.owner is None, limit):
            return False
        self.owner, self.depth = me, 1
        return True

    def release(self) -> None:
        if self.owner is None or (self.is_reentrant and self.owner != _thread.get_ident()):
            raise RuntimeError("cannot release un-acquired lock")
        self.depth -= 1
        if not self.depth:
            self.owner = None
            _point()

    def locked(self) -> bool:
        _point()
        return self.owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self.owner == _thread.get_ident()


class RLock(Lock):
    """Instead of :func:`threading.RLock`."""

    is_reentrant = True


class Event:
    """Instead of :class:`threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        _point()
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        _point()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        _point()
        if not self._is_set:
            assert _running is not None
            _running.wait(lambda: self._is_set, timeout)
        return self._is_set


class Condition:
    """Instead of :class:`threading.Condition`, as far as the fake libusb uses it."""

    def __init__(self, lock: RLock) -> None:
        self._lock = lock
        self._waiting: list[list[bool]] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def notify_all(self) -> None:
        for one in self._waiting:
            one[0] = True
        self._waiting.clear()

    def wait_for(self, wanted: Callable[[], object], timeout: float) -> object:
        assert _running is not None
        until = _running.now + timeout
        while not (result := wanted()) and _running.now < until:
            notified = [False]
            self._waiting.append(notified)
            self._lock.release()
            try:
                _running.wait(partial(notified.__getitem__, 0), until - _running.now)
            finally:
                self._lock.acquire()
        return result


class ScheduledMailbox(Generic[T]):
    """Instead of :class:`ccid.ground.mailbox.Mailbox`."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        self._items.append(item)
        _point()

    def get(self, timeout: float | None = None) -> T:
        _point()
        if not self._items:
            assert _running is not None, "nobody can put anything in"
            _running.wait(lambda: self._items, timeout)
        return self._taken()

    def get_nowait(self) -> T:
        _point()
        return self._taken()

    def _taken(self) -> T:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def empty(self) -> bool:
        _point()
        return not self._items

    def qsize(self) -> int:
        _point()
        return len(self._items)


class Thread(threading.Thread):
    """Instead of :class:`threading.Thread`."""

    runner: Runner | None = None

    def start(self) -> None:
        scheduler = _running
        if scheduler is None:  # a finalizer of the package, after the schedule
            super().start()
            return
        runner = self.runner = Runner(self.name)
        work = self.run
        self.__dict__["run"] = lambda: scheduler.body(runner, work)
        super().start()
        scheduler.runners.append(runner)
        scheduler.threads.append(self)
        scheduler.point()

    def is_alive(self) -> bool:
        _point()
        return super().is_alive() if self.runner is None else not self.runner.is_over

    def join(self, timeout: float | None = None) -> None:
        runner = self.runner
        if runner is None:
            super().join(timeout)
            return
        _point()
        if not runner.is_over:
            assert _running is not None
            _running.wait(lambda: runner.is_over, timeout)


class Job(Generic[T]):
    """Work in a thread, and what came of it."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._work = work
        self._result: T | None = None
        self.error: Exception | None = None
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except Exception as error:
            self.error = error
            if _running is not None:
                _running.told.append(f"{self._thread.name} ended by {error!r}")

    @property
    def is_over(self) -> bool:
        runner = self._thread.runner
        return runner is not None and runner.is_over

    def result(self) -> T:
        """Wait for its end; raises what it raised."""
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]

    def failure(self) -> Exception | None:
        """Wait for its end; what it raised."""
        self._thread.join()
        return self.error


def monotonic() -> float:
    return time.monotonic() if _running is None else _running.now


def sleep(seconds: float) -> None:
    if _running is None or _thread.get_ident() != _running.current.ident:
        time.sleep(seconds)  # a thread that a test before has left, as the heart of a helper
    else:
        _running.sleep(seconds)


class Instead:
    """A module in which some names mean something else."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_REAL_RLOCK, _REAL_LOCK = type(threading.RLock()), type(threading.Lock())
_NAMES: list[tuple[object, object]] = [
    (
        threading,
        Instead(threading, Lock=Lock, RLock=RLock, Event=Event, Condition=Condition, Thread=Thread),
    ),
    (time, Instead(time, monotonic=monotonic, sleep=sleep)),
    (threading.Lock, Lock),
    (threading.RLock, RLock),
    (threading.Thread, Thread),
    (Mailbox, ScheduledMailbox),
    (time.monotonic, monotonic),
    (time.sleep, sleep),
]


def _instead_of(value: object) -> object | None:
    for real, ours in _NAMES:
        if value is real:
            return ours
    if isinstance(value, SignalSafeLock):  # an RLock tells whose it is
        return RLock() if hasattr(value, "_is_owned") else Lock()
    if isinstance(value, _REAL_RLOCK):
        return RLock()
    return Lock() if isinstance(value, _REAL_LOCK) else None


@contextlib.contextmanager
def under_schedules(patch: pytest.MonkeyPatch, *more: ModuleType) -> Iterator[None]:
    """Within it the scheduled things are in all modules of the package that are loaded, and in
    ``more``: names, locks in modules, classes and objects made at import.

    Args:
        patch: Undoes it, but for the bases of classes, which are undone here.
        more: More modules.
    """
    for room in ROOMS:
        for found in pkgutil.walk_packages([str(Path(PACKAGE, *room.split(".")))], f"ccid.{room}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    modules = [m for name, m in sorted(sys.modules.items()) if name.split(".")[0] == "ccid"]
    seen: set[int] = set()
    bases: list[tuple[type, tuple[type, ...]]] = []
    for module in [*modules, *more]:
        for name, value in list(vars(module).items()):
            if (ours := _instead_of(value)) is not None:
                patch.setattr(module, name, ours)
            elif id(value) in seen or not _of_package(value):
                continue
            elif isinstance(value, type):
                seen.add(id(value))
                if threading.Thread in value.__bases__:
                    bases.append((value, value.__bases__))
                _patch_class(patch, value)
            else:
                seen.add(id(value))
                _patch_object(patch, value)
    try:
        for kind, before in bases:
            kind.__bases__ = tuple(Thread if one is threading.Thread else one for one in before)
        yield
    finally:
        for kind, before in bases:
            kind.__bases__ = before


def _of_package(value: object) -> bool:
    kind = value if isinstance(value, type) else type(value)
    return kind.__module__.split(".")[0] == "ccid"


def _patch_class(patch: pytest.MonkeyPatch, kind: type) -> None:
    for name, value in list(vars(kind).items()):
        if name.startswith("__"):
            continue
        inner = value.__func__ if isinstance(value, staticmethod) else value
        if (ours := _instead_of(inner)) is not None:
            patch.setattr(kind, name, staticmethod(ours) if inner is not value else ours)  # type: ignore[arg-type]
    for cell in getattr(kind.__init__, "__closure__", None) or ():  # type: ignore[misc]
        try:
            ours = _instead_of(cell.cell_contents)
        except ValueError:  # an empty cell
            continue
        if ours is not None:
            patch.setattr(cell, "cell_contents", ours)


def _patch_object(patch: pytest.MonkeyPatch, value: object) -> None:
    for name, part in list(getattr(value, "__dict__", {}).items()):
        if (ours := _instead_of(part)) is not None:
            patch.setattr(value, name, ours)
        elif isinstance(part, defaultdict) and (ours := _instead_of(part.default_factory)):
            patch.setattr(value, name, defaultdict(ours))  # type: ignore[call-overload]


# Running ------------------------------------------------------------------------------------------

Scenario = Callable[[Scheduler], object]


def run(scenario: Scenario, seed: int, expirations: int | None = 0) -> Scheduler:
    """Run one schedule of ``scenario``.

    Args:
        scenario: What the main thread does. It may start more threads.
        seed: Decides the schedule, and how often threads change in it.
        expirations: So many waits for another thread may end by time; None for any number.

    Raises:
        Deadlock, LostWakeUp, BadSchedule: With the seed and the stacks.
    """
    global _running
    assert _running is None
    _running = scheduler = Scheduler(seed)
    was_enabled = gc.isenabled()
    gc.disable()  # it would run finalizers at other places each time
    try:
        scheduler.go(scenario, expirations)
    except BaseException:
        for reader in tuple(opened.readers.values()):
            reader._closed = True  # its locks may be held for ever: the collector must not close it
            unclosed.closed(reader)
        raise
    finally:
        _running = None
        if was_enabled:
            gc.enable()
    return scheduler


def explore(
    scenario: Scenario, count: int, first: int = 0, expirations: int | None = 0
) -> tuple[int, int]:
    """Run ``count`` schedules with the seeds from ``first`` on. The first of them is run twice:
    what is made once, and imported when used, is there in all that count.

    Returns:
        How many schedules differed from all before; how many times threads changed.
    """
    run(scenario, first, expirations)
    different, changes = set[int](), 0
    for seed in range(first, first + count):
        made = run(scenario, seed, expirations)
        different.add(hash(tuple(made.changes)))
        changes += len(made.changes)
        if seed % 100 == 99:
            gc.collect()
    return len(different), changes
