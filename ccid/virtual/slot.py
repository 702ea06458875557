"""A slot of a virtual reader: the card in it, its power, its parameters, what it is busy with."""

from __future__ import annotations

from dataclasses import dataclass, field

from ccid.codes import ClockStatus, ExchangeLevel, IccStatus, Protocol
from ccid.errors import MalformedAtr
from ccid.iso7816.atr import Atr
from ccid.messages import ProtocolDataT0, ProtocolDataT1
from ccid.virtual.cards.base import Answer, Application
from ccid.virtual.cards.t0 import T0Face


@dataclass
class VirtualSlot:
    """The state of one slot.

    Attributes:
        index: bSlot.
        card: The card in it, None without.
        powered: The card is active.
        mute: The card does not answer a power-on.
        changed: A notification of a change is still to be sent.
        protocol: In force.
        parameters: What SetParameters set, by protocol.
        clock: bClockStatus.
        busy_until: A command is under way until then; None if not.
        command: The command APDU that arrives in several blocks.
        response: What is left of a response APDU that leaves in several blocks.
        power_ons: How often a card was powered up or reset.
    """

    index: int
    card: Application | None = None
    powered: bool = False
    mute: bool = False
    changed: bool = False
    protocol: Protocol = Protocol.T0
    parameters: dict[Protocol, ProtocolDataT0 | ProtocolDataT1] = field(default_factory=dict)
    clock: ClockStatus = ClockStatus.STOPPED_LOW
    busy_until: float | None = None
    command: bytearray = field(default_factory=bytearray)
    response: bytes = b""
    power_ons: int = 0
    _t0: T0Face | None = None

    def __post_init__(self) -> None:
        self.reset_parameters()
        self._face()

    def _face(self) -> None:
        self._t0 = T0Face(self.card) if self.card is not None else None

    @property
    def icc_status(self) -> IccStatus:
        """bmICCStatus."""
        if self.card is None:
            return IccStatus.ABSENT
        return IccStatus.ACTIVE if self.powered else IccStatus.INACTIVE

    def put(self, card: Application | None) -> None:
        """A card comes, goes, or another takes its place."""
        self.power_off()
        self.card = card
        self.changed = True
        self._face()

    def power_on(self) -> bytes:
        """Power-up or reset: the ATR, or nothing from a mute card."""
        self.power_ons += 1
        self.command.clear()
        self.response = b""
        self.reset_parameters()
        if self.card is None or self.mute:
            self.powered = False
            return b""
        self.powered = True
        self.clock = ClockStatus.RUNNING
        if self._t0 is not None:
            self._t0.reset()
        try:
            default = Atr.parse(self.card.atr).default_protocol
        except MalformedAtr:
            default = 0
        self.protocol = Protocol.T1 if default == 1 else Protocol.T0
        return self.card.atr

    def power_off(self) -> None:
        """No power."""
        self.powered = False
        self.clock = ClockStatus.STOPPED_LOW
        self.busy_until = None
        self.command.clear()
        self.response = b""

    def reset_parameters(self) -> ProtocolDataT0 | ProtocolDataT1:
        """The reader's defaults; returns those of the protocol in force."""
        self.parameters = {Protocol.T0: ProtocolDataT0(), Protocol.T1: ProtocolDataT1()}
        return self.parameters[self.protocol]

    def exchange(self, block: bytes, level: ExchangeLevel) -> Answer:
        """Have the card answer a whole APDU, or a TPDU at TPDU level."""
        assert self.card is not None
        if level is ExchangeLevel.TPDU:
            assert self._t0 is not None
            return self._t0.transmit(block)
        return self.card.transmit(block)
