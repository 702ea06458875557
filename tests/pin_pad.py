"""A virtual reader with a PIN pad, and the person who presses its keys."""

from __future__ import annotations

from collections.abc import Sequence

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import (
    Command,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_Secure,
    PinModification,
    PinVerification,
    RDR_to_PC_DataBlock,
    Reply,
)
from ccid.codes import ExchangeLevel, Level, Protocol, SlotError
from ccid.iso7816.apdu import CommandApdu
from ccid.iso7816.error_detection import LRC
from ccid.virtual import EchoCard
from ccid.virtual.cards.application import Answer
from ccid.virtual.ccid_function import CcidFunction
from ccid.virtual.contact_wire import Refused
from ccid.virtual.exchange_levels import Block, Levels, addressed
from ccid.virtual.virtual_slot import VirtualSlot

HEADER = 5
"""CLA, INS, P1, P2 and Lc; the PIN blocks follow."""
PIN, OTHER_PIN, WRONG_PIN = b"73519", b"84620", b"95731"
MISMATCH = b"\x64\x02"
"""Status words after the person entered two different new PINs (PC/SC part 10)."""
Entry = list[bytes] | SlotError
"""What the person enters for one command, or the bError for a missing entry."""

VERIFICATIONS: list[Entry] = [
    [PIN],
    [WRONG_PIN],
    SlotError.PIN_CANCELLED,
    SlotError.PIN_TIMEOUT,
    [PIN],
]
MODIFICATIONS: list[Entry] = [
    [PIN, OTHER_PIN, OTHER_PIN],
    [OTHER_PIN, PIN, PIN],
    [WRONG_PIN, OTHER_PIN, OTHER_PIN],
    SlotError.PIN_CANCELLED,
    SlotError.PIN_TIMEOUT,
]
MISMATCHED: Entry = [PIN, OTHER_PIN, WRONG_PIN]
"""No standard defines the answer of the reader at TPDU level with T=1."""
SCRIPT: list[Entry] = [*VERIFICATIONS, *MODIFICATIONS, [PIN], MISMATCHED, [PIN]]
THINKS_S = 1.0
"""Seconds that the person needs for the first PIN: the reader sends time extensions."""


class PinCard(EchoCard):
    """An echo card with a PIN: VERIFY and CHANGE REFERENCE DATA, in blocks of eight bytes that FF
    fills."""

    pin = PIN

    def takes_data(self, header: bytes) -> bool:
        return header[1] == 0x24 or super().takes_data(header)

    def process(self, command: CommandApdu) -> Answer:
        if command.ins not in (0x20, 0x24):
            return super().process(command)
        old, new = (part.rstrip(b"\xff") for part in (command.data[:8], command.data[8:]))
        if old != self.pin:
            return Answer(sw=0x63C2)
        if command.ins == 0x24:
            self.pin = new
        return Answer()


class PinPad(CcidFunction):
    """A reader whose keys are pressed as ``script`` says. The script begins again with each
    power-up."""

    thinks_s = THINKS_S

    def __init__(
        self, descriptor: SmartCardDescriptor, script: Sequence[Entry] = SCRIPT, **options: object
    ) -> None:
        super().__init__(descriptor, [PinCard()], **options)  # type: ignore[arg-type]
        self._script = script
        self._entries: list[Entry] = []

    def _carry_out(self, slot: VirtualSlot, command: Command, now: float) -> tuple[Reply, float]:
        if isinstance(command, PC_to_RDR_IccPowerOn):
            self._entries = list(self._script)
        if isinstance(command, PC_to_RDR_Secure) and self.descriptor.bPINSupport:
            return self._enter(slot, command, now)
        return super()._carry_out(slot, command, now)

    def _enter(
        self, slot: VirtualSlot, command: PC_to_RDR_Secure, now: float
    ) -> tuple[Reply, float]:
        is_first = len(self._entries) == len(self._script)
        entry = self._entries.pop(0)
        if is_first:
            now += self.thinks_s
        if isinstance(entry, SlotError):
            raise Refused(entry, now)
        if len(entry) == 3 and entry[1] != entry[2]:
            return addressed(slot, command, RDR_to_PC_DataBlock(abData=MISMATCH)), now
        structure = command.abPINDataStructure
        assert isinstance(structure, PinVerification | PinModification)
        apdu = self._filled(structure, entry)
        is_block = (
            slot.protocol is Protocol.T1 and self.descriptor.exchange_level is ExchangeLevel.TPDU
        )
        if is_block:
            assert structure.bTeoPrologue[2] == len(apdu)
            apdu = structure.bTeoPrologue + apdu
            apdu += LRC[0](apdu)
        block = Block(bBWI=0, wLevelParameter=Level.WHOLE, abData=apdu)
        chain, data, due = Levels(self.descriptor).transfer(slot, block, now)
        said = RDR_to_PC_DataBlock(bChainParameter=chain, abData=data)
        return addressed(slot, command, said), due

    @staticmethod
    def _filled(structure: PinVerification | PinModification, pins: list[bytes]) -> bytes:
        """The command APDU with the PINs in it: whole bytes, left-aligned, ASCII."""
        assert structure.bmFormatString & 0x87 == 0x82
        apdu = bytearray(structure.abPINApdu)
        at = HEADER + (structure.bmFormatString >> 3 & 0x0F)
        if isinstance(structure, PinVerification):
            offsets = [at]
        else:
            offsets = [at + structure.bInsertionOffsetOld, at + structure.bInsertionOffsetNew]
        for offset, pin in zip(offsets, pins, strict=False):
            apdu[offset : offset + len(pin)] = pin
        return bytes(apdu)
