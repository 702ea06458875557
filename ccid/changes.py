"""What a reader's notifications mean for the cards that were in its slots; pure.

Theory of operation. A reader says on its interrupt endpoint which slots hold a card and which of
them changed since it said so last (USB CCID rev 1.1, 6.3.1). That a slot is empty is certain: its
card is gone, whatever is there by the time anybody looks. That a slot is full and changed means
that a card came. If that of the card we know was told already, another one came, and ours left in
between; else it is ours that is told of, late: notifications are asked for up to four times a
second only, and the first one after opening is about what happened before.

A card that came in ours' place is believed at once where the reader powers cards by itself. Any
other reader gave it no power yet, so the slot's status tells.
"""

from __future__ import annotations

from collections.abc import Iterable

from ccid.messages.events import SlotChange


class Changes:
    """Which cards were taken out since they were powered.

    Args:
        auto_activating: The reader powers a card as soon as it is put in (dwFeatures 0x04).

    Attributes:
        moved: The slots whose card was taken out, or may have been: True where that is certain.
            Stays until the slot is powered again, or somebody was told.
        announced: The slots of which the reader said last that they are full.
        heard: How many notifications came.
    """

    def __init__(self, auto_activating: bool) -> None:
        self.moved: dict[int, bool] = {}
        self.announced: set[int] = set()
        self.heard = 0
        self._passed_over: set[int] = set()
        self._auto_activating = auto_activating
        self._known: set[int] = set()

    def powering(self, slot: int) -> None:
        """Whatever card is in ``slot`` is about to be powered: from now on it is known."""
        self._known.add(slot)
        if self.moved.pop(slot, None) is not None:
            self._passed_over.add(slot)

    def was_passed_over(self, slot: int) -> bool:
        """True, once, if ``slot`` was powered without regard to a change that had come before."""
        was = slot in self._passed_over
        self._passed_over.discard(slot)
        return was

    def forget(self, slot: int) -> None:
        """That the card of ``slot`` is gone was told: no card is known there."""
        self._known.discard(slot)
        self._passed_over.discard(slot)
        self.moved.pop(slot, None)

    def dismiss(self, slot: int) -> None:
        """What seemed to have happened to ``slot`` did not: its card is the one that was."""
        self.moved.pop(slot, None)

    def notify(self, slots: Iterable[SlotChange]) -> None:
        """The reader said this."""
        self.heard += 1
        for slot, present, changed in slots:
            was_announced = slot in self.announced
            (self.announced.add if present else self.announced.discard)(slot)
            if slot not in self._known:
                continue
            if changed and not present:
                self.moved[slot] = True
            elif not present or (changed and was_announced):
                self.moved.setdefault(slot, present and self._auto_activating)
