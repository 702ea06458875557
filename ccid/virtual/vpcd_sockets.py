"""TCP sockets of the vpcd protocol, without delays.

Some programs send the length and the content of a message by two calls. With Nagle's algorithm the
second part waits for the acknowledgement of the first, and the kernel delays an acknowledgement
by 40 ms. :func:`receive` asks the kernel to acknowledge at once, where the kernel has the option.
"""

from __future__ import annotations

import socket
from contextlib import suppress

CHUNK = 1 << 16
"""The most bytes of one call."""
QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux's option; the kernel clears it again, so :func:`receive` sets it at every call."""


def send_at_once(sock: socket.socket) -> None:
    """Turn Nagle's algorithm off for a connected socket."""
    with suppress(OSError):  # the connection is closed already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _acknowledge_at_once(sock)


def receive(sock: socket.socket) -> bytes:
    """The bytes that have come, 65,536 at most; empty at the end of the connection.

    Raises:
        OSError: The connection broke; BlockingIOError if a non-blocking socket has no bytes.
    """
    data = sock.recv(CHUNK)
    _acknowledge_at_once(sock)
    return data


def _acknowledge_at_once(sock: socket.socket) -> None:
    if QUICKACK is not None:
        with suppress(OSError):  # the connection is closed already, or the system lacks the option
            sock.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
