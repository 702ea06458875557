"""What happened to the card in one slot: the state machine; pure.

Theory of operation. Three sources tell of a card: notifications of the reader (USB CCID rev 1.1,
6.3.1), status answers (bmICCStatus, 6.2.6), and the host's own commands that give power and take
it. All are inputs of two tables. Nothing else in this library decides what happened to a card.

:data:`PRESENCE` says whether a card is in the slot. A notification has two bits for a slot:
present, and changed since the notification before. Full and changed means that a card came. If
the reader announced a card before, the one that came replaced that one. If the card there was
only seen (by a status answer, or by its ATR), the notification is about that card, and late:
notifications are asked for up to four times a second only, and the first one after opening is
about what happened before.

:data:`POWER` says what became of the card that the host gave power. Three things can happen to
such a card, and the state machine keeps them apart:

- It is *removed*: the slot was empty meanwhile, whatever is in there now.
- It is *reset* by a command of the host: another holder gave it power anew, or took it.
- It *lost its power* without a command: bmICCStatus says that a card is there and inactive. The
  USB device was reset, or the computer slept.

A reset of the USB device, or sleep, of which the transport tells is such a loss for certain: no
notification about an exchanged card is waited for, and the reader may announce the same card once
more.

"Empty and changed" is certain. After "full and changed" a reader that gives power by itself
(dwFeatures 0x04) has another card, for certain. Any other reader gave no power to a card that
came, so its status tells: the slot is in doubt until then. A reader without notifications says
nothing of a card that was exchanged between two commands. There, a card without power counts as
removed: an application must not take another card for its own.

One power-up begins one :class:`Session`. A card object belongs to one session, and is told what
ended that one, whatever happened to the slot since.
"""

from __future__ import annotations

from enum import Enum, auto

from ccid.codes import IccStatus


class Presence(Enum):
    """Is a card in the slot?"""

    UNKNOWN = auto()
    EMPTY = auto()
    SEEN = auto()
    """By a status answer or an ATR. A notification may still announce this card."""
    ANNOUNCED = auto()
    """By a notification. The next one that says "changed" means another card."""


THERE = (Presence.SEEN, Presence.ANNOUNCED)
"""There is a card."""


class Power(Enum):
    """What became of the card that the host gave power."""

    NONE = auto()
    """No card is known: none got power yet, or its end was told."""
    RISING = auto()
    """IccPowerOn is under way, or failed."""
    ON = auto()
    DOUBTFUL = auto()
    """The reader said something by which the card may have been exchanged. Its status tells."""
    OFF = auto()
    """The host took the power of a card that is in the slot still."""
    LOST = auto()
    """It lost its power without a command. To be told."""
    REMOVED = auto()
    """It was taken out. To be told."""


class Input(Enum):
    """What can happen to a slot."""

    # One slot's bits of a notification (6.3.1)
    SAID_GONE = auto()
    """Empty, changed."""
    SAID_EMPTY = auto()
    """Empty, unchanged."""
    SAID_FULL = auto()
    """Full, unchanged."""
    SAID_CAME = auto()
    """Full, changed."""
    # bmICCStatus of an answer (6.2.6)
    ABSENT = auto()
    INACTIVE = auto()
    ACTIVE = auto()
    # What the host does
    POWERING = auto()
    """IccPowerOn is about to be sent."""
    ANSWERED = auto()
    """IccPowerOn brought an ATR."""
    POWERED_OFF = auto()
    """IccPowerOff is about to be sent."""
    TOLD = auto()
    """The users of the card were told that it is gone."""
    DEVICE_RESET = auto()
    """The USB device was reset, or lost its power: so did every card."""
    # What PRESENCE makes of a notification
    LEFT = auto()
    """The slot is empty, for certain."""
    SEEMS_EMPTY = auto()
    """The reader says so, and that nothing changed."""
    EXCHANGED = auto()
    """A card came to a slot that had one."""
    CAME = auto()
    """A card came to a slot that was said to be empty."""


class Fate(Enum):
    """What ended a session."""

    REMOVED = auto()
    RESET = auto()
    LOST_POWER = auto()


