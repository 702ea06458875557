"""Replies matched with their commands, and what slots may still work on; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ccid.codec.messages import MESSAGE_HEADER, RDR_to_PC_SlotStatus
from ccid.codec.messages.headers import reply_header
from ccid.codes import CommandStatus, IccStatus, SlotError
from ccid.errors import CcidError, MalformedMessage, ProtocolError
from ccid.iso7816.apdu import SW_LENGTH

SLOT_STATUS = RDR_to_PC_SlotStatus.bMessageType


class RawReply(NamedTuple):
    """A reply, matched and undecoded. ``parameter`` is byte 9."""

    bMessageType: int
    bSeq: int
    bStatus: int
    bError: int
    parameter: int
    data: bytes

    def __repr__(self) -> str:
        """Without the data, which may hold a secret."""
        return (
            f"RawReply(bMessageType=0x{self.bMessageType:02X}, bSeq={self.bSeq}, "
            f"bStatus=0x{self.bStatus:02X}, bError=0x{self.bError:02X}, "
            f"parameter=0x{self.parameter:02X}, data=<{len(self.data)} bytes>)"
        )

    @property
    def icc_status(self) -> IccStatus:
        """bmICCStatus."""
        return IccStatus(self.bStatus & 0x03)

    @property
    def failed(self) -> bool:
        """bmCommandStatus says failed."""
        return self.bStatus >> 6 == CommandStatus.FAILED

    @property
    def is_busy(self) -> bool:
        """The slot did not begin the command: it is at another one, or between the two halves of
        an ABORT pair."""
        return self.failed and self.bError in (SlotError.CMD_SLOT_BUSY, SlotError.CMD_ABORTED)


def whole(
    reply: RawReply,
    failure: Callable[[RawReply], CcidError],
    more: Callable[[bytes, int], bytes],
) -> bytes:
    """The response APDU that ``reply`` brings, or begins.

    Raises:
        What ``failure`` makes of it: the command failed, or what came is no response APDU.
    """
    if reply.failed:
        raise failure(reply)
    data = more(reply.data, reply.parameter) if reply.parameter else reply.data
    if len(data) < SW_LENGTH:  # so do some readers answer when there is no card
        raise failure(reply)
    return data


def match(
    message: bytes | MalformedMessage, slot: int, count: int, reply_type: int, name: str
) -> RawReply | None:
    """``message`` as the reply to a command; None if it is a late reply, or a malformed one to
    another command.

    Args:
        message: The message, or what is wrong with it.
        slot: bSlot of the command.
        count: Its number; the low byte is bSeq.
        reply_type: bMessageType of the reply.
        name: The reader's, for errors.

    Raises:
        ProtocolError: Right slot and number, and a reply to another kind of command.
        MalformedMessage: It is no message; or bmCommandStatus has its reserved value.
    """
    if isinstance(message, MalformedMessage):
        if message.slot in (slot, None) and message.bSeq in (count & 0xFF, None):
            raise message
        return None
    kind, _, bSlot, bSeq, bStatus, bError, parameter = reply_header.unpack_from(message)
    if bSlot != slot or bSeq != count & 0xFF:
        return None
    status = bStatus >> 6
    if kind != reply_type and not (kind == SLOT_STATUS and status == CommandStatus.FAILED):
        if count == 0:  # left behind by an earlier user of the reader
            return None
        raise ProtocolError(
            f"{name}: bMessageType 0x{kind:02X} answers command {bSeq} of slot {slot}; "
            f"0x{reply_type:02X} would be right",
            reader=name,
            slot=slot,
            bSeq=bSeq,
            bStatus=bStatus,
            bError=bError,
        )
    if status == CommandStatus.RFU:
        raise MalformedMessage(
            f"{name}: bStatus 0x{bStatus:02X} has the reserved bmCommandStatus 3",
            field="bStatus",
            reader=name,
            slot=slot,
            bSeq=bSeq,
        )
    return RawReply(kind, bSeq, bStatus, bError, parameter, message[MESSAGE_HEADER:])


class Past:
    """What slots may still work on.

    Attributes:
        given_up: Slots that may work on a command that no thread waits for any more.
        half_aborted: Slots that got the first half of an ABORT pair, and perhaps not the second.
    """

    def __init__(self) -> None:
        self.given_up: set[int] = set()
        self.half_aborted: set[int] = set()
        self._heard: set[int] = set()
        """Slots that have answered: whatever they work on since then, this process began."""

    def answered(self, slot: int) -> None:
        """``slot`` took a command: it works on nothing else."""
        self.aborted(slot)
        self._heard.add(slot)

    def aborted(self, slot: int) -> None:
        """The ABORT pair was exchanged."""
        self.given_up.discard(slot)
        self.half_aborted.discard(slot)

    def is_in_the_way(self, slot: int, reply: RawReply) -> bool:
        """True if ``slot`` did not begin a command because it works on one that was given up, here
        or by an earlier user of the reader, or waits for the second half of an ABORT pair."""
        unheard = slot not in self._heard
        match reply.bError if reply.failed else None:
            case SlotError.CMD_SLOT_BUSY:  # perhaps with another slot
                return unheard or bool(self.given_up)
            case SlotError.CMD_ABORTED:
                return unheard or slot in self.half_aborted
        return False

    def may_be_busy(self, slot: int) -> bool:
        """True if ``slot`` may work on a command that no thread of this process waits for."""
        return slot not in self._heard or slot in self.given_up
