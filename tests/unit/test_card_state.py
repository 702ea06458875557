"""The state machine of a card: both tables, and the sessions that depend on them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccid.codec.messages.events import SlotChange
from ccid.codes import IccStatus
from ccid.link.card_state import (
    BY_BITS,
    ENDS,
    POWER,
    PRESENCE,
    CardState,
    Fate,
    Input,
    Power,
    Presence,
    Session,
)
from ccid.link.reader_cards import Cards

STALE = [SlotChange(0, True, True)]
CAME = [SlotChange(0, True, True)]
LEFT = [SlotChange(0, False, True)]
EMPTY = [SlotChange(0, False, False)]

FROM_OUTSIDE = [
    *BY_BITS.values(),
    Input.ABSENT,
    Input.INACTIVE,
    Input.ACTIVE,
    Input.POWERING,
    Input.ANSWERED,
    Input.POWERED_OFF,
    Input.TOLD,
    Input.DEVICE_RESET,
]


def powered(auto_activating: bool = False, stale: bool = True, notifies: bool = True) -> Cards:
    """A reader whose card has power; the arrival was announced before, or will be announced
    later."""
    made = Cards(auto_activating, notifies)
    if stale:
        made.notify(STALE)
    made.powering(0)
    made.answered(0)
    assert power(made) is Power.ON
    return made


def power(cards: Cards) -> Power:
    return cards[0].power


def fate(cards: Cards) -> Fate | None:
    return session(cards).fate


def fate_of(one: Session) -> Fate | None:
    return one.fate


def session(cards: Cards) -> Session:
    made = cards.session(0)
    assert made is not None
    return made


def test_a_card_that_leaves_is_gone_for_certain() -> None:
    made = powered()
    made.notify(LEFT)
    made.notify(CAME)
    assert (power(made), fate(made)) == (Power.REMOVED, Fate.REMOVED)


@pytest.mark.parametrize("auto_activating", [False, True])
def test_a_card_that_comes_to_a_known_one_replaced_it(auto_activating: bool) -> None:
    """On a reader that activates cards the status proves nothing; on other readers it will."""
    made = powered(auto_activating)
    made.notify(CAME)
    assert power(made) is (Power.REMOVED if auto_activating else Power.DOUBTFUL)
    assert session(made).signs


def test_a_card_may_be_told_of_after_it_was_powered() -> None:
    """A notification takes a quarter of a second; a power-up takes less."""
    made = powered(auto_activating=True)
    made.notify(LEFT)
    made.powering(0)
    made.answered(0)
    made.notify(CAME)
    assert power(made) is Power.ON
    made.notify(CAME)
    assert power(made) is Power.REMOVED


def test_it_may_be_told_of_while_it_is_powered() -> None:
    made = Cards(auto_activating=True)
    made.notify(LEFT)
    made.powering(0)
    made.notify(CAME)
    made.answered(0)
    assert power(made) is Power.ON


def test_the_first_after_opening_says_nothing_of_a_card_that_is_there() -> None:
    made = powered(auto_activating=True, stale=False)
    made.notify(STALE)
    assert power(made) is Power.ON
    made.notify(CAME)
    assert power(made) is Power.REMOVED


def test_the_first_after_opening_may_say_that_it_left() -> None:
    made = powered(stale=False)
    made.notify(LEFT)
    assert power(made) is Power.REMOVED


def test_no_card_was_known() -> None:
    made = Cards(auto_activating=True)
    for slots in (STALE, LEFT, CAME):
        made.notify(slots)
    assert (power(made), made[0].losses, made.session(0)) == (Power.NONE, 0, None)


def test_powering_begins_anew() -> None:
    made = powered()
    made.notify(LEFT)
    old = session(made)
    made.powering(0)
    assert power(made) is Power.RISING
    assert (old.fate, fate(made)) == (Fate.REMOVED, None)


def test_what_powering_passed_over_is_counted() -> None:
    """Code that reports arrivals must count these as well."""
    made = powered()
    made.notify(LEFT)
    made.powering(0)
    assert made[0].losses == 1
    made.answered(0)
    made.notify([SlotChange(0, True, False)])
    made.notify(CAME)  # in doubt
    old = session(made)
    made.powering(0)
    assert made[0].losses == 2
    assert old.fate is Fate.REMOVED, "nobody can tell any more"


def test_another_slot_is_none_of_this_one() -> None:
    made = powered()
    made.notify([SlotChange(0, True, False), SlotChange(1, False, True)])
    assert power(made) is Power.ON


@pytest.mark.parametrize("auto_activating", [False, True])
def test_empty_and_unchanged_is_to_be_asked_about(auto_activating: bool) -> None:
    made = powered(auto_activating)
    made.notify(EMPTY)
    assert power(made) is Power.DOUBTFUL
    assert session(made).signs
    made.saw(0, IccStatus.ACTIVE)
    assert power(made) is Power.ON
    assert not session(made).signs


@pytest.mark.parametrize("status", [IccStatus.INACTIVE, IccStatus.ABSENT])
def test_a_card_in_doubt_that_has_no_power_is_another(status: IccStatus) -> None:
    made = powered()
    made.notify(CAME)
    made.saw(0, status)
    assert fate(made) is Fate.REMOVED


def test_told_once() -> None:
    """A card that comes after that replaces no card."""
    made = powered()
    made.notify(LEFT)
    made.told(0)
    made.told(0)
    assert power(made) is Power.NONE
    made.notify(CAME)
    assert (power(made), made[0].losses) == (Power.NONE, 1)


def test_nothing_happened_and_then_it_did() -> None:
    made = powered()
    made.notify(CAME)
    made.saw(0, IccStatus.ACTIVE)
    assert power(made) is Power.ON
    made.notify(LEFT)
    assert power(made) is Power.REMOVED


# Reset, lost power ------------------------------------------------------------------------------


def test_a_card_without_power_that_nobody_took_lost_it() -> None:
    made = powered()
    made.saw(0, IccStatus.INACTIVE)
    assert (power(made), fate(made)) == (Power.LOST, Fate.LOST_POWER)


def test_a_late_notification_tells_that_it_was_exchanged() -> None:
    """The host asks for the status at once; the notification takes a quarter of a second."""
    made = powered()
    made.saw(0, IccStatus.INACTIVE)
    made.notify(CAME)
    assert (power(made), fate(made)) == (Power.REMOVED, Fate.REMOVED)
    assert made[0].losses == 1


def test_a_late_notification_of_its_own_arrival_does_not() -> None:
    made = powered(stale=False)
    made.saw(0, IccStatus.INACTIVE)
    made.notify(STALE)
    assert fate(made) is Fate.LOST_POWER


def test_without_notifications_nobody_can_tell() -> None:
    """An application must not take another card for its own."""
    made = powered(stale=False, notifies=False)
    made.saw(0, IccStatus.INACTIVE)
    assert fate(made) is Fate.REMOVED


@pytest.mark.parametrize("notifies", [True, False])
@pytest.mark.parametrize("before", [None, Input.SEEMS_EMPTY, Input.POWERING])
def test_the_device_was_reset(notifies: bool, before: Input | None) -> None:
    """For certain: no notification is waited for, and the card may be announced once more."""
    cards = powered(notifies=notifies)
    if before is Input.SEEMS_EMPTY:
        cards.notify(EMPTY)
        assert power(cards) is Power.DOUBTFUL
    elif before is Input.POWERING:
        cards.powering(0)
    one = session(cards)
    cards.were_reset()
    assert power(cards) is Power.LOST
    assert one.fate is Fate.LOST_POWER
    assert one.is_settled
    losses, arrivals = cards[0].losses, cards[0].arrivals
    if before is not Input.SEEMS_EMPTY:
        cards.notify(CAME)
    cards.saw(0, IccStatus.INACTIVE)
    assert (one.fate, cards[0].losses) == (Fate.LOST_POWER, losses)
    assert cards[0].arrivals == arrivals or before is Input.SEEMS_EMPTY
    cards.powering(0)
    cards.answered(0)
    assert (power(cards), session(cards).fate) == (Power.ON, None)


def test_the_device_was_reset_and_its_card_left() -> None:
    cards = powered()
    cards.were_reset()
    cards.notify(LEFT)
    assert fate(cards) is Fate.REMOVED


@pytest.mark.parametrize("power_off", [True, False])
def test_a_reset_of_the_device_without_a_card_that_has_power(power_off: bool) -> None:
    cards = Cards()
    cards.notify(STALE)
    if power_off:
        cards = powered()
        cards.powered_off(0)
    was = power(cards)
    cards.were_reset()
    assert power(cards) is was
    assert cards[0].losses == 0


def test_another_holder() -> None:
    made = powered()
    mine = session(made)
    made.powering(0)
    made.answered(0)
    assert fate_of(mine) is Fate.RESET
    theirs = session(made)
    assert not theirs.signs
    made.powered_off(0)
    assert fate_of(theirs) is Fate.RESET
    made.notify(LEFT)
    assert fate_of(theirs) is Fate.REMOVED, "afterwards, that too"
    assert fate_of(mine) is Fate.RESET, "it was another power-up's"


def test_a_failed_power_up_is_no_loss_of_power() -> None:
    made = Cards()
    made.powering(0)
    made.saw(0, IccStatus.INACTIVE)
    assert power(made) is Power.RISING
    made.saw(0, IccStatus.ABSENT)
    assert (power(made), made[0].losses) == (Power.REMOVED, 1)


def test_a_card_that_was_powered_off_and_left() -> None:
    made = powered()
    made.powered_off(0)
    made.notify(CAME)
    assert (power(made), made[0].losses) == (Power.REMOVED, 1)


# Arrivals ---------------------------------------------------------------------------------------


def test_arrivals_are_counted_once() -> None:
    made, told = Cards(), list[tuple[bool, int]]()
    end = made.listen(lambda slot: told.append((made[slot].is_present, made[slot].arrivals)))
    made.saw(0, IccStatus.INACTIVE)
    made.notify(STALE)  # the same notification, late
    made.powering(0)
    made.answered(0)
    made.notify(CAME)
    made.saw(0, IccStatus.ABSENT)
    made.notify(LEFT)
    made.notify(CAME)
    assert told == [(True, 1), (True, 2), (False, 2), (True, 3)]
    end()
    made.notify(LEFT)
    assert len(told) == 4


def test_one_that_listens_and_fails_is_alone_in_that(caplog: pytest.LogCaptureFixture) -> None:
    made, told = Cards(), list[int]()

    def fail(slot: int) -> None:
        raise ValueError(slot)

    made.listen(fail)
    made.listen(told.append)
    made.notify(STALE)
    assert told == [0]
    assert "could not be told" in caplog.text


# The tables -------------------------------------------------------------------------------------


def test_every_presence_has_every_input_that_speaks_of_it() -> None:
    spoken = {what for _, what in PRESENCE}
    assert set(PRESENCE) == set(itertools.product(Presence, spoken))


def test_whatever_is_to_be_told_can_be_told() -> None:
    for one in Power:
        if one is not Power.NONE:
            assert POWER[one, Input.TOLD] is Power.NONE
            assert POWER[one, Input.POWERING] is Power.RISING


@given(st.lists(st.sampled_from(FROM_OUTSIDE), max_size=12), st.booleans(), st.booleans())
def test_any_order(inputs: list[Input], auto_activating: bool, notifies: bool) -> None:
    """Whatever happens: the end of a session is final, a removal is never revoked, and no sign of a
    removal comes without a reason to ask."""
    state = CardState(auto_activating, notifies)
    ended: dict[int, Fate] = {}
    sessions: list[Session] = []
    for what in inputs:
        losses = state.losses
        state.apply(what)
        assert state.losses in (losses, losses + 1)
        if state.session is not None and state.session not in sessions:
            sessions.append(state.session)
        for number, one in enumerate(sessions):
            was = ended.get(number)
            if was is Fate.REMOVED:
                assert one.fate is Fate.REMOVED
            elif was is not None:
                assert one.fate in (was, Fate.REMOVED)
            if one.fate is not None:
                ended[number] = one.fate
                assert one.signs
            if one is not state.session:
                assert one.fate is not None
        if state.power in ENDS and state.session is not None:
            assert state.session.fate is not None
        if state.power is Power.ON:
            assert state.session is not None
            assert not state.session.signs
        if state.power is Power.LOST:
            assert notifies or Input.DEVICE_RESET in inputs
        if what in (Input.SAID_GONE, Input.ABSENT):
            assert not state.is_present
            assert state.power not in (Power.ON, Power.DOUBTFUL, Power.LOST, Power.OFF)
