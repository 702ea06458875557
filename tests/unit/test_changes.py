"""What notifications mean for cards that were powered."""

from __future__ import annotations

import pytest

from ccid.changes import Changes
from ccid.messages.events import SlotChange

STALE = [SlotChange(0, True, True)]
CAME = [SlotChange(0, True, True)]
LEFT = [SlotChange(0, False, True)]


def powered(auto_activating: bool = False, stale: bool = True) -> Changes:
    made = Changes(auto_activating)
    if stale:
        made.notify(STALE)
    made.powering(0)
    return made


def test_a_card_that_leaves_is_gone_for_certain() -> None:
    made = powered()
    made.notify(LEFT)
    made.notify(CAME)
    assert made.moved == {0: True}


@pytest.mark.parametrize("auto_activating", [False, True])
def test_a_card_that_comes_to_a_known_one_replaced_it(auto_activating: bool) -> None:
    """On a reader that activates cards its status tells nothing; on another it will tell."""
    made = powered(auto_activating)
    made.notify(CAME)
    assert made.moved == {0: auto_activating}


def test_a_card_may_be_told_of_after_it_was_powered() -> None:
    """A notification takes a quarter of a second, powering less."""
    made = powered(auto_activating=True)
    made.notify(LEFT)
    made.powering(0)
    made.notify(CAME)
    assert made.moved == {}
    made.notify(CAME)
    assert made.moved == {0: True}


def test_the_first_after_opening_says_nothing_of_a_card_that_is_there() -> None:
    made = powered(auto_activating=True, stale=False)
    made.notify(STALE)
    assert made.moved == {}
    made.notify(CAME)
    assert made.moved == {0: True}


def test_the_first_after_opening_may_say_that_it_left() -> None:
    made = powered(stale=False)
    made.notify(LEFT)
    assert made.moved == {0: True}


def test_no_card_was_known() -> None:
    made = Changes(auto_activating=True)
    for slots in (STALE, LEFT, CAME):
        made.notify(slots)
    assert made.moved == {}


def test_powering_begins_anew() -> None:
    made = powered()
    made.notify(LEFT)
    made.powering(0)
    assert made.moved == {}


def test_what_powering_passed_over_can_be_asked_for_once() -> None:
    made = powered()
    assert not made.was_passed_over(0)
    made.notify(LEFT)
    made.powering(0)
    assert not made.was_passed_over(1)
    assert made.was_passed_over(0)
    assert not made.was_passed_over(0)
    made.notify(LEFT)
    made.powering(0)
    made.forget(0)
    assert not made.was_passed_over(0), "it was told"


def test_another_slot_is_none_of_this_one() -> None:
    made = powered()
    made.notify([SlotChange(0, True, False), SlotChange(1, False, True)])
    assert made.moved == {}


def test_empty_and_unchanged_is_to_be_asked_about() -> None:
    made = powered(auto_activating=True)
    made.notify([SlotChange(0, False, False)])
    assert made.moved == {0: False}


def test_told_once() -> None:
    """The card that comes then replaces none."""
    made = powered()
    made.notify(LEFT)
    made.forget(0)
    made.forget(0)
    assert made.moved == {}
    made.notify(CAME)
    assert made.moved == {}


def test_nothing_happened_and_then_it_did() -> None:
    made = powered()
    made.notify(CAME)
    made.dismiss(0)
    assert made.moved == {}
    made.notify(LEFT)
    assert made.moved == {0: True}
