"""Jobs that block, done by threads beside an event loop.

Theory of operation. A job goes into a deque, and a bell (a lock that is released) wakes the thread.
The thread takes the job out of the deque, does it, and has the loop tell the task
(:mod:`ccid.aio.loop_mail`). To take a job out of a deque is one step, so exactly one of two wins:
the thread begins the job, or the task that was cancelled withdraws it. Without jobs, thread and
loop sleep, and nothing wakes either.

An executor of the standard library serves for none of this: that of a loop has 32 threads at most
for all, and no job can be ended that has begun.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from ccid.aio.loop_mail import LoopMail, mail_of
from ccid.errors import CcidError, TransportError
from ccid.ground.signal_safe_locks import new_lock

logger = logging.getLogger("ccid.aio")
R = TypeVar("R")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.25
"""Pauses between two attempts to end a job that has begun: it may be between two commands."""
LOCK_SLICE_S = 0.25
"""A job that waits for a lock looks so often whether it is still wanted."""


class Job:
    """Something that a thread does for a task.

    Args:
        work: Does it.
        arguments: The arguments of ``work``.
        lock: A lock to hold meanwhile; None for none.
        mail: How the thread tells the loop; None to look that up.

    Attributes:
        future: What the task awaits.
        is_under_way: ``work`` is about to be called, or was called.
        is_cancelled: The task was cancelled: ``work`` is not to be called any more.
        is_over: The thread has done all it will do; ``result`` or ``error`` is there.
        result: What ``work`` returned.
        error: What ``work`` raised; None if it returned.
        entering: The task that has the turn from this job on; None if the job is no entry
            (:mod:`ccid.aio.task_turn`).
        is_admitted: An entry that was handed to the thread: its task has the turn.
    """

    __slots__ = (
        *("_guard", "_mail", "_settled", "arguments", "entering", "error", "future"),
        *("is_admitted", "is_cancelled", "is_over", "is_under_way", "lock", "loop"),
        *("result", "work"),
    )

    def __init__(
        self,
        work: Callable[..., Any],
        arguments: tuple[Any, ...] = (),
        lock: Any = None,
        mail: LoopMail | None = None,
    ) -> None:
        self.work = work
        self.arguments = arguments
        self.lock = lock
        self.loop = loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = loop.create_future()
        self._mail = mail or mail_of(loop)
        self._guard = new_lock()
        """Held while ``is_over`` is set, and while the job is cancelled."""
        self._settled: asyncio.Future[None] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_under_way = self.is_cancelled = self.is_over = self.is_admitted = False
        self.entering: asyncio.Task[Any] | None = None

    # In the thread ----------------------------------------------------------------------------

    def run(self) -> None:
        """Do the job, and have the loop tell the task."""
        lock = self.lock
        try:
            if lock is None:
                self._do()
            elif lock.acquire(blocking=False) or self._waited_for(lock):
                try:
                    self._do()
                finally:
                    lock.release()
        except CcidError as error:  # the lock says that the reader is gone
            self.error = error
        self.is_over = True
        self._mail.put(self)

    def _waited_for(self, lock: Any) -> bool:
        """Wait for a lock that another thread holds; False if the task was cancelled."""
        while not self.is_cancelled:
            if lock.acquire(timeout=LOCK_SLICE_S):
                return True
        return False

    def _do(self) -> None:
        self.is_under_way = True
        if self.is_cancelled:
            return
        try:
            self.result = self.work(*self.arguments)
        except BaseException as error:
            self.error = error
        with self._guard:  # no cancellation of this job may meet the next one
            self.is_over = True

    # In the loop ------------------------------------------------------------------------------

    def tell(self) -> None:
        """Tell the task that the job is over."""
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)
        future, error = self.future, self.error
        if future.done():  # cancelled
            return
        if error is None:
            future.set_result(self.result)
        else:
            self.error = None  # the error knows this object by its traceback
            future.set_exception(error)

    def refuse(self, error: CcidError) -> None:
        """The job is not done: the task gets ``error``."""
        self.error, self.is_over = error, True
        if not self.loop.is_closed():
            self.tell()

    def cancel(self, cancel: Callable[[], object]) -> None:
        """End the command that the job has under way, if it has one. Called in the loop.

        Args:
            cancel: Ends the command under way in the slot of the job. Must not block.
        """
        with self._guard:
            if self.is_under_way and not self.is_over:
                with suppress(CcidError):  # the reader is gone: the job ends by itself
                    cancel()

    async def ended(self, cancel: Callable[[], object] | None = None) -> None:
        """Cancel the job, and wait until the thread is done with it. To cancel the task once more
        does not end this wait.

        Args:
            cancel: Ends the command that the job has under way. Must not block.
        """
        self.is_cancelled = True
        await self.finished(cancel)
        self.error = None  # the error knows this object by its traceback

    async def finished(self, cancel: Callable[[], object] | None = None) -> None:
        """As :meth:`ended`, but a job that has not begun is done."""
        pause_s = FIRST_PAUSE_S
        while not self.is_over:
            if cancel is not None:
                self.cancel(cancel)
            self._settled = self.loop.create_future()
            with suppress(asyncio.CancelledError):  # it is on its way to the caller already
                await asyncio.wait((self._settled,), timeout=pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def start(target: Callable[..., object], name: str, *arguments: Any) -> None:
    """Start a thread that does not keep Python from ending.

    Raises:
        TransportError: The system has no thread left.
    """
    try:
        threading.Thread(target=target, name=name, args=arguments, daemon=True).start()
    except RuntimeError as error:
        raise TransportError(f"no thread can be started for {name}: {error}") from None


Jobs = deque[Job | None]
"""Jobs to do; None ends the thread."""


class JobThread:
    """A thread that does jobs one after the other.

    The thread ends when :meth:`end` is called, or when nobody has this object any more.

    Args:
        name: Name of the thread.

    Raises:
        TransportError: The system has no thread left.
    """

    def __init__(self, name: str) -> None:
        self._jobs: Jobs = deque()
        self._bell = new_lock()
        self._bell.acquire()
        self.has_ended = False
        start(_serve, name, self._jobs, self._bell)

    def put(self, job: Job | None) -> None:
        """Have the thread do ``job`` after all jobs before it.

        Args:
            job: The job; None to end the thread.
        """
        self._jobs.append(job)
        with suppress(RuntimeError):  # the bell has rung, and the thread has not heard it yet
            self._bell.release()

    def withdraw(self, job: Job) -> bool:
        """Take a job back that has not begun.

        Args:
            job: The job.

        Returns:
            True if the thread will never begin the job; False if it has.
        """
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True

    def end(self) -> list[Job]:
        """End the thread after the job under way. A second call has no effect.

        Returns:
            The jobs that will not be done.
        """
        left: list[Job] = []
        if not self.has_ended:
            self.has_ended = True
            with suppress(IndexError):
                while True:
                    job = self._jobs.popleft()
                    if job is not None:
                        left.append(job)
            self.put(None)
        return left

    def __del__(self) -> None:
        with suppress(AttributeError):  # the thread was never started
            self.end()


def _serve(jobs: Jobs, bell: threading.Lock) -> None:
    """What the thread does. It knows nothing that would keep a forgotten reader alive."""
    while True:
        bell.acquire()
        while jobs:
            try:
                job = jobs.popleft()
            except IndexError:  # withdrawn just now
                break
            if job is None:
                return
            job.run()
            del job


# Jobs in a thread of their own ------------------------------------------------------------------


async def apart(name: str, work: Callable[[], R], undo: Callable[[R], object]) -> R:
    """Do ``work`` in a new thread. If the task is cancelled, this ends at once; ``work`` goes on,
    and its result is undone as soon as it is there.

    Args:
        name: Name of the thread.
        work: The work.
        undo: Undoes the result of ``work`` if nobody gets it; called in a thread.

    Raises:
        TransportError: The system has no thread left.
    """
    job = Job(work)
    undoing = [undo]
    """The one that takes ``undo`` out calls it: the thread, or this task."""

    def run() -> None:
        job.run()
        if job.is_cancelled:
            undo_it()

    def undo_it() -> None:
        if job.error is not None:
            return
        with suppress(IndexError):
            call = undoing.pop()
            try:
                call(job.result)
            except CcidError as error:
                logger.info("%s: %s", name, error)

    start(run, name)
    try:
        result: R = await job.future
    except asyncio.CancelledError:
        job.is_cancelled = True
        if job.is_over:
            start(undo_it, name)
        raise
    return result


async def apart_to_the_end(name: str, work: Callable[[], object]) -> None:
    """Do ``work`` in a new thread, and wait for its end even if the task is cancelled meanwhile.
    Without a thread left, ``work`` is done here.

    Args:
        name: Name of the thread.
        work: The work.
    """
    job = Job(work)
    try:
        start(job.run, name)
    except TransportError as error:
        logger.warning("%s", error)
        work()
        return
    try:
        await job.future
    except asyncio.CancelledError:
        await job.finished()
        raise
