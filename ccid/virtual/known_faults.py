"""Faults of known real readers, for virtual readers: the faults that quirks mend.

    reader.faults.append(known_faults.hangs_at_pps())

Each fault is a :class:`ccid.virtual.faults.Fault` that changes all commands. ``docs/quirks.md``
tells which readers have the fault, and what a driver does about the fault.
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
"""PCB of S(IFS request)."""


def _fault(bend: Bend) -> Fault:
    return Fault(bend, times=None)


def _muted(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
    """The replies, changed to failures with ICC_MUTE."""
    return faults.failing(SlotError.ICC_MUTE).bend(function, command, said)


# Escapes ----------------------------------------------------------------------------------------


def blocks_by_escape(contact: Contact) -> Callable[[bytes], bytes]:
    """The Escape that carries T=1 blocks (quirk ``tpdu-escape``), for a function's ``escape``.

    Args:
        contact: The card, with T=1 in force.
    """

    def escape(data: bytes) -> bytes:
        if not data.startswith(TPDU_ESCAPE):
            return b""
        block = data[len(TPDU_ESCAPE) :]
        return TPDU_ESCAPE + b"".join(sent.data for sent in contact.receive(block))

    return escape


# Opening ----------------------------------------------------------------------------------------


def hangs_before(ready_at: float) -> Fault:
    """The reader hangs after a command before ``ready_at`` (seconds of the port's clock)."""
    hangs = False

    def bend(_function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        nonlocal hangs
        hangs |= bool(said) and said[0].due < ready_at
        return [] if hangs else said

    return _fault(bend)


def slow_to_start(ready_at: float) -> Fault:
    """No reply comes before ``ready_at`` (seconds of the port's clock)."""
    return _fault(lambda _f, _c, said: [replace(s, due=max(s.due, ready_at)) for s in said])


def stray_empty_packets() -> Fault:
    """An empty packet follows each reply; commands are lost until the host fetches the packet."""

    def bend(function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        if function.bulk_in.next_due() is not None:
            return []
        return [*said, Said(b"", said[-1].due)] if said else said

    return _fault(bend)


def waits_for_its_event() -> Fault:
    """PC_to_RDR_GetSlotStatus is lost until the host fetches the notification."""

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        events = function.interrupt_in
        unread = events is not None and events.next_due() is not None
        return [] if unread and command[0] == STATUS else said

    return _fault(bend)


# Several interfaces -----------------------------------------------------------------------------


def hangs_beside(other: CcidFunction) -> Fault:
    """A command never gets an answer if ``other``, another interface, has a reply that the host
    has not fetched."""
    return _fault(lambda _f, _c, said: said if other.bulk_in.next_due() is None else [])


# The card ---------------------------------------------------------------------------------------


def latches_up_at(bPowerSelect: int) -> Fault:
    """A card is mute after it had this voltage."""
    latched = False

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal latched
        latched |= command[0] == ON and command[7] == bPowerSelect
        return _muted(function, command, said) if latched and command[0] in (ON, XFR) else said

    return _fault(bend)


def only_from_off() -> Fault:
    """PC_to_RDR_IccPowerOn fails unless PC_to_RDR_IccPowerOff is the command before."""
    before = ON

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal before
        wrong = command[0] == ON and before != OFF
        before = command[0]
        return _muted(function, command, said) if wrong else said

    return _fault(bend)


def needs_escape(escape: bytes, bError: int) -> Fault:
    """PC_to_RDR_IccPowerOn fails with ``bError`` until the host sends this Escape."""
    mended = False

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal mended
        mended |= command[0] == ESCAPE and command[MESSAGE_HEADER:] == escape
        if mended or command[0] != ON:
            return said
        return faults.failing(bError).bend(function, command, said)

    return _fault(bend)


def mute_at(rate_is_wrong: Callable[[int], bool], slot: int | None = None) -> Fault:
    """No block gets through at some rates (bit/s), although the reader declares these rates.

    Args:
        rate_is_wrong: True for a rate at which no block gets through.
        slot: bSlot of the slot with this fault; None for all slots.
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
    """The reader hangs at a PPS request, without an answer."""
    hangs = False

    def bend(_function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        nonlocal hangs
        hangs |= command[0] == XFR and command[MESSAGE_HEADER : MESSAGE_HEADER + 1] == b"\xff"
        return [] if hangs else said

    return _fault(bend)


def loses_full_packets() -> Fault:
    """A reply whose last packet is full does not come."""

    def bend(function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        return [s for s in said if len(s.message) % function.bulk_in.packet_size]

    return _fault(bend)


def loses_long_blocks(longest: int) -> Fault:
    """A block with more than ``longest`` bytes overruns the reader's buffer: XFR_OVERRUN."""

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        if all(len(s.message) <= MESSAGE_HEADER + longest for s in said):
            return said
        return faults.failing(SlotError.XFR_OVERRUN).bend(function, command, said)

    return _fault(bend)


def empty_after_ifs_request() -> Fault:
    """After an S(IFS request) of T=1 from the host, every reply has no data."""
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