U, E, S, A = Presence.UNKNOWN, Presence.EMPTY, Presence.SEEN, Presence.ANNOUNCED
PRESENCE: dict[tuple[Presence, Input], tuple[Presence, Input | None]] = {
    # From, input: to, and what that means for the card that has power
    (U, Input.SAID_GONE): (E, Input.LEFT),
    (E, Input.SAID_GONE): (E, Input.LEFT),
    (S, Input.SAID_GONE): (E, Input.LEFT),
    (A, Input.SAID_GONE): (E, Input.LEFT),
    (U, Input.SAID_EMPTY): (E, Input.SEEMS_EMPTY),
    (E, Input.SAID_EMPTY): (E, Input.SEEMS_EMPTY),
    (S, Input.SAID_EMPTY): (E, Input.SEEMS_EMPTY),
    (A, Input.SAID_EMPTY): (E, Input.SEEMS_EMPTY),
    (U, Input.SAID_FULL): (A, None),
    (E, Input.SAID_FULL): (A, None),
    (S, Input.SAID_FULL): (A, None),
    (A, Input.SAID_FULL): (A, None),
    (U, Input.SAID_CAME): (A, None),
    (E, Input.SAID_CAME): (A, Input.CAME),
    (S, Input.SAID_CAME): (A, None),  # its own arrival, told late
    (A, Input.SAID_CAME): (A, Input.EXCHANGED),
    (U, Input.ABSENT): (E, None),
    (E, Input.ABSENT): (E, None),
    (S, Input.ABSENT): (E, None),
    (A, Input.ABSENT): (E, None),
    (U, Input.DEVICE_RESET): (U, None),
    (E, Input.DEVICE_RESET): (E, None),
    (S, Input.DEVICE_RESET): (S, None),
    (A, Input.DEVICE_RESET): (S, None),  # the reader may announce the same card once more
    **{
        (was, seen): (A if was is A else S, None)
        for was in Presence
        for seen in (Input.INACTIVE, Input.ACTIVE, Input.ANSWERED)
    },
}
"""Whether a card is in the slot. An input that a state does not have changes nothing."""

POWER: dict[tuple[Power, Input], Power] = {
    (Power.NONE, Input.POWERING): Power.RISING,
    #
    (Power.RISING, Input.POWERING): Power.RISING,
    (Power.RISING, Input.ANSWERED): Power.ON,
    (Power.RISING, Input.POWERED_OFF): Power.OFF,
    (Power.RISING, Input.ABSENT): Power.REMOVED,
    (Power.RISING, Input.LEFT): Power.REMOVED,
    (Power.RISING, Input.SEEMS_EMPTY): Power.DOUBTFUL,
    (Power.RISING, Input.EXCHANGED): Power.DOUBTFUL,
    (Power.RISING, Input.TOLD): Power.NONE,
    (Power.RISING, Input.DEVICE_RESET): Power.LOST,
    #
    (Power.ON, Input.POWERING): Power.RISING,  # a warm reset
    (Power.ON, Input.POWERED_OFF): Power.OFF,
    (Power.ON, Input.INACTIVE): Power.LOST,
    (Power.ON, Input.ABSENT): Power.REMOVED,
    (Power.ON, Input.LEFT): Power.REMOVED,
    (Power.ON, Input.SEEMS_EMPTY): Power.DOUBTFUL,
    (Power.ON, Input.EXCHANGED): Power.DOUBTFUL,
    (Power.ON, Input.CAME): Power.DOUBTFUL,
    (Power.ON, Input.TOLD): Power.NONE,
    (Power.ON, Input.DEVICE_RESET): Power.LOST,
    #
    (Power.DOUBTFUL, Input.ACTIVE): Power.ON,
    (Power.DOUBTFUL, Input.INACTIVE): Power.REMOVED,
    (Power.DOUBTFUL, Input.ABSENT): Power.REMOVED,
    (Power.DOUBTFUL, Input.LEFT): Power.REMOVED,
    (Power.DOUBTFUL, Input.POWERED_OFF): Power.REMOVED,  # no status will tell any more
    (Power.DOUBTFUL, Input.POWERING): Power.RISING,
    (Power.DOUBTFUL, Input.EXCHANGED): Power.DOUBTFUL,
    (Power.DOUBTFUL, Input.CAME): Power.DOUBTFUL,
    (Power.DOUBTFUL, Input.TOLD): Power.NONE,
    (Power.DOUBTFUL, Input.DEVICE_RESET): Power.LOST,
    #
    (Power.OFF, Input.POWERING): Power.RISING,
    (Power.OFF, Input.ABSENT): Power.REMOVED,
    (Power.OFF, Input.LEFT): Power.REMOVED,
    (Power.OFF, Input.SEEMS_EMPTY): Power.REMOVED,  # no status could tell
    (Power.OFF, Input.EXCHANGED): Power.REMOVED,
    (Power.OFF, Input.CAME): Power.REMOVED,
    (Power.OFF, Input.TOLD): Power.NONE,
    #
    (Power.LOST, Input.POWERING): Power.RISING,
    (Power.LOST, Input.ABSENT): Power.REMOVED,
    (Power.LOST, Input.LEFT): Power.REMOVED,
    (Power.LOST, Input.SEEMS_EMPTY): Power.REMOVED,
    (Power.LOST, Input.EXCHANGED): Power.REMOVED,
    (Power.LOST, Input.CAME): Power.REMOVED,
    (Power.LOST, Input.TOLD): Power.NONE,
    #
    (Power.REMOVED, Input.POWERING): Power.RISING,
    (Power.REMOVED, Input.TOLD): Power.NONE,
}
"""What became of the card that has power. An input that a state does not have changes nothing."""

