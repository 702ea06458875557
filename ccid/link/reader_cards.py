"""The cards of one reader: their states, and the one lock under which they change.

Notifications come from the thread that handles USB events, the host's own acts from the threads
that send commands. All go through :class:`Cards`, one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ccid.codec.messages.events import SlotChange
from ccid.codes import IccStatus
from ccid.ground.signal_safe_locks import new_rlock
from ccid.link.card_state import BY_BITS, BY_ICC_STATUS, CardState, Input, Session

logger = logging.getLogger("ccid.cards")


class Cards:
    """The states of the cards of one reader.

    Args:
        auto_activating: The reader gives power to a card as soon as it is put in (dwFeatures
            0x04).
        notifies: The reader tells of a card that is exchanged, or has one that cannot be.

    Attributes:
        heard: How many notifications came.
        notifies: The reader tells of a card that is exchanged, or has one that cannot be.
    """

    def __init__(self, auto_activating: bool = False, notifies: bool = True) -> None:
        self.heard = 0
        self.notifies = notifies
        self._auto_activating = auto_activating
        self._slots: dict[int, CardState] = {}
        self._lock = new_rlock()  # a signal handler may use the reader, too
        self._tellers: tuple[Callable[[int], None], ...] = ()

    def __getitem__(self, slot: int) -> CardState:
        """The state of the card in ``slot`` (bSlot)."""
        found = self._slots.get(slot)
        if found is None:
            with self._lock:
                made = CardState(self._auto_activating, self.notifies)
                found = self._slots.setdefault(slot, made)
        return found

    def listen(self, tell: Callable[[int], None]) -> Callable[[], None]:
        """Have ``tell`` called with the slot whenever a card came or went, as far as is known
        now. It must not wait for anything. Returns a function that ends this."""

        def end() -> None:
            with self._lock:
                self._tellers = tuple(one for one in self._tellers if one is not tell)

        try:
            with self._lock:
                self._tellers = (*self._tellers, tell)
        except BaseException:  # as Ctrl-C, after the assignment
            end()
            raise
        return end

    def apply(self, slot: int, what: Input) -> None:
        """``what`` happened to ``slot``."""
        card = self[slot]
        with self._lock:
            before = card.is_present, card.arrivals
            card.apply(what)
            moved = before != (card.is_present, card.arrivals)
        if moved:
            for tell in self._tellers:
                try:
                    tell(slot)
                except Exception:  # the others are still told, and the command under way goes on
                    logger.exception("slot %d: an event could not be told", slot)

    # What the reader says ---------------------------------------------------------------------

    def notify(self, slots: Iterable[SlotChange]) -> None:
        """A notification came (USB CCID rev 1.1, 6.3.1)."""
        self.heard += 1
        for slot, present, changed in slots:
            self.apply(slot, BY_BITS[present, changed])

    def saw(self, slot: int, status: IccStatus) -> None:
        """An answer of the reader had this bmICCStatus."""
        what = BY_ICC_STATUS.get(status)
        if what is not None:
            self.apply(slot, what)

    def were_reset(self) -> None:
        """The reader was reset: no card has power any more."""
        for slot in list(self._slots):
            self.apply(slot, Input.DEVICE_RESET)

    # What the host does -----------------------------------------------------------------------

    def powering(self, slot: int) -> None:
        """IccPowerOn is about to be sent: a session begins."""
        self.apply(slot, Input.POWERING)

    def answered(self, slot: int) -> None:
        """IccPowerOn brought an ATR."""
        self.apply(slot, Input.ANSWERED)

    def powered_off(self, slot: int) -> None:
        """IccPowerOff is about to be sent: the session is over."""
        self.apply(slot, Input.POWERED_OFF)

    def told(self, slot: int) -> None:
        """The users of the card of ``slot`` know that it is gone: no card is known there."""
        self.apply(slot, Input.TOLD)

    def session(self, slot: int) -> Session | None:
        """The power-up of ``slot`` that goes on, or was the last."""
        return self[slot].session
