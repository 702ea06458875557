"""What a trace shows of an exchange that carries a PIN or a key. Pure.

Nobody has to say that an exchange is secret: the messages themselves are followed, as they pass,
by the watches of :mod:`~.watch`. Lengths stay; what may not be seen becomes :data:`MASK`. Check
bytes are masked with the data: from an LRC, a digit could be reckoned back.

A reply is judged by the command whose bSeq it repeats. So the late answer to a secret command is
masked, whatever was sent since; and so are the data of a reply to a command that passed before
the trace began.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ccid.codes import Chain, CommandStatus
from ccid.messages import (
    HEADER_LENGTH,
    PC_to_RDR_Escape,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_Secure,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_DataBlock,
    RDR_to_PC_Escape,
)
from ccid.quirks.vocabulary import TPDU_ESCAPE
from ccid.trace.watch import MASK, ApduWatch, Framing, T0Watch, T1Watch, Watch, carries_t1_block

__all__ = ["MASK", "Censor", "masked"]

POWER_ON = PC_to_RDR_IccPowerOn.bMessageType
XFR_BLOCK = PC_to_RDR_XfrBlock.bMessageType
SECURE = PC_to_RDR_Secure.bMessageType
DATA_BLOCK = RDR_to_PC_DataBlock.bMessageType
ESCAPE = PC_to_RDR_Escape.bMessageType
ESCAPE_REPLY = RDR_to_PC_Escape.bMessageType
BLOCK_AT = HEADER_LENGTH + len(TPDU_ESCAPE)
"""Where the T=1 block in an Escape begins (quirk ``tpdu-escape``)."""

WATCHES: dict[Framing, type[Watch]] = {
    Framing.APDU: ApduWatch,
    Framing.T0: T0Watch,
    Framing.T1: T1Watch,
}


class Sent(Enum):
    """What a command was."""

    PLAIN = "no block to the card"
    BLOCK = "a block without a secret"
    SECRET = "a block of a secret exchange"
    SECURE = "Secure"
    ESCAPED = "a T=1 block in an Escape"


@dataclass(slots=True)
class _Slot:
    """What is known of a slot.

    Attributes:
        sent: The commands that it was sent, by bSeq.
        last: bSeq of the last.
        waits: The last was a block and its reply did not come yet.
        framings: What its blocks may be.
        watches: Who follows them.
        escaped: Who follows the T=1 blocks in Escapes.
    """

    sent: dict[int, Sent] = field(default_factory=dict)
    last: int | None = None
    waits: bool = False
    framings: tuple[Framing, ...] = ()
    watches: list[Watch] = field(default_factory=list)
    escaped: Watch = field(default_factory=T1Watch)


class Censor:
    """Masks secrets in the messages of one reader, given in the order in which they pass."""

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}

    def command(self, message: bytes, framings: tuple[Framing, ...]) -> bytes:
        """A command as it may be seen.

        Args:
            message: All of it.
            framings: What its block may be, if it has one.
        """
        if len(message) < HEADER_LENGTH:
            return message
        kind, index, bSeq, data = message[0], message[5], message[6], message[HEADER_LENGTH:]
        slot = self._slots.setdefault(index, _Slot())
        if kind == POWER_ON or slot.framings != framings:
            slot.framings = framings
            slot.watches = [WATCHES[framing]() for framing in framings]
            slot.escaped = T1Watch()
            slot.waits = False
        slot.last = bSeq
        if slot.waits:
            for watch in slot.watches:
                watch.failed()
        slot.waits = kind == XFR_BLOCK
        if kind == SECURE:
            for watch in slot.watches:
                watch.secure()
            slot.sent[bSeq] = Sent.SECURE
            return masked(message, 1, 0)  # bPINOperation may be seen
        if kind == ESCAPE and carries_t1_block(data):
            slot.sent[bSeq] = Sent.ESCAPED
            slot.escaped.failed()  # it is a whole block, whatever came of the one before
            return message[:BLOCK_AT] + slot.escaped.out(message[BLOCK_AT:])
        if kind != XFR_BLOCK:
            slot.sent[bSeq] = Sent.PLAIN
            return message
        level = int.from_bytes(message[8:HEADER_LENGTH], "little")
        shown = [watch.out(data, level) for watch in slot.watches]
        secret = any(watch.secret for watch in slot.watches)
        slot.sent[bSeq] = Sent.SECRET if secret else Sent.BLOCK
        return message[:HEADER_LENGTH] + _least(data, shown)

    def reply(self, message: bytes) -> bytes:
        """A reply as it may be seen."""
        if len(message) > BLOCK_AT and message[0] == ESCAPE_REPLY:
            return self._escape_reply(message)
        if len(message) < HEADER_LENGTH or message[0] != DATA_BLOCK:
            return message
        bSeq, status, chain = message[6], message[7] >> 6, message[9]
        slot = self._slots.get(message[5]) or _Slot()
        sent = slot.sent.get(bSeq)
        if sent is Sent.SECURE:
            return masked(message, 0, tail(chain))
        if sent is Sent.PLAIN:
            return message
        if bSeq != slot.last or status != CommandStatus.PROCESSED:
            if bSeq == slot.last and status == CommandStatus.FAILED:
                slot.waits = False
                for watch in slot.watches:
                    watch.failed()
            return message if sent is Sent.BLOCK else masked(message, 0, 0)
        slot.waits = False
        data = message[HEADER_LENGTH:]
        shown = [watch.back(data, chain) for watch in slot.watches]
        return message[:HEADER_LENGTH] + _least(data, shown)

    def _escape_reply(self, message: bytes) -> bytes:
        """A reply to an Escape: what answers a T=1 block is one."""
        slot = self._slots.get(message[5]) or _Slot()
        if slot.sent.get(message[6]) is not Sent.ESCAPED:
            return message
        if message[6] != slot.last:
            return masked(message, len(TPDU_ESCAPE), 0)
        return message[:BLOCK_AT] + slot.escaped.back(message[BLOCK_AT:])


def _least(data: bytes, shown: list[bytes]) -> bytes:
    """``data``, masked where one of ``shown`` is."""
    if len(shown) == 1:
        return shown[0]
    return bytes(
        byte if all(one[i] == byte for one in shown) else MASK for i, byte in enumerate(data)
    )


def tail(bChainParameter: int) -> int:
    """How many bytes at the end of a block from the card are SW1 SW2."""
    return 2 if bChainParameter in (Chain.WHOLE, Chain.ENDS) else 0


def masked(message: bytes, head: int, tail: int) -> bytes:
    """``message`` with its data masked but for ``head`` bytes at the start and ``tail`` at the
    end of them."""
    hidden = len(message) - HEADER_LENGTH - head - tail
    if hidden <= 0:
        return message
    start = HEADER_LENGTH + head
    return message[:start] + bytes([MASK]) * hidden + message[start + hidden :]
