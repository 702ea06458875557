"""A slot of a virtual reader: card, power, parameters, and the command under way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ccid.codec.messages import ProtocolDataT0, ProtocolDataT1
from ccid.codes import ClockStatus, IccStatus, Protocol
from ccid.errors import MalformedAtr
from ccid.iso7816.atr import Atr
from ccid.virtual.cards.application import Answer, Application
from ccid.virtual.cards.contact import Contact
from ccid.virtual.cards.line import DEFAULT_CLOCK_HZ
from ccid.virtual.contact_wire import Wire

ProtocolData = ProtocolDataT0 | ProtocolDataT1
Card = Application | Contact
"""A card for a slot: an application, or an application behind contacts with options."""


@dataclass
class VirtualSlot:
    """The state of one slot.

    Attributes:
        index: bSlot.
        clock_hz: The clock for cards, Hz.
        real_time: Characters take their real time; otherwise only waiting takes time.
        inserted: The card as inserted, perhaps with contacts; None in an empty slot.
        card: The application on the card; None in an empty slot.
        wire: The contacts of the card; None in an empty slot.
        powered: The card is active.
        mute: The card does not answer a power-on.
        mute_for: Number of power-ons that the card still does not answer.
        changed: A notification of a change is still to be sent.
        protocol: The protocol in force.
        parameters: The values of SetParameters, by protocol.
        clock: bClockStatus.
        busy_until: The time at which the command under way ends; None without a command.
        command: The first parts of a command APDU that arrives in several blocks.
        response: The rest of a response APDU that leaves in several blocks.
        power_ons: Number of power-ups and resets of cards.
        late_reply: The reply to the command under way, if the card's answer comes later.
        announced_ifsd: The reader has announced IFSD by itself in T=1 (dwFeatures bit 10).
    """

    index: int
    clock_hz: float = DEFAULT_CLOCK_HZ
    real_time: bool = False
    inserted: Card | None = None
    powered: bool = False
    mute: bool = False
    mute_for: int = 0
    changed: bool = False
    protocol: Protocol = Protocol.T0
    parameters: dict[Protocol, ProtocolData] = field(default_factory=dict)
    clock: ClockStatus = ClockStatus.STOPPED_LOW
    busy_until: float | None = None
    command: bytearray = field(default_factory=bytearray, repr=False)
    response: bytes = field(default=b"", repr=False)
    power_ons: int = 0
    announced_ifsd: bool = False
    late_reply: LateReply | None = None
    wire: Wire | None = None

    def __post_init__(self) -> None:
        self.reset_parameters()

    @property
    def card(self) -> Application | None:
        """The application on the card; None in an empty slot."""
        return None if self.wire is None else self.wire.contact.application

    @property
    def icc_status(self) -> IccStatus:
        """bmICCStatus."""
        if self.wire is None:
            return IccStatus.ABSENT
        return IccStatus.ACTIVE if self.powered else IccStatus.INACTIVE

    def put(self, card: Card | None) -> None:
        """Insert a card, or remove it (None), or exchange it."""
        self.power_off()
        self.inserted = card
        self.changed = True
        self.wire = None
        if card is not None:
            contact = card if isinstance(card, Contact) else Contact(card)
            self.wire = Wire(contact, self.clock_hz, real_time=self.real_time)

    def power_on(self, now: float = 0.0) -> bytes:
        """Power-up or reset; return the ATR, empty for a mute card."""
        self.power_ons += 1
        self.command.clear()
        self.response = b""
        self.announced_ifsd = False
        is_late, self.mute_for = self.mute_for > 0, max(0, self.mute_for - 1)
        if self.wire is None or self.mute or is_late:
            self.powered = False
            return b""
        atr = self.wire.reset(now)
        self.powered = bool(atr)
        self.clock = ClockStatus.RUNNING
        self.protocol = Protocol.T0
        self.reset_parameters()
        return atr

    def atr(self) -> Atr | None:
        """The card's ATR; None without a card, or for a malformed ATR."""
        if self.wire is None:
            return None
        try:
            return Atr.parse(self.wire.contact.raw_atr)
        except MalformedAtr:
            return None

    def power_off(self) -> None:
        """Power the card off."""
        if self.card is not None:
            self.card.power_off()
        self.powered = False
        self.clock = ClockStatus.STOPPED_LOW
        self.busy_until = None
        self.late_reply = None
        self.command.clear()
        self.response = b""

    def reset_parameters(self) -> ProtocolData:
        """Set the reader's defaults; return those of the protocol in force."""
        self.parameters = {Protocol.T0: ProtocolDataT0(), Protocol.T1: ProtocolDataT1()}
        self.use(self.parameters[self.protocol])
        return self.parameters[self.protocol]

    def use(self, data: ProtocolData) -> None:
        """Make ``data`` and their protocol the parameters in force."""
        self.protocol = Protocol.T1 if isinstance(data, ProtocolDataT1) else Protocol.T0
        self.parameters[self.protocol] = data
        if self.wire is not None:
            self.wire.use(data)


class LateReply:
    """The reply to a command whose answer comes later, by a call of this object.

    The object ignores the answer if the command has ended in another way: by a time limit, the
    removal of the card, ABORT or power-off.

    Args:
        slot: The slot of the command.
        command: The command message of the host.
        deliver: Takes the slot, the command, the answer (None from a mute card) and the time.
    """

    def __init__(
        self,
        slot: VirtualSlot,
        command: bytes,
        deliver: Callable[[VirtualSlot, bytes, Answer | None, float], None],
    ) -> None:
        self._slot = slot
        self._command = command
        self._deliver = deliver

    def __call__(self, answer: Answer | None, now: float) -> None:
        """The answer is there, at the time ``now`` in seconds."""
        if self._slot.late_reply is self:
            self._slot.late_reply = None
            self._deliver(self._slot, self._command, answer, now)
