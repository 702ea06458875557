"""Frames between the plug (``plug.c``) and its helper: native integers of 32 bits, then data."""

from __future__ import annotations

import socket
import struct
from enum import IntEnum

REQUEST = struct.Struct("=IIII")
"""Operation, argument, capacity, length of the data that follow."""
REPLY = struct.Struct("=IiI")
"""Kind, response code, length of the data that follow."""
LUN = struct.Struct("=I")
"""On the control socket: a channel, with its request and its event socket as descriptors."""

BUFFER = 1 << 17
"""Bytes of the longest request or reply, and more; the plug sends and takes no longer ones."""
EVENT, GONE = b"!", b"x"
"""On the event socket: something happened at the reader; it was unplugged."""


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
    """What the helper says."""

    REPLY = 0
    ALIVE = 1


ALIVE = REPLY.pack(Kind.ALIVE, 0, 0)

Request = tuple[int, int, int, bytes]
"""Operation, argument, capacity and data. No class of its own: each APDU is one."""


class Requests:
    """Receives the requests of one channel.

    Args:
        connection: Its request socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._is_stream = connection.type == socket.SOCK_STREAM
        self._buffer = memoryview(bytearray(BUFFER))

    def receive(self) -> Request | None:
        """The next request; None when the plug has hung up.

        Raises:
            ValueError: It is longer than any can be, or no request.
        """
        buffer = self._buffer
        got = self._connection.recv_into(buffer)
        if got < REQUEST.size and not (got := self._more(got, REQUEST.size)):
            return None
        operation, argument, capacity, length = REQUEST.unpack_from(buffer)
        size = REQUEST.size + length
        if got != size:
            if size > BUFFER or got > size:
                raise ValueError(f"a request of {length} bytes, of which {got} came")
            if not self._more(got, size):
                return None
        return operation, argument, capacity, buffer[REQUEST.size : size].tobytes()

    def _more(self, got: int, size: int) -> int:
        """Receive until there are ``size`` bytes, where not a whole message came at once; 0 when
        the plug has hung up."""
        if got and not self._is_stream:
            raise ValueError(f"{got} bytes are no request")
        while 0 < got < size:
            more = self._connection.recv_into(self._buffer[got:])
            got = got + more if more else 0
        return got


_REPLY = int(Kind.REPLY)  # looked up once, for every frame has it


def reply(code: int, data: bytes = b"") -> bytes:
    """The frame of a reply."""
    return REPLY.pack(_REPLY, code, len(data)) + data
