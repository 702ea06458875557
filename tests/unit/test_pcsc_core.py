"""The resource manager's rules one by one: power, protocols, what handles are told, names."""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ccid.pcsc.manager import scard_codes
from ccid.pcsc.manager.card_calls import may_transmit_now, transmitted
from ccid.pcsc.manager.card_protocols import available
from ccid.pcsc.manager.pcsc_call import Action, Call, Outcome
from ccid.pcsc.manager.pcsc_state import CardIn, SlotView
from ccid.pcsc.manager.reader_names import Numbers, base_name, slot_name
from ccid.pcsc.manager.scard_codes import (
    PNP_READER,
    CardBits,
    Disposition,
    Proto,
    ScardCode,
    ScardError,
    Scope,
    Share,
    StateBits,
)
from ccid.pcsc.manager.slot_driver import SlotDriver
from ccid.pcsc.manager.status_changes import ReaderState, StatusLook
from ccid.pcsc.numbers.ifd_numbers import Code
from tests.unit.fake_pcsc import ATR, ATR_T0, FakeSlot, World
from tests.unit.pyscard_names import CONSTANTS

OK = ScardCode.S_SUCCESS
EXCLUSIVE, SHARED, DIRECT = 1, 2, 3
LEAVE, RESET, UNPOWER = 0, 1, 2
APDU = b"\0\xa4\0\0"


def connect_code(world: World, context: int, share: int = SHARED, protocols: int = 3) -> object:
    return world.code(world.functions.connect, context, world.slot.name, share, protocols)


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "begin", "end"),
    [
        (ScardCode, "SCARD_", ""),
        (Disposition, "SCARD_", "_CARD"),
        (Share, "SCARD_SHARE_", ""),
        (Scope, "SCARD_SCOPE_", ""),
        (Proto, "SCARD_PROTOCOL_", ""),
        (StateBits, "SCARD_STATE_", ""),
    ],
)
def test_numbers_are_those_of_pcsc(kind: type[IntEnum], begin: str, end: str) -> None:
    """Compared with pyscard's, which are compiled from the headers of libpcsclite."""
    ours = {f"{begin}{name}{end}": int(value) for name, value in kind.__members__.items()}
    theirs = {name: CONSTANTS[name] for name in ours if name in CONSTANTS}
    assert {name: ours[name] for name in theirs} == theirs
    beyond = {"SCARD_S_SUCCESS": 0, "SCARD_SCOPE_GLOBAL": 3, "SCARD_PROTOCOL_ANY_OLD": 0x1000}
    assert {name: ours[name] for name in ours.keys() - theirs.keys()}.items() <= beyond.items()


def test_numbers_that_pyscard_does_not_have() -> None:
    """The bits of SCardStatus and the sizes of libpcsclite (pcsclite.h)."""
    bits = {bit.name: int(bit) for bit in CardBits}
    assert bits == {
        "UNKNOWN": 1, "ABSENT": 2, "PRESENT": 4, "SWALLOWED": 8, "POWERED": 16, "NEGOTIABLE": 32
    }  # fmt: skip
    codes = scard_codes
    assert (codes.INFINITE, codes.INFINITE_OF_PYSCARD) == (2**32 - 1, 2**31 - 1)
    assert (codes.MAX_ATTRIBUTE, codes.MAX_EXTENDED) == (264, 4 + 3 + (1 << 16) + 3 + 2)
    assert (codes.DEFAULT_SLOTS, codes.MAX_READER_NAME) == (16, 128 - 1)
    assert (codes.MAX_CONTEXT_HANDLES, codes.MAX_READER_HANDLES) == (200, 200)
    assert CONSTANTS["SCARD_ATTR_ATR_STRING"] == codes.ATTR_ATR_STRING
    assert CONSTANTS["SCARD_ATTR_DEVICE_FRIENDLY_NAME_A"] == codes.ATTR_DEVICE_FRIENDLY_NAME_A
    assert CONSTANTS["SCARD_ATTR_DEVICE_SYSTEM_NAME_A"] == codes.ATTR_DEVICE_SYSTEM_NAME_A
    assert codes.FIRST_ATTRIBUTE == 0x10000  # the class is in the upper word (part 3)


