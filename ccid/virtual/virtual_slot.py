"""A slot of a virtual reader: the card in it, its power, its parameters, what it is busy with."""

from __future__ import annotations

from dataclasses import dataclass, field

from ccid.codec.messages import ProtocolDataT0, ProtocolDataT1
from ccid.codes import ClockStatus, IccStatus, Protocol
from ccid.errors import MalformedAtr
from ccid.iso7816.atr import Atr
from ccid.virtual.cards.application import Application
from ccid.virtual.cards.contact import Contact
from ccid.virtual.cards.line import DEFAULT_CLOCK_HZ
from ccid.virtual.contact_wire import Wire

ProtocolData = ProtocolDataT0 | ProtocolDataT1
Card = Application | Contact
"""What can be put into a slot: an application, or one on contacts of its own."""


@dataclass
class VirtualSlot:
    """The state of one slot.

    Attributes:
        index: bSlot.
        clock_hz: The clock it gives to cards, Hz.
        real_time: Characters take their time; else only waiting does.
        inserted: What was put in; None without a card.
        card: The card in it, None without.
        wire: Its contacts, None without a card.
        powered: The card is active.
        mute: The card does not answer a power-on.
        mute_for: How many power-ons it does not answer yet.
        changed: A notification of a change is still to be sent.
        protocol: In force.
        parameters: What SetParameters set, by protocol.
        clock: bClockStatus.
        busy_until: A command is under way until then; None if not.
        command: The command APDU that arrives in several blocks.
        response: What is left of a response APDU that leaves in several blocks.
        power_ons: How often a card was powered up or reset.
        announced_ifsd: The reader told a card in T=1 its IFSD by itself (dwFeatures bit 10).
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
    command: bytearray = field(default_factory=bytearray)
    response: bytes = b""
    power_ons: int = 0
    announced_ifsd: bool = False
    wire: Wire | None = None

    def __post_init__(self) -> None:
        self.reset_parameters()

    @property
    def card(self) -> Application | None:
        """The card in it."""
        return None if self.wire is None else self.wire.contact.application

    @property
    def icc_status(self) -> IccStatus:
        """bmICCStatus."""
        if self.wire is None:
            return IccStatus.ABSENT
        return IccStatus.ACTIVE if self.powered else IccStatus.INACTIVE

    def put(self, card: Card | None) -> None:
        """A card comes, goes, or another takes its place."""
        self.power_off()
        self.inserted = card
        self.changed = True
        self.wire = None
        if card is not None:
            contact = card if isinstance(card, Contact) else Contact(card)
            self.wire = Wire(contact, self.clock_hz, real_time=self.real_time)

    def power_on(self, now: float = 0.0) -> bytes:
        """Power-up or reset: the ATR, or nothing from a mute card."""
        self.power_ons += 1
        self.command.clear()
        self.response = b""
        self.announced_ifsd = False
        is_late, self.mute_for = self.mute_for > 0, max(0, self.mute_for - 1)
        if self.wire is None or self.mute or is_late:
            self.powered = False
            return b""
        self.powered = True
        self.clock = ClockStatus.RUNNING
        atr = self.wire.reset(now)
        self.protocol = Protocol.T0
        self.reset_parameters()
        return atr

    def atr(self) -> Atr | None:
        """The ATR of the card in it; None without a card, or for one that cannot be read."""
        if self.wire is None:
            return None
        try:
            return Atr.parse(self.wire.contact.raw_atr)
        except MalformedAtr:
            return None

    def power_off(self) -> None:
        """No power."""
        self.powered = False
        self.clock = ClockStatus.STOPPED_LOW
        self.busy_until = None
        self.command.clear()
        self.response = b""

    def reset_parameters(self) -> ProtocolData:
        """The reader's defaults; returns those of the protocol in force."""
        self.parameters = {Protocol.T0: ProtocolDataT0(), Protocol.T1: ProtocolDataT1()}
        self.use(self.parameters[self.protocol])
        return self.parameters[self.protocol]

    def use(self, data: ProtocolData) -> None:
        """Put ``data`` and their protocol in force."""
        self.protocol = Protocol.T1 if isinstance(data, ProtocolDataT1) else Protocol.T0
        self.parameters[self.protocol] = data
        if self.wire is not None:
            self.wire.use(data)
