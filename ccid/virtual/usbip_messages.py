"""The messages of the USB/IP protocol: bytes to objects and back, pure.

The protocol is that of Linux's Documentation/usb/usbip_protocol, version 1.1.1, numbers
big-endian. A connection starts with a request of at least 8 bytes: OP_REQ_DEVLIST for the list of
devices, or OP_REQ_IMPORT for one device. After an import, commands of 48 bytes follow: CMD_SUBMIT
is a URB, followed by the data of an OUT transfer; CMD_UNLINK withdraws a URB. RET_SUBMIT and
RET_UNLINK answer, in any order, with the command's seqnum; the data of an IN transfer follow
RET_SUBMIT.

The declarations define the layout. ``struct`` packs and unpacks the messages of every URB; tests
compare both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from construct import (
    Adapter,
    Array,
    Byte,
    Bytes,
    Const,
    CString,
    FixedSized,
    Int16ub,
    Int32sb,
    Int32ub,
    OneOf,
    PrefixedArray,
    this,
)

from ccid.codec.declaration import Declared, declared, wire
from ccid.errors import MalformedMessage
from ccid.ground.records import vars_of

VERSION = 0x0111
OP_HEADER_LENGTH = 8
BUSID_LENGTH = 32
COMMAND_LENGTH = 48
MAX_TRANSFER = 16 << 20
"""Bytes of the longest transfer: the limit of Linux for the URBs of a program."""
NOT_ISOCHRONOUS = (0, -1)
"""number_of_packets of URBs that are not isochronous: 0 by the kernel, -1 by its documentation."""

CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
"""Commands and returns."""

SHORT_NOT_OK = 0x0001
"""transfer_flags: an IN transfer that is not filled fails."""
ZERO_PACKET = 0x0040
"""transfer_flags: an empty packet ends an OUT transfer whose last packet is full."""

EPIPE, ECONNRESET, EREMOTEIO = -32, -104, -121
"""status, Linux's numbers: stalled, unlinked, shorter than SHORT_NOT_OK allows."""


class Op(IntEnum):
    """Code of a request or an answer."""

    REQ_DEVLIST = 0x8005
    REP_DEVLIST = 0x0005
    REQ_IMPORT = 0x8003
    REP_IMPORT = 0x0003


class OpStatus(IntEnum):
    """Status of an answer."""

    OK = 0
    NA = 1
    DEV_BUSY = 2
    DEV_ERR = 3
    NODEV = 4
    ERROR = 5


class Speed(IntEnum):
    """Linux's ``enum usb_device_speed``."""

    LOW = 1
    FULL = 2
    HIGH = 3


class Direction(IntEnum):
    """Direction of a URB."""

    OUT = 0
    IN = 1


def _text(size: int) -> Any:
    """A C string in ``size`` bytes."""
    return wire(FixedSized(size, CString("utf8")))


# Requests and answers -------------------------------------------------------------------------


class Nested(Adapter):  # type: ignore[misc]
    """A declaration as the construct of a field in another declaration."""

    def __init__(self, cls: type[Declared]) -> None:
        super().__init__(cls.layout)
        self.cls = cls

    def _decode(self, obj: Any, context: Any, path: Any) -> Declared:
        return self.cls(**{k: v for k, v in obj.items() if not k.startswith("_")})

    def _encode(self, obj: Declared, context: Any, path: Any) -> dict[str, Any]:
        return vars_of(obj)


@declared
class OpHeader(Declared):
    """The first bytes of every request and every answer."""

    error = MalformedMessage

    version: int = wire(Const(VERSION, Int16ub), default=VERSION)
    code: int = wire(Int16ub)
    status: int = wire(Int32ub, default=OpStatus.OK)


@declared
class ImportRequest(Declared):
    """The rest of OP_REQ_IMPORT, after the header."""

    error = MalformedMessage

    busid: str = _text(BUSID_LENGTH)


@declared
class ExportedDevice(Declared):
    """A device: after the header of OP_REP_IMPORT, and in OP_REP_DEVLIST."""

    error = MalformedMessage

    path: str = _text(256)
    busid: str = _text(BUSID_LENGTH)
    busnum: int = wire(Int32ub)
    devnum: int = wire(Int32ub)
    speed: int = wire(Int32ub)
    idVendor: int = wire(Int16ub)
    idProduct: int = wire(Int16ub)
    bcdDevice: int = wire(Int16ub)
    bDeviceClass: int = wire(Byte)
    bDeviceSubClass: int = wire(Byte)
    bDeviceProtocol: int = wire(Byte)
    bConfigurationValue: int = wire(Byte)
    bNumConfigurations: int = wire(Byte)
    bNumInterfaces: int = wire(Byte)


@declared
class ExportedInterface(Declared):
    """An interface of a device in OP_REP_DEVLIST."""

    error = MalformedMessage

    bInterfaceClass: int = wire(Byte)
    bInterfaceSubClass: int = wire(Byte)
    bInterfaceProtocol: int = wire(Byte)
    padding: int = wire(Byte, default=0)


@declared
class ListedDevice(ExportedDevice):
    """A device with its interfaces in OP_REP_DEVLIST."""

    interfaces: list[ExportedInterface] = wire(
        Array(this.bNumInterfaces, Nested(ExportedInterface))
    )


@declared
class DeviceList(Declared):
    """The rest of OP_REP_DEVLIST, after the header."""

    error = MalformedMessage

    devices: list[ListedDevice] = wire(PrefixedArray(Int32ub, Nested(ListedDevice)))


