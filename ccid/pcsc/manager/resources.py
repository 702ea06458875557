"""All contexts, handles and readers, and what happens to them; pure.

What is decided here: what the handles of a slot are told when a card is removed, reset, or loses
its power; what clients see of a card that came; when a card that nobody needs loses its power.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from ccid.pcsc.manager.pcsc_call import Action, CardSeen, Job, Loss, Outcome
from ccid.pcsc.manager.pcsc_state import (
    CardIn,
    Context,
    Handle,
    PcscReader,
    Slot,
    SlotView,
)
from ccid.pcsc.manager.reader_names import Numbers, slot_name
from ccid.pcsc.manager.scard_codes import DEFAULT_SLOTS, Proto, ScardCode, ScardError, Share
from ccid.pcsc.numbers.ifd_numbers import Code

MAX_CONTEXTS = 10_000
"""Of one manager. A service has tighter limits of its own, for each client."""
GRACE_S = 5.0
"""A card that nobody needs any more keeps its power so long."""
MAX_EVENTS = 0x8000
"""The counter of readers goes from 1 to below this, and begins anew."""


class Resources:
    """What the manager knows.

    Args:
        number: Makes a random number from 1 to 2³¹-1 for a context or a handle.
        max_slots: So many slots there may be.
        grace_s: So long a card keeps its power that nobody needs.

    Attributes:
        slots: By place; None where there is none. The order that clients see.
        contexts, handles: By number.
        version: Grows with each change that clients can see.
        reader_events: Grows by one for each reader that comes or goes.
        arrivals: Slots with a card that came, to be powered up.
        freed: Slots whose transaction has ended.
    """

    def __init__(
        self,
        number: Callable[[], int],
        max_slots: int = DEFAULT_SLOTS,
        grace_s: float = GRACE_S,
    ) -> None:
        self._number = number
        self._numbers = Numbers()
        self.grace_s = grace_s
        self.slots: list[Slot | None] = [None] * max_slots
        self.contexts: dict[int, Context] = {}
        self.handles: dict[int, Handle] = {}
        self.version = 0
        self.reader_events = 1
        self.arrivals: list[Slot] = []
        self.freed: list[Slot] = []

    # Numbers --------------------------------------------------------------------------------------

    def context(self, number: int) -> Context:
        """The context with this number.

        Raises:
            ScardError: INVALID_HANDLE: There is none.
        """
        found = self.contexts.get(number)
        if found is None:
            raise ScardError(ScardCode.E_INVALID_HANDLE)
        return found

    def handle(self, number: int) -> Handle:
        """The handle with this number.

        Raises:
            ScardError: INVALID_HANDLE: There is none.
        """
        found = self.handles.get(number)
        if found is None:
            raise ScardError(ScardCode.E_INVALID_HANDLE)
        return found

    def new_context(self) -> Context:
        """Make a context.

        Raises:
            ScardError: NO_MEMORY: There are too many.
        """
        if len(self.contexts) >= MAX_CONTEXTS:
            raise ScardError(ScardCode.E_NO_MEMORY)
        made = Context(self._unused(self.contexts))
        self.contexts[made.number] = made
        return made

    def new_handle(self, context: Context, slot: Slot, share: Share, is_raw: bool) -> Handle:
        """Make a handle."""
        made = Handle(self._unused(self.handles), context, slot, share, is_raw=is_raw)
        self.handles[made.number] = made
        context.handles.append(made)
        slot.handles.append(made)
        if share is Share.EXCLUSIVE:
            slot.exclusive = made
        self.changed()
        return made

    def _unused(self, taken: dict[int, Context] | dict[int, Handle]) -> int:
        number = self._number()
        while number in taken:
            number = self._number()
        return number

    def close_handle(self, handle: Handle) -> None:
        """The handle is of no more use."""
        handle.is_closed = True
        self.handles.pop(handle.number, None)
        if handle in handle.context.handles:
            handle.context.handles.remove(handle)
        if handle in handle.slot.handles:
            handle.slot.handles.remove(handle)
            handle.slot.unlock(handle)
            if not handle.slot.is_gone:
                self.changed()

    # What clients see -----------------------------------------------------------------------------

    def changed(self) -> None:
        """Clients can see a difference."""
        self.version += 1

    @property
    def views(self) -> list[SlotView | None]:
        """All slots as clients see them, by place; None where there is none to be seen."""
        return [
            slot.view if slot is not None and slot.reader.is_shown else None for slot in self.slots
        ]

    def find(self, name: str) -> Slot:
        """The slot of this name.

        Raises:
            ScardError: UNKNOWN_READER: There is none.
        """
        for slot in self.slots:
            if slot is not None and slot.reader.is_shown and slot.name == name:
                return slot
        raise ScardError(ScardCode.E_UNKNOWN_READER)

    # Readers --------------------------------------------------------------------------------------

    def reader_came(
        self, device: Hashable, base: str, keys: Sequence[Hashable]
    ) -> PcscReader | None:
        """A reader came; clients see it once its slots are known.

        Args:
            device: What tells it from others, and stays the same when it comes back.
            base: Its name, without numbers.
            keys: What the edge calls its slots.

        Returns:
            None if there is no room for it.
        """
        free = [place for place, slot in enumerate(self.slots) if slot is None]
        number = self._numbers.take(device) if len(free) >= len(keys) else None
        if number is None:
            return None
        reader = PcscReader(device, number)
        for index, key in enumerate(keys):
            slot = Slot(reader, key, slot_name(base, number, index))
            reader.slots.append(slot)
            self.slots[free[index]] = slot
        return reader

    def review_reader(self, reader: PcscReader) -> None:
        """Show the reader, if all its slots are known by now."""
        is_known = all(slot.is_looked and not slot.is_arriving for slot in reader.slots)
        if is_known and not reader.is_shown and not reader.is_gone:
            reader.is_shown = True
            self._count_reader()

    def reader_left(self, reader: PcscReader) -> None:
        """It was unplugged: its handles are dead, whatever comes later."""
        if reader.is_gone:
            return
        reader.is_gone = True
        self._numbers.give_back(reader.number)
        for slot in reader.slots:
            self.slots[self.slots.index(slot)] = None
            slot.lock = slot.exclusive = slot.off_at = None
            slot.is_powered = False
            slot.handles.clear()
        if reader.is_shown:
            self._count_reader()

    def _count_reader(self) -> None:
        self.reader_events = self.reader_events % (MAX_EVENTS - 1) + 1
        self.changed()

    # Cards ----------------------------------------------------------------------------------------

    def saw(self, slot: Slot, seen: CardSeen) -> None:
        """The driver tells what it knows of the card."""
        if slot.is_gone:
            return
        slot.is_looked = True
        if seen.is_failed:
            self._failed(slot)
            return
        if slot.card is CardIn.UNKNOWN:
            slot.flag_others(None, ScardCode.W_RESET_CARD)  # nobody knows what became of the card
            slot.card = CardIn.ABSENT
            self.changed()
        elif slot.card is not CardIn.ABSENT:
            is_other = seen.is_present and seen.arrivals != slot.arrivals
            if seen.loss is Loss.REMOVED or is_other or not seen.is_present:
                self._card_gone(slot)
            elif seen.loss is Loss.POWER:
                self._lost_power(slot)
        if seen.is_present and slot.card is CardIn.ABSENT:
            self._card_came(slot)
        slot.arrivals = seen.arrivals
        self.review_reader(slot.reader)

    def _failed(self, slot: Slot) -> None:
        if slot.card is not CardIn.UNKNOWN:
            self._forget_card(slot)
            slot.card = CardIn.UNKNOWN
            self.changed()
        self.review_reader(slot.reader)

    def _forget_card(self, slot: Slot) -> None:
        slot.card_number += 1
        slot.is_powered = slot.is_arriving = False
        slot.atr, slot.protocol, slot.off_at = b"", Proto.UNSET, None

    def _card_gone(self, slot: Slot) -> None:
        was_shown = not slot.is_arriving
        self._forget_card(slot)
        slot.card = CardIn.ABSENT
        slot.lock, slot.lock_count = None, 0
        slot.flag_others(None, ScardCode.W_REMOVED_CARD)
        if was_shown:
            slot.count()
            self.changed()

    def _card_came(self, slot: Slot) -> None:
        slot.card_number += 1
        slot.card = CardIn.PRESENT
        slot.is_arriving = True
        self.arrivals.append(slot)

    def settled(self, slot: Slot) -> None:
        """The first power-up of a card that came is over: clients see the card."""
        if slot.is_arriving:
            slot.is_arriving = False
            if slot.reader.is_shown:
                slot.count()
                self.changed()
            self.review_reader(slot.reader)

    def _lost_power(self, slot: Slot) -> None:
        slot.flag_others(None, ScardCode.W_RESET_CARD)
        slot.is_powered, slot.protocol = False, Proto.UNSET
        self.changed()

    def reset_begins(self, slot: Slot, by: Handle | None) -> None:
        """The card is about to be reset, or to lose its power, by a client: all handles but ``by``
        are told."""
        slot.flag_others(by, ScardCode.W_RESET_CARD)
        slot.protocol = Proto.UNSET

    def record(self, job: Job, outcome: Outcome) -> None:
        """A driver did something: note what that makes of the card."""
        slot = job.slot
        if slot.is_gone:
            return
        if outcome.seen is not None:
            self.saw(slot, outcome.seen)
        is_done = outcome.code is Code.SUCCESS
        is_there = slot.has_card
        match job.action:
            case Action.POWER_UP | Action.POWER_CYCLE:
                slot.protocol = Proto.UNSET
                if is_done and is_there:
                    slot.card, slot.is_powered, slot.atr = CardIn.PRESENT, True, outcome.data
                elif is_there:
                    slot.card, slot.is_powered, slot.atr = CardIn.MUTE, False, b""
                if not slot.is_arriving:
                    self.changed()
            case Action.POWER_DOWN:
                slot.protocol, slot.is_powered, slot.off_at = Proto.UNSET, False, None
            case Action.PROTOCOL if is_done:
                slot.protocol = Proto(job.argument)
                self.changed()
            case Action.TRANSMIT | Action.CONTROL:
                slot.off_at = None

    def end_level(self, handle: Handle) -> None:
        """One of the transactions of ``handle``, if it has any, ends."""
        slot = handle.slot
        if slot.lock is handle:
            slot.lock_count -= 1
            if not slot.lock_count:
                slot.lock = None
                self.freed.append(slot)

    def review_power(self, slot: Slot, now: float) -> bool:
        """Say when the card loses its power, if nobody needs it; True if that is new."""
        if slot.is_gone or not slot.is_powered or slot.is_in_use:
            slot.off_at = None
        elif slot.off_at is None:
            slot.off_at = now + self.grace_s
            return True
        return False
