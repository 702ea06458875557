"""Whose turn it is: tasks that use the same slot, one after the other.

Theory of operation. Slots that cannot work at the same time share one lock
(:meth:`ccid.link.conversation.Conversation.turn`), and so they share one :class:`TaskTurn` with one
thread: no job waits in a thread for the lock of another job, where nobody could cancel the wait.

``exclusive()`` is a matter of the loop alone. A task enters by a job like any other. From the
moment that this job is handed to the thread, jobs of other tasks wait in the loop, in their order,
until the task leaves. So a task that is cancelled while it waits takes its job back, and the thread
never hears of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from ccid.aio.job_thread import Job, JobThread
from ccid.aio.loop_mail import LoopMail, mail_of
from ccid.errors import ReaderClosed
from ccid.ground.signal_safe_locks import new_rlock

if TYPE_CHECKING:
    from ccid.device.reader import Reader
    from ccid.device.slot import Slot

P = ParamSpec("P")
R = TypeVar("R")


class TaskTurn:
    """The turn of one slot, or of slots that share a lock. :func:`turn_of` makes one.

    Args:
        lock: The lock that commands to the slot hold.
        reader: The reader.
        loop: The loop of the tasks.

    Raises:
        TransportError: The system has no thread left.
    """

    def __init__(self, lock: Any, reader: Reader, loop: asyncio.AbstractEventLoop) -> None:
        self.lock = lock
        self.loop = loop
        self._mail: LoopMail | None = mail_of(loop)
        """None once the last slot has parted: it has a descriptor, which is closed at once then."""
        self.name = reader.name
        self._check = reader.pipe.check
        self._thread = JobThread(f"ccid.aio {reader.name}")
        self.users = 0
        """How many slots have this turn."""
        self._owner: asyncio.Task[Any] | None = None
        """The task that entered; None while any task may send."""
        self._depth = 0
        """How often the owner has entered."""
        self._waiting: deque[Job] = deque()
        """Jobs of other tasks, meanwhile."""

    # Jobs -------------------------------------------------------------------------------------

    async def do(
        self,
        cancel: Callable[[], object] | None,
        work: Callable[P, R],
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> R:
        """Do ``work`` in the thread, when it is this task's turn.

        If the task is cancelled before, ``work`` is never called. If it is cancelled meanwhile,
        the command under way is ended, and this ends once the thread is done.

        Args:
            cancel: Ends the command under way; None if ``work`` is short, and goes on to its end.
                Must not block.
            work: The work.
        """
        assert not keywords
        job = Job(work, arguments, self.lock, self._mail)
        self._submit(job)
        try:
            result: R = await job.future
        except asyncio.CancelledError:
            await self._ended(job, cancel)
            raise
        return result

    async def make(
        self, cancel: Callable[[], object], work: Callable[[], R], undo: Callable[[R], object]
    ) -> R:
        """As :meth:`do`, for ``work`` whose result must be undone if the task does not get it.

        Args:
            cancel: As for :meth:`do`.
            work: The work.
            undo: Undoes the result, in the thread.
        """
        job = Job(work, (), self.lock, self._mail)
        self._submit(job)
        try:
            result: R = await job.future
        except asyncio.CancelledError:
            await self._ended(job, cancel)
            if job.result is not None:
                undoing = Job(undo, (job.result,), self.lock, self._mail)
                self._hand_over(undoing)
                await undoing.finished()
            raise
        return result

    def _submit(self, job: Job) -> None:
        """Hand a job to the thread, or keep it while another task has the turn."""
        if job.loop is not self.loop:
            self._check()  # in a forked child: ReaderForked
            raise RuntimeError("this reader was opened in another event loop, and is of use there")
        owner = self._owner
        if owner is None or owner is asyncio.current_task():
            self._hand_over(job)
        else:
            self._waiting.append(job)

    def _hand_over(self, job: Job) -> None:
        if self._thread.has_ended:
            job.refuse(self._closed())
            return
        if job.entering is not None:
            self._owner, job.is_admitted = job.entering, True
            self._depth += 1
        self._thread.put(job)

    def _closed(self) -> ReaderClosed:
        return ReaderClosed(f"{self.name} was closed", reader=self.name)

    async def _ended(self, job: Job, cancel: Callable[[], object] | None) -> None:
        """End a job whose task was cancelled."""
        with suppress(ValueError):
            self._waiting.remove(job)
            return
        if not self._thread.withdraw(job):
            await job.ended(cancel)

    # Exclusive use ----------------------------------------------------------------------------

    async def enter(self, look: Callable[[], object]) -> None:
        """Wait until no other task has the turn, and take it.

        Args:
            look: Called in the thread then; if it raises, the turn is given back.

        Raises:
            What ``look`` raises.
        """
        job = Job(look, (), self.lock, self._mail)
        job.entering = asyncio.current_task()
        self._submit(job)
        try:
            await job.future
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                await self._ended(job, None)
            if job.is_admitted:
                self.leave()
            raise

    def leave(self) -> None:
        """Give the turn back: to the task that has waited longest, if that is one that enters."""
        self._depth -= 1
        if self._depth:
            return
        self._owner = None
        if self.loop.is_closed():  # a coroutine is thrown away: no task waits any more
            self._waiting.clear()
        while self._waiting and self._owner is None:
            self._hand_over(self._waiting.popleft())

    def part(self) -> None:
        """One slot less has this turn. After the last the thread ends, after the command under
        way; tasks whose jobs have not begun get ReaderClosed."""
        with _guard:
            self.users -= 1
            if self.users:
                return
        for job in (*self._thread.end(), *self._waiting):
            job.refuse(self._closed())
        self._waiting.clear()
        self._mail = None


_guard = new_rlock()
"""Held while turns are counted: readers are opened in threads."""
_turns: WeakValueDictionary[tuple[int, int], TaskTurn] = WeakValueDictionary()
"""By the identities of loop and lock. The turn has both, so neither becomes another object's."""


def turn_of(slot: Slot, loop: asyncio.AbstractEventLoop) -> TaskTurn:
    """The turn of a slot, which one slot more has now: :meth:`TaskTurn.part` ends that.

    Args:
        slot: The slot.
        loop: The loop of the tasks.

    Raises:
        TransportError: The system has no thread left.
    """
    lock = slot.turn()
    key = (id(loop), id(lock))
    with _guard:
        turn = _turns.get(key)
        if turn is None or turn.users == 0:
            turn = _turns[key] = TaskTurn(lock, slot.reader, loop)
        turn.users += 1
    return turn


class Exclusive(AbstractAsyncContextManager[None]):
    """A context in which only one task sends commands to a slot.

    Args:
        turn: The turn of the slot.
        look: Called in the thread as the context begins. If it raises, the context does not begin.
    """

    def __init__(self, turn: TaskTurn, look: Callable[[], object]) -> None:
        self._turn = turn
        self._look = look

    async def __aenter__(self) -> None:
        await self._turn.enter(self._look)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._turn.leave()
