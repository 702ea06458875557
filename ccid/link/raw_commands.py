"""Commands as a pipe sends them, undecoded, and what it notes while one is under way; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ccid.iso7816.apdu import Bytes

if TYPE_CHECKING:
    from ccid.link.conversation import Operation


class RawCommand(NamedTuple):
    """A command to one slot, without its number.

    Attributes:
        slot: bSlot.
        bMessageType: The command's.
        specific: Bytes 7 to 9 of its header.
        data: What follows the header.
        reply_type: bMessageType of the reply. A SlotStatus that says "failed" is taken too: so a
            reader answers a command that it does not know.
        timeout_s: Seconds to wait for the reply, before any extension the reader asks for.
    """

    slot: int
    bMessageType: int
    specific: bytes
    data: Bytes
    reply_type: int
    timeout_s: float

    def __repr__(self) -> str:
        """Without the data, which may hold a secret."""
        return (
            f"RawCommand(slot={self.slot}, bMessageType=0x{self.bMessageType:02X}, "
            f"specific={self.specific.hex()}, data=<{len(self.data)} bytes>, "
            f"reply_type=0x{self.reply_type:02X}, timeout_s={self.timeout_s})"
        )


@dataclass(slots=True, eq=False)
class UnderWay:
    """A command that was sent and has no reply yet.

    Attributes:
        command: The command.
        count: Its number. bSeq is the low byte.
        operation: The operation that it is part of.
        heard: For a command that is answered at once: how many notifications had come before it.
            After another one the reply counts as lost soon. None for any other command.
    """

    command: RawCommand
    count: int
    operation: Operation
    heard: int | None = None

    @property
    def slot(self) -> int:
        """bSlot."""
        return self.command.slot
