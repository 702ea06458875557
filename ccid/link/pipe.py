"""Commands go out, replies come back: the conversation on one CCID interface.

Theory of operation. The host writes one command on bulk-OUT. The reader answers with one reply on
bulk-IN that repeats bSlot and bSeq (USB CCID rev 1.1, 6). bSeq counts all commands of the
interface, whatever their slot: a real reader ignores a number that repeats. A reply that matches in
slot and number is the awaited one. Any other message is the late reply to a command given up, and
is dropped; so is an empty transfer (the end of a message that filled its last packet). Instead of
the reply a reader may ask for more time, as often as it needs (bmCommandStatus 2), each time with a
multiplier of the time it was given.

A wait is cut into slices, so that Ctrl-C and :meth:`Pipe.cancel` take effect while a card computes
for minutes. A command that is given up is left to the reader. If the reader is busy with it when
the next command comes, the ABORT pair (5.3.1 and 6.1.13) ends it. The same pair serves where a slot
is busy, or aborting, at its first command here: an earlier user of the reader died in the middle of
a command.

Most readers work on one command at a time: one lock, :class:`Pipe`. Where commands to several
slots overlap there is :class:`ccid.link.shared_pipe.SharedPipe`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ccid.codec.descriptors import ClassControl
from ccid.codec.messages import (
    MESSAGE_HEADER,
    PC_to_RDR_Abort,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_Secure,
    PC_to_RDR_SetDataRateAndClockFrequency,
    PC_to_RDR_SetParameters,
    PC_to_RDR_T0APDU,
    PC_to_RDR_XfrBlock,
)
from ccid.codec.messages.headers import reply_header, xfr_block_header
from ccid.codes import CommandStatus
from ccid.errors import (
    CardRemoved,
    CommandCancelled,
    MalformedMessage,
    ProtocolError,
    ReaderReset,
    SlotBusy,
    TransportError,
)
from ccid.link.block_ways import (
    ALL_SECRET,
    WRITE_TIMEOUT_MS,
    BlockWay,
    PatienceS,
    ShortWay,
)
from ccid.link.card_state import Power, Session
from ccid.link.conversation import Conversation, Operation, seconds
from ccid.link.inbox import Inbox, Patience
from ccid.link.locks import SLICE_MS
from ccid.link.raw_commands import RawCommand, UnderWay
from ccid.link.reply_matching import SLOT_STATUS, Past, RawReply, match
from ccid.link.wiping import wipe
from ccid.transport import OUT_CAPACITY, Transport

ABORT_S = 2.0
"""How long the ABORT pair may take in all, or a question about the slot; and how long a reader that
takes no part in the pair may stay busy."""
BUSY_S = 0.05
"""Pause before a reader that was busy gets its command again."""
LONGEST_WAIT_S = 1e6
"""The longest time-out: 11 days, a number that every clock function takes."""
LONGEST_S = 600.0
"""How long a reader may be silent after a time extension, whatever its multiplier: more than the
longest wait that a card of T=1 asks for, 255 times 1.4 s."""
REMOVED_S = 0.3
"""How long a reader may take to answer a command to a card, after it said that the card was
removed."""
LOST_S = 1.0
"""How long a reader may take for a reply that is due at once, after it told that a card moved: some
readers drop their pending replies then."""
TIME_EXTENSION = CommandStatus.TIME_EXTENSION << 6
"""bStatus below it ends a command."""
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


class Pipe(Conversation):
    """The conversation with a reader that works on one command at a time.

    Args:
        transport: The open interface. The pipe does not close it.
        slot_count: Number of slots.
        longest_message: dwMaxCCIDMessageLength; 0 if it is not known.
        **common: As for :class:`~ccid.link.conversation.Conversation`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        slot_count: int = 1,
        longest_message: int = 0,
        **common: Any,
    ) -> None:
        self.slot_count = slot_count
        self._past = Past()
        super().__init__(transport, **common)
        self.inbox = Inbox(self.name, longest_message)

    # One command ------------------------------------------------------------------------------

    def transact(self, command: RawCommand, session: Session | None = None) -> RawReply:
        """Send a command and return its reply, failed or not.

        Args:
            command: The command.
            session: The power-up that a command to a card is for; None for the last one.

        Raises:
            CardRemoved, CardReset: The reader said so, before or meanwhile.
            CommandCancelled: :meth:`cancel` was called meanwhile.
            ReaderReset: The reader was reset meanwhile, and the command can't be sent again.
            MalformedMessage, ProtocolError: The reply is malformed, or one to another command.
            SlotBusy: The slot works on a command of an earlier user, and does not end it.
            TransportTimeout: No reply in time. And all that the transport raises.
            ValueError, TypeError: ``timeout_s`` is no time.
        """
        slot, timeout_s = command.slot, command.timeout_s
        if type(timeout_s) is not float or not 0.0 <= timeout_s <= LONGEST_WAIT_S:
            timeout_s = min(seconds(timeout_s, "timeout_s"), LONGEST_WAIT_S)
            command = command._replace(timeout_s=timeout_s)
        with self.turn(slot):
            self.proceed(slot)
            if command.bMessageType in TO_CARDS:
                self.transport.take_events()
                self.look(slot, session)
            try:
                reply = self._once(command)
                if reply.failed and self._past.is_in_the_way(slot, reply):
                    reply = self._freed(command)
                self._past.answered(slot)
            finally:
                self.busy_slot = -1
        return reply

    def _once(self, command: RawCommand) -> RawReply:
        if command.bMessageType in AT_ONCE:
            with suppress(CardRemoved, ReaderReset):
                return self._exchange(command, self.cards.heard)
        return self._exchange(command)

    def _exchange(self, command: RawCommand, heard: int | None = None) -> RawReply:
        """Send a command and wait for its reply. Both transfers are under way at once.

        Args:
            command: The command.
            heard: As for :class:`~ccid.link.raw_commands.UnderWay`.
        """
        wait_ms = max(1, min(SLICE_MS, int(command.timeout_s * 1000)))
        size, transport = self._build(command), self.transport
        count, first_read = self.count, self.inbox.first_read(transport)
        began = time.monotonic()
        try:
            got = transport.exchange(
                size, first_read, self._until_ms(WRITE_TIMEOUT_MS), self._until_ms(wait_ms)
            )
            if got >= MESSAGE_HEADER:
                kind, length, bSlot, bSeq, bStatus, bError, parameter = reply_header.unpack_from(
                    transport.inp
                )
                if (
                    kind == command.reply_type
                    and bSeq == count & 0xFF
                    and bSlot == command.slot
                    and bStatus < TIME_EXTENSION
                    and MESSAGE_HEADER + length == got
                ):
                    data = transport.inp[MESSAGE_HEADER:got].tobytes()
                    wipe(transport.inp, got)
                    return RawReply(kind, bSeq, bStatus, bError, parameter, data)
        except BaseException:  # the reader may have got it
            self.give_up(command.slot)
            raise
        finally:
            wipe(transport.out, size)
        sent = UnderWay(command, count, self._current(command.slot, count), heard)
        return self._finish(sent, got, time.monotonic() - began)

    def _finish(self, sent: UnderWay, got: int, waited_s: float = 0.0) -> RawReply:
        """Wait for the reply to ``sent`` after a first transfer that was not simply the reply.

        Args:
            sent: The command under way.
            got: Bytes that the transfer brought.
            waited_s: Seconds that were waited for it, if it brought nothing.
        """
        if not got:
            return self._await(sent, waited_s=waited_s)
        try:
            message = self.inbox.whole(self.transport, got, self._patience(sent))
        except BaseException:
            self.give_up(sent.slot)
            raise
        return self._await(sent, message)

    def _ask(self, slot: int) -> None:
        kind = PC_to_RDR_GetSlotStatus.bMessageType
        command = RawCommand(slot, kind, bytes(3), b"", SLOT_STATUS, ABORT_S)
        reply = self.perform(slot, lambda: self.transact(command), ABORT_S)
        self.cards.saw(slot, reply.icc_status)

    def _build(self, command: RawCommand) -> int:
        """Number a command and put its message into ``out``; returns the message's length."""
        slot, data = command.slot, command.data
        size = MESSAGE_HEADER + len(data)
        self.check_length(slot, len(data))
        self.count = count = self.count + 1
        self.busy_slot = slot
        out = self.transport.out
        xfr_block_header.pack_into(
            out, 0, command.bMessageType, len(data), slot, count & 0xFF, 0, 0
        )
        out[7:MESSAGE_HEADER] = command.specific
        out[MESSAGE_HEADER:size] = data
        return size

    def _write(self, command: RawCommand) -> UnderWay:
        """Send a command."""
        with self.lock:
            size = self._build(command)
            try:
                self.transport.send(size, self._until_ms(WRITE_TIMEOUT_MS))
            except BaseException:  # the reader may have got it
                self.give_up(command.slot)
                raise
            finally:
                wipe(self.transport.out, size)
            count = self.count
        return UnderWay(command, count, self._current(command.slot, count))

    def check_length(self, slot: int, length: int) -> None:
        """Raise MalformedMessage if a message has no room for ``length`` bytes of data."""
        if length > OUT_CAPACITY - MESSAGE_HEADER:
            raise MalformedMessage(
                f"{self.name}: {length} bytes of data; a message holds "
                f"{OUT_CAPACITY - MESSAGE_HEADER}",
                field="dwLength",
                reader=self.name,
                slot=slot,
            )

    def _until_ms(self, usual_ms: int) -> int:
        """How long a transfer may take, in milliseconds."""
        if self.latest is None:
            return usual_ms
        return max(1, min(usual_ms, int((self.latest - time.monotonic()) * 1000)))

    def _await(
        self,
        sent: UnderWay,
        message: bytes | MalformedMessage | None = None,
        waited_s: float = 0.0,
    ) -> RawReply:
        """Wait for the reply to ``sent``, with all the extensions that the reader asks for.

        Args:
            sent: The command under way.
            message: One that came already.
            waited_s: Seconds that this command was waited for already.

        Raises:
            CardRemoved: The reader said so, and no reply came since then; or it counts as lost.
        """
        slot, operation, timeout_s = sent.slot, sent.operation, sent.command.timeout_s
        cut_off = math.inf
        deadline = self.deadlines[slot] = self._by(operation, timeout_s - waited_s)
        try:
            while True:
                if message is None:
                    if self._is_cancelled(slot, operation):
                        raise self._cancel(sent)
                    message = self._next(sent, min(deadline, cut_off))
                reply = None if message is None else self._match(message, sent)
                message = None
                if reply is not None and reply.bStatus >> 6 != CommandStatus.TIME_EXTENSION:
                    return reply
                now = time.monotonic()
                self.transport.take_events()
                if sent.heard is not None:
                    if self.cards.heard != sent.heard:
                        cut_off = min(cut_off, now + LOST_S)
                elif self.cards[slot].power is Power.REMOVED:
                    cut_off = min(cut_off, now + REMOVED_S)
                if now >= cut_off:
                    raise self.card_removed(slot, bSeq=sent.count & 0xFF)
                if reply is not None:
                    longer_s = min(timeout_s * max(1, reply.bError), max(timeout_s, LONGEST_S))
                    deadline = self.deadlines[slot] = self._by(operation, longer_s)
                if now >= deadline:  # after an extension, too: the operation's time may be over
                    raise self._timeout(slot, sent.count, now - operation.began)
        except BaseException:
            self.give_up(slot)
            raise
        finally:
            self.deadlines[slot] = time.monotonic()  # the wait is over
            self._sweep()

    def _sweep(self) -> None:
        """Drop the messages that came behind the reply: no command waits for them."""
        self.stale += len(self.inbox.later)
        self.inbox.later.clear()

    @staticmethod
    def _by(operation: Operation, timeout_s: float) -> float:
        """When a wait of ``timeout_s`` is over, at the end of the operation at the latest."""
        deadline = time.monotonic() + timeout_s
        return deadline if operation.until is None else min(deadline, operation.until)

    def _match(self, message: bytes | MalformedMessage, sent: UnderWay) -> RawReply | None:
        """:func:`ccid.link.reply_matching.match`, late ones counted."""
        reply = match(message, sent.slot, sent.count, sent.command.reply_type, self.name)
        if reply is None:
            self.stale += 1
        return reply

    # Reading ----------------------------------------------------------------------------------

    def _next(self, sent: UnderWay, deadline: float) -> bytes | MalformedMessage | None:
        """A whole message, to any command; None if none came for a slice of time."""
        return self._read(sent, deadline)

    def _read(self, sent: UnderWay, deadline: float) -> bytes | MalformedMessage | None:
        """One message, or what is wrong with it; None after a slice of time without, or an empty
        transfer."""
        left_ms = max(1, int((deadline - time.monotonic()) * 1000))
        wait_ms, patience = min(left_ms, SLICE_MS), self._patience(sent)
        return self.inbox.read(self.transport, wait_ms, patience, is_last=left_ms <= SLICE_MS)

    def _patience(self, sent: UnderWay) -> Patience:
        """How long to wait for the rest of a message, to be asked for each part."""
        return partial(self._left_ms, sent)

    def _left_ms(self, sent: UnderWay) -> int:
        if not self._is_reading_for(sent.slot):
            return SLICE_MS
        if self._is_cancelled(sent.slot, sent.operation):
            raise self._cancel(sent)
        if sent.operation.until is None:
            return SLICE_MS
        return min(SLICE_MS, int((sent.operation.until - time.monotonic()) * 1000))

    def _is_reading_for(self, slot: int) -> bool:
        """The message that is being read is for ``slot``, or for no other slot."""
        return True

    # Ending a command early -------------------------------------------------------------------

    def _cancel(self, sent: UnderWay) -> CommandCancelled:
        """Abort what is under way; the error to raise then."""
        try:
            self.abort(sent.slot)
        except (TransportError, ProtocolError, MalformedMessage) as error:
            how = f"; the reader did not take part in it: {error}"
            return self._cancellation(sent.slot, sent.count, how)
        return self._cancellation(sent.slot, sent.count)

    def abort(self, slot: int) -> None:
        """The ABORT pair (USB CCID rev 1.1, 5.3.1 and 6.1.13): ends whatever ``slot`` works on.

        Both halves carry the same bSeq. Late replies to the aborted command are dropped.

        Raises:
            TransportStall: The reader does not know the request.
            TransportTimeout: It does not answer PC_to_RDR_Abort within 2 s, extensions or not.
            ProtocolError, MalformedMessage: It answers something else.
        """
        with self.turn(slot):
            before = self.busy_slot
            kind = PC_to_RDR_Abort.bMessageType
            command = RawCommand(slot, kind, bytes(3), b"", SLOT_STATUS, ABORT_S)
            try:
                with self.lock:
                    request = ClassControl.abort(self.interface, slot, (self.count + 1) & 0xFF)
                    self._past.half_aborted.add(slot)  # even if the request's end is not seen
                    self.transport.control(request, self._until_ms(int(ABORT_S * 1000)))
                    sent = self._write(command)
                sent.operation = self._operation_of(sent.count, ABORT_S)
                sent.operation.hears = False
                reply = self._await(sent)
            except BaseException:  # the reader may be between the two halves
                self.give_up(slot)
                raise
            finally:
                self.busy_slot = before
            self._past.aborted(slot)
            if not reply.failed:  # some readers power the card off to abort
                self.cards.saw(slot, reply.icc_status)

    # The path of every APDU -------------------------------------------------------------------

    def way(
        self,
        slot: int,
        patience_s: PatienceS,
        result: Callable[[RawReply], bytes],
        session: Session | None = None,
        unsecret_ins: frozenset[int] = ALL_SECRET,
    ) -> BlockWay:
        """The fastest way of a block to the card, made once and used often.

        Args:
            slot: bSlot.
            patience_s: How many seconds to wait for the reply to a block, before extensions.
            result: Makes abData of a reply that is not plain success at once, or raises its error.
            session: The power-up that the blocks are for; None for any.
            unsecret_ins: If the blocks are APDUs: the INS of those without data that leave no
                secret in the buffers (:mod:`ccid.link.wiping`).
        """
        return ShortWay(self, slot, patience_s, result, session, unsecret_ins)

    def finish(self, command: RawCommand, count: int, got: int) -> RawReply:
        """Wait for the reply to a command that :class:`~ccid.link.block_ways.ShortWay` has sent.

        Args:
            command: The command.
            count: Its number.
            got: Bytes of a first transfer that is not simply the reply; 0 if none came.
        """
        sent = UnderWay(command, count, self._current(command.slot, count))
        reply = self._finish(sent, got)
        if self._past.is_in_the_way(command.slot, reply):
            reply = self._freed(command)
        self._past.answered(command.slot)
        return reply

    def was_reset(self) -> None:
        self._past = Past()
        self.inbox.later.clear()
        super().was_reset()

    # Commands given up ------------------------------------------------------------------------

    def give_up(self, slot: int) -> None:
        """Note that ``slot`` may still work on a command that no thread waits for any more."""
        self._past.given_up.add(slot)

    def is_given_up(self, slot: int) -> bool:
        """True if ``slot`` may still work on a command that no thread waits for any more."""
        return slot in self._past.given_up

    def _abort_others(self, slot: int) -> None:
        """Abort what slots other than ``slot`` may work on: the reader works on a limited number
        of slots at a time."""
        for other in range(self.slot_count):
            if other == slot or not self._past.may_be_busy(other):
                continue
            turn = self.turn(other)
            try:
                if turn.acquire(blocking=False):  # else a thread uses it, and gets an answer soon
                    with suppress(TransportError, ProtocolError, MalformedMessage):
                        self.abort(other)
            finally:
                try:
                    turn.release()
                except RuntimeError:
                    turn = None  # it is another thread's

    def _freed(self, command: RawCommand) -> RawReply:
        """Abort what the slot works on and send ``command`` again. A reader that does not take
        part in the ABORT pair gets it again and again, for :data:`ABORT_S`.

        Raises:
            SlotBusy: The slot stays busy.
        """
        slot, until, tried = command.slot, time.monotonic() + ABORT_S, False
        if self._past.may_be_busy(slot):
            with suppress(TransportError, ProtocolError, MalformedMessage):
                self.abort(slot)
        while True:
            reply = self._once(command)
            if not reply.is_busy:
                return reply
            if not tried:
                tried = True
                self._abort_others(slot)
                continue
            if time.monotonic() >= until:
                raise SlotBusy(
                    f"{self.name}: slot {slot} works on a command that was given up, and does not "
                    f"end it",
                    reader=self.name,
                    slot=slot,
                    bSeq=reply.bSeq,
                    bStatus=reply.bStatus,
                    bError=reply.bError,
                )
            time.sleep(BUSY_S)
            self.proceed(slot)
