"""The conversation with a reader whose slots work at the same time.

Theory of operation. With bMaxCCIDBusySlots > 1 (USB CCID rev 1.1, 5.1) that many slots may have a
command under way. Their replies come in any order over the one bulk-IN endpoint. Each slot has a
lock of its own; the pipe's lock guards writing. Of the threads that wait for replies, one reads for
all. It puts each message into the box of the slot that the message is for: the message, or what is
wrong with it. An error of the transport goes into all boxes. None in a box tells its thread to look
whether it can read, or send, now.

A thread that is about to send, and finds none that reads, first has a transfer wait for the reply
(:meth:`ccid.transport.Transport.expect`). So both transfers are at the reader at once here too, and
the lock for writing need not be held until the reply is there.

The rules for signals (:mod:`ccid.link.locks`) hold here too: a box is a Mailbox, and the
reading thread holds a lock that other threads try to acquire without waiting for it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

from ccid.errors import CcidError, CommandCancelled, MalformedMessage, TransportTimeout
from ccid.ground.mailbox import Mailbox
from ccid.ground.signal_safe_locks import new_rlock
from ccid.link.block_ways import ALL_SECRET, BlockWay, PatienceS, SharedWay
from ccid.link.card_state import Session
from ccid.link.conversation import Operation
from ccid.link.locks import SLICE_MS, Lock, Shut
from ccid.link.pipe import Pipe
from ccid.link.raw_commands import RawCommand, UnderWay
from ccid.link.reply_matching import RawReply
from ccid.transport import Transport

BOX_ROOM = 64
"""Messages that a box holds. More messages to one command in a slice of time are dropped."""

Mail = bytes | CcidError | None


class SharedPipe(Pipe):
    """The conversation with a reader whose slots work at the same time (bMaxCCIDBusySlots > 1).

    The first thread that waits reads for all: a message for another slot goes into that slot's box.

    Args:
        busy_slots: bMaxCCIDBusySlots.
        slot_count: Number of slots.
    """

    def __init__(
        self, transport: Transport, *, slot_count: int, busy_slots: int, **common: Any
    ) -> None:
        self._slot_locks = [new_rlock() for _ in range(slot_count)]
        self._busy_slots = busy_slots
        self._under_way: dict[int, int] = {}
        """The number of the command that a slot has under way."""
        self._queued: set[int] = set()
        """Slots whose command waits until fewer are under way."""
        self._begun: dict[int, int] = {}
        """By slot: number of the last command as the one under way began to wait for room. It is
        cancelled from then on, and other slots send commands meanwhile."""
        self._boxes = [Mailbox[Mail]() for _ in range(slot_count)]
        self._reader = new_rlock()
        """Held by the thread that reads for all."""
        super().__init__(transport, slot_count=slot_count, **common)
        self._locks = [*self._slot_locks, self.lock]

    def turn(self, slot: int) -> Lock:
        return self.lock if isinstance(self.lock, Shut) else self._slot_locks[slot]

    # One command ------------------------------------------------------------------------------

    def _once(self, command: RawCommand) -> RawReply:
        try:
            self._wait_for_room(command)
            return super()._once(command)
        finally:
            self._under_way.pop(command.slot, None)
            self._queued.discard(command.slot)
            self._begun.pop(command.slot, None)
            self._knock(self._queued)  # there is room
            self._knock(self._under_way)  # this thread reads no more

    def _wait_for_room(self, command: RawCommand) -> None:
        """Wait until the reader may be given one more command, and count it.

        Raises:
            CommandCancelled, TransportTimeout: Before there was room: nothing was sent.
            The reason why no command can be sent any more, if so.
        """
        slot, timeout_s = command.slot, command.timeout_s
        self._begun[slot] = self.count
        if slot not in self._operations:
            self._cancelled.pop(slot, None)  # it was for an earlier one
        operation = self._current(slot, self.count)
        deadline = self.deadlines[slot] = self._by(operation, timeout_s)
        self._queued.add(slot)
        while True:
            with self.lock:
                if len(self._under_way) < self._busy_slots:
                    self._under_way[slot] = -1
                    self._queued.discard(slot)
                    return
            if self._is_cancelled(slot, operation):
                raise self._cancellation(slot, self.count)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TransportTimeout(
                    f"{self.name}: slot {slot}: the reader works on {self._busy_slots} other "
                    f"slots, and has not ended one within {timeout_s:.1f} s; nothing was sent",
                    reader=self.name,
                    slot=slot,
                )
            with suppress(Empty):
                self._boxes[slot].get(timeout=min(left_s, SLICE_MS / 1000))

    def _current(self, slot: int, count: int) -> Operation:
        return super()._current(slot, self._begun.get(slot, count))

    def _knock(self, slots: set[int] | dict[int, int]) -> None:
        """Wake the threads of these slots."""
        for slot in list(slots):  # in one step, which a tuple is with a GIL only
            if self._boxes[slot].empty():
                self._boxes[slot].put(None)

    def _write(self, command: RawCommand) -> UnderWay:
        with self.lock:  # before the reply can come, which another thread may read
            self._boxes[command.slot] = Mailbox()
            self._under_way[command.slot] = self.count + 1
            return super()._write(command)

    def _exchange(self, command: RawCommand, heard: int | None = None) -> RawReply:
        """Send a command and wait for its reply, which another thread may read."""
        self._expect()
        sent = self._write(command)
        sent.heard = heard
        return self._await(sent)

    def _expect(self) -> None:
        """Have a transfer wait for the reply, unless another thread reads already."""
        try:
            if self._reader.acquire(blocking=False):
                self.transport.expect(self.inbox.first_read(self.transport))
        finally:  # as in _next
            try:  # noqa: SIM105 - the release must be the first call
                self._reader.release()
            except RuntimeError:
                pass  # another thread holds it

    def abort(self, slot: int) -> None:
        try:
            super().abort(slot)
        finally:
            self._under_way.pop(slot, None)
            self._knock(self._under_way)

    def is_busy(self) -> bool:
        return bool(self._under_way or self._queued or self._operations)

    def _is_under_way(self, slot: int) -> bool:
        return slot in self._under_way or slot in self._queued or slot in self._operations

    def cancel(self, slot: int) -> bool:
        if not self._is_under_way(slot):
            return False
        self._cancel_operation(slot)
        self._knock({slot})
        return True

    # Reading ----------------------------------------------------------------------------------

    def _next(self, sent: UnderWay, deadline: float) -> bytes | MalformedMessage | None:
        box = self._boxes[sent.slot]
        try:
            mail = box.get_nowait()
        except Empty:
            try:
                if self._reader.acquire(blocking=False):
                    return self._read_for_all(sent, deadline)
            finally:  # a signal handler may have raised before the result of acquire was seen
                try:  # the release must be the first call
                    self._reader.release()
                except RuntimeError:
                    mail = None  # another thread holds it
            left_s = max(0.0, deadline - time.monotonic())
            try:
                mail = box.get(timeout=min(left_s, SLICE_MS / 1000))
            except Empty:
                return None
        if isinstance(mail, CcidError) and not isinstance(mail, MalformedMessage):
            raise mail
        return mail

    def _is_reading_for(self, slot: int) -> bool:
        return self.transport.inp[5] == slot

    def _sweep(self) -> None:
        """A message that comes behind another is delivered at once: none is left to drop."""

    def _read_for_all(self, sent: UnderWay, deadline: float) -> bytes | MalformedMessage | None:
        """Read messages and deliver them; the message for the slot of ``sent`` is returned. An
        error of the transport is delivered to all."""
        slot = sent.slot
        try:
            first = self._read(sent, deadline)
        except CommandCancelled:
            raise
        except CcidError as error:
            for other in list(self._under_way):
                if other != slot:
                    self._boxes[other].put(copy.copy(error))
            raise
        mine, later = None, self.inbox.later
        for message in (first, *(later.popleft() for _ in range(len(later)))):
            if message is None:
                continue
            of = message.slot if isinstance(message, MalformedMessage) else message[5]
            if of is None and list(self._under_way) == [slot]:
                of = slot
            if of == slot and mine is None:
                mine = message
            else:
                self._deliver(of, message)
        return mine

    def _deliver(self, slot: int | None, message: bytes | MalformedMessage) -> None:
        """Put a message into the box of its slot, if a command waits there for it."""
        number = message.bSeq if isinstance(message, MalformedMessage) else message[6]
        count = None if slot is None else self._under_way.get(slot)
        if (
            slot is None
            or count is None
            or number not in (count & 0xFF, None)
            or self._boxes[slot].qsize() >= BOX_ROOM
        ):
            self.stale += 1
        else:
            self._boxes[slot].put(message)

    # The path of every APDU -------------------------------------------------------------------

    def way(
        self,
        slot: int,
        patience_s: PatienceS,
        result: Callable[[RawReply], bytes],
        session: Session | None = None,
        unsecret_ins: frozenset[int] = ALL_SECRET,
    ) -> BlockWay:
        return SharedWay(self, slot, patience_s, result, session)
