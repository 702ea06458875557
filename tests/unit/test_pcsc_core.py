"""The resource manager's rules one by one: power, protocols, what handles are told, names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ccid.pcsc.manager.pcsc_call import Action, Call
from ccid.pcsc.manager.pcsc_state import SlotView
from ccid.pcsc.manager.reader_names import Numbers, base_name, slot_name
from ccid.pcsc.manager.scard_codes import PNP_READER, CardBits, Proto, ScardCode, ScardError
from ccid.pcsc.manager.slot_driver import SlotDriver
from ccid.pcsc.manager.status_changes import ReaderState, StatusLook
from tests.unit.fake_pcsc import ATR, ATR_T0, FakeSlot, World

OK = ScardCode.S_SUCCESS
EXCLUSIVE, SHARED, DIRECT = 1, 2, 3
LEAVE, RESET, UNPOWER = 0, 1, 2
APDU = b"\0\xa4\0\0"


def connect_code(world: World, context: int, share: int = SHARED, protocols: int = 3) -> object:
    return world.code(world.functions.connect, context, world.slot.name, share, protocols)


# Protocols ----------------------------------------------------------------------------------------


def test_t1_comes_first_where_both_are_wanted() -> None:
    world = World()
    result = world.result(world.functions.connect, world.context(), world.slot.name, SHARED, 3)
    assert result[1] is Proto.T1
    assert (Action.PROTOCOL, 2) in world.fake.log


def test_the_default_is_tried_where_the_reader_refuses_the_other() -> None:
    world = World()
    world.fake.refused = {2}
    result = world.result(world.functions.connect, world.context(), world.slot.name, SHARED, 3)
    assert result[1] is Proto.T0


def test_nothing_else_than_what_is_wanted() -> None:
    world = World()
    world.fake.refused = {2}
    assert connect_code(world, world.context(), SHARED, 2) is ScardCode.E_PROTO_MISMATCH
    world = World(FakeSlot(ATR_T0))
    assert connect_code(world, world.context(), SHARED, 2) is ScardCode.E_PROTO_MISMATCH
    world.fake.refused = {1}
    assert connect_code(world, world.context(), SHARED, 1) is ScardCode.W_UNRESPONSIVE_CARD


def test_raw_is_one_handles_own() -> None:
    """pcscd takes the protocol from all others."""
    world = World()
    one, other = world.context(), world.context()
    card = world.connect(one)
    result = world.result(world.functions.connect, other, world.slot.name, SHARED, 4)
    assert result[1] == Proto.RAW
    assert world.code(world.functions.transmit, card, 2, APDU) is OK
    assert world.code(world.functions.transmit, result[0], 4, APDU) is OK
    assert world.result(world.functions.status, result[0]).protocol == 4


def test_an_atr_that_cannot_be_read_has_no_protocol_but_raw() -> None:
    world = World(FakeSlot(b"\x00"))
    assert connect_code(world, world.context()) is ScardCode.E_PROTO_MISMATCH
    assert connect_code(world, world.context(), SHARED, 4) is OK


# Power --------------------------------------------------------------------------------------------


def test_a_card_that_nobody_needs_loses_its_power_after_a_while() -> None:
    world = World(grace_s=5)
    assert world.slot.bits == 0x34
    world.sleep(4.9)
    assert world.fake.powered
    world.sleep(0.2)
    assert not world.fake.powered
    assert (world.slot.bits, world.slot.atr) == (CardBits.PRESENT, ATR)
    card = world.connect(world.context())
    world.sleep(60)
    assert world.fake.powered
    world.code(world.functions.disconnect, card, LEAVE)
    world.sleep(4)
    again = world.connect(world.context())  # within the time it keeps its power
    assert world.fake.log.count((Action.POWER_UP, 0)) == 2
    world.code(world.functions.disconnect, again, LEAVE)
    world.sleep(6)
    assert not world.fake.powered


def test_a_direct_handle_needs_no_power_but_in_a_transaction() -> None:
    world = World(grace_s=5)
    card = world.connect(world.context(), DIRECT)
    world.sleep(4)
    assert world.code(world.functions.begin, card) is OK
    world.sleep(30)
    assert world.fake.powered
    assert world.code(world.functions.end, card, LEAVE) is OK
    world.sleep(6)
    assert not world.fake.powered


def test_after_anothers_unpower_reconnect_gives_power() -> None:
    world = World()
    card, other = world.connect(world.context()), world.connect(world.context())
    assert world.code(world.functions.disconnect, other, UNPOWER) is OK
    assert world.slot.bits == CardBits.PRESENT
    assert world.code(world.functions.transmit, card, 2, APDU) is ScardCode.W_RESET_CARD
    assert world.code(world.functions.reconnect, card, SHARED, 3, LEAVE) is OK
    assert world.code(world.functions.transmit, card, 2, APDU) is OK


def test_a_mute_card() -> None:
    fake = FakeSlot()
    fake.mute = True
    world = World(fake)
    assert world.slot.bits == CardBits.PRESENT | CardBits.SWALLOWED
    assert connect_code(world, world.context()) is ScardCode.W_UNPOWERED_CARD
    assert connect_code(world, world.context(), DIRECT) is OK
    fake.mute = False
    assert connect_code(world, world.context()) is OK  # each try is a new one


# What became of a card ----------------------------------------------------------------------------


def test_lost_power_is_told_as_a_reset() -> None:
    world = World()
    card = world.connect(world.context())
    world.fake.lose_power()
    assert world.code(world.functions.transmit, card, 2, APDU) is ScardCode.W_RESET_CARD
    assert world.slot.counter == 0
    assert world.code(world.functions.reconnect, card, SHARED, 3, LEAVE) is OK
    assert world.code(world.functions.transmit, card, 2, APDU) is OK


def test_removed_is_never_told_as_reset() -> None:
    world = World()
    one, other = world.context(), world.context()
    card, second = world.connect(one), world.connect(other)
    world.fake.exchange()
    world.look()
    assert world.code(world.functions.disconnect, second, RESET) is OK
    assert world.code(world.functions.status, card) is ScardCode.W_REMOVED_CARD
    assert world.slot.counter == 2


def test_a_card_is_shown_with_its_atr() -> None:
    """While its first power-up is under way, the slot is shown as it was."""
    world = World(FakeSlot(None))
    world.is_held = True
    world.fake.put_in()
    world.look()
    call, job = world.core.jobs.popleft()
    world.core.finished(call, job, world.fake.do(job), world.now)
    assert (world.slot.view.state, world.slot.view.atr) == (CardBits.ABSENT, b"")
    world.work()
    assert (world.slot.view.state, world.slot.view.atr) == (0x34, ATR)
    assert world.slot.counter == 1


def test_a_reader_that_does_not_tell() -> None:
    world = World()
    card = world.connect(world.context())
    world.fake.failing = True
    world.look()
    for function, arguments in (
        (world.functions.status, (card,)),
        (world.functions.transmit, (card, 2, APDU)),
        (world.functions.control, (card, 1, b"")),
    ):
        assert world.code(function, *arguments) is ScardCode.E_READER_UNAVAILABLE
    version = world.core.resources.version
    world.look()
    assert world.core.resources.version == version  # nobody is woken for that again
    world.fake.failing = False
    world.look()
    assert world.code(world.functions.status, card) is ScardCode.W_RESET_CARD
    assert world.code(world.functions.reconnect, card, SHARED, 3, LEAVE) is OK


def test_a_reader_that_tells_again_that_there_is_no_card() -> None:
    """Programs that wait for a change are woken."""
    world = World(FakeSlot(None))
    world.fake.failing = True
    world.look()
    version = world.core.resources.version
    world.fake.failing = False
    world.look()
    assert world.slot.bits == CardBits.ABSENT
    assert world.core.resources.version > version


def test_only_the_job_that_is_meant_is_ended() -> None:
    cancelled: list[int] = []

    def cancel() -> bool:
        cancelled.append(1)
        return True

    slot = SimpleNamespace(cancel=cancel)
    handler: Any = SimpleNamespace(channel=lambda lun: SimpleNamespace(slot=slot))
    driver, one, other = SlotDriver(handler, 0, print), *(Call(cast(Any, print)) for _ in range(2))
    driver.abort()
    assert not cancelled, "no job is under way"
    driver._current = one
    driver.abort(other)
    assert not cancelled
    driver.abort(one)
    assert len(cancelled) == 1


# Sharing and transactions -------------------------------------------------------------------------


def test_sharing_is_looked_at_before_the_card_is_reset() -> None:
    world = World()
    card = world.connect(world.context())
    world.connect(world.context())
    before = len(world.fake.log)
    code = world.code(world.functions.reconnect, card, EXCLUSIVE, 3, RESET)
    assert code is ScardCode.E_SHARING_VIOLATION
    assert len(world.fake.log) == before


def test_a_refused_exclusive_connect_leaves_the_card_alone() -> None:
    world = World()
    world.connect(world.context(), DIRECT)
    world.sleep(10)
    assert connect_code(world, world.context(), EXCLUSIVE) is ScardCode.E_SHARING_VIOLATION
    assert not world.fake.powered


def test_an_end_that_tells_of_a_reset_ends_the_transaction() -> None:
    world = World()
    card = world.connect(world.context())
    for _ in range(2):
        assert world.code(world.functions.begin, card) is OK
    assert world.code(world.functions.end, card, RESET) is OK
    assert world.code(world.functions.end, card, LEAVE) is ScardCode.W_RESET_CARD
    assert world.slot.lock is None


def test_an_end_without_a_begin_resets_nothing() -> None:
    world = World()
    card = world.connect(world.context())
    before = len(world.fake.log)
    assert world.code(world.functions.end, card, RESET) is ScardCode.E_NOT_TRANSACTED
    assert len(world.fake.log) == before


def test_those_that_wait_have_the_card_in_their_order() -> None:
    world = World()
    cards = [world.connect(world.context()) for _ in range(5)]
    assert world.code(world.functions.begin, cards[0]) is OK
    waiting = [world.begin(world.functions.begin, card) for card in cards[1:]]
    for number, card in enumerate(cards[:-1]):
        assert [call.code for call in waiting] == [OK] * number + [None] * (4 - number)
        assert world.code(world.functions.end, card, LEAVE) is OK


def test_limits() -> None:
    world = World()
    context = world.context()
    for _ in range(200):
        world.connect(context)
    assert connect_code(world, context) is ScardCode.E_NO_MEMORY
    assert connect_code(world, world.context()) is ScardCode.F_INTERNAL_ERROR


def test_tags_of_a_driver_are_no_clients_business() -> None:
    world = World()
    card = world.connect(world.context())
    for tag in (0x0FAC, 0x0FB2, 0x0FB3, 0x0180, 0x0303):
        code = world.code(world.functions.get_attribute, card, tag)
        assert code is ScardCode.E_UNSUPPORTED_FEATURE
        code = world.code(world.functions.set_attribute, card, tag, b"1")
        assert code is ScardCode.E_UNSUPPORTED_FEATURE


def test_times_of_calls_that_are_over_are_forgotten() -> None:
    world = World()
    card = world.connect(world.context())
    for _ in range(2000):
        assert world.begin(world.functions.status, card, timeout=3600.0).code is OK
    assert len(world.core._alarms) <= 257


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("Reader",), "Reader"),
        (("Reader", "CCID"), "Reader [CCID]"),
        (("Reader", "CCID", "0123"), "Reader [CCID] (0123)"),
        (("Reader", "CCID 0123", "0123"), "Reader [CCID 0123]"),
        (("Reader", "Käse"), "Reader [K.se]"),
    ],
)
def test_names(parts: tuple[str, ...], name: str) -> None:
    assert base_name(*parts) == name
    assert slot_name(name, 10, 1) == f"{name} 0A 01"


def test_a_name_fits() -> None:
    name = slot_name(base_name("ä" * 200), 255, 255)
    assert len(name.encode()) <= 127
    assert name.endswith("ä FF FF")


def test_a_reader_that_comes_back_has_its_name_again() -> None:
    world = World()
    world.plug(FakeSlot(), device="second")
    world.unplug(0)
    third = world.plug(FakeSlot(), device="third")
    assert third.slots[0].name == "Reader 02 00"
    assert world.plug(FakeSlot(), device="device 0").slots[0].name == "Reader 00 00"


def test_numbers_run_out() -> None:
    numbers = Numbers()
    assert [numbers.take(n) for n in range(257)] == [*range(256), None]
    numbers.give_back(7)
    assert numbers.take("another") == 7
    numbers.give_back(7)
    assert numbers.take(7) == 7


def test_there_is_no_room_for_more_readers() -> None:
    world = World(max_slots=2)
    assert world.core.resources.reader_came("two slots", "Reader", (0, 1)) is None
    assert world.core.resources.reader_came("one slot", "Reader", (0,)) is not None


# SCardGetStatusChange -----------------------------------------------------------------------------

EMPTY, PRESENT, EXCL, INUSE, MUTE = 0x10, 0x20, 0x80, 0x100, 0x200
CHANGED = 0x02


@pytest.mark.parametrize(
    ("state", "sharing", "event"),
    [
        (0x02, 0, EMPTY),
        (0x02, 1, EMPTY),
        (0x02, -1, EMPTY | EXCL),
        (0x34, 0, PRESENT),
        (0x34, 2, PRESENT | INUSE),
        (0x34, -1, PRESENT | EXCL),
        (0x04, 0, PRESENT),
        (0x0C, 0, PRESENT | MUTE),
        (0x01, 0, 0x08),
        (0x01, -1, 0x88),
    ],
)
def test_what_there_is(state: int, sharing: int, event: int) -> None:
    counter = 5
    look = StatusLook([ReaderState("R")], [view(state, sharing, counter)], 1)
    assert look.is_changed([view(state, sharing, counter)], 1)
    upper = 0 if event & 0x08 else counter << 16
    assert look.told[0].event == event | CHANGED | upper


def view(state: int, sharing: int = 0, counter: int = 0) -> SlotView:
    return SlotView("R", counter, CardBits(state), sharing, b"", 0)


@pytest.mark.parametrize(
    ("current", "state", "sharing", "is_changed"),
    [
        (EMPTY, 0x02, 0, False),
        (EMPTY, 0x34, 0, True),
        (PRESENT, 0x34, 0, False),
        (PRESENT, 0x34, 1, False),
        (PRESENT, 0x34, -1, False),
        (PRESENT, 0x02, 0, True),
        (PRESENT | INUSE, 0x34, 0, True),
        (PRESENT | INUSE, 0x34, -1, True),
        (PRESENT | EXCL, 0x34, 1, True),
        (PRESENT, 0x0C, 0, True),
        (PRESENT | MUTE, 0x0C, 0, False),
        (PRESENT | MUTE, 0x34, 0, True),
        (0x08, 0x34, 0, True),
        (PRESENT, 0x01, 0, True),
        (0x08, 0x01, 0, False),
        (0x04, 0x34, 0, True),
        (PRESENT | CHANGED, 0x34, 0, False),
        (PRESENT | 0x400, 0x34, 0, False),
        (PRESENT | 3 << 16, 0x34, 0, False),
        (PRESENT | 4 << 16, 0x34, 0, True),
        (PRESENT | 2 << 16, 0x34, 0, True),
    ],
)
def test_what_has_changed(current: int, state: int, sharing: int, is_changed: bool) -> None:
    now = [view(state, sharing, 3)]
    look = StatusLook([ReaderState("R", current)], now, 1)
    assert look.is_changed(now, 1) is is_changed


def test_readers_that_come() -> None:
    look = StatusLook([ReaderState(PNP_READER.upper())], [], 3)
    assert not look.is_changed([], 3)
    assert look.told[0].event == 3 << 16
    assert look.is_changed([], 4)
    known = StatusLook([ReaderState(PNP_READER, 2 << 16)], [], 3)
    assert known.is_changed([], 3)  # what came while nobody looked
    same = StatusLook([ReaderState(PNP_READER, 3 << 16)], [], 3)
    assert not same.is_changed([], 3)


def test_a_reader_that_left_and_one_that_never_was() -> None:
    look = StatusLook([ReaderState("R", PRESENT), ReaderState("R", 1)], [view(0x34)], 1)
    assert look.is_changed([None], 2)
    assert [one.event for one in look.told] == [0x0E, 0]
    with pytest.raises(ScardError):
        StatusLook([ReaderState("S")], [view(0x34)], 1)


def test_a_change_that_comes_with_the_end_of_the_time_counts() -> None:
    world = World()
    context = world.context()
    states = (ReaderState(world.slot.name, PRESENT),)
    call = world.begin(world.functions.status_change, context, states, timeout=1.0)
    world.sleep(2)
    assert call.result[0] is ScardCode.E_TIMEOUT
    assert call.result[1][0].event == PRESENT
