"""Commands go out, replies come back: the conversation on one CCID interface.

Theory of operation. The host writes one command on bulk-OUT and the reader answers it with one
reply on bulk-IN that repeats bSlot and bSeq (USB CCID rev 1.1, 6). bSeq counts all commands of
the interface, whatever their slot: a real reader ignores a number that repeats. A reply that
matches in slot and number is ours; anything else is the late answer to something given up and
is dropped, and so is an empty transfer (the stray end of a message that filled its last packet).
Instead of the reply a reader may ask for more time, as often as it needs (bmCommandStatus 2),
each time with a multiplier of the time it was given.

A wait is cut into slices, so that Ctrl-C and :meth:`Pipe.cancel` are heard while a card thinks
for minutes. A command that is given up is left to the reader; if that then says it is busy, the
ABORT pair (5.3.1 and 6.1.13) puts it in order.

Most readers work on one command at a time: one lock, :class:`Pipe`. Where commands to several
slots overlap there is :class:`ccid.shared_pipe.SharedPipe`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from ccid.card_state import Power, Session
from ccid.codes import CommandStatus, IccStatus, SlotError
from ccid.conversation import SLICE_MS, Conversation, Operation
from ccid.descriptors import ClassControl
from ccid.errors import (
    CardRemoved,
    CcidError,
    CommandCancelled,
    MalformedMessage,
    ProtocolError,
    TransportError,
    TransportTimeout,
)
from ccid.inbox import first_read, read_message, whole_message
from ccid.iso7816.apdu import SW_LENGTH, Bytes
from ccid.messages import (
    HEADER_LENGTH,
    PC_to_RDR_Abort,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_Secure,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_T0APDU,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_SlotStatus,
)
from ccid.messages.headers import DATA_BLOCK, XFR_BLOCK, reply_header, xfr_block_header
from ccid.transport import OUT_CAPACITY, Transport

WRITE_TIMEOUT_MS = 5000
"""A bulk-OUT transfer that takes longer has failed."""
ABORT_S = 2.0
"""How long the ABORT pair may take, or a question about the slot."""
REMOVED_S = 0.3
"""How long a reader may still answer a command to a card that it says was taken out."""
LOST_S = 1.0
"""How long a reader may take to answer at once, after it told that a card moved: some drop all that
they have to say when one does."""
AT_ONCE = frozenset(
    command.bMessageType for command in (PC_to_RDR_GetSlotStatus, PC_to_RDR_IccPowerOff)
)
"""Commands that are answered at once, and can be sent again."""
TO_CARDS = frozenset(
    command.bMessageType
    for command in (
        PC_to_RDR_XfrBlock,
        PC_to_RDR_Secure,
        PC_to_RDR_SetParameters,
        PC_to_RDR_T0APDU,
        PC_to_RDR_SetDataRateAndClockFrequency,
    )
)
"""Commands that mean the card that was powered, and no other."""
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


class Pipe(Conversation):
    """The conversation with a reader that works on one command at a time.

    Args:
        transport: The open interface. The pipe does not close it.
        **common: As for :class:`~ccid.conversation.Conversation`.
    """

    def __init__(self, transport: Transport, **common: Any) -> None:
        self._given_up: set[int] = set()
        super().__init__(transport, **common)

    # One command ------------------------------------------------------------------------------

    def transact(
        self,
        slot: int,
        bMessageType: int,
        specific: bytes,
        data: Bytes,
        reply_type: int,
        timeout_s: float,
        session: Session | None = None,
    ) -> RawReply:
        """Send a command and return its reply, failed or not.

        Args:
            slot: bSlot.
            bMessageType: The command's.
            specific: Bytes 7 to 9 of its header.
            data: What follows the header.
            reply_type: bMessageType of the reply. A SlotStatus that says "failed" is taken too:
                so a reader answers a command that it does not know.
            timeout_s: Seconds to wait, before any extension the reader asks for.
            session: The power-up that a command to a card is for; None for the last one.

        Raises:
            CardRemoved, CardReset: The reader said so, before or meanwhile.
            CommandCancelled: :meth:`cancel` was called meanwhile.
            MalformedMessage, ProtocolError: The reply is no reply, or one to something else.
            TransportTimeout: No reply in time. And all that the transport raises.
        """
        with self.turn(slot):
            self.proceed(slot)
            if bMessageType in TO_CARDS:
                self.transport.take_events()
                self.look(slot, session)
            try:
                reply = self._once(slot, bMessageType, specific, data, reply_type, timeout_s)
                if self._abandoned(slot, reply):
                    self.abort(slot)
                    reply = self._once(slot, bMessageType, specific, data, reply_type, timeout_s)
                self._given_up.discard(slot)
            finally:
                self.busy_slot = -1
        return reply

    def _once(
        self,
        slot: int,
        bMessageType: int,
        specific: bytes,
        data: Bytes,
        reply_type: int,
        timeout_s: float,
    ) -> RawReply:
        if bMessageType in AT_ONCE:
            heard = self.cards.heard
            count = self._write(slot, bMessageType, specific, data)
            with suppress(CardRemoved):
                return self._await(slot, count, reply_type, timeout_s, heard=heard)
        count = self._write(slot, bMessageType, specific, data)
        return self._await(slot, count, reply_type, timeout_s)

    def _ask(self, slot: int) -> None:
        kind = PC_to_RDR_GetSlotStatus.bMessageType
        reply = self.transact(slot, kind, bytes(3), b"", SLOT_STATUS, ABORT_S)
        self.cards.saw(slot, reply.icc_status)

    def _write(self, slot: int, bMessageType: int, specific: bytes, data: Bytes) -> int:
        """Send a command and return its number."""
        size = HEADER_LENGTH + len(data)
        if size > OUT_CAPACITY:
            raise MalformedMessage(
                f"{self.name}: {len(data)} bytes of data; a message holds "
                f"{OUT_CAPACITY - HEADER_LENGTH}",
                field="dwLength",
                reader=self.name,
                slot=slot,
            )
        with self.lock:
            self.count = count = self.count + 1
            self.busy_slot = slot
            out = self.transport.out
            xfr_block_header.pack_into(out, 0, bMessageType, len(data), slot, count & 0xFF, 0, 0)
            out[7:HEADER_LENGTH] = specific
            out[HEADER_LENGTH:size] = data
            try:
                self.transport.send(size, WRITE_TIMEOUT_MS)
            except BaseException:  # the reader may have got it
                self.give_up(slot)
                raise
        return count

    def _await(
        self,
        slot: int,
        count: int,
        reply_type: int,
        timeout_s: float,
        message: bytes | None = None,
        heard: int | None = None,
    ) -> RawReply:
        """Wait for the reply to command ``count``, with all the extensions it asks for.

        Args:
            message: One that came already.
            heard: How many notifications had come before a command that is answered at once:
                after another one its reply counts as lost soon.

        Raises:
            CardRemoved: The reader said so, and no reply came since then; or it counts as lost.
        """
        operation, cut_off = self._current(slot, count), math.inf
        deadline = self.deadlines[slot] = self._by(operation, timeout_s)
        try:
            while True:
                if message is None:
                    if self._is_cancelled(slot, operation):
                        raise self._cancel(slot, count)
                    message = self._next(slot, count, min(deadline, cut_off))
                reply = None if message is None else self._match(message, slot, count, reply_type)
                message = None
                if reply is not None and reply.bStatus >> 6 != CommandStatus.TIME_EXTENSION:
                    return reply
                now = time.monotonic()
                self.transport.take_events()
                if heard is not None:
                    if self.cards.heard != heard:
                        cut_off = min(cut_off, now + LOST_S)
                elif self.cards[slot].power is Power.REMOVED:
                    cut_off = min(cut_off, now + REMOVED_S)
                if now >= cut_off:
                    raise self.card_removed(slot, bSeq=count & 0xFF)
                if reply is not None:
                    longer_s = timeout_s * max(1, reply.bError)
                    deadline = self.deadlines[slot] = self._by(operation, longer_s)
                elif now >= deadline:
                    raise self._timeout(slot, count, now - operation.began)
        except BaseException:
            self.give_up(slot)
            raise
        finally:
            self.deadlines[slot] = time.monotonic()  # what is waited for from now on is another's

    @staticmethod
    def _by(operation: Operation, timeout_s: float) -> float:
        """When a wait of ``timeout_s`` is over, at the end of the operation at the latest."""
        deadline = time.monotonic() + timeout_s
        return deadline if operation.until is None else min(deadline, operation.until)

    def _match(self, message: bytes, slot: int, count: int, reply_type: int) -> RawReply | None:
        """``message`` as the reply to command ``count``; None, and counted, if it is a late one.

        Raises:
            ProtocolError: Right slot and number, and a reply to another kind of command.
            MalformedMessage: bmCommandStatus has its reserved value.
        """
        kind, _, bSlot, bSeq, bStatus, bError, parameter = reply_header.unpack_from(message)
        if bSlot != slot or bSeq != count & 0xFF:
            self.stale += 1
            return None
        status = bStatus >> 6
        if kind != reply_type and not (kind == SLOT_STATUS and status == CommandStatus.FAILED):
            if count == 0:  # left behind by an earlier user of the reader
                self.stale += 1
                return None
            raise ProtocolError(
                f"{self.name}: bMessageType 0x{kind:02X} answers command {bSeq} of slot {slot}; "
                f"0x{reply_type:02X} would be right",
                reader=self.name,
                slot=slot,
                bSeq=bSeq,
                bStatus=bStatus,
                bError=bError,
            )
        if status == CommandStatus.RFU:
            raise MalformedMessage(
                f"{self.name}: bStatus 0x{bStatus:02X} has the reserved bmCommandStatus 3",
                field="bStatus",
                reader=self.name,
                slot=slot,
                bSeq=bSeq,
            )
        return RawReply(kind, bSeq, bStatus, bError, parameter, message[HEADER_LENGTH:])

    # Reading ----------------------------------------------------------------------------------

    def _next(self, slot: int, count: int, deadline: float) -> bytes | None:
        """A whole message, for whatever command; None if none came for a slice of time."""
        return self._read(deadline)

    def _read(self, deadline: float) -> bytes | None:
        """One message; None after a slice of time without, or an empty transfer."""
        left_ms = int((deadline - time.monotonic()) * 1000)
        return read_message(self.transport, self.name, max(1, min(left_ms, SLICE_MS)))

    # Ending a command early -------------------------------------------------------------------

    def _cancel(self, slot: int, count: int) -> CommandCancelled:
        """Abort what is under way; the error to raise then."""
        try:
            self.abort(slot)
        except TransportError as error:
            self.give_up(slot)
            return self._cancellation(slot, count, f"; the reader did not take part in it: {error}")
        return self._cancellation(slot, count)

    def abort(self, slot: int) -> None:
        """The ABORT pair (USB CCID rev 1.1, 5.3.1 and 6.1.13): whatever ``slot`` does, ends.

        Both halves carry the same bSeq. What still comes of the aborted command is dropped.

        Raises:
            TransportStall: The reader does not know the request.
            TransportTimeout: It does not answer PC_to_RDR_Abort.
        """
        with self.lock:
            request = ClassControl.abort(self.interface, slot, (self.count + 1) & 0xFF)
            self.transport.control(request, int(ABORT_S * 1000))
            count = self._write(slot, PC_to_RDR_Abort.bMessageType, bytes(3), b"")
        self._await(slot, count, SLOT_STATUS, ABORT_S)
        self._given_up.discard(slot)

    # The path of every APDU -------------------------------------------------------------------

    def quick(
        self,
        slot: int,
        patience_s: Callable[[Bytes], float],
        failure: Callable[[RawReply], CcidError],
        more: Callable[[bytes, int], bytes],
        session: Session | None = None,
    ) -> Callable[[Bytes], bytes]:
        """A function that sends one XfrBlock (bBWI and wLevelParameter 0) and returns abData.

        One bulk-OUT, one bulk-IN, and as little Python between as the checks allow: message
        type, slot, number, status and length of the reply are all looked at. Whatever is not
        plain success at once goes the long way round, :meth:`_await`. The transport is looked
        up once the lock is held: a trace may have begun or ended, or the reader been closed,
        while this thread waited for its turn.

        Args:
            slot: bSlot.
            patience_s: How many seconds to wait for the reply to such a block, before extensions.
            failure: Makes the error that a failed reply, or one too short, raises.
            more: Called with abData and bChainParameter where that is not 0; returns the whole.
            session: The power-up that the blocks are for; None for any.
        """
        out, inp = self.transport.out, self.transport.inp
        pack, unpack = xfr_block_header.pack_into, reply_header.unpack_from
        first = first_read(self.transport.packet_size)
        signs = () if session is None else session.signs

        def transmit(data: Bytes) -> bytes:
            with self.lock:
                self.transport.take_events()
                if signs:
                    self.look(slot, session)
                self.count = count = self.count + 1
                self.busy_slot = slot
                n = len(data)
                pack(out, 0, XFR_BLOCK, n, slot, count & 0xFF, 0, 0)
                n += HEADER_LENGTH
                out[HEADER_LENGTH:n] = data
                try:
                    self.transport.send(n, WRITE_TIMEOUT_MS)
                except BaseException:  # the reader may have got it
                    self.give_up(slot)
                    raise
                try:
                    got = self.transport.receive(0, first, SLICE_MS)
                except TransportTimeout:
                    got = 0
                except BaseException:
                    self.give_up(slot)
                    raise
                if got >= HEADER_LENGTH + SW_LENGTH:
                    kind, length, bSlot, bSeq, bStatus, _, chain = unpack(inp)
                    end = HEADER_LENGTH + length
                    if (
                        kind == DATA_BLOCK
                        and bSeq == count & 0xFF
                        and bSlot == slot
                        and bStatus == 0
                        and chain == 0
                        and end == got
                    ):
                        self.busy_slot = -1
                        return inp[HEADER_LENGTH:end].tobytes()
                reply = self._late(slot, count, data, got, patience_s(data))
                return whole(reply, failure, more)

        return transmit

    def _late(self, slot: int, count: int, data: Bytes, got: int, timeout_s: float) -> RawReply:
        """The rest of :meth:`quick` when the first transfer was not simply the reply."""
        try:
            message = whole_message(self.transport, self.name, got) if got else None
            reply = self._await(slot, count, DATA_BLOCK, timeout_s, message)
            if self._abandoned(slot, reply):
                self.abort(slot)
                reply = self._once(slot, XFR_BLOCK, bytes(3), data, DATA_BLOCK, timeout_s)
            self._given_up.discard(slot)
            return reply
        finally:
            self.busy_slot = -1

    # Commands given up ------------------------------------------------------------------------

    def give_up(self, slot: int) -> None:
        """Note that ``slot`` may still be at something that nobody waits for any more."""
        self._given_up.add(slot)

    def _abandoned(self, slot: int, reply: RawReply) -> bool:
        """True if the reader is busy with something that was given up."""
        return reply.failed and reply.bError == SlotError.CMD_SLOT_BUSY and slot in self._given_up
