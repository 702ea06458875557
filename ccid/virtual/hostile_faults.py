"""A malicious reader or card: faults that no honest device has, for tests of a driver.

    reader.faults.append(hostile_faults.malicious(Malice.TIME_EXTENSIONS))

Each fault goes on until it is taken out of the reader's list. The driver has to end each command
after a bounded time with an error, in bounded memory. ``docs/security.md`` tells what this driver
does about each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from enum import Enum
from typing import TYPE_CHECKING

from ccid.codec.descriptors import SmartCardDescriptor
from ccid.codec.messages import (
    MESSAGE_HEADER,
    Command,
    PC_to_RDR_XfrBlock,
    RDR_to_PC_HardwareError,
    RDR_to_PC_NotifySlotChange,
)
from ccid.codes import Chain, CommandStatus, SlotError
from ccid.iso7816.error_detection import lrc
from ccid.virtual import faults
from ccid.virtual.faults import Bend, Fault, Said

if TYPE_CHECKING:
    from ccid.virtual.ccid_function import CcidFunction

PAUSE_S = 0.01
"""Seconds between two messages of a kind that pauses."""
NOTIFICATION_S = 0.001
"""Seconds between two notifications: an endpoint of a full-speed device has one in each frame."""
ANNOUNCED = 65_000
"""Bytes that a reply announces which never comes to its end."""
MANY_SLOTS = 256
"""Slots that a notification tells of, whatever the reader has."""
UNKNOWN_EVENT = b"\x5f" + bytes(15)
SIZES = {"dw": 4, "w": 2, "bcd": 2, "b": 1}
"""Bytes of a field, by the first letters of its name."""


class Malice(Enum):
    """What a malicious reader or card does. The value says it in words."""

    LENGTH_TOO_LARGE = "dwLength says more bytes than come"
    LENGTH_TOO_SMALL = "dwLength says fewer bytes than come"
    LENGTH_4_GB = "dwLength is 2^32 - 1"
    HEADER_CUT = "the header breaks off after 7 bytes"
    TIME_EXTENSIONS = "time extensions without end, without a pause"
    SLOW_TIME_EXTENSIONS = "time extensions without end, with pauses"
    LONG_TIME_EXTENSIONS = "time extensions without end, each for 255 waiting times"
    STALE_REPLIES = "replies to an earlier command without end"
    REPLIES_OF_OTHER_SLOTS = "replies of slots that do not exist, without end"
    REPLIES_OF_ANOTHER_TYPE = "replies of another type without end"
    EMPTY_TRANSFERS = "empty transfers without end"
    NOISE = "bytes that are no message, without end"
    DRIP = "a long reply, one packet after each pause"
    STREAM = "a long reply that does not stop at its end"
    SILENCE = "no reply"
    STALLS = "a stall instead of each reply"
    BUSY = "each command is refused, for the slot is busy"
    RESERVED_STATUS = "each reply has a reserved bmCommandStatus"
    CHAINING = "chained replies without end (extended APDU level)"
    EMPTY_CHAINING = "chained replies without data, without end (extended APDU level)"
    T1_WTX = "waiting time extensions of T=1 without end"
    T1_CHAINING = "chained I-blocks of T=1 without end"
    T1_RESYNCH = "requests of T=1 for another block size without end"
    T0_NULL = "NULL bytes of T=0 without end"
    T0_GET_RESPONSE = "SW1 61 of T=0 without end: more data to get"
    T0_WRONG_LENGTH = "SW1 6C of T=0 without end: another length wanted"
    NOTIFICATIONS = "notifications without end: card out, card in"
    NOTIFICATIONS_OF_OTHER_SLOTS = "notifications of 256 slots without end"
    HARDWARE_ERRORS = "hardware errors without end"
    UNKNOWN_EVENTS = "events of no known type without end"


def malicious(
    kind: Malice, on: type[Command] | None = None, times: int | None = None, after: int = 0
) -> Fault:
    """The fault of this kind.

    Args:
        kind: What the reader or card does.
        on: The command to whose replies the reader does it; None for any. Kinds of T=1, T=0 and
            chaining always wait for PC_to_RDR_XfrBlock.
        times: Number of commands to which the reader does it, None for all.
        after: Number of such commands that pass unchanged first.
    """
    by_card = kind.name.startswith(("T0_", "T1_")) or kind in (
        Malice.CHAINING,
        Malice.EMPTY_CHAINING,
    )
    return Fault(_BENDS[kind], PC_to_RDR_XfrBlock if by_card else on, times, after)


def hostile_descriptors(honest: SmartCardDescriptor) -> Iterator[tuple[str, SmartCardDescriptor]]:
    """``honest`` with 0, 1, and all ones in each of its fields in turn, and the name of each.

    Args:
        honest: The descriptor of a reader that works.
    """
    for field in fields(honest)[2:]:  # bLength and bDescriptorType make it a class descriptor
        size = next(n for prefix, n in SIZES.items() if field.name.startswith(prefix))
        for value in (0, 1, (1 << 8 * size) - 1):
            if value != getattr(honest, field.name):
                yield f"{field.name} = {value:#x}", replace(honest, **{field.name: value})


# How it is done -----------------------------------------------------------------------------------


def _head(command: bytes, said: list[Said], **changed: int) -> bytes:
    """The header of the reply, with changed bytes: ``b1`` to ``b9``."""
    honest = said[-1].message[:MESSAGE_HEADER] if said else b""
    head = bytearray(honest.ljust(MESSAGE_HEADER, b"\0"))
    head[5:7] = command[5:7]
    for name, value in changed.items():
        head[int(name[1:])] = value & 0xFF
    return bytes(head)


def _empty(head: bytes) -> bytes:
    """A message of this header that has no data."""
    return head[:1] + bytes(4) + head[5:]


def _endless(make: Callable[[bytes, list[Said]], bytes], every_s: float = 0.0) -> Bend:
    """The same message again and again instead of the reply."""

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        message = make(command, said)
        start = said[0].due if said else 0.0
        function.bulk_in.go_on((message, start + n * every_s) for n in itertools.count())
        return []

    return bend


def _exactly(dwLength: int) -> Bend:
    def bend(_function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        length = dwLength.to_bytes(4, "little")
        return [replace(s, message=s.message[:1] + length + s.message[5:]) for s in said]

    return bend


def _extension(multiplier: int) -> Callable[[bytes, list[Said]], bytes]:
    status = CommandStatus.TIME_EXTENSION << 6
    return lambda command, said: _empty(_head(command, said, b7=status, b8=multiplier, b9=0))


def _long_reply(every_s: float) -> Bend:
    """A reply that announces many bytes, packet by packet, and does not stop at its end."""

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        pipe, start = function.bulk_in, said[0].due if said else 0.0
        size = pipe.packet_size
        head = _head(command, said, b7=0, b8=0, b9=0)
        first = head[:1] + ANNOUNCED.to_bytes(4, "little") + head[5:] + bytes(size - len(head))
        later = ((bytes(size), start + n * every_s) for n in itertools.count(1))
        pipe.go_on(itertools.chain([(first, start)], later), is_open=True)
        return []

    return bend


def _answer(make: Callable[[bytes], bytes], chain: Chain = Chain.WHOLE) -> Bend:
    """Another content of RDR_to_PC_DataBlock, made from the command."""

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        data = make(command)
        if command[5] < len(function.slots):
            function.slots[command[5]].busy_until = None  # with an answer that nobody hears
        head = _head(command, said, b7=0, b8=0, b9=chain)
        message = b"\x80" + len(data).to_bytes(4, "little") + head[5:] + data
        return [Said(message, said[0].due if said else 0.0)]

    return bend


def _chained(data: bytes) -> Bend:
    """The first block of a chain, then more of it as often as the host asks."""

    def bend(function: CcidFunction, command: bytes, said: list[Said]) -> list[Said]:
        goes_on = command[8:10] == b"\x10\0"
        chain = Chain.CONTINUES if goes_on else Chain.BEGINS
        return _answer(lambda _: data, chain)(function, command, said)

    return bend


def _block(pcb: int, inf: bytes) -> bytes:
    body = bytes((0, pcb, len(inf))) + inf
    return body + lrc(body)


def _more(command: bytes) -> bytes:
    """An I-block that says that more follow, with the number that the host's R-block wants."""
    block = command[MESSAGE_HEADER:]
    is_r = len(block) > 1 and block[1] & 0xC0 == 0x80
    return _block(0x60 if is_r and block[1] & 0x10 else 0x20, bytes(254))