# What a call may say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "protocols", "code"),
    [
        (SHARED, 0, ScardCode.E_PROTO_MISMATCH),
        (SHARED, 8, ScardCode.E_PROTO_MISMATCH),  # T=15 is no protocol
        (SHARED, 0x10000, ScardCode.E_PROTO_MISMATCH),
        (EXCLUSIVE, 0, ScardCode.E_PROTO_MISMATCH),
        (DIRECT, 0, OK),
        (DIRECT, 8, OK),
        (SHARED, 0x1000, OK),  # what SCARD_PROTOCOL_ANY was once
        (SHARED, 0x10003, OK),
        (SHARED, 4, OK),
        (0, 3, ScardCode.E_INVALID_VALUE),
        (4, 3, ScardCode.E_INVALID_VALUE),
    ],
)
def test_values_of_connect_and_reconnect(share: int, protocols: int, code: ScardCode) -> None:
    world = World()
    assert connect_code(world, world.context(), share, protocols) is code
    world = World()
    card = world.connect(world.context())
    assert world.code(world.functions.reconnect, card, share, protocols, LEAVE) is code


@pytest.mark.parametrize("protocols", [0, 8, 0x10000])
def test_no_card_is_touched_for_a_protocol_that_there_is_not(protocols: int) -> None:
    world = World(FakeSlot(None))
    code = connect_code(world, world.context(), SHARED, protocols)
    assert code is ScardCode.E_PROTO_MISMATCH  # said before it is looked for a card
    world = World()
    card = world.connect(world.context())
    before = len(world.fake.log)
    for how in (LEAVE, RESET, UNPOWER):
        code = world.code(world.functions.reconnect, card, SHARED, protocols, how)
        assert code is ScardCode.E_PROTO_MISMATCH
    assert len(world.fake.log) == before


@pytest.mark.parametrize(
    ("how", "actions"),
    [
        (LEAVE, []),
        (RESET, [Action.POWER_UP]),
        (UNPOWER, [Action.POWER_DOWN]),
        (3, []),  # no reader of ours ejects
    ],
)
def test_what_disconnect_does_to_the_card(how: int, actions: list[Action]) -> None:
    world = World()
    card, other = world.connect(world.context()), world.connect(world.context())
    before = len(world.fake.log)
    assert world.code(world.functions.disconnect, card, how) is OK
    assert [action for action, _ in world.fake.log[before:]] == actions
    word = ScardCode.W_RESET_CARD if actions else OK
    assert world.code(world.functions.transmit, other, 2, APDU) is word
    assert world.code(world.functions.disconnect, card, how) is ScardCode.E_INVALID_HANDLE


@pytest.mark.parametrize("how", [-1, 4])
def test_what_is_nothing_to_do_to_a_card(how: int) -> None:
    world = World()
    card = world.connect(world.context())
    assert world.code(world.functions.begin, card) is OK
    assert world.code(world.functions.end, card, how) is ScardCode.E_INVALID_VALUE
    assert world.code(world.functions.disconnect, card, how) is ScardCode.E_INVALID_VALUE
    assert world.code(world.functions.end, card, LEAVE) is OK  # as before


def test_a_disconnect_that_resets_waits_for_the_command_under_way() -> None:
    world = World()
    card, other = world.connect(world.context()), world.connect(world.context())
    world.is_held = True
    command = world.begin(world.functions.transmit, card, 2, APDU)
    leaving = world.begin(world.functions.disconnect, other, RESET)
    assert [job.action for _, job in world.core.jobs] == [Action.TRANSMIT]
    world.is_held = False
    world.work()
    assert (command.code, leaving.code) == (OK, OK)
    assert [action for action, _ in world.fake.log[-2:]] == [Action.TRANSMIT, Action.POWER_UP]


