"""A Unix socket in the file system that nobody but its user can connect to."""

from __future__ import annotations

import os
import socket
import sys

CLOSED = 0o177
"""The umask that leaves reading and writing to the user."""


def bind_private(made: socket.socket, path: str) -> None:
    """Bind a socket to a new file of mode 0600.

    On Linux the file gets the mode of the socket (unix(7)). Elsewhere only the umask keeps others
    away, which is that of all threads: two that bind at once would put back each other's.

    Args:
        made: A Unix socket.
        path: The file; it must not exist.

    Raises:
        OSError: The file cannot be made.
    """
    if sys.platform == "linux":
        os.fchmod(made.fileno(), 0o600)
        made.bind(path)
        return
    mask = os.umask(CLOSED)
    try:
        made.bind(path)
    finally:
        os.umask(mask)
