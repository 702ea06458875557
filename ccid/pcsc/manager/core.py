"""The heart of the resource manager: runs the calls, and what happens at the readers; pure.

Theory of operation. Inputs are calls that begin, jobs that drivers have done, readers and cards
that come and go, and the time. Each input is followed by all that it makes possible: calls whose
wait is over go on, in the order in which they came. What is to be done outside is left in
:attr:`Core.jobs` (for drivers), :attr:`Core.aborts` and :attr:`Core.ended` (calls that are over),
and taken from there. No input waits, and none raises for what a client says.

A slot's driver does one thing at a time: a call holds its turn from its first job to its end. What
a client began and does not live to see is finished by the driver, and then dropped.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import deque
from collections.abc import Callable

from ccid.pcsc.manager.own_work import first_look, power_arrival, power_off, reset_left_card
from ccid.pcsc.manager.pcsc_call import (
    AnyChange,
    Call,
    CardSeen,
    Done,
    Job,
    Outcome,
    Steps,
    Wait,
)
from ccid.pcsc.manager.pcsc_state import Context, PcscReader, Slot
from ccid.pcsc.manager.resources import GRACE_S, Resources
from ccid.pcsc.manager.scard_codes import DEFAULT_SLOTS, ScardCode, ScardError

logger = logging.getLogger("ccid.pcsc")

STICKY_S = 0.5
"""A cancellation that came just before its wait counts so long."""
MANY_ALARMS = 256
"""Alarms beyond which those of no use are thrown away."""
RECHECK_S = 0.25
"""A deadline that counts only in a transaction is looked at again after this."""
LIST_PATIENCE_S = 3.0
"""The first lists wait at most so long for readers that are being opened."""


class Core:
    """The resource manager without the world.

    Args:
        number: Makes a random number from 1 to 2³¹-1.
        max_slots: So many readers there may be, each slot counted.
        grace_s: So long a card keeps its power that nobody needs.

    Attributes:
        resources: Contexts, handles, readers.
        jobs: For drivers, to be taken.
        aborts: Calls whose job nobody waits for any more, and where, to be taken.
        ended: Calls that are over, to be taken and told.
        now: The time of the last input.
    """

    def __init__(
        self,
        number: Callable[[], int],
        *,
        max_slots: int = DEFAULT_SLOTS,
        grace_s: float = GRACE_S,
    ) -> None:
        self.resources = Resources(number, max_slots, grace_s)
        self.jobs: deque[tuple[Call, Job]] = deque()
        self.aborts: deque[tuple[Call, Slot]] = deque()
        self.ended: deque[Call] = deque()
        self.now = 0.0
        self._watchers: dict[Call, None] = {}
        self._alarms: list[tuple[float, int, Call | Slot | None]] = []
        self._order = itertools.count()
        self._stirred: deque[Slot] = deque()
        self._many_alarms = MANY_ALARMS
        self._told_version = 0
        self._searching_until: float | None = None
        self._is_found = False

    # Calls ----------------------------------------------------------------------------------------

    def begin(self, call: Call, now: float) -> None:
        """A call begins."""
        self.now = now
        self._start(call)
        self._settle()

    def _start(self, call: Call) -> None:
        try:
            started = call.function(call, *call.arguments)
        except ScardError as error:
            self._end(call, error.code)
            return
        if isinstance(started, Done):
            call.result = started.value
            self._end(call, ScardCode.S_SUCCESS)
            return
        call.steps = started
        if call.context is not None:
            call.context.calls.append(call)
        if call.deadline is not None:
            self._alarm(call.deadline, call)
        self._go_on(call)

    def finished(self, call: Call, job: Job, outcome: Outcome, now: float) -> None:
        """A driver has done ``job``, the one that ``call`` waited for."""
        self.now = now
        self.resources.record(job, outcome)
        if call.is_abandoned:
            self._drop(call)
        else:
            self._go_on(call, outcome)
        self.stir(job.slot)
        self._settle()

    def _drop(self, call: Call) -> None:
        if call.steps is not None:
            call.steps.close()
        self._end(call, ScardCode.E_CANCELLED)

    def expire(self, call: Call, code: ScardCode, now: float) -> bool:
        """Have a call that waits end with ``code``; False if it does not wait: it is over, or a
        driver is at work for it."""
        self.now = now
        is_waiting = self._expire(call, code)
        self._settle()
        return is_waiting

    def _expire(self, call: Call, code: ScardCode) -> bool:
        if call.code is not None or isinstance(call.waits_for, Job):
            return False
        self._throw(call, ScardError(code))
        return True

    def abandon(self, call: Call, now: float) -> None:
        """Nobody waits for the end of ``call`` any more."""
        self.now = now
        self._abandon(call)
        self._settle()

    def _abandon(self, call: Call) -> None:
        if call.code is None and not self._expire(call, ScardCode.E_CANCELLED):
            call.is_abandoned = True
            assert isinstance(call.waits_for, Job)
            self.aborts.append((call, call.waits_for.slot))

    def _go_on(self, call: Call, outcome: Outcome | None = None) -> None:
        self._step(call, outcome, None)

    def _throw(self, call: Call, error: ScardError) -> None:
        self._leave_queue(call)
        self._step(call, None, error)

    def _step(self, call: Call, outcome: Outcome | None, error: ScardError | None) -> None:
        """Have a call go on with what it waited for, or with an error."""
        assert call.steps is not None
        call.waits_for = None
        try:
            steps = call.steps
            self._waits(call, steps.send(outcome) if error is None else steps.throw(error))
        except StopIteration as done:
            call.result = done.value
            self._end(call, ScardCode.S_SUCCESS)
        except ScardError as raised:
            self._end(call, raised.code)
        except Exception as fault:  # one of ours costs this call, and no other
            logger.error("%s: %s", call.function.__name__, type(fault).__name__)
            self._end(call, ScardCode.F_INTERNAL_ERROR)

    def _waits(self, call: Call, what: Wait | Job | AnyChange) -> None:
        call.waits_for = what
        if isinstance(what, Job):
            self.jobs.append((call, what))
        elif isinstance(what, AnyChange):
            self._watchers[call] = None
        else:
            if call.context is None:
                what.slot.queue.insert(0, call)  # what is to be done before any client goes on
            else:
                what.slot.queue.append(call)
            self.stir(what.slot)

    def _leave_queue(self, call: Call) -> None:
        what = call.waits_for
        if isinstance(what, Wait) and call in what.slot.queue:
            what.slot.queue.remove(call)
        self._watchers.pop(call, None)

    def _end(self, call: Call, code: ScardCode) -> None:
        call.code, call.waits_for = code, None
        slot = call.turn
        if slot is not None:
            call.turn = slot.turn = None
            self.stir(slot)
        if call.context is not None and call in call.context.calls:
            call.context.calls.remove(call)
        self.ended.append(call)

    # What follows from what -----------------------------------------------------------------------

    def stir(self, slot: Slot) -> None:
        """Something at ``slot`` may let calls go on."""
        if slot not in self._stirred:
            self._stirred.append(slot)

    def stir_all(self) -> None:
        """Something somewhere may let calls go on."""
        for slot in self.resources.slots:
            if slot is not None:
                self.stir(slot)

    def _settle(self) -> None:
        """Go on with all that can go on."""
        resources = self.resources
        while True:
            if resources.arrivals:
                slot = resources.arrivals.pop(0)
                self._begin_own(power_arrival(resources, slot))
            elif resources.freed:
                self.stir(resources.freed.pop())
            elif self._stirred:
                self._advance(self._stirred.popleft())
            elif self._told_version != resources.version:
                self._told_version = resources.version
                self.stir_all()
                self._tell_change()
            else:
                return

    def _advance(self, slot: Slot) -> None:
        """Go on with the first call in the queue whose wait is over, and then look again."""
        for call in slot.queue:
            wait = call.waits_for
            assert isinstance(wait, Wait)
            if wait.is_over:
                slot.queue.remove(call)
                if wait.turn and slot.turn is None and not slot.is_gone:
                    slot.turn, call.turn = call, slot
                self._go_on(call)
                self.stir(slot)
                return
            if call.refuses_own_lock and wait.is_locked_out:
                holder = slot.holder
                if holder is not None and holder.context is call.context:
                    self._throw(call, ScardError(ScardCode.E_SHARING_VIOLATION))
                    self.stir(slot)
                    return
        if self.resources.review_power(slot, self.now) and slot.off_at is not None:
            self._alarm(slot.off_at, slot)

    def _tell_change(self) -> None:
        for call in list(self._watchers):
            if call in self._watchers:
                del self._watchers[call]
                self._go_on(call)

    def _begin_own(self, steps: Steps) -> None:
        """Begin what no client asked for."""
        call = Call(_own)
        call.steps = steps
        self._go_on(call)

    # Contexts -------------------------------------------------------------------------------------

    def release(self, context: Context, by: Call | None = None) -> None:
        """A context is released, or its client is gone. A card in a transaction, or one that was
        held alone, is reset, and those who waited for it are told so.

        Args:
            context: It.
            by: The call that asks for it; all others of the context end.
        """
        self.resources.contexts.pop(context.number, None)
        for call in list(context.calls):
            if call is not by:
                self._abandon(call)
        for handle in list(context.handles):
            slot, was_holder = handle.slot, handle.slot.holder is handle
            is_clean = handle.word is None
            self.resources.close_handle(handle)
            self.stir(slot)
            if was_holder and is_clean and slot.has_card:
                self.resources.reset_begins(slot, None)
                self._begin_own(reset_left_card(slot))

    def client_gone(self, context: Context, now: float) -> None:
        """The client of ``context`` is gone."""
        self.now = now
        self.release(context)
        self._settle()

    def cancel(self, context: Context, sticky: bool) -> bool:
        """End what waits for a change; False if nothing does.

        Args:
            context: Of this context.
            sticky: If nothing does, what begins to within a moment is ended.
        """
        waiting = [call for call in context.calls if call in self._watchers]
        for call in waiting:
            self._throw(call, ScardError(ScardCode.E_CANCELLED))
        if not waiting and sticky:
            context.cancelled_until = self.now + STICKY_S
        return bool(waiting)

    # Readers and cards ----------------------------------------------------------------------------

    def search_begins(self, now: float) -> None:
        """The readers that are there are being looked for: lists wait for them, a moment."""
        self.now = now
        self._searching_until = now + LIST_PATIENCE_S
        self._alarm(self._searching_until, None)

    def search_ends(self, now: float) -> None:
        """All readers that were there at the start have come."""
        self.now = now
        self._is_found = True
        self.resources.changed()
        self._settle()

    @property
    def is_complete(self) -> bool:
        """The readers of the start are known, or take too long."""
        if self._searching_until is None:
            return True
        shown = all(slot is None or slot.reader.is_shown for slot in self.resources.slots)
        if self.now >= self._searching_until or (shown and self._is_found):
            self._searching_until, self._is_found = None, False
            return True
        return False

    def reader_opened(self, reader: PcscReader, now: float) -> None:
        """A reader that :meth:`Resources.reader_came` took in can be asked for its cards."""
        self.now = now
        for slot in reader.slots:
            self._begin_own(first_look(slot))
        self._settle()

    def reader_left(self, reader: PcscReader, now: float) -> None:
        """A reader was unplugged."""
        self.now = now
        self.resources.reader_left(reader)
        for slot in reader.slots:
            self.stir(slot)
        self._settle()

    def saw(self, slot: Slot, seen: CardSeen, now: float) -> None:
        """A driver tells, unasked, what it knows of a card."""
        self.now = now
        self.resources.saw(slot, seen)
        self.stir(slot)
        self._settle()

    def look(self, slot: Slot, now: float) -> None:
        """Something may have happened in ``slot``: have its driver look."""
        self.now = now
        if not slot.is_gone:
            self._begin_own(first_look(slot))
            self._settle()

    # Time -----------------------------------------------------------------------------------------

    def _alarm(self, when: float, what: Call | Slot | None) -> None:
        heapq.heappush(self._alarms, (when, next(self._order), what))
        if len(self._alarms) > self._many_alarms:
            self._alarms = [alarm for alarm in self._alarms if self._counts(*alarm)]
            heapq.heapify(self._alarms)
            self._many_alarms = max(MANY_ALARMS, 2 * len(self._alarms))

    @property
    def next_time(self) -> float | None:
        """When :meth:`time_passed` has something to do; None for never."""
        while self._alarms and not self._counts(*self._alarms[0]):
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def _counts(self, when: float, _: int, what: Call | Slot | None) -> bool:
        """The alarm is of use still."""
        if isinstance(what, Call):
            return what.code is None and not isinstance(what.waits_for, Job)
        return self._searching_until == when if what is None else what.off_at == when

    def time_passed(self, now: float) -> None:
        """It is ``now``."""
        self.now = now
        while (due := self.next_time) is not None and due <= now:
            _, _, what = heapq.heappop(self._alarms)
            if isinstance(what, Call) and _only_waits_its_turn(what):
                self._alarm(now + RECHECK_S, what)
            elif isinstance(what, Call):
                self._throw(what, ScardError(what.late_code))
            elif what is None:
                self.resources.changed()  # lists need not wait for readers any more
            else:
                what.off_at = None
                self._begin_own(power_off(what))
        self._settle()


def _own(call: Call) -> Done:
    """What the manager does by itself has its steps from the start."""
    return Done()


def _only_waits_its_turn(call: Call) -> bool:
    """Its deadline is one for transactions, and none keeps it waiting."""
    wait = call.waits_for
    return call.refuses_own_lock and isinstance(wait, Wait) and not wait.is_locked_out