def _nulls(command: bytes) -> bytes:
    """As many NULL bytes as the host asks for (character level: wLevelParameter)."""
    return b"\x60" * max(1, int.from_bytes(command[8:10], "little"))


def _notifying(make: Callable[[int, int], bytes]) -> Bend:
    """Notifications without end, from this command on; its reply comes as it should.

    Args:
        make: Makes a notification, of its number and the number of slots.
    """

    def bend(function: CcidFunction, _command: bytes, said: list[Said]) -> list[Said]:
        pipe = function.interrupt_in
        if pipe is not None and not pipe.is_endless:
            start, slots = said[0].due if said else 0.0, len(function.slots)
            pipe.go_on((make(n, slots), start + n * NOTIFICATION_S) for n in itertools.count())
        return said

    return bend


def _out_and_in(number: int, slots: int) -> bytes:
    return RDR_to_PC_NotifySlotChange.of([(bool(number % 2), True)] * slots).build()


_BENDS: dict[Malice, Bend] = {
    Malice.LENGTH_TOO_LARGE: faults.lying_length(1).bend,
    Malice.LENGTH_TOO_SMALL: faults.lying_length(-1).bend,
    Malice.LENGTH_4_GB: _exactly(0xFFFF_FFFF),
    Malice.HEADER_CUT: faults.cut_short(7).bend,
    Malice.TIME_EXTENSIONS: _endless(_extension(1)),
    Malice.SLOW_TIME_EXTENSIONS: _endless(_extension(1), PAUSE_S),
    Malice.LONG_TIME_EXTENSIONS: _endless(_extension(255), PAUSE_S),
    Malice.STALE_REPLIES: _endless(lambda c, s: _empty(_head(c, s, b6=c[6] - 1))),
    Malice.REPLIES_OF_OTHER_SLOTS: _endless(lambda c, s: _empty(_head(c, s, b5=0xFF))),
    Malice.REPLIES_OF_ANOTHER_TYPE: _endless(lambda c, s: _empty(_head(c, s, b0=0x84))),
    Malice.EMPTY_TRANSFERS: _endless(lambda _c, _s: b""),
    Malice.NOISE: _endless(lambda _c, _s: b"\xde\xad\xbe\xef" * 8),
    Malice.DRIP: _long_reply(PAUSE_S),
    Malice.STREAM: _long_reply(0.0),
    Malice.SILENCE: faults.silence().bend,
    Malice.STALLS: faults.stall_in().bend,
    Malice.BUSY: faults.failing(SlotError.CMD_SLOT_BUSY).bend,
    Malice.RESERVED_STATUS: faults.reserved_status().bend,
    Malice.CHAINING: _chained(bytes(255)),
    Malice.EMPTY_CHAINING: _chained(b""),
    Malice.T1_WTX: _answer(lambda _: _block(0xC3, b"\1")),
    Malice.T1_CHAINING: _answer(_more),
    Malice.T1_RESYNCH: _answer(lambda _: _block(0xC1, b"\x20")),
    Malice.T0_NULL: _answer(_nulls),
    Malice.T0_GET_RESPONSE: _answer(lambda _: b"\x61\x10"),
    Malice.T0_WRONG_LENGTH: _answer(lambda _: b"\x6c\x10"),
    Malice.NOTIFICATIONS: _notifying(_out_and_in),
    Malice.NOTIFICATIONS_OF_OTHER_SLOTS: _notifying(
        lambda number, _: RDR_to_PC_NotifySlotChange.of(
            [(bool(number % 2), True)] * MANY_SLOTS
        ).build()
    ),
    Malice.HARDWARE_ERRORS: _notifying(
        lambda _n, _s: RDR_to_PC_HardwareError(bHardwareErrorCode=1).build()
    ),
    Malice.UNKNOWN_EVENTS: _notifying(lambda _n, _s: UNKNOWN_EVENT),
}
