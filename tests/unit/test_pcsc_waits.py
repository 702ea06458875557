"""What waits in the resource manager's core, for what, and until when."""

from __future__ import annotations

import heapq
from typing import Any

import pytest

from ccid.pcsc.manager.card_calls import transmitted
from ccid.pcsc.manager.core import LIST_PATIENCE_S, MANY_ALARMS, RECHECK_S, STICKY_S
from ccid.pcsc.manager.pcsc_call import Action, Call, CardSeen, Job, Outcome
from ccid.pcsc.manager.pcsc_state import CardIn, Context
from ccid.pcsc.manager.resources import MAX_CONTEXTS
from ccid.pcsc.manager.scard_codes import PNP_READER, ScardCode, ScardError
from ccid.pcsc.manager.status_changes import ReaderState
from ccid.pcsc.numbers.ifd_numbers import Code
from tests.unit.fake_pcsc import ATR, FakeSlot, World

OK = ScardCode.S_SUCCESS
SHARED, DIRECT = 2, 3
LEAVE, RESET, UNPOWER = 0, 1, 2
APDU = b"\0\xa4\0\0"


def begin_refusing(world: World, card: int, timeout_s: float = 60.0) -> Call:
    """A transmit as the service has it."""
    call = Call(
        world.functions.transmit,
        (card, 2, APDU),
        deadline=world.now + timeout_s,
        late_code=ScardCode.E_SHARING_VIOLATION,
        refuses_own_lock=True,
    )
    world.core.begin(call, world.now)
    return call


def test_who_waits_for_a_turn_waits_longer_than_for_a_transaction() -> None:
    assert RECHECK_S == 0.25
    world = World()
    one, other = world.connect(world.context()), world.connect(world.context())
    world.is_held = True
    first = world.begin(world.functions.transmit, one, 2, APDU)
    call = begin_refusing(world, other, 1.0)
    for wait_s in (1.0, RECHECK_S, RECHECK_S):
        assert world.core.next_time == world.now + wait_s
        world.sleep(wait_s)
        assert (first.code, call.code) == (None, None)
    world.work()
    assert (first.code, call.code) == (OK, OK)


def test_who_waits_for_anothers_transaction_ends_in_time() -> None:
    world = World()
    one, other = world.connect(world.context()), world.connect(world.context())
    assert world.code(world.functions.begin, one) is OK
    call = begin_refusing(world, other, 1.0)
    world.sleep(0.99)
    assert call.code is None
    world.sleep(0.01)
    assert call.code is ScardCode.E_SHARING_VIOLATION


def test_a_transaction_of_the_own_context_is_refused_at_once_or_waited_for() -> None:
    world = World()
    context = world.context()
    one, other = world.connect(context), world.connect(context)
    assert world.code(world.functions.begin, one) is OK
    assert begin_refusing(world, other).code is ScardCode.E_SHARING_VIOLATION
    assert world.code(world.functions.transmit, other, 2, APDU) is None


def test_a_list_waits_for_readers_no_longer_than_a_moment() -> None:
    world = World()
    context = world.context()
    world.core.search_begins(world.now)
    call = world.begin(world.functions.views, context)
    world.sleep(LIST_PATIENCE_S - 0.01)
    assert call.code is None
    world.sleep(0.01)
    assert call.code is OK


def test_a_wait_for_a_change_may_end_before_the_readers_are_known() -> None:
    """It tells what there is."""
    world = World()
    context = world.context()
    unaware, known = ReaderState(PNP_READER, 2 << 16 | 0), ReaderState(world.slot.name)
    for states, code in (([unaware], ScardCode.E_TIMEOUT), ([known], OK)):
        world.core.search_begins(world.now)
        call = world.begin(world.functions.status_change, context, states, timeout=1.0)
        world.sleep(1.0)
        assert call.code is OK
        assert call.result[0] is code
        assert len(call.result[1]) == 1


def test_there_are_no_more_contexts_than_may_be() -> None:
    world = World()
    resources = world.core.resources
    resources.contexts = {-n: Context(-n) for n in range(MAX_CONTEXTS - 1)}
    assert MAX_CONTEXTS == 10_000
    resources.new_context()
    with pytest.raises(ScardError) as caught:
        resources.new_context()
    assert caught.value.code is ScardCode.E_NO_MEMORY


def test_times_are_not_gone_through_with_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    context = world.context()
    rounds: list[int] = []
    heapify = heapq.heapify

    def counted(alarms: list[Any]) -> None:
        rounds.append(len(alarms))
        heapify(alarms)

    monkeypatch.setattr(heapq, "heapify", counted)
    state = [ReaderState(PNP_READER, world.core.resources.reader_events << 16)]
    for _ in range(600):
        call = Call(world.functions.status_change, (context, state), deadline=world.now + 9)
        world.core.begin(call, world.now)
        assert call.code is None
    assert rounds == [MANY_ALARMS + 1, 2 * (MANY_ALARMS + 1) + 1]