@pytest.mark.parametrize("how", [-1, 3, 4])
def test_a_reconnect_resets_or_does_not(how: int) -> None:
    world = World()
    card = world.connect(world.context())
    code = world.code(world.functions.reconnect, card, SHARED, 3, how)
    assert code is ScardCode.E_INVALID_VALUE


def test_the_protocol_that_reconnect_tells() -> None:
    world = World()
    card = world.connect(world.context(), protocols=1)
    reconnect = world.functions.reconnect
    assert world.result(reconnect, card, SHARED, 3, LEAVE) is Proto.T0  # it stays in force
    assert world.code(reconnect, card, SHARED, 2, LEAVE) is ScardCode.E_PROTO_MISMATCH
    assert world.result(reconnect, card, SHARED, 2, RESET) is Proto.T1
    assert world.result(reconnect, card, SHARED, 4, LEAVE) is Proto.RAW
    assert world.result(reconnect, card, SHARED, 3, UNPOWER) is Proto.T1


def test_what_a_reader_refuses_is_no_protocol() -> None:
    """The default is tried only where it is wanted, too, and was not tried yet."""
    world = World()
    world.fake.refused = {1, 2}
    assert connect_code(world, world.context(), SHARED, 3) is ScardCode.W_UNRESPONSIVE_CARD
    tried = [argument for action, argument in world.fake.log if action is Action.PROTOCOL]
    assert tried == [2, 1]
    world = World()
    world.fake.refused = {1}
    assert connect_code(world, world.context(), SHARED, 1) is ScardCode.E_PROTO_MISMATCH
    tried = [argument for action, argument in world.fake.log if action is Action.PROTOCOL]
    assert tried == [1]


@pytest.mark.parametrize(
    ("atr", "offered", "default"),
    [
        ("3B00", 1, 1),
        ("3B8001", 2, 2),
        ("3B808001", 3, 1),
        ("3B80810E", 2, 2),  # T=14 has no number in PC/SC
        ("3B800E", 0, 0),
        ("3B90118100", 3, 2),
        ("3B901191" + "0100", 2, 2),  # specific mode: T=1 and no other
        ("3B9011910000", 1, 1),
        ("3B9011910E00", 0, 0),
        ("3B", 0, 0),
        ("", 0, 0),
    ],
)
def test_which_protocols_a_card_has(atr: str, offered: int, default: int) -> None:
    assert available(bytes.fromhex(atr)) == (offered, default)


def test_an_exclusive_handle_is_alone() -> None:
    world = World()
    one, other = world.context(), world.context()
    first = world.connect(one)
    assert connect_code(world, other, EXCLUSIVE) is ScardCode.E_SHARING_VIOLATION
    second = world.connect(other)
    exclusive = (world.functions.reconnect, first, EXCLUSIVE, 3, LEAVE)
    assert world.code(*exclusive) is ScardCode.E_SHARING_VIOLATION
    assert world.code(world.functions.disconnect, second, LEAVE) is OK
    assert world.slot.exclusive is None
    assert world.slot.view.sharing == 1
    assert world.code(*exclusive) is OK
    assert world.slot.view.sharing == -1
    assert connect_code(world, other) is ScardCode.E_SHARING_VIOLATION
    assert connect_code(world, other, DIRECT) is ScardCode.E_SHARING_VIOLATION
    assert world.code(world.functions.reconnect, first, SHARED, 3, LEAVE) is OK
    assert world.slot.exclusive is None
    assert connect_code(world, other) is OK


def test_a_card_has_a_number_of_its_own() -> None:
    """By it a call that waits knows that another card is in."""
    world = World()
    numbers = [world.slot.card_number]
    for _ in range(2):
        world.take_out()
        numbers.append(world.slot.card_number)
        world.put_in()
    world.fake.failing = True
    world.look()  # nobody knows what is in
    numbers.append(world.slot.card_number)
    assert numbers == sorted(set(numbers))


