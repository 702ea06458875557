"""Does the jobs of one slot, in a thread of its own: an IFD handler's functions, and what the
library knows of the card."""

from __future__ import annotations

import logging
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from ccid.errors import CcidError
from ccid.link.card_state import Power
from ccid.pcsc.ifd import Action as IfdAction
from ccid.pcsc.ifd import Code, IFDHandler
from ccid.pcsc.manager.pcsc_call import Action, Call, CardSeen, Job, Loss, Outcome
from ccid.pcsc.manager.scard_codes import MAX_ATTRIBUTE
from ccid.pcsc.numbers.ifd_numbers import MAX_RESPONSE

ABORT_S = 0.1
"""A job that could not be ended is tried again after this."""
ABORT_TRIES = 50

logger = logging.getLogger("ccid.pcsc")


@dataclass(frozen=True, slots=True, eq=False)
class JobDone:
    """A message to the engine: a driver has done a job."""

    call: Call
    job: Job
    outcome: Outcome


class Post(Protocol):
    """Takes messages to the engine, from any thread."""

    def __call__(self, message: object, /) -> None: ...


class SlotDriver:
    """Drives one slot.

    Args:
        handler: Its reader.
        lun: The slot, as ``handler`` knows it.
        post: Takes a :class:`JobDone` for each job.

    Attributes:
        gate: Held from the first job of a call to the call's end (:meth:`end_turn`), or by a
            thread that does one job by itself (:meth:`do`). It keeps jobs apart that different
            threads do; who is next decides the core.
    """

    def __init__(self, handler: IFDHandler, lun: int, post: Post) -> None:
        self._handler = handler
        self._lun = lun
        self._post = post
        self._jobs: queue.SimpleQueue[tuple[Call, Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.gate = threading.Lock()
        self._holder: Call | None = None
        self._lock = threading.Lock()
        self._current: Call | None = None
        self._busy = threading.Lock()

    def begin(self, call: Call, job: Job) -> None:
        """Have a job done."""
        if self._thread is None:
            name = f"pcsc {job.slot.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        self._jobs.put((call, job))

    def end_turn(self, call: Call) -> None:
        """A call for which jobs were done is over."""
        if self._holder is call:
            self._holder = None
            self.gate.release()

    def end(self) -> None:
        """Do no more jobs."""
        self._jobs.put(None)

    def abort(self, call: Call | None = None) -> None:
        """End the job of ``call`` early, if it is under way and can be ended; None for any. A job
        that has begun may not have come to its command yet: then it is tried again."""
        for _ in range(ABORT_TRIES):
            if not self._abort(call):
                return
            if self._busy.acquire(timeout=ABORT_S):
                self._busy.release()

    def _abort(self, call: Call | None) -> bool:
        """Try to; True if that is worth another try."""
        with self._lock:  # within which no other job begins
            channel = self._handler.channel(self._lun)
            is_meant = self._current is not None and call in (None, self._current)
            if channel is None or not is_meant:
                return False
            with suppress(CcidError):
                return not channel.slot.cancel()
        return False

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            call, job = item
            if self._holder is not call:
                self.gate.acquire()
                self._holder = call
            outcome = self.do(call, job)
            self._post(JobDone(call, job, outcome))
            del item, call, job, outcome  # a job may hold a secret: it is not kept for the next

    def do(self, call: Call, job: Job) -> Outcome:
        """Do a job in this thread, which has the gate.

        It may be the main thread, where Ctrl-C comes at any moment. So there are but plain locks
        here: ``with`` takes and releases one in a single step, which no signal divides.
        """
        with self._busy:
            with self._lock:
                self._current = call
            try:
                return self._do(job)
            except Exception as error:  # a fault of ours costs this job and no more
                logger.error("%r failed: %s", job, type(error).__name__)
                return Outcome(Code.COMMUNICATION_ERROR)
            finally:
                with self._lock:
                    self._current = None

    def _do(self, job: Job) -> Outcome:
        handler, lun = self._handler, self._lun
        code, data = Code.SUCCESS, b""
        match job.action:
            case Action.TRANSMIT:
                code, data = handler.transmit_to_icc(lun, job.argument, job.data)
            case Action.POWER_UP:
                code, data = handler.power_icc(lun, IfdAction.POWER_UP)
            case Action.POWER_CYCLE:
                handler.power_icc(lun, IfdAction.POWER_DOWN)
                code, data = handler.power_icc(lun, IfdAction.POWER_UP)
            case Action.POWER_DOWN:
                code, data = handler.power_icc(lun, IfdAction.POWER_DOWN)
            case Action.PROTOCOL:
                code = handler.set_protocol_parameters(lun, job.argument)
            case Action.CONTROL:
                code, data = handler.control(lun, job.argument, job.data, MAX_RESPONSE)
            case Action.GET:
                code, data = handler.get_capabilities(lun, job.argument, MAX_ATTRIBUTE)
            case Action.SET:
                code = handler.set_capabilities(lun, job.argument, job.data)
        return Outcome(code, data, self._seen(ask=job.action is Action.LOOK))

    def _seen(self, ask: bool) -> CardSeen | None:
        """What is known of the card; a loss is told once."""
        channel = self._handler.channel(self._lun)
        if channel is None or self._handler.is_gone(self._lun):
            return None
        code = Code.ICC_PRESENT
        if ask:
            code, _ = channel.presence(hold=True)
        state = channel.reader.cards[channel.slot.index]
        loss = None
        if channel.owes_absence:
            loss = Loss.POWER if state.power is Power.LOST else Loss.REMOVED
            channel.told()
        is_failed = ask and code is Code.COMMUNICATION_ERROR
        return CardSeen(state.is_present, state.arrivals, loss, is_failed)
