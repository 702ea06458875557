"""What known readers do wrong, for virtual ones: the faults that quirks are there for.

    reader.faults.append(known_faults.hangs_at_pps())

Each is a :class:`ccid.virtual.faults.Fault` that lasts; ``docs/quirks.md`` tells which readers have
it, and what a driver does about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ccid.codec.messages import (
    MESSAGE_HEADER,
    PC_to_RDR_Escape,
    PC_to_RDR_GetSlotStatus,
    PC_to_RDR_IccPowerOff,
    PC_to_RDR_IccPowerOn,
    PC_to_RDR_XfrBlock,
)
from ccid.codes import Protocol, SlotError
from ccid.known.quirks.vocabulary import TPDU_ESCAPE
from ccid.session.negotiation import data_rate
from ccid.virtual import faults
from ccid.virtual.faults import Bend, Fault, Said

if TYPE_CHECKING:
    from ccid.virtual.cards import Contact
    from ccid.virtual.ccid_function import CcidFunction

ESCAPE, STATUS = PC_to_RDR_Escape.bMessageType, PC_to_RDR_GetSlotStatus.bMessageType
ON, OFF = PC_to_RDR_IccPowerOn.bMessageType, PC_to_RDR_IccPowerOff.bMessageType
XFR = PC_to_RDR_XfrBlock.bMessageType
S_IFS_REQUEST = 0xC1
"""PCB of the block."""


def _fault(bend: Bend) -> Fault:
    return Fault(bend, times=None)


def _muted(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
    """The replies, failed with ICC_MUTE."""
    return faults.failing(SlotError.ICC_MUTE).bend(function, command, said)


# Escapes ----------------------------------------------------------------------------------------


def blocks_by_escape(contact: Contact) -> Callable[[bytes], bytes]:
    """The Escape that carries T=1 blocks (quirk ``tpdu-escape``), for a function's ``escape``.

    Args:
        contact: The card, which speaks T=1 by now.
    """

    def escape(data: bytes) -> bytes:
        if not data.startswith(TPDU_ESCAPE):
            return b""
        block = data[len(TPDU_ESCAPE) :]
        return TPDU_ESCAPE + b"".join(sent.data for sent in contact.receive(block))

    return escape


# Opening ----------------------------------------------------------------------------------------


def hangs_before(ready_at: float) -> Fault:
    """A command that comes before ``ready_at`` (of the port's clock, seconds) is its last."""
    hangs = False

    def bend(_function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        nonlocal hangs
        hangs |= bool(said) and said[0].due < ready_at
        return [] if hangs else said

    return _fault(bend)


def slow_to_start(ready_at: float) -> Fault:
    """No reply comes before ``ready_at`` (of the port's clock, seconds)."""
    return _fault(lambda _f, _c, said: [replace(s, due=max(s.due, ready_at)) for s in said])


def stray_empty_packets() -> Fault:
    """An empty packet follows each reply, and a command is lost while that is not fetched."""

    def bend(function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        if function.bulk_in.next_due() is not None:
            return []
        return [*said, Said(b"", said[-1].due)] if said else said

    return _fault(bend)


def waits_for_its_event() -> Fault:
    """PC_to_RDR_GetSlotStatus is lost while a notification is not fetched."""

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        events = function.interrupt_in
        unread = events is not None and events.next_due() is not None
        return [] if unread and command[0] == STATUS else said

    return _fault(bend)


# Several interfaces -----------------------------------------------------------------------------


def hangs_beside(other: CcidFunction) -> Fault:
    """A command that comes while the reply of ``other``, another interface, is still to come or
    to be fetched is never answered."""
    return _fault(lambda _f, _c, said: said if other.bulk_in.next_due() is None else [])


# The card ---------------------------------------------------------------------------------------


def latches_up_at(bPowerSelect: int) -> Fault:
    """Once a card had this voltage, it is mute."""
    latched = False

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal latched
        latched |= command[0] == ON and command[7] == bPowerSelect
        return _muted(function, command, said) if latched and command[0] in (ON, XFR) else said

    return _fault(bend)


def only_from_off() -> Fault:
    """PC_to_RDR_IccPowerOn fails unless PC_to_RDR_IccPowerOff came right before it."""
    before = ON

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal before
        wrong = command[0] == ON and before != OFF
        before = command[0]
        return _muted(function, command, said) if wrong else said

    return _fault(bend)


def needs_escape(escape: bytes, bError: int) -> Fault:
    """PC_to_RDR_IccPowerOn fails with ``bError`` until this Escape was sent."""
    mended = False

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal mended
        mended |= command[0] == ESCAPE and command[MESSAGE_HEADER:] == escape
        if mended or command[0] != ON:
            return said
        return faults.failing(bError).bend(function, command, said)

    return _fault(bend)


def mute_at(rate_is_wrong: Callable[[int], bool], slot: int | None = None) -> Fault:
    """No block gets through at rates (bit/s) that it lists or declares all the same.

    Args:
        rate_is_wrong: Which.
        slot: bSlot where it does so; None for all.
    """

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        if command[0] != XFR or slot not in (None, command[5]):
            return said
        it = function.slots[command[5]]
        fidi = it.parameters[it.protocol].bmFindexDindex
        wrong = rate_is_wrong(data_rate(function.descriptor.dwDefaultClock, fidi))
        return _muted(function, command, said) if wrong else said

    return _fault(bend)


def hangs_at_pps() -> Fault:
    """A PPS request is the last command that it answers, or not even that."""
    hangs = False

    def bend(_function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal hangs
        hangs |= command[0] == XFR and command[MESSAGE_HEADER : MESSAGE_HEADER + 1] == b"\xff"
        return [] if hangs else said

    return _fault(bend)


def loses_full_packets() -> Fault:
    """A reply that fills its last packet does not come."""

    def bend(function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        return [s for s in said if len(s.message) % function.bulk_in.packet_size]

    return _fault(bend)


def loses_long_blocks(longest: int) -> Fault:
    """A block with more than ``longest`` bytes does not fit into its buffer: XFR_OVERRUN."""

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        if all(len(s.message) <= MESSAGE_HEADER + longest for s in said):
            return said
        return faults.failing(SlotError.XFR_OVERRUN).bend(function, command, said)

    return _fault(bend)


def empty_after_ifs_request() -> Fault:
    """After an S(IFS request) of T=1 from the host, every block comes back empty."""
    spoilt = False

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal spoilt
        it = function.slots[command[5]]
        if command[0] != XFR or it.protocol is not Protocol.T1:
            return said
        if not spoilt:
            spoilt = command[MESSAGE_HEADER + 1] == S_IFS_REQUEST
            return said
        return [replace(s, message=s.message[:1] + bytes(4) + s.message[5:10]) for s in said]

    return _fault(bend)
