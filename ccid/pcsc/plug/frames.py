"""Frames between the plug (``plug.c``) and its helper: native integers of 32 bits, then data.

``plug.c`` declares the same in C; ``tests/unit/test_plug_numbers.py`` compares both.
"""

from __future__ import annotations

import socket
import struct
from enum import IntEnum

REQUEST_FIELDS = {"operation": "I", "argument": "I", "capacity": "I", "length": "I"}
"""The head of a request; ``length`` bytes of data follow. The letters are those of ``struct``."""
REPLY_FIELDS = {"kind": "I", "code": "i", "length": "I"}
"""The head of a reply; ``length`` bytes of data follow."""
CONNECTION_FIELDS = {"lun": "I"}
"""The message on the control socket that connects a channel. The channel's request socket and
event socket come with the message as descriptors."""
REQUEST = struct.Struct("=" + "".join(REQUEST_FIELDS.values()))
REPLY = struct.Struct("=" + "".join(REPLY_FIELDS.values()))
CONNECTION = struct.Struct("=" + "".join(CONNECTION_FIELDS.values()))

BUFFER_SIZE = 1 << 17
"""Bytes of the longest request, head included. The plug sends and accepts no longer frames."""
WITHOUT_DATA = 5
"""Bytes of the longest short command APDU that has no data."""
CONTROL_FD = 3
"""The descriptor of the control socket in the helper."""
EVENT_CHANGE, EVENT_GONE = b"!", b"x"
"""A byte on the event socket: the slot may have changed; the reader was unplugged."""


class Operation(IntEnum):
    """What the plug asks for."""

    OPEN = 1
    CLOSE = 2
    GET = 3
    SET = 4
    PROTOCOL = 5
    POWER = 6
    TRANSMIT = 7
    CONTROL = 8
    PRESENCE = 9


class Kind(IntEnum):
    """What the helper sends on the request socket."""

    REPLY = 0
    ALIVE = 1


ALIVE = REPLY.pack(Kind.ALIVE, 0, 0)
"""The frame that says that the request still runs and the helper is not stuck."""

Request = tuple[int, int, int, bytes]
"""Operation, argument, capacity and data. A plain tuple, because each APDU makes one."""


class Requests:
    """Receives the requests of one channel.

    Args:
        connection: The channel's request socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._is_stream = connection.type == socket.SOCK_STREAM
        self._buffer = memoryview(bytearray(BUFFER_SIZE))

    def receive(self) -> Request | None:
        """The next request; None when the plug has hung up.

        Raises:
            ValueError: The message is no request, or longer than :data:`BUFFER_SIZE`.
        """
        buffer = self._buffer
        got = self._connection.recv_into(buffer)
        if got < REQUEST.size and not (got := self._more(got, REQUEST.size)):
            return None
        operation, argument, capacity, length = REQUEST.unpack_from(buffer)
        size = REQUEST.size + length
        if got != size:
            if size > BUFFER_SIZE or got > size:
                raise ValueError(f"a request of {length} bytes, of which {got} came")
            if not self._more(got, size):
                return None
        data = buffer[REQUEST.size : size].tobytes()
        if length > WITHOUT_DATA:  # it may be a secret, and the buffer is kept
            buffer[REQUEST.size : size] = bytes(length)
        return operation, argument, capacity, data

    def _more(self, got: int, size: int) -> int:
        """Receive the rest of a frame on a stream socket.

        Args:
            got: Bytes in the buffer.
            size: Bytes to have in the buffer.

        Returns:
            ``size``; 0 when the plug has hung up.

        Raises:
            ValueError: The socket is no stream, so no rest will come.
        """
        if got and not self._is_stream:
            raise ValueError(f"{got} bytes are no request")
        while 0 < got < size:
            more = self._connection.recv_into(self._buffer[got:])
            got = got + more if more else 0
        return got


_REPLY = int(Kind.REPLY)  # looked up once: every reply has this number


def reply(code: int, data: bytes = b"") -> bytes:
    """The frame of a reply."""
    return REPLY.pack(_REPLY, code, len(data)) + data
