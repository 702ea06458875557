"""What a virtual reader does with PC_to_RDR_XfrBlock at each level of exchange.

USB CCID rev 1.1, 3.2, 6.1.4 and 6.2.1. At APDU levels the card gets whole APDUs; at TPDU and
character level they travel over its contacts (:mod:`ccid.virtual.wire`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from ccid.codes import Chain, CommandStatus, ExchangeLevel, Features, Level, Protocol, SlotError
from ccid.descriptors import SmartCardDescriptor
from ccid.iso7816.apdu import MAX_SHORT
from ccid.messages import HEADER_LENGTH, Command, PC_to_RDR_XfrBlock, RDR_to_PC_DataBlock, Reply
from ccid.virtual.cards.pps import PPSS
from ccid.virtual.faults import Said
from ccid.virtual.slot import VirtualSlot
from ccid.virtual.tpdu import announce_ifsd, t0_tpdu, t1_block
from ccid.virtual.wire import Refused, Wire

OF_LENGTH, OF_LEVEL = 1, 8
"""Offsets of dwLength and wLevelParameter."""
MAX_CHARACTERS = 0xFFFF

R = TypeVar("R", bound=Reply)


def addressed(slot: VirtualSlot, command: Command, reply: R) -> R:
    """``reply`` with slot, number and the card's state."""
    return replace(reply, bSlot=slot.index, bSeq=command.bSeq, bStatus=int(slot.icc_status))


def waiting(
    slot: int, bSeq: int, kind: int, now: float, due: float, every: float
) -> Iterable[Said]:
    """The time extensions that a reader asks for until ``due``, one every ``every`` seconds."""
    head = bytes((kind, 0, 0, 0, 0, slot, bSeq, CommandStatus.TIME_EXTENSION << 6, 1, 0))
    times = (now + (i + 1) * every for i in range(int((due - now) / every)))
    return (Said(head, when) for when in times if when < due)


class Levels:
    """PC_to_RDR_XfrBlock of one reader.

    Args:
        descriptor: Its class descriptor.
    """

    def __init__(self, descriptor: SmartCardDescriptor) -> None:
        self.descriptor = descriptor

    @property
    def is_apdu(self) -> bool:
        """Short or extended APDU level."""
        level = self.descriptor.exchange_level
        return level in (ExchangeLevel.SHORT_APDU, ExchangeLevel.EXTENDED_APDU)

    @property
    def _room(self) -> int:
        return self.descriptor.dwMaxCCIDMessageLength - HEADER_LENGTH

    def transfer(
        self, slot: VirtualSlot, command: PC_to_RDR_XfrBlock, now: float
    ) -> tuple[RDR_to_PC_DataBlock, float]:
        """Carry out one command: the reply, and when it is due.

        Raises:
            Refused: With bError, and when the reader knows.
        """
        if not slot.powered or slot.wire is None:
            raise Refused(SlotError.ICC_MUTE)
        match self.descriptor.exchange_level:
            case ExchangeLevel.EXTENDED_APDU:
                return self._extended(slot, command, now)
            case ExchangeLevel.CHARACTER:
                data, due = self._characters(slot, slot.wire, command, now)
            case ExchangeLevel.TPDU:
                data, due = self._tpdu(slot, slot.wire, command, now)
            case _:
                if command.wLevelParameter != Level.WHOLE:
                    raise Refused(OF_LEVEL)
                if len(command.abData) > MAX_SHORT:
                    raise Refused(OF_LENGTH)
                answer = slot.wire.contact.application.transmit(command.abData)
                data, due = answer.apdu, now + answer.after_s
        return addressed(slot, command, RDR_to_PC_DataBlock(abData=data)), due

    # On the contacts --------------------------------------------------------------------------

    def _tpdu(
        self, slot: VirtualSlot, wire: Wire, command: PC_to_RDR_XfrBlock, now: float
    ) -> tuple[bytes, float]:
        data = command.abData
        if command.wLevelParameter != Level.WHOLE:
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
        return t1_block(slot, wire, data, command.bBWI or 1, self._room, now)

    def _characters(
        self, slot: VirtualSlot, wire: Wire, command: PC_to_RDR_XfrBlock, now: float
    ) -> tuple[bytes, float]:
        """Characters out, and wLevelParameter characters back."""
        count = command.wLevelParameter
        if count > self._room:
            raise Refused(OF_LEVEL)
        if len(command.abData) > self._room:
            raise Refused(OF_LENGTH)
        now = wire.send(command.abData, now)
        return wire.receive(count, now, command.bBWI or 1)

    # Extended APDUs ---------------------------------------------------------------------------

    def _extended(
        self, slot: VirtualSlot, command: PC_to_RDR_XfrBlock, now: float
    ) -> tuple[RDR_to_PC_DataBlock, float]:
        """An APDU in several blocks (6.1.4 and 6.2.1)."""
        assert slot.wire is not None
        level = command.wLevelParameter
        begins = level in (Level.WHOLE, Level.BEGINS)
        if level == Level.CONTINUE_RESPONSE:
            if not slot.response or command.abData:
                raise Refused(OF_LEVEL)
            return self._part(slot, command, first=False), now
        if level not in tuple(Level) or begins == bool(slot.command):
            slot.command.clear()
            raise Refused(OF_LEVEL)
        slot.response = b""
        slot.command += command.abData
        if level in (Level.BEGINS, Level.CONTINUES):
            wants = RDR_to_PC_DataBlock(bChainParameter=Chain.COMMAND_EXPECTED)
            return addressed(slot, command, wants), now
        apdu = bytes(slot.command)
        slot.command.clear()
        answer = slot.wire.contact.application.transmit(apdu)
        slot.response = answer.apdu
        return self._part(slot, command, first=True), now + answer.after_s

    def _part(
        self, slot: VirtualSlot, command: PC_to_RDR_XfrBlock, first: bool
    ) -> RDR_to_PC_DataBlock:
        """The next part of the response, as much as a message holds."""
        part, slot.response = slot.response[: self._room], slot.response[self._room :]
        if first:
            chain = Chain.BEGINS if slot.response else Chain.WHOLE
        else:
            chain = Chain.CONTINUES if slot.response else Chain.ENDS
        return addressed(slot, command, RDR_to_PC_DataBlock(bChainParameter=chain, abData=part))
