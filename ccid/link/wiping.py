"""Overwrites what a message left in the buffers of a transport, which are kept for the next one.

A PIN would stay there until a longer message comes, perhaps for as long as the reader is open. What
must not be overwritten is what libusb still sends or still receives into: so a buffer is wiped by
the thread that has its turn at it, when the transfer has ended.
"""

from __future__ import annotations

from ccid.codec.messages import MESSAGE_HEADER
from ccid.transport import IN_CAPACITY, OUT_CAPACITY

ZEROS = memoryview(bytes(max(IN_CAPACITY, OUT_CAPACITY)))
"""A ``bytes`` of zeros costs no memory until it is written to, which it never is."""


def wipe(buffer: memoryview, end: int) -> None:
    """Overwrite the bytes of ``buffer`` from the end of a message's header to ``end``."""
    if end > MESSAGE_HEADER:
        end = min(end, len(buffer))
        buffer[MESSAGE_HEADER:end] = ZEROS[MESSAGE_HEADER:end]