def test_the_upper_word_of_a_cards_state_counts_cards() -> None:
    world = World()
    card = world.connect(world.context())
    for _ in range(3):
        world.take_out()
        world.put_in()
    assert world.code(world.functions.reconnect, card, SHARED, 3, LEAVE) is OK
    assert world.result(world.functions.status, card).state == world.slot.counter << 16 | 0x34
    assert world.slot.counter >= 6


def test_a_first_power_up_is_no_change_before_it_is_shown() -> None:
    world = World()
    resources = world.core.resources
    for action in (Action.POWER_UP, Action.POWER_CYCLE):
        for code in (Code.SUCCESS, Code.ERROR_POWER_ACTION):
            for is_arriving in (False, True):
                world.slot.is_arriving = is_arriving
                version = resources.version
                resources.record(Job(world.slot, action), Outcome(code, ATR))
                assert resources.version - version == int(not is_arriving)


def test_only_a_missing_card_is_told_as_one() -> None:
    world = World()
    handle = world.core.resources.handle(world.connect(world.context()))
    number = world.slot.card_number
    for code in Code:
        if code in (Code.SUCCESS, Code.NO_SUCH_DEVICE):
            continue
        with pytest.raises(ScardError) as caught:
            transmitted(handle, 1, number, Outcome(code))
        is_absent = code is Code.ICC_NOT_PRESENT
        expected = ScardCode.E_NO_SMARTCARD if is_absent else ScardCode.E_NOT_TRANSACTED
        assert caught.value.code is expected


@pytest.mark.parametrize("how", [RESET, UNPOWER])
def test_without_a_card_a_disconnect_does_nothing_to_it(how: int) -> None:
    world = World()
    card = world.connect(world.context())
    world.take_out()
    world.fake.log.clear()
    assert world.code(world.functions.disconnect, card, how) is OK
    assert world.fake.log == []


def test_a_card_that_comes_waits_until_nobody_is_at_the_reader() -> None:
    world = World(FakeSlot(None))
    card = world.connect(world.context(), share=DIRECT, protocols=0)
    world.fake.log.clear()
    world.is_held = True
    world.begin(world.functions.control, card, 1, b"")
    world.fake.put_in()
    world.core.saw(world.slot, CardSeen(True, 1), world.now)
    assert world.slot.card is CardIn.PRESENT
    assert len(world.core.jobs) == 1
    world.work()
    assert [action for action, _ in world.fake.log] == [Action.CONTROL, Action.POWER_UP]


def test_a_card_left_in_a_transaction_is_reset_when_its_last_command_has_ended() -> None:
    world = World()
    number = world.context()
    card = world.connect(number)
    assert world.code(world.functions.begin, card) is OK
    world.fake.log.clear()
    world.is_held = True
    world.begin(world.functions.transmit, card, 2, APDU)
    world.core.client_gone(world.core.resources.context(number), world.now)
    assert len(world.core.jobs) == 1
    world.work()
    assert [action for action, _ in world.fake.log] == [Action.TRANSMIT, Action.POWER_UP]


@pytest.mark.parametrize(("after_s", "code"), [(STICKY_S, ScardCode.E_CANCELLED), (0.51, None)])
def test_a_cancellation_that_comes_first_counts_for_a_moment(
    after_s: float, code: ScardCode | None
) -> None:
    world = World()
    number = world.context()
    assert world.code(world.functions.cancel, number, True) is OK
    world.sleep(after_s)
    call = Call(world.functions.change, context=world.core.resources.context(number))
    world.core.begin(call, world.now)
    assert call.code is code


def test_a_card_without_power_that_is_exchanged_is_told_as_removed() -> None:
    world = World()
    one, other = world.connect(world.context()), world.connect(world.context())
    assert world.code(world.functions.disconnect, one, UNPOWER) is OK
    assert not world.slot.is_powered
    world.fake.exchange()
    assert world.fake.loss is None
    world.look()
    assert world.code(world.functions.status, other) is ScardCode.W_REMOVED_CARD


def test_a_card_without_power_has_no_time_to_lose_it_at() -> None:
    world = World()
    card = world.connect(world.context())
    assert world.code(world.functions.disconnect, card, UNPOWER) is OK
    assert not world.slot.is_powered
    assert world.slot.off_at is None
    assert world.core.next_time is None