# URBs -----------------------------------------------------------------------------------------


@declared
class Urb(Declared):
    """The first bytes of commands and returns. A return must repeat seqnum only."""

    error = MalformedMessage

    command: int = wire(OneOf(Int32ub, (CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK)))
    seqnum: int = wire(Int32ub)
    devid: int = wire(Int32ub, default=0)
    direction: int = wire(OneOf(Int32ub, tuple(Direction)), default=Direction.OUT)
    ep: int = wire(OneOf(Int32ub, range(16)), default=0)


@declared
class CmdSubmit(Urb):
    """USBIP_CMD_SUBMIT; the data of an OUT transfer follow."""

    command: int = wire(Const(CMD_SUBMIT, Int32ub), default=CMD_SUBMIT)
    transfer_flags: int = wire(Int32ub, default=0)
    transfer_buffer_length: int = wire(OneOf(Int32sb, range(MAX_TRANSFER + 1)), default=0)
    start_frame: int = wire(Int32sb, default=0)
    number_of_packets: int = wire(OneOf(Int32sb, NOT_ISOCHRONOUS), default=0)
    interval: int = wire(Int32sb, default=0)
    setup: bytes = wire(Bytes(8), default=bytes(8))


@declared
class RetSubmit(Urb):
    """USBIP_RET_SUBMIT; the data of an IN transfer follow."""

    command: int = wire(Const(RET_SUBMIT, Int32ub), default=RET_SUBMIT)
    status: int = wire(Int32sb, default=0)
    actual_length: int = wire(Int32sb, default=0)
    start_frame: int = wire(Int32sb, default=0)
    number_of_packets: int = wire(Int32sb, default=0)
    error_count: int = wire(Int32sb, default=0)
    padding: bytes = wire(Bytes(8), default=bytes(8))


@declared
class CmdUnlink(Urb):
    """USBIP_CMD_UNLINK."""

    command: int = wire(Const(CMD_UNLINK, Int32ub), default=CMD_UNLINK)
    unlink_seqnum: int = wire(Int32ub)
    padding: bytes = wire(Bytes(24), default=bytes(24))


@declared
class RetUnlink(Urb):
    """USBIP_RET_UNLINK: -ECONNRESET if the URB was pending, 0 if it had returned before."""

    command: int = wire(Const(RET_UNLINK, Int32ub), default=RET_UNLINK)
    status: int = wire(Int32sb, default=0)
    padding: bytes = wire(Bytes(24), default=bytes(24))


# By struct, for speed -------------------------------------------------------------------------

_command = struct.Struct(">6I4i8s")
"""CmdSubmit, and CmdUnlink up to unlink_seqnum."""
_ret_submit = struct.Struct(">5I5i8x")
_ret_unlink = struct.Struct(">5Ii24x")


class Submit(NamedTuple):
    """A CMD_SUBMIT with its data. ``endpoint`` is an address: bit 7 is the direction."""

    seqnum: int
    endpoint: int
    flags: int
    length: int
    packets: int
    setup: bytes
    data: bytes

    def __repr__(self) -> str:
        """Text without the data, which may hold a secret."""
        return (
            f"Submit(seqnum={self.seqnum}, endpoint=0x{self.endpoint:02X}, "
            f"setup={self.setup.hex()!r}, data=<{len(self.data)} bytes>)"
        )


class Unlink(NamedTuple):
    """A CMD_UNLINK."""

    seqnum: int
    unlink_seqnum: int


def ret_submit(seqnum: int, status: int, actual_length: int, packets: int) -> bytes:
    """A RET_SUBMIT; ``packets`` is the number_of_packets of the command."""
    return _ret_submit.pack(RET_SUBMIT, seqnum, 0, 0, 0, status, actual_length, 0, packets, 0)


def ret_unlink(seqnum: int, status: int) -> bytes:
    """A RET_UNLINK."""
    return _ret_unlink.pack(RET_UNLINK, seqnum, 0, 0, 0, status)


class CommandStream:
    """Cuts the bytes that a client sends into commands."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def is_partial(self) -> bool:
        """True if a command is incomplete."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[Submit | Unlink]:
        """Take ``data``; return the commands that are complete now.

        Raises:
            MalformedMessage: The bytes are not a command; the stream is unusable afterwards.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= COMMAND_LENGTH:
            command, seqnum, _, direction, ep, word, length, _, packets, _, setup = (
                _command.unpack_from(buffer)
            )
            if direction > 1 or ep > 15:
                raise _wrong("direction" if direction > 1 else "ep")
            end = COMMAND_LENGTH
            if command == CMD_UNLINK:
                del buffer[:end]
                yield Unlink(seqnum, word)
                continue
            if command != CMD_SUBMIT:
                raise _wrong("command")
            if packets not in NOT_ISOCHRONOUS:
                raise _wrong("number_of_packets")
            if not 0 <= length <= MAX_TRANSFER:
                raise _wrong("transfer_buffer_length")
            if not direction:
                end += length
                if len(buffer) < end:
                    return
            out = bytes(buffer[COMMAND_LENGTH:end])
            del buffer[:end]
            yield Submit(seqnum, ep | direction << 7, word, length, packets, setup, out)


def _wrong(field: str) -> MalformedMessage:
    return MalformedMessage(f"USB/IP: {field} of a command is out of order", field=field)
