"""The conversation with a reader whose slots work at the same time.

Theory of operation. With bMaxCCIDBusySlots > 1 (USB CCID rev 1.1, 5.1) that many slots may have a
command under way, and their replies come in any order over the one bulk-IN endpoint. A slot has
a lock of its own; writing has the pipe's. Of the threads that wait for replies, one reads for
all: a message for another slot goes into that slot's box, and its thread is woken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ccid.card_state import Session
from ccid.conversation import SLICE_MS, Lock, Shut
from ccid.errors import CcidError
from ccid.iso7816.apdu import Bytes
from ccid.messages.headers import DATA_BLOCK, XFR_BLOCK
from ccid.pipe import Pipe, RawReply, whole
from ccid.transport import Transport


class SharedPipe(Pipe):
    """The conversation with a reader whose slots work at the same time (bMaxCCIDBusySlots > 1).

    Whoever waits first reads for all: a message for another slot goes into that slot's box.

    Args:
        busy_slots: bMaxCCIDBusySlots.
        slot_count: Number of slots.
    """

    def __init__(
        self, transport: Transport, *, slot_count: int, busy_slots: int, **common: Any
    ) -> None:
        self._slot_locks = [threading.RLock() for _ in range(slot_count)]
        self._free = threading.BoundedSemaphore(busy_slots)
        self._under_way: dict[int, int] = {}
        self._boxes: dict[int, list[bytes]] = {slot: [] for slot in range(slot_count)}
        self._mail = threading.Condition()
        self._reading = False
        super().__init__(transport, **common)
        self._locks = [*self._slot_locks, self.lock]

    def turn(self, slot: int) -> Lock:
        return self.lock if isinstance(self.lock, Shut) else self._slot_locks[slot]

    def _once(
        self,
        slot: int,
        bMessageType: int,
        specific: bytes,
        data: Bytes,
        reply_type: int,
        timeout_s: float,
    ) -> RawReply:
        with self._free:
            return super()._once(slot, bMessageType, specific, data, reply_type, timeout_s)

    def _write(self, slot: int, bMessageType: int, specific: bytes, data: Bytes) -> int:
        with self.lock:
            with self._mail:  # before the reply can come, which another thread may read
                self._boxes[slot].clear()
                self._under_way[slot] = self.count + 1
            return super()._write(slot, bMessageType, specific, data)

    def _await(
        self,
        slot: int,
        count: int,
        reply_type: int,
        timeout_s: float,
        message: bytes | None = None,
        heard: int | None = None,
    ) -> RawReply:
        try:
            return super()._await(slot, count, reply_type, timeout_s, message, heard)
        finally:
            with self._mail:
                self._under_way.pop(slot, None)

    def _next(self, slot: int, count: int, deadline: float) -> bytes | None:
        box, message, reads = self._boxes[slot], None, False
        try:
            with self._mail:
                if not box and self._reading:
                    left_s = max(0.0, deadline - time.monotonic())
                    self._mail.wait(min(left_s, SLICE_MS / 1000))
                if box:
                    return box.pop(0)
                if self._reading:
                    return None
                self._reading = reads = True
            message = self._read(deadline)
        finally:
            if reads:  # by all means: while one reads, no other does
                with self._mail:
                    self._reading = False
                    if message is not None and message[5] != slot:
                        self._deliver(message)
                        message = None
                    self._mail.notify_all()
        return message

    def _deliver(self, message: bytes) -> None:
        """Put a message into the box of its slot, if a command waits there."""
        if message[5] in self._under_way:
            self._boxes[message[5]].append(message)
        else:
            self.stale += 1

    def cancel(self, slot: int) -> bool:
        if slot not in self._under_way and slot not in self._operations:
            return False
        self._cancel_operation(slot)
        return True

    def quick(
        self,
        slot: int,
        patience_s: Callable[[Bytes], float],
        failure: Callable[[RawReply], CcidError],
        more: Callable[[bytes, int], bytes],
        session: Session | None = None,
    ) -> Callable[[Bytes], bytes]:
        def transmit(data: Bytes) -> bytes:
            timeout_s = patience_s(data)
            with self.turn(slot):  # until the rest of a chained response is here
                reply = self.transact(
                    slot, XFR_BLOCK, bytes(3), data, DATA_BLOCK, timeout_s, session
                )
                return whole(reply, failure, more)

        return transmit