def test_the_state_of_a_card() -> None:
    """SCARD_PRESENT, SCARD_POWERED and SCARD_NEGOTIABLE; without power SCARD_PRESENT alone."""
    world = World()
    card = world.connect(world.context())
    assert int(world.slot.bits) == 0x04 | 0x10 | 0x20
    assert world.code(world.functions.disconnect, card, UNPOWER) is OK
    assert int(world.slot.bits) == 0x04
    world.take_out()
    assert int(world.slot.bits) == 0x02


def test_counters_of_events() -> None:
    """A card's counter goes up by one for each card that comes or goes, and begins anew at 65536;
    that of readers never is 0, which means unknown."""
    world = World()
    before = world.slot.counter
    world.take_out()
    assert world.slot.counter == before + 1
    world.put_in()
    assert world.slot.counter == before + 2
    world.slot.counter = 0xFFFF
    world.take_out()
    assert world.slot.counter == 0
    resources = world.core.resources
    events = resources.reader_events
    world.plug(FakeSlot())
    assert resources.reader_events == events + 1
    world.unplug(1)
    assert resources.reader_events == events + 2
    resources.reader_events = 0x7FFE
    world.plug(FakeSlot())
    assert resources.reader_events == 0x7FFF
    world.plug(FakeSlot())
    assert resources.reader_events == 1
    assert World().core.resources.reader_events == 2  # one reader came


# Commands and attributes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "code"),
    [
        (2, OK),
        (0x1000, OK),
        (4, OK),
        (0, ScardCode.E_PROTO_MISMATCH),
        (1, ScardCode.E_PROTO_MISMATCH),
        (3, ScardCode.E_PROTO_MISMATCH),
        (8, ScardCode.E_PROTO_MISMATCH),
    ],
)
def test_the_protocol_of_a_command(protocol: int, code: ScardCode) -> None:
    """That in force, or one of those that any card has."""
    world = World()
    card = world.connect(world.context())
    assert world.code(world.functions.transmit, card, protocol, APDU) is code
    handle = world.core.resources.handle(card)
    assert may_transmit_now(handle, protocol) is (code is OK)


def test_the_protocol_as_drivers_number_it() -> None:
    for protocols, number in ((1, 0), (2, 1)):
        world = World()
        card = world.connect(world.context(), protocols=protocols)
        response, told = world.result(world.functions.transmit, card, protocols, APDU)
        assert (response, told) == (b"\x90\0", number)
        assert world.fake.log[-1] == (Action.TRANSMIT, number)


