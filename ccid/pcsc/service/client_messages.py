"""What libpcsclite and its service say to each other: commands and structures; pure.

A request is a header (size of the fixed body, command), the body, and for TRANSMIT and CONTROL the
data, which the size does not count. A reply is the body with results filled in, and no header.
All numbers are in host byte order. The protocol has versions 4:2 to 4:6, by which some requests and
replies differ.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from ccid.iso7816.atr import MAX_ATR
from ccid.pcsc.manager.pcsc_state import SlotView

MAJOR = 4
MIN_MINOR, MAX_MINOR = 2, 6
DEFAULT_MINOR = 4
"""Of a client that does not say."""

OLD_NAME, NAME = 100, 128
"""Bytes of a reader's name before libpcsclite 1.8.4, and since."""
MAX_ATTRIBUTE = 264
MAX_DATA = 65548
NO_ATR = 34
"""atrLen of an entry that has no reader."""


class Command(IntEnum):
    """Commands of a client."""

    ESTABLISH = 0x01
    RELEASE = 0x02
    CONNECT = 0x04
    RECONNECT = 0x05
    DISCONNECT = 0x06
    BEGIN = 0x07
    END = 0x08
    TRANSMIT = 0x09
    CONTROL = 0x0A
    STATUS = 0x0B
    CANCEL = 0x0D
    GETATTRIB = 0x0F
    SETATTRIB = 0x10
    VERSION = 0x11
    GETSTATE = 0x12
    WAIT = 0x13
    STOP = 0x14
    EVENTS = 0x15
    SIZE = 0x16
    ARRAY = 0x17


HEADER = struct.Struct("=II")
"""Size of the body, command."""
TWO = struct.Struct("=II")
"""hContext or hCard, or a time-out; and rv."""
THREE = struct.Struct("=III")
"""ESTABLISH (scope, hContext), DISCONNECT and END (hCard, disposition), VERSION (major, minor);
and rv."""
SIX = struct.Struct("=IIIIII")
"""RECONNECT and CONTROL."""
CONNECT = struct.Struct("=I128sIIIII")
"""hContext, name, share mode, preferred protocols, hCard, active protocol, rv."""
CONNECT_OLD = struct.Struct("=I100sIIIII")
TRANSMIT = struct.Struct("=IIIIIIII")
"""hCard, send protocol and length, cbSend, receive protocol and length, pcbRecv, rv."""
ATTRIBUTE = struct.Struct("=II264sII")
"""hCard, attribute, data, cbAttrLen, rv."""
COUNT = struct.Struct("=i")
ENTRY = struct.Struct("=128sIIi33s3xII")
"""Name, event counter, state, sharing, ATR, atrLen, protocol."""
ENTRY_OLD = struct.Struct("=100sIIi33s3xII")

BODIES: dict[Command, tuple[int, ...]] = {
    Command.ESTABLISH: (THREE.size,),
    Command.RELEASE: (TWO.size,),
    Command.CONNECT: (CONNECT.size, CONNECT_OLD.size),
    Command.RECONNECT: (SIX.size,),
    Command.DISCONNECT: (THREE.size,),
    Command.BEGIN: (TWO.size,),
    Command.END: (THREE.size,),
    Command.TRANSMIT: (TRANSMIT.size,),
    Command.CONTROL: (SIX.size,),
    Command.STATUS: (TWO.size,),
    Command.CANCEL: (TWO.size,),
    Command.GETATTRIB: (ATTRIBUTE.size,),
    Command.SETATTRIB: (ATTRIBUTE.size,),
    Command.VERSION: (THREE.size,),
    Command.GETSTATE: (0,),
    Command.WAIT: (0, TWO.size),
    Command.STOP: (0, TWO.size),
    Command.EVENTS: (0,),
    Command.SIZE: (0,),
    Command.ARRAY: (0,),
}
"""The sizes that a body may have. WAIT and STOP have one up to 4:3, CONNECT is shorter before
libpcsclite 1.8.4."""


class BadRequest(Exception):
    """A client said what no libpcsclite says: it cannot be understood any further."""


def request_length(header: bytes | bytearray) -> tuple[Command, int]:
    """The command, and how long its body is.

    Raises:
        BadRequest: There is no such command, or its body has another size.
    """
    size, number = HEADER.unpack_from(header)
    try:
        command = Command(number)
    except ValueError:
        raise BadRequest(f"command 0x{number:X}") from None
    if size not in BODIES[command]:
        raise BadRequest(f"{command.name} of {size} bytes")
    return command, size


def data_length(command: Command, body: bytes) -> int:
    """How many bytes of data follow the body.

    Raises:
        BadRequest: Too many; or an attribute is longer than one can be.
    """
    if command in (Command.GETATTRIB, Command.SETATTRIB):
        if ATTRIBUTE.unpack(body)[3] > MAX_ATTRIBUTE:
            raise BadRequest(f"{command.name} with too long an attribute")
        return 0
    if command is Command.TRANSMIT:
        length = int(TRANSMIT.unpack(body)[3])
    elif command is Command.CONTROL:
        length = int(SIX.unpack(body)[2])
    else:
        return 0
    if length > MAX_DATA:
        raise BadRequest(f"{command.name} with {length} bytes of data")
    return length


def reader_name(field: bytes) -> str:
    """The name in a request, up to its NUL; what is no UTF-8 becomes a name that no reader has."""
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def array(views: list[SlotView | None], count: int, name_size: int) -> bytes:
    """The reader-state array.

    Args:
        views: The slots, by place.
        count: How many entries it has; further slots are left out.
        name_size: Bytes of a name.
    """
    form = ENTRY if name_size == NAME else ENTRY_OLD
    shown = [*views[:count], *[None] * (count - len(views))]
    return b"".join(_entry(view, form, name_size) for view in shown)


def _entry(view: SlotView | None, form: struct.Struct, name_size: int) -> bytes:
    if view is None:
        return form.pack(b"", 0, 0, 0, b"", NO_ATR, 0)
    name = view.name.encode()[: name_size - 1]
    atr = view.atr[:MAX_ATR]  # a client copies as many bytes as its length says
    return form.pack(
        name,
        view.counter,
        int(view.state),
        view.sharing,
        atr,
        len(atr),
        view.protocol,
    )
