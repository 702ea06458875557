"""BER-TLV data objects: ISO/IEC 7816-4:2013 6.3."""

from __future__ import annotations


def encode(tag: int, value: bytes) -> bytes:
    """The data object ``tag`` with this value; the length has its shortest coding."""
    return _number(tag) + _length(len(value)) + value


def decode(data: bytes) -> list[tuple[int, bytes]]:
    """The tags and values of the consecutive data objects in ``data``.

    Raises:
        ValueError: The data objects do not fill ``data`` exactly, or a length field is reserved.
    """
    objects, offset = [], 0
    while offset < len(data):
        start = offset
        offset += 1
        if data[start] & 0x1F == 0x1F:
            while data[offset : offset + 1] >= b"\x80":
                offset += 1
            offset += 1
        tag = int.from_bytes(data[start:offset], "big")
        length, offset = _read_length(data, offset)
        if offset + length > len(data):
            raise ValueError(f"the data object {tag:02X} is longer than the data")
        objects.append((tag, data[offset : offset + length]))
        offset += length
    return objects


def room(ne: int) -> int:
    """Bytes of value that a data object with a one-byte tag can have within ``ne`` bytes."""
    return max(0, ne - 4, min(ne - 3, 0xFF), min(ne - 2, 0x7F))


def _number(number: int) -> bytes:
    return number.to_bytes(max((number.bit_length() + 7) // 8, 1), "big")


def _length(length: int) -> bytes:
    if length < 0x80:
        return bytes((length,))
    number = _number(length)
    return bytes((0x80 | len(number),)) + number


def _read_length(data: bytes, offset: int) -> tuple[int, int]:
    """The value of a length field, and the offset of its end."""
    if offset >= len(data):
        raise ValueError("a data object has no length field")
    first = data[offset]
    offset += 1
    if first < 0x80:
        return first, offset
    count = first & 0x7F
    if not 1 <= count <= 4 or offset + count > len(data):
        raise ValueError("a reserved or incomplete length field")
    return int.from_bytes(data[offset : offset + count], "big"), offset + count
