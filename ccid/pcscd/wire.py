"""Frames between the plug (``plug.c``) and its helper: native integers of 32 bits, then data."""

from __future__ import annotations

import socket
import struct
from enum import IntEnum
from typing import NamedTuple

REQUEST = struct.Struct("=IIII")
"""Operation, argument, capacity, length of the data that follow."""
REPLY = struct.Struct("=IiI")
"""Kind, response code, length of the data that follow."""
LUN = struct.Struct("=I")
"""On the control socket: a channel, with its request and its event socket as descriptors."""

BUFFER = 1 << 17
"""Bytes of the longest request, and more."""


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


class Request(NamedTuple):
    """One request. ``data`` is only good until the next is received."""

    operation: int
    argument: int
    capacity: int
    data: memoryview


class Requests:
    """Receives the requests of one channel.

    Args:
        connection: Its request socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = memoryview(bytearray(BUFFER))

    def receive(self) -> Request | None:
        """The next request; None when the plug has hung up.

        Raises:
            ValueError: It is longer than any can be.
        """
        buffer, connection = self._buffer, self._connection
        got = connection.recv_into(buffer)
        size = REQUEST.size
        while got and got < size:
            more = connection.recv_into(buffer[got:])
            if not more:
                return None
            got += more
        if not got:
            return None
        operation, argument, capacity, length = REQUEST.unpack_from(buffer)
        size += length
        if size > BUFFER:
            raise ValueError(f"a request of {length} bytes")
        while got < size:
            more = connection.recv_into(buffer[got:])
            if not more:
                return None
            got += more
        return Request(operation, argument, capacity, buffer[REQUEST.size : size])


def reply(code: int, data: bytes = b"") -> bytes:
    """The frame of a reply."""
    return REPLY.pack(Kind.REPLY, code, len(data)) + data
