"""Reads a trace file back."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ccid.trace.pcapng import URB


class Urb(NamedTuple):
    """A packet: the header of usbmon, and the data."""

    event: str
    kind: int
    endpoint: int
    status: int
    length: int
    data: bytes
    setup: bytes
    comment: bool


def packets(raw: bytes) -> list[Urb]:
    """The URBs of a pcapng file."""
    found = []
    offset = 0
    while offset < len(raw):
        kind, size = struct.unpack_from("<II", raw, offset)
        assert size % 4 == 0
        assert struct.unpack_from("<I", raw, offset + size - 4) == (size,)
        if kind == 6:
            captured = struct.unpack_from("<I", raw, offset + 20)[0]
            packet = raw[offset + 28 : offset + 28 + captured]
            u = URB.unpack_from(packet)
            options = raw[offset + 28 + captured + (-captured % 4) : offset + size - 4]
            found.append(
                Urb(chr(u[1]), u[2], u[3], u[10], u[11], packet[64:], u[13], bool(options))
            )
            assert u[12] == len(packet) - 64
        offset += size
    return found
