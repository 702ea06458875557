"""What the resource manager does at a slot by itself, as generators; pure."""

from __future__ import annotations

from ccid.pcsc.manager.pcsc_call import Action, Job, Steps, Wait
from ccid.pcsc.manager.pcsc_state import Slot
from ccid.pcsc.manager.resources import Resources


def first_look(slot: Slot) -> Steps:
    """See whether there is a card."""
    yield Wait(slot, turn=True)
    if not slot.is_gone:
        yield Job(slot, Action.LOOK)


def power_arrival(resources: Resources, slot: Slot) -> Steps:
    """Power up a card that came, so that clients see it with its ATR."""
    card = slot.card_number
    yield Wait(slot, turn=True)
    if slot.is_gone or slot.card_number != card:
        return
    if not slot.is_powered:
        yield Job(slot, Action.POWER_UP)
    if slot.card_number == card:
        resources.settled(slot)


def power_off(slot: Slot) -> Steps:
    """Take the power of a card that nobody needs any more."""
    yield Wait(slot, turn=True)
    if not slot.is_gone and slot.is_powered and not slot.is_in_use:
        yield Job(slot, Action.POWER_DOWN)


def reset_left_card(slot: Slot) -> Steps:
    """Reset the card that a client left in the middle of a transaction."""
    yield Wait(slot, turn=True)
    if not slot.is_gone and slot.has_card:
        yield Job(slot, Action.POWER_UP)
