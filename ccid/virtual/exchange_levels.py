"""PC_to_RDR_XfrBlock of a virtual reader at each level of exchange.

USB CCID rev 1.1, 3.2, 6.1.4 and 6.2.1. At APDU levels the card gets whole APDUs; at TPDU and
character level the bytes pass the card's contacts (:mod:`ccid.virtual.contact_wire`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar, overload

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import MESSAGE_HEADER, Command, Reply
from ccid.codes import Chain, CommandStatus, ExchangeLevel, Features, Level, Protocol, SlotError
from ccid.iso7816.apdu import MAX_SHORT
from ccid.iso7816.pps import PPSS
from ccid.virtual.cards.application import Answer, Later, Mute
from ccid.virtual.contact_wire import Refused, Wire
from ccid.virtual.faults import Said
from ccid.virtual.tpdu_firmware import announce_ifsd, t0_tpdu, t1_block
from ccid.virtual.virtual_slot import VirtualSlot

OF_LENGTH, OF_LEVEL = 1, 8
"""Offsets of dwLength and wLevelParameter."""
MAX_CHARACTERS = 0xFFFF
LEVELS = frozenset(Level)
BEGINNINGS = frozenset((Level.WHOLE, Level.BEGINS))
UNFINISHED = frozenset((Level.BEGINS, Level.CONTINUES))
FIRST, LATER = (Chain.BEGINS, Chain.WHOLE), (Chain.CONTINUES, Chain.ENDS)
"""bChainParameter of the first part of a response and of later parts: with more parts to follow,
and for the last."""

R = TypeVar("R", bound=Reply)


def addressed(slot: VirtualSlot, command: Command, reply: R) -> R:
    """``reply`` with bSlot, bSeq and bmICCStatus."""
    return replace(reply, bSlot=slot.index, bSeq=command.bSeq, bStatus=int(slot.icc_status))


def waiting(
    slot: int, bSeq: int, kind: int, now: float, due: float, every: float
) -> Iterable[Said]:
    """The time extensions that a reader sends until ``due``, one every ``every`` seconds."""
    head = bytes((kind, 0, 0, 0, 0, slot, bSeq, CommandStatus.TIME_EXTENSION << 6, 1, 0))
    times = (now + (i + 1) * every for i in range(int((due - now) / every)))
    return (Said(head, when) for when in times if when < due)


@dataclass(slots=True)
class Block:
    """Fields of PC_to_RDR_XfrBlock. ``repr`` hides the data, which may hold a secret."""

    bBWI: int
    wLevelParameter: int
    abData: bytes = field(repr=False)


Part = tuple[int, bytes, float]
"""Content of RDR_to_PC_DataBlock: bChainParameter, abData, and when the message is due."""


class Levels:
    """PC_to_RDR_XfrBlock of one reader.

    Args:
        descriptor: The class descriptor.

    Attributes:
        level: Level of exchange; None if dwFeatures names none or several.
        is_apdu: True at short or extended APDU level.
    """

    def __init__(self, descriptor: SmartCardDescriptor) -> None:
        self.descriptor = descriptor
        self.level = descriptor.exchange_level
        self.is_apdu = self.level in (ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU)
        self._room = descriptor.dwMaxCCIDMessageLength - MESSAGE_HEADER

    @overload
    def transfer(self, slot: VirtualSlot, block: Block, now: float) -> Part: ...

    @overload
    def transfer(
        self, slot: VirtualSlot, block: Block, now: float, later: Later
    ) -> Part | None: ...

    def transfer(
        self, slot: VirtualSlot, block: Block, now: float, later: Later | None = None
    ) -> Part | None:
        """Carry out one command; return the content of the reply, and when the reply is due.

        Args:
            slot: The slot.
            block: The command.
            now: The time, seconds.
            later: At APDU levels: gets the card's answer if it is not there at once. None: wait.

        Returns:
            None if ``later`` gets the answer.

        Raises:
            Refused: The command fails; with bError, and when the reader knows of the failure.
        """
        if not slot.powered or slot.wire is None:
            raise Refused(SlotError.ICC_MUTE)
        match self.level:
            case ExchangeLevel.EXTENDED_APDU:
                return self.extended(slot, block, now, later)
            case ExchangeLevel.CHARACTER:
                data, due = self._characters(slot.wire, block, now)
            case ExchangeLevel.TPDU:
                data, due = self._tpdu(slot, slot.wire, block, now)
            case _:
                if block.wLevelParameter != Level.WHOLE:
                    raise Refused(OF_LEVEL)
                if len(block.abData) > MAX_SHORT:
                    raise Refused(OF_LENGTH)
                answer = self._begin(slot.wire, block.abData, now, later)
                if answer is None:
                    return None
                data, due = answer.apdu, now + answer.after_s
        return Chain.WHOLE, data, due

    # On the contacts --------------------------------------------------------------------------

    def _tpdu(self, slot: VirtualSlot, wire: Wire, block: Block, now: float) -> tuple[bytes, float]:
        data = block.abData
        if block.wLevelParameter != Level.WHOLE:
            raise Refused(OF_LEVEL)
        if len(data) > self._room:
            raise Refused(OF_LENGTH)
        automatic = Features.AUTO_PPS | Features.AUTO_NEGOTIATION
        if wire.fresh and data[:1] == bytes((PPSS,)) and not self.descriptor.features & automatic:
            return wire.exchange_pps(data, now)
        if slot.protocol is Protocol.T0:
            return t0_tpdu(wire, data, now)
        if self.descriptor.features & Features.AUTO_IFSD:
            now = announce_ifsd(slot, wire, self.descriptor.dwMaxIFSD, self._room, now)
        return t1_block(slot, wire, data, block.bBWI or 1, self._room, now)

    def _characters(self, wire: Wire, block: Block, now: float) -> tuple[bytes, float]:
        """Send the characters, and receive wLevelParameter characters."""
        count = block.wLevelParameter
        if count > self._room:
            raise Refused(OF_LEVEL)
        if len(block.abData) > self._room:
            raise Refused(OF_LENGTH)
        now = wire.send(block.abData, now)
        return wire.receive(count, now, block.bBWI or 1)

    # Extended APDUs ---------------------------------------------------------------------------

    def extended(
        self, slot: VirtualSlot, block: Block, now: float, later: Later | None
    ) -> Part | None:
        """An APDU in several blocks (6.1.4 and 6.2.1). None if ``later`` gets the answer."""
        assert slot.wire is not None
        level, apdu, command = block.wLevelParameter, block.abData, slot.command
        if level == Level.CONTINUE_RESPONSE:
            if not slot.response or apdu:
                raise Refused(OF_LEVEL)
            return *self._part(slot, LATER), now
        if level not in LEVELS or (level in BEGINNINGS) == bool(command):
            command.clear()
            raise Refused(OF_LEVEL)
        if level in UNFINISHED:
            slot.response = b""
            command += apdu
            return Chain.COMMAND_EXPECTED, b"", now
        if command:
            apdu = bytes(command) + apdu
            command.clear()
        answer = self._begin(slot.wire, apdu, now, later)
        return None if answer is None else (*self.first_part(slot, answer), now + answer.after_s)

    def _begin(self, wire: Wire, apdu: bytes, now: float, later: Later | None) -> Answer | None:
        application = wire.contact.application
        try:
            return (
                application.transmit(apdu) if later is None else application.begin(apdu, now, later)
            )
        except Mute:
            raise Refused(SlotError.ICC_MUTE) from None

    def first_part(self, slot: VirtualSlot, answer: Answer) -> tuple[int, bytes]:
        """bChainParameter and abData of the first reply with the response APDU of ``answer``."""
        slot.response = answer.apdu
        return self._part(slot, FIRST)

    def late_part(self, slot: VirtualSlot, answer: Answer) -> tuple[int, bytes]:
        """The same for an answer that came later, at the level of this reader."""
        if self.level is ExchangeLevel.EXTENDED_APDU:
            return self.first_part(slot, answer)
        return Chain.WHOLE, answer.apdu

    def _part(self, slot: VirtualSlot, chain: tuple[Chain, Chain]) -> tuple[int, bytes]:
        """bChainParameter, out of ``chain``, and the next part of the response, as long as a
        message can be."""
        room, response = self._room, slot.response
        slot.response = response[room:]
        return chain[len(response) <= room], response[:room]