ENDS: dict[Power, Fate] = {
    Power.OFF: Fate.RESET,
    Power.LOST: Fate.LOST_POWER,
    Power.REMOVED: Fate.REMOVED,
    Power.NONE: Fate.REMOVED,
}
"""What a session that comes to such a state has met."""

BY_ICC_STATUS = {
    IccStatus.ACTIVE: Input.ACTIVE,
    IccStatus.INACTIVE: Input.INACTIVE,
    IccStatus.ABSENT: Input.ABSENT,
}
"""The input that bmICCStatus is. Its reserved value says nothing."""

BY_BITS = {
    (False, True): Input.SAID_GONE,
    (False, False): Input.SAID_EMPTY,
    (True, False): Input.SAID_FULL,
    (True, True): Input.SAID_CAME,
}
"""The input that a slot's bits in bmSlotICCState are, (present, changed)."""


class Session:
    """One power-up of a card, and what ended it.

    Attributes:
        signs: Empty as long as nothing has happened to the card: all that the path of an APDU
            looks at.
        fate: What ended the session; None while it goes on, or is in doubt.
        is_settled: A notification that contradicts ``fate`` would have come by now.
    """

    __slots__ = ("fate", "is_settled", "signs")

    def __init__(self) -> None:
        self.signs: list[Power] = []
        self.fate: Fate | None = None
        self.is_settled = False

    def has_come_to(self, power: Power) -> None:
        """The slot is in this state now."""
        if power is Power.DOUBTFUL:
            self.signs[:] = [power]
        elif power in ENDS:
            self.end(ENDS[power])
        elif self.fate is None:
            self.signs.clear()

    def end(self, fate: Fate) -> None:
        """End it. One that a reset ended may turn out to be removed, and not the other way."""
        if self.fate is not Fate.REMOVED and (self.fate is None or fate is Fate.REMOVED):
            self.fate = fate
        self.signs[:] = [Power.NONE]


class CardState:
    """The card in one slot.

    Args:
        auto_activating: The reader gives power to a card as soon as it is put in (dwFeatures
            0x04).
        notifies: The reader tells of a card that is exchanged, or has one that cannot be.

    Attributes:
        presence: Whether a card is in the slot.
        power: What became of the card that got power.
        session: The last power-up; None before the first.
        arrivals: How many cards came into the slot, as far as is known.
        losses: How many cards that had power were removed, or lost it without a command.
    """

    def __init__(self, auto_activating: bool = False, notifies: bool = True) -> None:
        self.presence = Presence.UNKNOWN
        self.power = Power.NONE
        self.session: Session | None = None
        self.arrivals = 0
        self.losses = 0
        self._auto_activating = auto_activating
        self._notifies = notifies

    @property
    def is_present(self) -> bool:
        """A card is in the slot, as far as is known."""
        return self.presence in THERE

    def apply(self, what: Input) -> None:
        """``what`` happened."""
        was = self.presence
        self.presence, sign = PRESENCE.get((was, what), (was, None))
        if sign is Input.EXCHANGED or (self.presence in THERE and was not in THERE):
            self.arrivals += 1
        self._power(what)
        if sign is not None:
            self._power(sign)

    def _power(self, what: Input) -> None:
        was = self.power
        now = POWER.get((was, what))
        if now is None:
            return
        if now is Power.DOUBTFUL and self._auto_activating and what is not Input.SEEMS_EMPTY:
            now = Power.REMOVED
        if now is Power.LOST and not self._notifies and what is not Input.DEVICE_RESET:
            now = Power.REMOVED
        self.power = now
        is_lost = now in (Power.REMOVED, Power.LOST) and was not in (Power.REMOVED, Power.LOST)
        if is_lost or (was is Power.DOUBTFUL and now is Power.RISING):
            self.losses += 1
        if what is Input.POWERING:
            if self.session is not None:
                self.session.end(Fate.RESET if was is not Power.DOUBTFUL else Fate.REMOVED)
            self.session = Session()
        elif self.session is not None:
            self.session.has_come_to(now)
            if what is Input.DEVICE_RESET:
                self.session.is_settled = True
