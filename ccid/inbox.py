"""Whole messages off bulk-IN.

A reader ends a message with a packet that is not full, or with an empty one. So a transfer may
bring all of it, its first part (as much as was asked for, or as came before the time ran out), or
nothing but the empty packet that ends the message before.
"""

from __future__ import annotations

from ccid.errors import MalformedMessage, TransportTimeout
from ccid.messages import HEADER_LENGTH
from ccid.transport import IN_CAPACITY, Transport

FIRST_READ = 512
"""Bytes asked for at first: a short APDU's reply fits. More costs time on every APDU."""
REST_MS = 2000
"""How long the rest of a message may take once it began."""


def first_read(packet_size: int) -> int:
    """How many bytes to ask for at first: whole packets."""
    return _whole_packets(FIRST_READ, packet_size)


def _whole_packets(size: int, packet_size: int) -> int:
    return -(-size // packet_size) * packet_size


def read_message(transport: Transport, name: str, timeout_ms: int) -> bytes | None:
    """One message; None if none came in time, or only an empty packet.

    Raises:
        MalformedMessage: What came is no message. And all that the transport raises.
    """
    try:
        got = transport.receive(0, first_read(transport.packet_size), timeout_ms)
    except TransportTimeout:
        return None
    return whole_message(transport, name, got) if got else None


def whole_message(transport: Transport, name: str, got: int) -> bytes:
    """The message whose first ``got`` bytes are in ``transport.inp``, read to its end.

    Raises:
        MalformedMessage: Fewer bytes, or more, than dwLength announces.
    """
    got = _fill(transport, got, HEADER_LENGTH)
    if got < HEADER_LENGTH:
        raise MalformedMessage(
            f"{name}: {got} bytes are no reply; its header alone has {HEADER_LENGTH}",
            field="dwLength",
            reader=name,
        )
    inp = transport.inp
    size = HEADER_LENGTH + int.from_bytes(inp[1:5], "little")
    if size > IN_CAPACITY - transport.packet_size:
        raise MalformedMessage(
            f"{name}: dwLength announces {size - HEADER_LENGTH} bytes of data",
            field="dwLength",
            reader=name,
        )
    got = _fill(transport, got, size)
    if got != size:
        raise MalformedMessage(
            f"{name}: dwLength announces {size - HEADER_LENGTH} bytes of data, "
            f"{got - HEADER_LENGTH} came",
            field="dwLength",
            reader=name,
            slot=inp[5],
            bSeq=inp[6],
        )
    return bytes(inp[:size])


def _fill(transport: Transport, got: int, size: int) -> int:
    """Read on until ``size`` bytes are there, or a packet that was not full has ended it all."""
    packet = transport.packet_size
    while got < size and got % packet == 0:
        try:
            more = transport.receive(got, _whole_packets(size - got, packet), REST_MS)
        except TransportTimeout:
            break
        if more == 0:
            break
        got += more
    return got
