"""Any interleaving of up to four contexts ends with the codes that PC/SC has for it.

The model knows one reader: who has the card how, who has a transaction, and what each handle is to
be told. It has no calls under way, no drivers, and no queue but a list of those that wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ccid.pcsc.manager.pcsc_call import Call
from ccid.pcsc.manager.scard_codes import ScardCode
from tests.conftest import Tell
from tests.unit.fake_pcsc import World

EXCLUSIVE, SHARED, DIRECT = 1, 2, 3
LEAVE, RESET, UNPOWER, EJECT = 0, 1, 2, 3
OK = ScardCode.S_SUCCESS
SHARING = ScardCode.E_SHARING_VIOLATION
REMOVED, WAS_RESET = ScardCode.W_REMOVED_CARD, ScardCode.W_RESET_CARD
HANDLES = st.integers(0, 7)
CONTEXTS = st.integers(0, 3)


@dataclass(eq=False)
class Held:
    """A handle, as the model knows it."""

    context: int
    share: int
    word: ScardCode | None = None
    number: int = 0


class Model:
    """One reader with one card."""

    def __init__(self) -> None:
        self.is_plugged = self.has_card = True
        self.is_powered = True
        self.is_agreed = False
        self.handles: list[Held] = []
        self.lock: Held | None = None
        self.depth = 0

    @property
    def exclusive(self) -> Held | None:
        return next((one for one in self.handles if one.share == EXCLUSIVE), None)

    @property
    def holder(self) -> Held | None:
        return self.lock or (self.exclusive if self.is_plugged else None)

    def flag(self, code: ScardCode, but: Held | None = None) -> None:
        for one in self.handles:
            if one is not but and one.word is not REMOVED:
                one.word = code

    def drop(self, one: Held) -> None:
        self.handles.remove(one)
        if self.lock is one:
            self.lock, self.depth = None, 0

    # Each returns the code, or None for "it waits" ------------------------------------------------

    def connect(self, context: int, share: int, made: Held) -> ScardCode | None:
        if not self.is_plugged:
            return ScardCode.E_UNKNOWN_READER
        if self.exclusive is not None:
            return SHARING
        if share != DIRECT and not self.has_card:
            return ScardCode.E_NO_SMARTCARD
        if share == EXCLUSIVE and self.handles:
            return SHARING
        if self.lock is not None and self.lock.context != context:
            return None
        if share != DIRECT:
            self.is_powered = self.is_agreed = True
        self.handles.append(made)
        return OK

    def reconnect(self, one: Held, share: int, how: int) -> ScardCode | None:
        if how == EJECT:
            return ScardCode.E_INVALID_VALUE
        if not self.is_plugged:
            return ScardCode.E_INVALID_VALUE
        if self.holder not in (None, one):
            return None
        if share == EXCLUSIVE and self.handles != [one]:
            return SHARING
        if not self.has_card:
            return ScardCode.E_NO_SMARTCARD
        if how in (RESET, UNPOWER):
            self.flag(WAS_RESET)
            self.is_powered, self.is_agreed = True, False
        if share != DIRECT:
            self.is_powered = self.is_agreed = True
        one.word, one.share = None, share
        return OK

    def disconnect(self, one: Held, how: int) -> ScardCode | None:
        if not self.is_plugged:
            self.drop(one)
            return OK
        acts = how in (RESET, UNPOWER)
        holder = self.holder
        if acts and holder is not None and holder.context != one.context:
            return None
        if acts and self.has_card:
            self.flag(WAS_RESET, one)
            self.is_powered, self.is_agreed = how == RESET, False
        self.drop(one)
        return OK

    def begin(self, one: Held) -> ScardCode | None:
        if not self.is_plugged:
            return ScardCode.E_INVALID_VALUE
        if one.word is not None:
            return one.word
        if self.holder not in (None, one):
            return None
        self.lock, self.depth = one, self.depth + 1
        return OK

    def end(self, one: Held, how: int) -> ScardCode | None:
        if not self.is_plugged:
            return ScardCode.E_INVALID_VALUE
        if one.word is None and self.lock is not one:
            return ScardCode.E_NOT_TRANSACTED if self.holder in (None, one) else SHARING
        word = one.word
        if word is None and how in (RESET, UNPOWER) and self.has_card:
            self.flag(WAS_RESET)
            self.is_powered, self.is_agreed = True, False
        if self.lock is one:
            self.depth -= 1
            if not self.depth:
                self.lock = None
        if word is not None:
            return word
        return ScardCode.E_UNSUPPORTED_FEATURE if how == EJECT else OK

    def status(self, one: Held) -> ScardCode | None:
        if not self.is_plugged:
            return ScardCode.E_READER_UNAVAILABLE
        if one.word is not None:
            return one.word
        return None if self.holder not in (None, one) else OK

    def transmit(self, one: Held) -> ScardCode | None:
        if not self.is_plugged:
            return ScardCode.E_INVALID_VALUE
        if one.word is not None:
            return one.word
        if self.holder not in (None, one):
            return None
        if not self.has_card:
            return ScardCode.E_NO_SMARTCARD
        return OK if self.is_agreed else ScardCode.E_PROTO_MISMATCH

    def control(self, one: Held) -> ScardCode | None:
        if not self.is_plugged:
            return ScardCode.E_INVALID_VALUE
        return OK if self.holder in (None, one) else SHARING

    def attribute(self, one: Held) -> ScardCode | None:
        code = self.control(one)
        return one.word if code is OK and one.word is not None else code

    # What happens ---------------------------------------------------------------------------------

    def release(self, context: int) -> None:
        for one in [one for one in self.handles if one.context == context]:
            was_holder = self.is_plugged and self.holder is one
            self.drop(one)
            if was_holder and one.word is None and self.has_card:
                self.flag(WAS_RESET)
                self.is_powered, self.is_agreed = True, False

    def take_out(self) -> None:
        self.has_card = self.is_powered = self.is_agreed = False
        self.lock, self.depth = None, 0
        self.flag(REMOVED)


class Machine(RuleBasedStateMachine):
    """The core and the model, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(grace_s=1e9)
        self.model = Model()
        self.contexts = [self.world.context() for _ in range(4)]
        self.open: list[Held] = []
        self.waiting: list[tuple[Call, Any, tuple[Any, ...]]] = []

    def held(self, index: int) -> Held | None:
        """A handle on which nothing is under way: two calls on one at once may end either way."""
        busy = {arguments[0] for _, _, arguments in self.waiting}
        free = [one for one in self.open if one not in busy]
        return free[index % len(free)] if free else None

    def run(self, call: Call, what: Any, *arguments: Any) -> None:
        """A call began in the core: the model says how it ends."""
        self.waiting.append((call, what, arguments))
        self.catch_up()

    def catch_up(self) -> None:
        """End in the model what can end there, those that came first, first."""
        moved = True
        while moved:
            moved = False
            for entry in list(self.waiting):
                call, what, arguments = entry
                expected = what(*arguments)
                if expected is None:
                    continue
                self.waiting.remove(entry)
                assert call.code is expected, (what.__name__, call.code, expected)
                if what == self.model.connect and expected is OK:
                    made = arguments[2]
                    made.number = call.result[0]
                    self.open.append(made)
                if what == self.model.disconnect and expected is OK:
                    self.open.remove(arguments[0])
                    self.invalidate(arguments[0])
                moved = True
                break

    def invalidate(self, one: Held) -> None:
        """What waits on a handle that is closed ends."""
        for entry in list(self.waiting):
            call, what, arguments = entry
            if what != self.model.connect and arguments[0] is one:
                self.waiting.remove(entry)
                assert call.code is ScardCode.E_INVALID_HANDLE

    @rule(context=CONTEXTS, share=st.sampled_from((EXCLUSIVE, SHARED, SHARED, DIRECT)))
    def connect(self, context: int, share: int) -> None:
        number, name = self.contexts[context], self.world.readers[0].slots[0].name
        call = self.world.begin(self.world.functions.connect, number, name, share, 3)
        self.run(call, self.model.connect, number, share, Held(number, share))

    @rule(
        index=HANDLES,
        share=st.sampled_from((EXCLUSIVE, SHARED, DIRECT)),
        how=st.sampled_from((LEAVE, RESET, UNPOWER, EJECT)),
    )
    def reconnect(self, index: int, share: int, how: int) -> None:
        if (one := self.held(index)) is not None:
            call = self.world.begin(self.world.functions.reconnect, one.number, share, 3, how)
            self.run(call, self.model.reconnect, one, share, how)

    @rule(index=HANDLES, how=st.sampled_from((LEAVE, RESET, UNPOWER, EJECT)))
    def disconnect(self, index: int, how: int) -> None:
        if (one := self.held(index)) is not None:
            call = self.world.begin(self.world.functions.disconnect, one.number, how)
            self.run(call, self.model.disconnect, one, how)

    @rule(index=HANDLES)
    def begin(self, index: int) -> None:
        if (one := self.held(index)) is not None:
            call = self.world.begin(self.world.functions.begin, one.number)
            self.run(call, self.model.begin, one)

    @rule(index=HANDLES, how=st.sampled_from((LEAVE, LEAVE, RESET, UNPOWER, EJECT)))
    def end(self, index: int, how: int) -> None:
        if (one := self.held(index)) is not None:
            call = self.world.begin(self.world.functions.end, one.number, how)
            self.run(call, self.model.end, one, how)

    @rule(index=HANDLES)
    def status(self, index: int) -> None:
        if (one := self.held(index)) is not None:
            call = self.world.begin(self.world.functions.status, one.number)
            self.run(call, self.model.status, one)

    @rule(index=HANDLES)
    def transmit(self, index: int) -> None:
        if (one := self.held(index)) is not None:
            transmit = self.world.functions.transmit
            call = self.world.begin(transmit, one.number, 2, b"\0\xa4\0\0")
            self.run(call, self.model.transmit, one)

    @rule(index=HANDLES)
    def control(self, index: int) -> None:
        if (one := self.held(index)) is not None:
            call = self.world.begin(self.world.functions.control, one.number, 1, b"")
            self.run(call, self.model.control, one)

    @rule(index=HANDLES)
    def attribute(self, index: int) -> None:
        if (one := self.held(index)) is not None:
            call = self.world.begin(self.world.functions.get_attribute, one.number, 0x10100)
            self.run(call, self.model.attribute, one)

    @rule(context=CONTEXTS)
    def release(self, context: int) -> None:
        """As if its client had died; it comes back as another."""
        number = self.contexts[context]
        mine = [one for one in self.open if one.context == number]
        self.waiting = [
            entry
            for entry in self.waiting
            if (entry[2][0] if isinstance(entry[2][0], int) else entry[2][0].context) != number
        ]
        assert self.world.code(self.world.functions.release, number) is OK
        self.model.release(number)
        self.open = [one for one in self.open if one not in mine]
        self.catch_up()
        for one in mine:
            code = self.world.code(self.world.functions.status, one.number)
            assert code is ScardCode.E_INVALID_HANDLE
        self.contexts[context] = self.world.context()

    @precondition(lambda self: self.model.is_plugged and self.model.has_card)
    @rule()
    def take_out(self) -> None:
        self.world.take_out()
        self.model.take_out()
        self.catch_up()

    @precondition(lambda self: self.model.is_plugged and self.model.has_card)
    @rule()
    def exchange(self) -> None:
        """A removal that nobody saw is told all the same."""
        self.world.fake.exchange()
        self.world.look()
        self.model.take_out()
        self.model.has_card = self.model.is_powered = True
        self.catch_up()

    @precondition(lambda self: self.model.is_plugged and not self.model.has_card)
    @rule()
    def put_in(self) -> None:
        self.world.put_in()
        self.model.has_card = self.model.is_powered = True
        self.catch_up()

    @precondition(lambda self: self.model.is_plugged)
    @rule()
    def unplug(self) -> None:
        self.world.unplug()
        self.model.is_plugged = False
        self.model.lock, self.model.depth = None, 0
        self.catch_up()

    @invariant()
    def all_that_waits_waits(self) -> None:
        assert [call.code for call, _, _ in self.waiting] == [None] * len(self.waiting)
        waiting = {call for call, _, _ in self.waiting}
        under_way = {c for ctx in self.world.core.resources.contexts.values() for c in ctx.calls}
        assert under_way == waiting

    @invariant()
    def handles_are_the_same(self) -> None:
        slot = self.world.readers[0].slots[0]
        assert len(self.world.core.resources.handles) == len(self.open)
        if self.model.is_plugged:
            words = {one.number: one.word for one in self.model.handles}
            assert {handle.number: handle.word for handle in slot.handles} == words
            assert slot.is_powered is self.model.is_powered
            assert (slot.lock_count, slot.turn) == (self.model.depth, None)


SMALL, FULL = 60, 2500
"""Interleavings; each of up to 40 steps."""


def test_any_interleaving_ends_with_the_codes_of_the_model(full: bool, tell: Tell) -> None:
    count = FULL if full else SMALL
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=count,
            stateful_step_count=40,
            deadline=None,
            derandomize=not full,
            suppress_health_check=list(HealthCheck),
        ),
    )
    tell(f"PC/SC core: {count} interleavings of four contexts end as the model says")
