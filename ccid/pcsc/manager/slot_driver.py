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
from ccid.pcsc.ifd_numbers import MAX_RESPONSE
from ccid.pcsc.manager.pcsc_call import Action, Call, CardSeen, Job, Loss, Outcome
from ccid.pcsc.manager.scard_codes import MAX_ATTRIBUTE

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
    """

    def __init__(self, handler: IFDHandler, lun: int, post: Post) -> None:
        self._handler = handler
        self._lun = lun
        self._post = post
        self._jobs: queue.SimpleQueue[tuple[Call, Job] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._current: Call | None = None
        self._idle = threading.Event()
        self._idle.set()

    def begin(self, call: Call, job: Job) -> None:
        """Have a job done."""
        if self._thread is None:
            name = f"pcsc {job.slot.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        self._jobs.put((call, job))

    def end(self) -> None:
        """Do no more jobs."""
        self._jobs.put(None)

    def abort(self, call: Call | None = None) -> None:
        """End the job of ``call`` early, if it is under way and can be ended; None for any. A job
        that has begun may not have come to its command yet: then it is tried again."""
        for _ in range(ABORT_TRIES):
            if not self._abort(call):
                return
            self._idle.wait(ABORT_S)

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
            with self._lock:
                self._current = call
                self._idle.clear()
            try:
                outcome = self._do(job)
            except Exception as error:  # a fault of ours costs this job and no more
                logger.error("%r failed: %s", job, type(error).__name__)
                outcome = Outcome(Code.COMMUNICATION_ERROR)
            with self._lock:
                self._current = None
                self._idle.set()
            self._post(JobDone(call, job, outcome))
            del item, call, job, outcome  # a job may hold a secret: it is not kept for the next

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
