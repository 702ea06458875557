"""Overwrites what a message left in the buffers of a transport, which are kept for the next one.

A PIN would stay there until a longer message comes, perhaps for as long as the reader is open. What
must not be overwritten is what libusb still sends or still receives into: so a buffer is wiped by
the thread that has its turn at it, when the transfer has ended.
"""

from __future__ import annotations

from ccid.codec.messages import MESSAGE_HEADER
from ccid.transport import IN_CAPACITY, OUT_CAPACITY

ZEROS = bytes(max(IN_CAPACITY, OUT_CAPACITY))
"""It costs no memory until it is written to, which it never is. No memoryview: threads that slice
the same one break it for good in a Python without the GIL (issue 127716 of CPython)."""
COPIED = 4096
"""Up to so many bytes, a slice of them is made in less time than a view of them all."""


def wipe(buffer: memoryview, end: int) -> None:
    """Overwrite the bytes of ``buffer`` from the end of a message's header to ``end``."""
    if end > MESSAGE_HEADER:
        end = min(end, len(buffer))
        zeros = ZEROS if end <= COPIED else memoryview(ZEROS)
        buffer[MESSAGE_HEADER:end] = zeros[MESSAGE_HEADER:end]
