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
ABORT pair (5.3.1 and 6.1.13) puts it in order. So it does where a slot answers its first command
here that it is busy, or aborting: an earlier user of the reader died in the middle of something.

Most readers work on one command at a time: one lock, :class:`Pipe`. Where commands to several
slots overlap there is :class:`ccid.link.shared_pipe.SharedPipe`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
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
from ccid.codec.messages.headers import DATA_BLOCK, XFR_BLOCK, reply_header, xfr_block_header
from ccid.codes import CommandStatus
from ccid.errors import (
    CardRemoved,
    CcidError,
    CommandCancelled,
    MalformedMessage,
    ProtocolError,
    SlotBusy,
    TransportError,
    TransportTimeout,
)
from ccid.iso7816.apdu import SW_LENGTH, Bytes, octets
from ccid.link.card_state import Power, Session
from ccid.link.conversation import SLICE_MS, Conversation, Operation, seconds
from ccid.link.inbox import Inbox, Patience, first_read
from ccid.link.reply_matching import SLOT_STATUS, Past, RawReply, match
from ccid.transport import OUT_CAPACITY, Transport

WRITE_TIMEOUT_MS = 5000
"""A bulk-OUT transfer that takes longer has failed."""
ABORT_S = 2.0
"""How long the ABORT pair may take in all, or a question about the slot; and how long a reader that
does not take part in it may be busy still."""
BUSY_S = 0.05
"""How long to wait before a reader that was busy gets its command again."""
LONGEST_WAIT_S = 1e6
"""More than anybody waits, and a number that can be reckoned with."""
LONGEST_S = 600.0
"""How long a reader may be silent after a time extension, whatever it multiplies: the longest that
a card of T=1 asks for, 255 times 1.4 s, and more."""
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