def test_when_a_command_may_go_past_the_core() -> None:
    """Only where the core would do nothing else."""
    world = World()
    one, other = world.context(), world.context()
    handle = world.core.resources.handle(world.connect(one))
    second = world.core.resources.handle(world.connect(other))
    slot = world.slot
    may = partial(may_transmit_now, handle, 2)
    assert may()
    for name, value in (
        ("turn", object()),
        ("queue", [object()]),
        ("lock", second),
        ("exclusive", second),
        ("card", CardIn.MUTE),
        ("card", CardIn.ABSENT),
        ("is_powered", False),
        ("is_arriving", True),
        ("protocol", Proto.T0),
    ):
        before = getattr(slot, name)
        setattr(slot, name, value)
        assert not may(), name
        setattr(slot, name, before)
    for name, value in (
        ("word", ScardCode.W_RESET_CARD),
        ("is_closed", True),
        ("share", Share.DIRECT),
    ):
        before = getattr(handle, name)
        setattr(handle, name, value)
        assert not may(), name
        setattr(handle, name, before)
    slot.lock = handle
    assert may()
    slot.lock, slot.exclusive = None, handle
    assert may()
    slot.exclusive = None
    slot.reader.is_gone = True
    assert not may()


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Code.NO_SUCH_DEVICE, ScardCode.E_READER_UNAVAILABLE),
        (Code.ICC_NOT_PRESENT, ScardCode.E_NO_SMARTCARD),
        (Code.COMMUNICATION_ERROR, ScardCode.E_NOT_TRANSACTED),
        (Code.RESPONSE_TIMEOUT, ScardCode.E_NOT_TRANSACTED),
    ],
)
def test_what_a_failed_command_is_told_as(outcome: Code, code: ScardCode) -> None:
    world = World()
    handle = world.core.resources.handle(world.connect(world.context()))
    failed = Outcome(outcome, b"", world.fake.seen)
    with pytest.raises(ScardError) as told:
        transmitted(handle, 1, world.slot.card_number, failed)
    assert told.value.code is code
    if outcome is Code.NO_SUCH_DEVICE:
        return
    with pytest.raises(ScardError) as told:
        transmitted(handle, 1, world.slot.card_number - 1, failed)  # another card is in
    assert told.value.code is ScardCode.W_REMOVED_CARD
    handle.word = ScardCode.W_RESET_CARD
    with pytest.raises(ScardError) as told:
        transmitted(handle, 1, world.slot.card_number, failed)
    assert told.value.code is ScardCode.W_RESET_CARD
    world.slot.card = CardIn.ABSENT
    with pytest.raises(ScardError) as told:
        transmitted(handle, 1, world.slot.card_number, failed)
    assert told.value.code is ScardCode.E_NO_SMARTCARD


def test_attributes() -> None:
    """What the manager knows itself, what the driver knows, and what is a driver's own affair."""
    world = World()
    card = world.connect(world.context())
    get, put = world.functions.get_attribute, world.functions.set_attribute
    name = world.slot.name.encode() + b"\0"
    assert world.result(get, card, 0x7FFF0003) == name
    assert world.result(get, card, 0x7FFF0004) == name
    assert world.result(get, card, 0x00090303) == ATR
    for attribute in (0x00010000, 0x00090302, 0x00090304, 0x7FFF0005):
        assert world.result(get, card, attribute) == b"attribute"
    for attribute in (0, 0x0FB0, 0xFFFF):
        before = len(world.fake.log)
        assert world.code(get, card, attribute) is ScardCode.E_UNSUPPORTED_FEATURE
        assert world.code(put, card, attribute, b"1") is ScardCode.E_UNSUPPORTED_FEATURE
        assert len(world.fake.log) == before
    assert world.code(put, card, 0x00010000, b"") is ScardCode.E_INVALID_PARAMETER
    assert world.code(put, card, 0x00010000, bytes(265)) is ScardCode.E_INSUFFICIENT_BUFFER
    world.code(put, card, 0x00010000, bytes(264))
    assert world.fake.log[-1] == (Action.SET, 0x10000)


def test_the_longest_command() -> None:
    world = World()
    card = world.connect(world.context())
    for function, first in ((world.functions.transmit, 2), (world.functions.control, 1)):
        assert world.code(function, card, first, bytes(65548)) is OK
        too_long = world.code(function, card, first, bytes(65549))
        assert too_long is ScardCode.E_INSUFFICIENT_BUFFER


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


def test_a_card_that_is_in_use_has_no_time_to_lose_its_power_at() -> None:
    world = World()
    card = world.connect(world.context())
    assert world.slot.off_at is None
    assert world.code(world.functions.disconnect, card, LEAVE) is OK
    assert world.slot.off_at == world.now + world.core.resources.grace_s
    world.connect(world.context())
    assert world.slot.off_at is None


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


def test_a_reader_that_comes_as_the_counter_begins_anew() -> None:
    look = StatusLook([ReaderState(PNP_READER)], [], 0x7FFF)
    assert not look.is_changed([], 0x7FFF)
    assert look.is_changed([], 1)


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
