"""How one XfrBlock goes to a card and its answer comes back: made once, used for every APDU.

Theory of operation. ``Card.transmit`` spends nearly all its time here, in :class:`ShortWay`: one
bulk-OUT transfer, one bulk-IN transfer, and as little Python between as the checks allow. The
checks are complete: message type, slot, number, status, chain parameter and length of the reply.
Any reply that is not plain success goes the long way through :meth:`ccid.link.pipe.Pipe.finish`,
with the result that the long way has.

The read asks for as many bytes as a short APDU's reply has. After a longer reply, which took a
second read, it asks for the longest message of the reader, until a reply is short again: so a file
that is read in long pieces costs one read for each.

A message whose command or answer may hold a secret is overwritten when it is over: that of
any command but one of 5 bytes, or fewer, that is known for none.

The transport is looked up while the lock is held: a trace may have begun or ended, or the reader
may have been closed, while this thread waited for its turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from ccid.codec.messages import MESSAGE_HEADER
from ccid.codec.messages.headers import DATA_BLOCK, XFR_BLOCK, reply_header, xfr_block_header
from ccid.errors import CcidError
from ccid.iso7816.apdu import SW_LENGTH, TPDU_HEADER, Bytes, octets
from ccid.link.card_state import Power, Session
from ccid.link.locks import SLICE_MS
from ccid.link.raw_commands import RawCommand
from ccid.link.reply_matching import RawReply
from ccid.link.wiping import wipe

if TYPE_CHECKING:
    from ccid.link.pipe import Pipe
    from ccid.link.shared_pipe import SharedPipe

WRITE_TIMEOUT_MS = 5000
"""A bulk-OUT transfer that takes longer has failed."""
LONGEST_UNSECRET = MESSAGE_HEADER + TPDU_HEADER
"""Bytes of the longest message whose command has no data."""
FIRST_CHANNELS = 0x1F
"""The last interindustry class of the logical channels 0 to 3 (ISO/IEC 7816-4:2013 5.4.1)."""
ALL_SECRET: frozenset[int] = frozenset()
WHOLE = bytes(3)
"""Bytes 7 to 9 of an XfrBlock: bBWI 0, wLevelParameter 0."""
NO_SIGNS: list[Power] = []
"""The signs of a way that is for no session in particular."""

PatienceS = Callable[[Bytes], float]
"""How many seconds to wait for the reply to such a block, before extensions."""


class BlockWay(ABC):
    """Sends blocks to one slot."""

    @abstractmethod
    def transmit(self, data: Bytes) -> bytes:
        """Send ``data`` as one XfrBlock with bBWI and wLevelParameter 0, and return abData of the
        reply.

        Raises:
            What a command to a card raises: :meth:`ccid.link.pipe.Pipe.transact`.
        """


class PipeWay(BlockWay):
    """A way through a pipe.

    Args:
        slot: bSlot.
        patience_s: How many seconds to wait for the reply to a block, before extensions.
        result: Makes abData of a reply that is not plain success at once, or raises its error.
        session: The power-up that the blocks are for; None for any.
    """

    def __init__(
        self,
        slot: int,
        patience_s: PatienceS,
        result: Callable[[RawReply], bytes],
        session: Session | None,
    ) -> None:
        self.slot = slot
        self.patience_s = patience_s
        self.result = result
        self.session = session
        self.signs = NO_SIGNS if session is None else session.signs

    def command(self, data: Bytes) -> RawCommand:
        """The command that carries ``data``."""
        timeout_s = self.patience_s(data)
        return RawCommand(self.slot, XFR_BLOCK, WHOLE, data, DATA_BLOCK, timeout_s)


class ShortWay(PipeWay):
    """The way through a pipe of one command at a time.

    Args:
        pipe: The pipe.
        slot, patience_s, result, session: As for :class:`PipeWay`.
        unsecret_ins: As for :meth:`ccid.link.pipe.Pipe.way`.
    """

    def __init__(
        self,
        pipe: Pipe,
        slot: int,
        patience_s: PatienceS,
        result: Callable[[RawReply], bytes],
        session: Session | None,
        unsecret_ins: frozenset[int] = ALL_SECRET,
    ) -> None:
        super().__init__(slot, patience_s, result, session)
        self.pipe = pipe
        self.unsecret_ins = unsecret_ins
        self.out, self.inp = pipe.transport.out, pipe.transport.inp
        self.usual_read = pipe.inbox.first_read(pipe.transport)
        self.whole_read = pipe.inbox.whole_read(pipe.transport)
        self.read = self.usual_read
        """Bytes that the next exchange asks for."""
        self.short = 0
        """A reply of so many bytes at most has the usual read come back."""

    def transmit(self, data: Bytes) -> bytes:
        pipe, slot = self.pipe, self.slot
        with pipe.lock:
            transport = pipe.transport
            transport.take_events()
            if self.signs:
                pipe.look(slot, self.session)
            pipe.count = count = pipe.count + 1
            try:
                pipe.busy_slot = slot
                size = len(data)
                out = self.out
                xfr_block_header.pack_into(out, 0, XFR_BLOCK, size, slot, count & 0xFF, 0, 0)
                size += MESSAGE_HEADER
                out[MESSAGE_HEADER:size] = data
                got = transport.exchange(size, self.read, WRITE_TIMEOUT_MS, SLICE_MS)
                if got >= MESSAGE_HEADER + SW_LENGTH:
                    kind, length, bSlot, bSeq, bStatus, _, chain = reply_header.unpack_from(
                        self.inp
                    )
                    if (
                        kind == DATA_BLOCK
                        and bSeq == count & 0xFF
                        and bSlot == slot
                        and bStatus == 0
                        and chain == 0
                        and MESSAGE_HEADER + length == got
                    ):
                        pipe.busy_slot = -1
                        if got <= self.short:
                            self.read, self.short = self.usual_read, 0
                        response = self.inp[MESSAGE_HEADER:got].tobytes()
                        if (
                            size > LONGEST_UNSECRET
                            or data[1] not in self.unsecret_ins
                            or data[0] > FIRST_CHANNELS
                        ):
                            wipe(out, size)
                            wipe(self.inp, got)
                        return response
                reply = pipe.finish(self.command(data), count, got)
                pipe.busy_slot = -1
                wipe(out, size)
                if MESSAGE_HEADER + len(reply.data) > self.read:
                    self.read, self.short = self.whole_read, self.usual_read
            except BaseException as error:  # the reader may have got it, and be at work on it
                pipe.busy_slot = -1
                if not isinstance(error, CcidError):
                    pipe.check_length(slot, len(octets(data)))
                pipe.give_up(slot)
                wipe(self.out, MESSAGE_HEADER + len(data))
                raise
            return self.result(reply)


class SharedWay(PipeWay):
    """The way through a pipe of several commands at a time.

    Args:
        pipe: The pipe.
        slot, patience_s, result, session: As for :class:`PipeWay`.
    """

    def __init__(
        self,
        pipe: SharedPipe,
        slot: int,
        patience_s: PatienceS,
        result: Callable[[RawReply], bytes],
        session: Session | None,
    ) -> None:
        super().__init__(slot, patience_s, result, session)
        self.pipe = pipe

    def transmit(self, data: Bytes) -> bytes:
        command = self.command(octets(data))
        with self.pipe.turn(self.slot):  # until the rest of a chained response is here
            return self.result(self.pipe.transact(command, self.session))
