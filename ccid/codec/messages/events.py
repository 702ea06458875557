"""The event messages on interrupt-IN (USB CCID rev 1.1, 6.3)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from ccid.codec.declaration import Declared, declared, wire
from ccid.codec.layouts import Byte, GreedyBytes
from ccid.errors import MalformedMessage


class SlotChange(NamedTuple):
    """The two bits of one slot in bmSlotICCState: a card is present; the state has changed."""

    slot: int
    present: bool
    changed: bool


@declared
class RDR_to_PC_NotifySlotChange(Declared):
    """6.3.1: a card was inserted or removed. Two bits for each slot, four slots in each byte, low
    bits first."""

    error = MalformedMessage
    bMessageType: ClassVar[int] = 0x50

    bmSlotICCState: bytes = wire(GreedyBytes)

    def build(self) -> bytes:
        """The bytes on the wire."""
        return bytes([self.bMessageType]) + self.bmSlotICCState

    @classmethod
    def of(cls, slots: list[tuple[bool, bool]]) -> RDR_to_PC_NotifySlotChange:
        """The message for slots 0, 1, … given as (present, changed)."""
        state = bytearray((len(slots) + 3) // 4)
        for index, (present, changed) in enumerate(slots):
            state[index // 4] |= (present | changed << 1) << 2 * (index % 4)
        return cls(bmSlotICCState=bytes(state))

    def slots(self, count: int) -> list[SlotChange]:
        """The bits of slots 0 to ``count`` - 1. A slot beyond the end of the message is left
        out."""
        known = min(count, 4 * len(self.bmSlotICCState))
        bits = [self.bmSlotICCState[i // 4] >> 2 * (i % 4) for i in range(known)]
        return [SlotChange(i, bool(b & 1), bool(b & 2)) for i, b in enumerate(bits)]


@declared
class RDR_to_PC_HardwareError(Declared):
    """6.3.2: a hardware error. Bit 0 of bHardwareErrorCode means overcurrent."""

    error = MalformedMessage
    bMessageType: ClassVar[int] = 0x51

    bSlot: int = wire(Byte, default=0)
    bSeq: int = wire(Byte, default=0)
    bHardwareErrorCode: int = wire(Byte, default=0)

    def build(self) -> bytes:
        """The bytes on the wire."""
        return bytes([self.bMessageType]) + Declared.build(self)


def parse_event(data: bytes) -> RDR_to_PC_NotifySlotChange | RDR_to_PC_HardwareError:
    """The event that one interrupt-IN transfer encodes.

    Raises:
        MalformedMessage: ``data`` are no event; ``field`` names the wrong field.
    """
    match data[:1]:
        case b"\x50":
            return RDR_to_PC_NotifySlotChange.parse(data[1:])
        case b"\x51":
            return RDR_to_PC_HardwareError.parse(data[1:])
        case b"":
            what = "an empty transfer"
        case _:
            what = f"bMessageType 0x{data[0]:02X}"
    raise MalformedMessage(f"{what} is no event of a reader", field="bMessageType")
