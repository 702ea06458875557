"""Faults of a virtual reader, on request.

    reader.faults.append(faults.wrong_sequence(on=PC_to_RDR_XfrBlock))

A fault gets the replies to a command before the reader sends them, and changes them. ``on`` limits
the fault to one kind of command. ``after`` is the number of commands that pass unchanged first,
``times`` the number of commands that the fault changes, None for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ccid.codec.messages import MESSAGE_HEADER, Command, RDR_to_PC_SlotStatus
from ccid.codes import CommandStatus, IccStatus

if TYPE_CHECKING:
    from ccid.virtual.ccid_function import CcidFunction


@dataclass(slots=True)  # not frozen: a frozen dataclass takes twice the time to make
class Said:
    """A message on bulk-IN, and the time from which the host can fetch it."""

    message: bytes = field(repr=False)
    due: float


Bend = Callable[["CcidFunction", bytes, list[Said]], list[Said]]


@dataclass
class Fault:
    """One fault.

    Attributes:
        bend: Takes the function, the command and the replies; returns the changed replies.
        on: The command that the fault changes; None for any.
        times: Number of commands that the fault still changes; None for all.
        after: Number of such commands that pass unchanged first.
    """

    bend: Bend
    on: type[Command] | None = None
    times: int | None = 1
    after: int = 0

    def strike(self, function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        """Change ``said`` if the fault applies to this command."""
        if self.on is not None and command[:1] != bytes([self.on.bMessageType]):
            return said
        if self.after > 0:
            self.after -= 1
            return said
        if self.times == 0:
            return said
        if self.times is not None:
            self.times -= 1
        return self.bend(function, command, said)


def _each(change: Callable[[bytes], bytes]) -> Bend:
    """Apply ``change`` to every message that has a whole header."""
    return lambda _function, _command, said: [
        replace(s, message=change(s.message)) if len(s.message) >= MESSAGE_HEADER else s
        for s in said
    ]


def _byte(offset: int, change: Callable[[int], int]) -> Bend:
    def at(message: bytes) -> bytes:
        return message[:offset] + bytes([change(message[offset]) & 0xFF]) + message[offset + 1 :]

    return _each(at)


Filter = type[Command] | None


def silence(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reply does not come."""
    return Fault(lambda _f, _c, _s: [], on, times, after)


def wrong_sequence(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reply has another bSeq."""
    return Fault(_byte(6, lambda bSeq: bSeq + 1), on, times, after)


def wrong_slot(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reply has another bSlot."""
    return Fault(_byte(5, lambda bSlot: bSlot + 1), on, times, after)


def wrong_type(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reply has the bMessageType of another reply."""
    return Fault(_byte(0, lambda kind: 0x80 | (kind + 3) % 5), on, times, after)


def reserved_status(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reply has the reserved bmCommandStatus 3."""
    return Fault(_byte(7, lambda bStatus: bStatus | 0xC0), on, times, after)


def lying_length(by: int, on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """dwLength is ``by`` too large (or too small, if negative)."""

    def lie(message: bytes) -> bytes:
        dwLength = (int.from_bytes(message[1:5], "little") + by) & 0xFFFF_FFFF
        return message[:1] + dwLength.to_bytes(4, "little") + message[5:]

    return Fault(_each(lie), on, times, after)


def cut_short(to: int, on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """Only the first ``to`` bytes of the reply come."""
    return Fault(_each(lambda message: message[:to]), on, times, after)


def altered(
    change: Callable[[bytes], bytes], on: Filter = None, times: int | None = 1, after: int = 0
) -> Fault:
    """The reply carries ``change`` of its data."""

    def alter(message: bytes) -> bytes:
        data = change(message[MESSAGE_HEADER:])
        return message[:1] + len(data).to_bytes(4, "little") + message[5:MESSAGE_HEADER] + data

    return Fault(_each(alter), on, times, after)


def doubled(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reply comes two times."""
    return Fault(lambda _f, _c, said: said + said, on, times, after)


def late(by_s: float, on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reply comes ``by_s`` seconds later, without a time extension."""
    return Fault(
        lambda _f, _c, said: [replace(s, due=s.due + by_s) for s in said], on, times, after
    )


def preceded_by(message: bytes, on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """``message`` comes first: a stale answer, an empty transfer."""
    return Fault(
        lambda _f, _c, said: [Said(message, said[0].due if said else 0.0), *said],
        on,
        times,
        after,
    )


def time_extensions(
    count: int,
    multiplier: int = 1,
    every_s: float = 0.0,
    on: Filter = None,
    times: int | None = 1,
    after: int = 0,
) -> Fault:
    """The reader sends ``count`` time extensions with ``multiplier``, one every ``every_s``
    seconds, before the reply."""

    def bend(_function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        if not said or len(said[-1].message) < MESSAGE_HEADER:
            return said  # another fault took the reply
        head = bytearray(said[-1].message[:MESSAGE_HEADER])
        head[1:5] = bytes(4)
        head[7], head[8], head[9] = CommandStatus.TIME_EXTENSION << 6, multiplier, 0
        start = said[-1].due
        asked = [Said(bytes(head), start + i * every_s) for i in range(count)]
        return asked + [replace(s, due=s.due + count * every_s) for s in said]

    return Fault(bend, on, times, after)


def failing(
    bError: int,
    icc: IccStatus | None = None,
    on: Filter = None,
    times: int | None = 1,
    after: int = 0,
) -> Fault:
    """The command fails with ``bError`` and bmICCStatus ``icc``; None for the card's state."""

    def fail(message: bytes) -> bytes:
        status = message[7] & 0x03 if icc is None else icc
        bStatus = CommandStatus.FAILED << 6 | status
        return message[:1] + bytes(4) + message[5:7] + bytes((bStatus, bError, 0))

    return Fault(_each(fail), on, times, after)


def refused_as_unknown(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reader does not know the command and answers with RDR_to_PC_SlotStatus."""

    def refuse(message: bytes) -> bytes:
        bStatus = CommandStatus.FAILED << 6 | message[7] & 0x03
        return RDR_to_PC_SlotStatus(bSlot=message[5], bSeq=message[6], bStatus=bStatus).build()

    return Fault(_each(refuse), on, times, after)


def stall_in(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """bulk-IN halts instead of a reply."""

    def bend(function: CcidFunction, _command: bytes, _said: list[Said]) -> list[Said]:
        function.bulk_in.halted = True
        return []

    return Fault(bend, on, times, after)


def unplugged(on: Filter = None, times: int | None = 1, after: int = 0) -> Fault:
    """The reader is unplugged instead of a reply."""

    def bend(function: CcidFunction, _command: bytes, _said: list[Said]) -> list[Said]:
        function.unplug()
        return []

    return Fault(bend, on, times, after)
