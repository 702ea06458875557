"""SCardGetStatusChange: what has changed since the application looked last; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ccid.pcsc.manager.pcsc_state import SlotView
from ccid.pcsc.manager.scard_codes import (
    PNP_READER,
    CardBits,
    ScardCode,
    ScardError,
    StateBits,
)

COUNTER_SHIFT = 16
"""The event counter is in the upper word of a state."""
LOW = 0xFFFF


@dataclass(frozen=True, slots=True)
class ReaderState:
    """What an application knows of a reader, or what it is told (``SCARD_READERSTATE``).

    Attributes:
        name: Of the reader, or :data:`~ccid.pcsc.manager.scard_codes.PNP_READER`.
        current: dwCurrentState: what it knows.
        event: dwEventState: what there is; 0 in an entry that was not looked at.
        atr: Of the card; empty without.
    """

    name: str
    current: int = 0
    event: int = 0
    atr: bytes = b""


class StatusLook:
    """One SCardGetStatusChange: compares again and again.

    Args:
        states: What the application knows.
        views: The slots there are; without one that is asked for there is nothing to wait for.
        reader_events: Of :class:`~ccid.pcsc.manager.resources.Resources`, now.

    Raises:
        ScardError: UNKNOWN_READER: A name that no reader has.
    """

    def __init__(
        self,
        states: Sequence[ReaderState],
        views: Sequence[SlotView | None],
        reader_events: int,
    ) -> None:
        self._states = states
        self._events_before = reader_events
        names = {view.name for view in views if view is not None}
        for state in states:
            if not is_pnp(state.name) and state.name not in names:
                raise ScardError(ScardCode.E_UNKNOWN_READER)
        self.told: list[ReaderState] = list(states)

    def is_changed(self, views: Sequence[SlotView | None], reader_events: int) -> bool:
        """Fill :attr:`told` anew; True if something changed."""
        by_name = {view.name: view for view in views if view is not None}
        self.told = []
        for state in self._states:
            if state.current & StateBits.IGNORE:
                self.told.append(ReaderState(state.name, state.current, 0, state.atr))
            elif is_pnp(state.name):
                self.told.append(self._of_readers(state, reader_events))
            else:
                self.told.append(_of_slot(state, by_name.get(state.name)))
        return any(one.event & StateBits.CHANGED for one in self.told)

    def _of_readers(self, state: ReaderState, reader_events: int) -> ReaderState:
        event = reader_events << COUNTER_SHIFT
        known = state.current >> COUNTER_SHIFT
        if reader_events != self._events_before or known not in (0, reader_events):
            event |= StateBits.CHANGED
        return ReaderState(state.name, state.current, int(event), state.atr)


def is_pnp(name: str) -> bool:
    """The name that stands for readers that come and go."""
    return name.lower() == PNP_READER.lower()


def _of_slot(state: ReaderState, view: SlotView | None) -> ReaderState:
    current = state.current
    if view is None:  # it left meanwhile
        gone = StateBits.UNKNOWN | StateBits.UNAVAILABLE | StateBits.CHANGED
        return ReaderState(state.name, current, int(gone), state.atr)
    event = event_bits(view)
    if _differs(current, event, view.counter):
        event |= StateBits.CHANGED
    if not event & StateBits.UNAVAILABLE:
        event |= view.counter << COUNTER_SHIFT
    return ReaderState(state.name, current, int(event), view.atr)


def event_bits(view: SlotView) -> int:
    """What there is, without what has changed."""
    exclusive = StateBits.EXCLUSIVE if view.sharing < 0 else 0
    if view.state & CardBits.UNKNOWN:
        return StateBits.UNAVAILABLE | exclusive
    if view.state & CardBits.ABSENT:
        return StateBits.EMPTY | exclusive
    mute = StateBits.MUTE if view.state & CardBits.SWALLOWED else 0
    in_use = StateBits.INUSE if view.sharing > 0 else 0
    return StateBits.PRESENT | mute | in_use | exclusive


def _differs(current: int, event: int, counter: int) -> bool:
    """What the application knows is not what there is. A card that is newly in use is no change,
    one that no longer is, is one."""
    known, low = current >> COUNTER_SHIFT, current & LOW & ~StateBits.CHANGED
    if low == StateBits.UNAWARE and not known:
        return True
    if low & StateBits.UNKNOWN or (low ^ event) & (StateBits.UNAVAILABLE):
        return True
    if event & StateBits.UNAVAILABLE:
        return False
    is_present = bool(event & StateBits.PRESENT)
    return bool(
        (known and known != counter)
        or (low & StateBits.EMPTY and is_present)
        or (low & StateBits.PRESENT and not is_present)
        or (low & ~event & (StateBits.INUSE | StateBits.EXCLUSIVE))
        or (low ^ event) & StateBits.MUTE
    )