class Pipe(Conversation):
    """The conversation with a reader that works on one command at a time.

    Args:
        transport: The open interface. The pipe does not close it.
        slot_count: Number of slots.
        **common: As for :class:`~ccid.link.conversation.Conversation`.
    """

    def __init__(self, transport: Transport, *, slot_count: int = 1, **common: Any) -> None:
        self.slot_count = slot_count
        self._past = Past()
        super().__init__(transport, **common)
        self.inbox = Inbox(self.name)

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
            SlotBusy: It is at something that an earlier user began, and does not end it.
            TransportTimeout: No reply in time. And all that the transport raises.
            ValueError, TypeError: ``timeout_s`` is no time.
        """
        timeout_s = min(seconds(timeout_s, "timeout_s"), LONGEST_WAIT_S)
        with self.turn(slot):
            self.proceed(slot)
            if bMessageType in TO_CARDS:
                self.transport.take_events()
                self.look(slot, session)
            try:
                reply = self._once(slot, bMessageType, specific, data, reply_type, timeout_s)
                if self._past.is_in_the_way(slot, reply):
                    reply = self._freed(slot, bMessageType, specific, data, reply_type, timeout_s)
                self._past.answered(slot)
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
        reply = self.perform(
            slot,
            lambda: self.transact(slot, kind, bytes(3), b"", SLOT_STATUS, ABORT_S),
            ABORT_S,
        )
        self.cards.saw(slot, reply.icc_status)

    def _write(self, slot: int, bMessageType: int, specific: bytes, data: Bytes) -> int:
        """Send a command and return its number."""
        size = MESSAGE_HEADER + len(data)
        self._check_length(slot, len(data))
        with self.lock:
            self.count = count = self.count + 1
            self.busy_slot = slot
            out = self.transport.out
            xfr_block_header.pack_into(out, 0, bMessageType, len(data), slot, count & 0xFF, 0, 0)
            out[7:MESSAGE_HEADER] = specific
            out[MESSAGE_HEADER:size] = data
            try:
                self.transport.send(size, self._until_ms(WRITE_TIMEOUT_MS))
            except BaseException:  # the reader may have got it
                self.give_up(slot)
                raise
        return count

    def _check_length(self, slot: int, length: int) -> None:
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
        slot: int,
        count: int,
        reply_type: int,
        timeout_s: float,
        message: bytes | MalformedMessage | None = None,
        heard: int | None = None,
        operation: Operation | None = None,
    ) -> RawReply:
        """Wait for the reply to command ``count``, with all the extensions it asks for.

        Args:
            message: One that came already.
            heard: How many notifications had come before a command that is answered at once:
                after another one its reply counts as lost soon.
            operation: What the command is part of, if that is not the slot's.

        Raises:
            CardRemoved: The reader said so, and no reply came since then; or it counts as lost.
        """
        operation, cut_off = operation or self._current(slot, count), math.inf
        deadline = self.deadlines[slot] = self._by(operation, timeout_s)
        try:
            while True:
                if message is None:
                    if self._is_cancelled(slot, operation):
                        raise self._cancel(slot, count)
                    message = self._next(slot, count, min(deadline, cut_off), operation)
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
                    longer_s = min(timeout_s * max(1, reply.bError), max(timeout_s, LONGEST_S))
                    deadline = self.deadlines[slot] = self._by(operation, longer_s)
                if now >= deadline:  # after an extension, too: the operation's time may be over
                    raise self._timeout(slot, count, now - operation.began)
        except BaseException:
            self.give_up(slot)
            raise
        finally:
            self.deadlines[slot] = time.monotonic()  # what is waited for from now on is another's
            self._sweep()

    def _sweep(self) -> None:
        """What came behind the reply is for nobody."""
        self.stale += len(self.inbox.later)
        self.inbox.later.clear()

    @staticmethod
    def _by(operation: Operation, timeout_s: float) -> float:
        """When a wait of ``timeout_s`` is over, at the end of the operation at the latest."""
        deadline = time.monotonic() + timeout_s
        return deadline if operation.until is None else min(deadline, operation.until)

    def _match(
        self, message: bytes | MalformedMessage, slot: int, count: int, reply_type: int
    ) -> RawReply | None:
        """:func:`ccid.link.reply_matching.match`, late ones counted."""
        reply = match(message, slot, count, reply_type, self.name)
        if reply is None:
            self.stale += 1
        return reply

    # Reading ----------------------------------------------------------------------------------

    def _next(
        self, slot: int, count: int, deadline: float, operation: Operation
    ) -> bytes | MalformedMessage | None:
        """A whole message, for whatever command; None if none came for a slice of time."""
        return self._read(slot, count, deadline, operation)

    def _read(
        self, slot: int, count: int, deadline: float, operation: Operation
    ) -> bytes | MalformedMessage | None:
        """One message, or what is wrong with it; None after a slice of time without, or an empty
        transfer."""
        left_ms = int((deadline - time.monotonic()) * 1000)
        patience = self._patience(slot, count, operation)
        return self.inbox.read(self.transport, max(1, min(left_ms, SLICE_MS)), patience)

    def _patience(self, slot: int, count: int, operation: Operation) -> Patience:
        """How long to wait for the rest of a message, to be asked for each part."""

        def left_ms() -> int:
            if not self._is_reading_for(slot):
                return SLICE_MS
            if self._is_cancelled(slot, operation):
                raise self._cancel(slot, count)
            if operation.until is None:
                return SLICE_MS
            return min(SLICE_MS, int((operation.until - time.monotonic()) * 1000))

        return left_ms

    def _is_reading_for(self, slot: int) -> bool:
        """The message that is being read is for ``slot``, or for nobody else."""
        return True

    # Ending a command early -------------------------------------------------------------------

    def _cancel(self, slot: int, count: int) -> CommandCancelled:
        """Abort what is under way; the error to raise then."""
        try:
            self.abort(slot)
        except (TransportError, ProtocolError, MalformedMessage) as error:
            return self._cancellation(slot, count, f"; the reader did not take part in it: {error}")
        return self._cancellation(slot, count)

    def abort(self, slot: int) -> None:
        """The ABORT pair (USB CCID rev 1.1, 5.3.1 and 6.1.13): whatever ``slot`` does, ends.

        Both halves carry the same bSeq. What still comes of the aborted command is dropped.

        Raises:
            TransportStall: The reader does not know the request.
            TransportTimeout: It does not answer PC_to_RDR_Abort within 2 s, extensions or not.
            ProtocolError, MalformedMessage: It answers something else.
        """
        with self.turn(slot):
            before = self.busy_slot
            try:
                with self.lock:
                    request = ClassControl.abort(self.interface, slot, (self.count + 1) & 0xFF)
                    self._past.half_aborted.add(slot)  # even if the request's end is not seen
                    self.transport.control(request, self._until_ms(int(ABORT_S * 1000)))
                    count = self._write(slot, PC_to_RDR_Abort.bMessageType, bytes(3), b"")
                pair = self._operation_of(count, ABORT_S)
                pair.hears = False
                reply = self._await(slot, count, SLOT_STATUS, ABORT_S, operation=pair)
            except BaseException:  # the reader may be between the two halves
                self.give_up(slot)
                raise
            finally:
                self.busy_slot = before
            self._past.aborted(slot)
            if not reply.failed:  # some readers take the card's power for it
                self.cards.saw(slot, reply.icc_status)

    # The path of every APDU -------------------------------------------------------------------

    def quick(
        self,
        slot: int,
        patience_s: Callable[[Bytes], float],
        result: Callable[[RawReply], bytes],
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
            result: What a reply brings that is not plain success at once; raises the error that
                it is.
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
                try:
                    self.busy_slot = slot
                    n = len(data)
                    pack(out, 0, XFR_BLOCK, n, slot, count & 0xFF, 0, 0)
                    n += MESSAGE_HEADER
                    out[MESSAGE_HEADER:n] = data
                    self.transport.send(n, WRITE_TIMEOUT_MS)
                    try:
                        got = self.transport.receive(0, first, SLICE_MS)
                    except TransportTimeout:
                        got = 0
                    if got >= MESSAGE_HEADER + SW_LENGTH:
                        kind, length, bSlot, bSeq, bStatus, _, chain = unpack(inp)
                        end = MESSAGE_HEADER + length
                        if (
                            kind == DATA_BLOCK
                            and bSeq == count & 0xFF
                            and bSlot == slot
                            and bStatus == 0
                            and chain == 0
                            and end == got
                        ):
                            self.busy_slot = -1
                            return inp[MESSAGE_HEADER:end].tobytes()
                    reply = self._late(slot, count, data, got, patience_s(data))
                    self.busy_slot = -1
                except BaseException as error:  # the reader may have got it, and be at it
                    self.busy_slot = -1
                    if not isinstance(error, CcidError):
                        self._check_length(slot, len(octets(data)))
                    self.give_up(slot)
                    raise
                return result(reply)

        return transmit

    def _late(self, slot: int, count: int, data: Bytes, got: int, timeout_s: float) -> RawReply:
        """The rest of :meth:`quick` when the first transfer was not simply the reply."""
        operation = self._current(slot, count)
        message = None
        if got:
            patience = self._patience(slot, count, operation)
            message = self.inbox.whole(self.transport, got, patience)
        reply = self._await(slot, count, DATA_BLOCK, timeout_s, message)
        if self._past.is_in_the_way(slot, reply):
            reply = self._freed(slot, XFR_BLOCK, bytes(3), data, DATA_BLOCK, timeout_s)
        self._past.answered(slot)
        return reply

    # Commands given up ------------------------------------------------------------------------

    def give_up(self, slot: int) -> None:
        """Note that ``slot`` may still be at something that nobody waits for any more."""
        self._past.given_up.add(slot)

    def is_given_up(self, slot: int) -> bool:
        """True if ``slot`` may still be at something that nobody waits for any more."""
        return slot in self._past.given_up

    def _abort_others(self, slot: int) -> None:
        """End what slots other than ``slot`` may be at: the reader works on so many at a time."""
        for other in range(self.slot_count):
            if other == slot or not self._past.may_be_busy(other):
                continue
            turn = self.turn(other)
            try:
                if turn.acquire(blocking=False):  # else a thread is at it, which is heard soon
                    with suppress(TransportError, ProtocolError, MalformedMessage):
                        self.abort(other)
            finally:
                try:
                    turn.release()
                except RuntimeError:
                    turn = None  # it is another thread's

    def _freed(self, slot: int, *command: Any) -> RawReply:
        """Have ``slot`` end what it is at and send ``command``, what :meth:`_once` takes, again; to
        a reader that does not take part in the ABORT pair again and again, for a time.

        Raises:
            SlotBusy: It stays as it is.
        """
        until, tried = time.monotonic() + ABORT_S, False
        if self._past.may_be_busy(slot):
            with suppress(TransportError, ProtocolError, MalformedMessage):
                self.abort(slot)
        while True:
            reply = self._once(slot, *command)
            if not reply.is_busy:
                return reply
            if not tried:
                tried = True
                self._abort_others(slot)
                continue
            if time.monotonic() >= until:
                raise SlotBusy(
                    f"{self.name}: slot {slot} is at something that was given up, and does not "
                    f"end it",
                    reader=self.name,
                    slot=slot,
                    bSeq=reply.bSeq,
                    bStatus=reply.bStatus,
                    bError=reply.bError,
                )
            time.sleep(BUSY_S)
            self.proceed(slot)
