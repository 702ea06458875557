"""Does the jobs of one slot, in a thread of its own: an IFD handler's functions, and what the
library knows of the card."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from ccid.errors import CcidError
from ccid.ground.mailbox import Mailbox
from ccid.ground.signal_safe_locks import new_lock
from ccid.link.card_state import Power
from ccid.pcsc.ifd import Action as IfdAction
from ccid.pcsc.ifd import Code, IFDHandler
from ccid.pcsc.manager.pcsc_call import Action, Call, CardSeen, Job, Loss, Outcome
from ccid.pcsc.manager.pcsc_state import Handle
from ccid.pcsc.manager.scard_codes import MAX_ATTRIBUTE
from ccid.pcsc.numbers.ifd_numbers import MAX_RESPONSE

ABORT_S = 0.1
"""A job that could not be ended is tried again after this."""
ABORT_TRIES = 50

SUCCESS = Code.SUCCESS
"""Members of enumerations that each APDU needs have names of their own: these are found faster."""

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
            thread that does one exchange by itself (:meth:`transmit`). It keeps jobs apart that
            different threads do; who is next decides the core.
        caller: For whom such a thread has the gate; None if none has.
    """

    def __init__(self, handler: IFDHandler, lun: int, post: Post) -> None:
        self._handler = handler
        self._lun = lun
        self._post = post
        self._jobs: Mailbox[tuple[Call, Job] | None] = Mailbox()
        self._thread: threading.Thread | None = None
        self.gate = new_lock()
        self._holder: Call | None = None
        self._lock = new_lock()
        self.caller: Handle | None = None
        self._current: Call | Handle | None = None
        self._busy = new_lock()
        self._given: Call | None = None
        """Whose job was given, and has not begun."""
        self._dropped: Call | None = None
        """Whose job is not to begin."""

    def begin(self, call: Call, job: Job) -> None:
        """Have a job done."""
        if self._thread is None:
            name = f"pcsc {job.slot.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        self._given = call
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
        that has begun may not have come to its command yet: then it is tried again. The job of
        ``call`` that has not begun, for others are at the card, does not begin."""
        with self._lock:  # within which it does not begin
            if call is not None and self._given is call:
                self._dropped = call
                return
        for _ in range(ABORT_TRIES):
            if not self._abort(call):
                return
            busy = self._busy if self.caller is None else self.gate
            if busy.acquire(timeout=ABORT_S):
                busy.release()

    def abort_caller(self, handle: Handle) -> None:
        """End early what a caller's own thread does for ``handle``, from the moment on at which it
        has the gate."""
        for _ in range(ABORT_TRIES):
            if self.caller is not handle:
                return
            if self._current is handle and not self._abort(handle):
                return
            if self.gate.acquire(timeout=ABORT_S):
                self.gate.release()

    def _abort(self, call: Call | Handle | None) -> bool:
        """Try to; True if that is worth another try."""
        with self._lock:  # within which this job does not end, and no other begins
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
            outcome = self._do_for(call, job)
            self._post(JobDone(call, job, outcome))
            del item, call, job, outcome  # a job may hold a secret: it is not kept for the next

    def transmit(
        self, handle: Handle, protocol: int, apdu: bytes, arrivals: int
    ) -> bytes | Outcome:
        """Exchange an APDU in a caller's own thread, which has the gate: no more than that, because
        this is the path of every APDU.

        It may be the main thread, where Ctrl-C comes at any moment. So there are but locks of
        :mod:`ccid.ground.signal_safe_locks` here: no signal comes between one of them and the block
        of its ``with``.

        Args:
            handle: For it.
            protocol: 0 for T=0, 1 for T=1.
            apdu: The command APDU.
            arrivals: How many cards came, as was counted before.

        Returns:
            The response, if nothing else is to be told; or all that there is to tell.
        """
        handler, lun = self._handler, self._lun
        try:
            self._current = handle
            code, data = handler.transmit_to_icc(lun, protocol, apdu)
            channel = handler.channel(lun)
            if code is SUCCESS and channel is not None and channel.has_still(arrivals):
                return data
            return Outcome(code, data, self._seen(ask=False))
        except Exception as error:  # a fault of ours costs this job and no more
            logger.error("%s: an exchange failed: %s", handle.slot.name, type(error).__name__)
            return Outcome(Code.COMMUNICATION_ERROR)
        finally:
            with self._lock:
                self._current = None

    def _do_for(self, call: Call, job: Job) -> Outcome:
        """Do a job in the slot's thread, which has the gate."""
        with self._busy:
            try:
                with self._lock:
                    self._given, self._current = None, call
                    dropped, self._dropped = self._dropped, None
                if dropped is call:
                    return Outcome(Code.COMMUNICATION_ERROR, b"", self._seen(ask=False))
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
