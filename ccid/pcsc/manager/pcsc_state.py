"""What the resource manager knows: contexts, handles, readers and their slots; pure data.

To PC/SC each slot is a reader of its own, with a name, a card, handles and a lock. What may be done
with them decides :mod:`ccid.pcsc.manager.card_calls`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from ccid.pcsc.manager.scard_codes import CardBits, Proto, ScardCode, Share

if TYPE_CHECKING:
    from ccid.pcsc.manager.pcsc_call import Call

MAX_COUNTER = 0x1_0000
"""The event counter of a slot is one of 16 bits."""


class CardIn(Enum):
    """What is in a slot."""

    ABSENT = auto()
    PRESENT = auto()
    MUTE = auto()
    """A card that did not answer its last power-up."""
    UNKNOWN = auto()
    """The reader does not tell."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot as clients see it.

    Attributes:
        name: Its name.
        counter: Cards that came and went, modulo 65536.
        state: What is in it.
        sharing: Its handles, or -1 for one that is exclusive.
        atr: Of the card; empty without.
        protocol: The active one, 0 for none.
    """

    name: str
    counter: int
    state: CardBits
    sharing: int
    atr: bytes
    protocol: int


@dataclass(slots=True, eq=False)
class Handle:
    """A connection of an application to a slot.

    Attributes:
        number: As the application knows it.
        context: Whose it is.
        slot: To which slot.
        share: Its mode.
        word: What happened to the card since it was connected, to be told by each call until
            SCardReconnect; None for nothing.
        is_raw: It was connected with SCARD_PROTOCOL_RAW.
        is_closed: It is of no more use.
    """

    number: int
    context: Context
    slot: Slot
    share: Share
    word: ScardCode | None = None
    is_raw: bool = False
    is_closed: bool = False

    def flag(self, code: ScardCode) -> None:
        """Have it told that the card was reset, or removed. A removal is never told as a reset."""
        if self.word is not ScardCode.W_REMOVED_CARD:
            self.word = code


@dataclass(slots=True, eq=False)
class Context:
    """What SCardEstablishContext gives.

    Attributes:
        number: As the application knows it.
        handles: Its handles, those of readers that are gone too.
        calls: What is under way for it.
        cancelled_until: A cancellation that came just before its wait counts until then.
    """

    number: int
    handles: list[Handle] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    cancelled_until: float | None = None


@dataclass(slots=True, eq=False)
class PcscReader:
    """A reader: one slot or several that came together and leave together.

    Attributes:
        device: What tells it from others, and stays the same when it comes back.
        number: HH in its name.
        slots: Its slots.
        is_shown: Clients see it: it is so once all its slots are known.
        is_gone: It left.
    """

    device: Hashable
    number: int
    slots: list[Slot] = field(default_factory=list)
    is_shown: bool = False
    is_gone: bool = False


@dataclass(slots=True, eq=False)
class Slot:
    """A slot.

    Attributes:
        reader: It is part of this.
        key: What the edge calls it.
        name: What clients call it.
        card: What is in it.
        is_powered: The card has power.
        is_arriving: The card there is not shown yet: its first power-up is under way.
        is_looked: Whether there is a card is known.
        card_number: Another one for each card, and for none.
        arrivals: How many cards came, as the edge counted last.
        atr: Of the card.
        protocol: The active one.
        counter: Of cards that came and went.
        handles: All that are open.
        exclusive: The one that has it alone.
        lock: The one that has a transaction.
        lock_count: How deep.
        turn: The call that may talk to the reader.
        queue: Calls that wait for their turn, or for the end of a transaction.
        off_at: When the card loses its power, if nobody needs it until then.
    """

    reader: PcscReader
    key: Hashable
    name: str
    card: CardIn = CardIn.ABSENT
    is_powered: bool = False
    is_arriving: bool = False
    is_looked: bool = False
    card_number: int = 0
    arrivals: int = 0
    atr: bytes = b""
    protocol: Proto = Proto.UNSET
    counter: int = 0
    handles: list[Handle] = field(default_factory=list)
    exclusive: Handle | None = None
    lock: Handle | None = None
    lock_count: int = 0
    turn: Call | None = None
    queue: list[Call] = field(default_factory=list)
    off_at: float | None = None

    @property
    def is_gone(self) -> bool:
        """Its reader left."""
        return self.reader.is_gone

    @property
    def holder(self) -> Handle | None:
        """The handle that keeps others out."""
        return self.lock or self.exclusive

    @property
    def is_in_use(self) -> bool:
        """Somebody needs the card's power. A direct handle does not, out of transactions."""
        if self.lock is not None:
            return True
        return any(handle.share is not Share.DIRECT for handle in self.handles)

    @property
    def has_card(self) -> bool:
        """There is a card, which may be mute."""
        return self.card in (CardIn.PRESENT, CardIn.MUTE)

    def count(self) -> None:
        """A card came, or went."""
        self.counter = (self.counter + 1) % MAX_COUNTER

    def unlock(self, handle: Handle) -> None:
        """End what ``handle`` holds."""
        if self.lock is handle:
            self.lock, self.lock_count = None, 0
        if self.exclusive is handle:
            self.exclusive = None

    def flag_others(self, handle: Handle | None, code: ScardCode) -> None:
        """Have all handles but ``handle`` told of ``code``."""
        for other in self.handles:
            if other is not handle:
                other.flag(code)

    @property
    def bits(self) -> CardBits:
        """What is in it, as SCardStatus tells it."""
        match self.card:
            case CardIn.UNKNOWN:
                return CardBits.UNKNOWN
            case CardIn.MUTE:
                return CardBits.PRESENT | CardBits.SWALLOWED
            case CardIn.PRESENT if not self.is_arriving:
                powered = CardBits.POWERED | CardBits.NEGOTIABLE
                return CardBits.PRESENT | (powered if self.is_powered else CardBits(0))
        return CardBits.ABSENT

    @property
    def view(self) -> SlotView:
        """As clients see it."""
        protocol = self.protocol
        if not protocol and any(handle.is_raw for handle in self.handles):
            protocol = Proto.RAW
        return SlotView(
            name=self.name,
            counter=self.counter,
            state=self.bits,
            sharing=-1 if self.exclusive is not None else len(self.handles),
            atr=b"" if self.is_arriving else self.atr,
            protocol=int(protocol),
        )
