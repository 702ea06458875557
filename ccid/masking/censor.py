"""The censor: CCID messages for a trace, with PINs and keys masked. Pure.

No caller has to mark an exchange as secret: the censor follows the messages. A masked message keeps
its length; each secret byte becomes :data:`MASK`. The epilogue of a T=1 block is masked with the
data, because an LRC would reveal a digit.

Theory of operation. The watches of :mod:`~.exchange_watch` judge the blocks, by the rules of
:mod:`ccid.masking.secret_commands`: a block that is known to carry no secret is shown, any other
block is masked. Of PC_to_RDR_Secure only bPINOperation is shown. An Escape may carry anything, an
APDU as well: only an Escape of at most two bytes (a code and a parameter) is shown, with its
answer. Of other commands and replies the bytes that the specification defines are shown.

A reply is judged by the command with the same bSlot and bSeq. So a late answer to a secret command
is masked, whatever was sent after the command. A command has one reply. The data of a reply are
masked if

- no command waits for the reply: it comes twice, or before its command, or the command passed
  before the trace began;
- the bMessageType of the reply does not belong to the command;
- a secret command with the same bSeq was not answered (bSeq wraps at 255);
- the secret command before was not answered, and the reply may belong to that command.

A transfer that is no message is masked completely: it may be a part of a message whose header was
lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ccid.codec.messages import (
    COMMANDS,
    MESSAGE_HEADER,
    REPLIES,
    PC_to_RDR_Escape,
    PC_to_RDR_GetParameters,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_ResetParameters,
    PC_to_RDR_Secure,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_DataBlock,
    RDR_to_PC_DataRateAndClockFrequency,
    RDR_to_PC_Escape,
    RDR_to_PC_HardwareError,
    RDR_to_PC_NotifySlotChange,
    RDR_to_PC_Parameters,
    RDR_to_PC_SlotStatus,
)
from ccid.codes import Chain, CommandStatus, PinOperation
from ccid.iso7816.atr import DIRECT, INVERSE, MAX_ATR
from ccid.masking.exchange_watch import (
    MASK,
    ApduWatch,
    Framing,
    T0Watch,
    T1Watch,
    Watch,
    could_be_sw,
)

__all__ = ["MASK", "Censor", "all_masked", "masked", "notification"]

POWER_ON = PC_to_RDR_IccPowerOn.bMessageType
XFR_BLOCK = PC_to_RDR_XfrBlock.bMessageType
SECURE = PC_to_RDR_Secure.bMessageType
ESCAPE = PC_to_RDR_Escape.bMessageType
DATA_BLOCK = RDR_to_PC_DataBlock.bMessageType
SLOT_STATUS = RDR_to_PC_SlotStatus.bMessageType
PARAMETERS = RDR_to_PC_Parameters.bMessageType
DATA_RATE = RDR_to_PC_DataRateAndClockFrequency.bMessageType
NOTIFY_SLOT_CHANGE = RDR_to_PC_NotifySlotChange.bMessageType
HARDWARE_ERROR = RDR_to_PC_HardwareError.bMessageType

ANSWERS: dict[int, int] = {
    POWER_ON: DATA_BLOCK,
    XFR_BLOCK: DATA_BLOCK,
    SECURE: DATA_BLOCK,
    ESCAPE: RDR_to_PC_Escape.bMessageType,
    PC_to_RDR_SetParameters.bMessageType: PARAMETERS,
    PC_to_RDR_GetParameters.bMessageType: PARAMETERS,
    PC_to_RDR_ResetParameters.bMessageType: PARAMETERS,
    PC_to_RDR_SetDataRateAndClockFrequency.bMessageType: DATA_RATE,
}
"""bMessageType of the reply by bMessageType of the command (USB CCID rev 1.1, 6.1); SlotStatus for
all other commands."""
SIZES: dict[int, int] = {
    PC_to_RDR_SetParameters.bMessageType: 7,
    PC_to_RDR_SetDataRateAndClockFrequency.bMessageType: 8,
    PARAMETERS: 7,
    DATA_RATE: 8,
}
"""Greatest number of data bytes that the specification defines for commands and replies with data
of a fixed form."""
PLAIN_ESCAPE = 2
"""Greatest number of bytes of an Escape that cannot hold a secret."""

WATCHES: dict[Framing, type[Watch]] = {
    Framing.APDU: ApduWatch,
    Framing.T0: T0Watch,
    Framing.T1: T1Watch,
}
"""The class of the watch for each framing."""


class Sent(Enum):
    """Kind of a command, for the judgement of its reply."""

    PLAIN = "nothing secret, and no block to the card"
    BLOCK = "a block without a secret"
    SECRET = "a block of a secret exchange, or an Escape"
    SECURE = "Secure"
    DOUBT = "one whose answer cannot be told from that of a secret one"

    @property
    def is_secret(self) -> bool:
        """True if the reply may hold a secret."""
        return self in (Sent.SECRET, Sent.SECURE, Sent.DOUBT)


@dataclass(slots=True)
class _Command:
    """A command without a reply so far.

    Attributes:
        sent: Kind of the command.
        kind: bMessageType.
        owed: Number of earlier secret commands with the same bSeq that have no reply either.
    """

    sent: Sent
    kind: int
    owed: int = 0


@dataclass(slots=True)
class _Slot:
    """The state of a slot.

    Attributes:
        last: bSeq of the last command; None before the first.
        waits: True if the last command was an XfrBlock without a reply so far.
        owes: True if a secret command got no reply.
        framings: The framings that the blocks may have.
        watches: The watches that follow the blocks, one for each framing.
    """

    last: int | None = None
    waits: bool = False
    owes: bool = False
    framings: tuple[Framing, ...] = ()
    watches: list[Watch] = field(default_factory=list)


class Censor:
    """Masks secrets in the messages of one reader. The caller passes the messages in order.

    Args:
        numbered: True if commands have a bSeq (CCID). False: a reply belongs to the last command,
            which may have several replies (ICCD).
    """

    def __init__(self, numbered: bool = True) -> None:
        self.numbered = numbered
        self._slots: dict[int, _Slot] = {}
        self._sent: dict[tuple[int, int], _Command] = {}

    # Commands ---------------------------------------------------------------------------------

    def command(self, message: bytes, framings: tuple[Framing, ...]) -> bytes:
        """A command, masked.

        Args:
            message: The whole message.
            framings: The framings that a block in the message may have.
        """
        if len(message) < MESSAGE_HEADER:
            return all_masked(message)
        kind, index, bSeq = message[0], message[5], message[6]
        slot = self._slots.setdefault(index, _Slot())
        if kind == POWER_ON or slot.framings != framings:
            slot.framings = framings
            slot.watches = [WATCHES[framing]() for framing in framings]
            slot.waits = False
        if slot.waits:
            for watch in slot.watches:
                watch.failed()
        shown, sent = self._judge(slot, message)
        slot.waits = kind == XFR_BLOCK
        command = _Command(sent, kind)
        if self.numbered:
            slot.owes |= slot.last is not None and self._owed(index, slot.last) > 0
            command.owed = self._owed(index, bSeq)
            for other in self._slots.keys() - {index} if sent.is_secret else ():
                if (other, bSeq) in self._sent:
                    self._sent[other, bSeq].sent = Sent.DOUBT
        slot.last = bSeq
        self._sent[index, bSeq] = command
        return shown

    def _owed(self, slot: int, bSeq: int) -> int:
        """Number of secret commands of this slot and bSeq without a reply."""
        command = self._sent.get((slot, bSeq))
        if command is None:
            return 0
        return command.owed + 1 if command.sent.is_secret else command.owed

    def _judge(self, slot: _Slot, message: bytes) -> tuple[bytes, Sent]:
        """A command, masked, and its kind."""
        kind, data = message[0], message[MESSAGE_HEADER:]
        if kind == XFR_BLOCK:
            level = int.from_bytes(message[8:MESSAGE_HEADER], "little")
            parts = [watch.out(data, level) for watch in slot.watches]
            secret = any(watch.secret for watch in slot.watches)
            shown = message[:MESSAGE_HEADER] + _masked_by_any(data, parts)
            return shown, Sent.SECRET if secret else Sent.BLOCK
        if kind == SECURE:
            for watch in slot.watches:
                watch.secure()
            return masked(message, 1 if data[:1] in OPERATIONS else 0, 0), Sent.SECURE
        if kind == ESCAPE:
            if len(data) <= PLAIN_ESCAPE:
                return message, Sent.PLAIN
            return masked(message, 0, 0), Sent.SECRET
        if kind in COMMANDS:
            return masked(message, SIZES.get(kind, 0), 0), Sent.PLAIN
        return masked(message, 0, 0), Sent.SECRET

    # Replies ----------------------------------------------------------------------------------

    def reply(self, message: bytes) -> bytes:
        """A reply, masked.

        Args:
            message: The whole message.
        """
        if not message:
            return message
        if len(message) < MESSAGE_HEADER:
            return all_masked(message)
        kind, index, bSeq, status = message[0], message[5], message[6], message[7] >> 6
        slot = self._slots.get(index) or _Slot()
        command = self._answered(index, bSeq, status)
        if command is None:
            size = MESSAGE_HEADER + int.from_bytes(message[1:5], "little")
            is_reply = kind in REPLIES and len(message) == size
            return masked(message, 0, 0) if is_reply else all_masked(message)
        is_last = bSeq == slot.last
        if is_last and status == CommandStatus.FAILED:
            slot.waits = False
            for watch in slot.watches:
                watch.failed()
        if kind not in (ANSWERS.get(command.kind, SLOT_STATUS), SLOT_STATUS):
            return masked(message, 0, 0)
        if kind != DATA_BLOCK:
            size = SIZES.get(kind, 0)
            if kind == RDR_to_PC_Escape.bMessageType and command.sent is Sent.PLAIN:
                size = len(message)
            return masked(message, 0 if command.sent.is_secret else size, 0)
        return self._block(slot, message, command, is_last)

    def _block(self, slot: _Slot, message: bytes, command: _Command, is_last: bool) -> bytes:
        """RDR_to_PC_DataBlock, the reply to ``command``, masked."""
        status, chain, data = message[7] >> 6, message[9], message[MESSAGE_HEADER:]
        owes = slot.owes and not command.sent.is_secret
        if status != CommandStatus.TIME_EXTENSION:
            slot.owes = False
        if command.kind == POWER_ON:
            is_atr = len(data) <= MAX_ATR and data[:1] in (bytes((DIRECT,)), bytes((INVERSE,)))
            return masked(message, len(data) if is_atr else 0, 0)
        if command.sent is Sent.SECURE:
            return masked(message, 0, tail(data, chain))
        in_doubt = owes or command.sent is Sent.DOUBT
        if not is_last or status != CommandStatus.PROCESSED:
            is_plain = command.sent is Sent.BLOCK and not in_doubt
            return message if is_plain else masked(message, 0, 0)
        slot.waits = False
        parts = [watch.back(data, chain) for watch in slot.watches]
        if in_doubt:
            return masked(message, 0, 0)
        return message[:MESSAGE_HEADER] + _masked_by_any(data, parts)

    def _answered(self, slot: int, bSeq: int, status: int) -> _Command | None:
        """The command that a reply answers; None if no command waits for the reply."""
        command = self._sent.get((slot, bSeq))
        if command is None or not self.numbered:
            return command
        is_last = status != CommandStatus.TIME_EXTENSION
        if command.owed:  # the reply may answer any of these commands; the others still wait
            if is_last:
                self._sent[slot, bSeq] = _Command(Sent.DOUBT, command.kind, command.owed - 1)
            return _Command(Sent.DOUBT, command.kind)
        if is_last:
            del self._sent[slot, bSeq]
        return command


OPERATIONS = frozenset(bytes((operation,)) for operation in PinOperation)
"""The values of bPINOperation, each as one byte."""
EVENTS = frozenset((bytes((NOTIFY_SLOT_CHANGE,)), bytes((HARDWARE_ERROR,)), b""))
"""The first byte of the event messages (USB CCID rev 1.1, 6.3); empty for an empty transfer."""


def notification(message: bytes) -> bytes:
    """A transfer from the interrupt endpoint: shown if it is an event message (USB CCID rev 1.1,
    6.3), else masked."""
    return message if message[:1] in EVENTS else all_masked(message)


def _masked_by_any(data: bytes, shown: list[bytes]) -> bytes:
    """``data``, with each byte masked that any element of ``shown`` masks."""
    if len(shown) == 1:
        return shown[0]
    return bytes(
        byte if all(one[i] == byte for one in shown) else MASK for i, byte in enumerate(data)
    )


def tail(data: bytes, bChainParameter: int) -> int:
    """Number of bytes at the end of a block from the card that are SW1 SW2: 0 or 2."""
    is_last = bChainParameter in (Chain.WHOLE, Chain.ENDS)
    return 2 if is_last and could_be_sw(data[-2:]) else 0


def all_masked(message: bytes) -> bytes:
    """``message`` with all bytes masked."""
    return bytes([MASK]) * len(message)


def masked(message: bytes, head: int, tail: int) -> bytes:
    """``message`` with its data masked.

    Args:
        message: A message with a header of 10 bytes, which stays visible.
        head: Number of visible bytes at the start of the data.
        tail: Number of visible bytes at the end of the data.
    """
    hidden = len(message) - MESSAGE_HEADER - head - tail
    if hidden <= 0:
        return message
    start = MESSAGE_HEADER + head
    return message[:start] + bytes([MASK]) * hidden + message[start + hidden :]
