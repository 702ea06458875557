"""Descriptors in hexadecimal: dumps by xxd, hexdump or od, C arrays, and text typed by hand. Pure.

A dump may have all descriptors of a device (device descriptor and configuration, as in
``/sys/bus/usb/devices/*/descriptors``), a configuration, an interface with the descriptors that
belong to it, or a smart card class descriptor alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ccid.codec.descriptors import (
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    SmartCardDescriptor,
)
from ccid.codec.descriptors.smart_card import DESCRIPTOR_TYPES
from ccid.codec.descriptors.standard import DescriptorType
from ccid.codes import CCID_DESCRIPTOR_LENGTH, CLASS_SMART_CARD, CLASS_VENDOR
from ccid.errors import MalformedDescriptor
from ccid.ground.records import vars_of
from ccid.known.descriptor_figures import DeviceFigures
from ccid.probe.reader_from_fields import Fields, device, unnamed

STARTS = (b"\x12\x01", b"\x09\x02", b"\x09\x04", b"\x36\x21", b"\x36\xff")
"""The first bytes of a descriptor: device, configuration, interface, smart card class."""
ROW = 16
"""Bytes in a line of a dump that has offsets."""
MAX_DUMP = 0xFFFF
"""Bytes of the longest dump: no wTotalLength is larger."""
BULK_AND_INTERRUPT = 3
"""bNumEndpoints where no interface descriptor is there: bulk-OUT, bulk-IN, interrupt-IN."""

_LINE_COMMENT = re.compile(r"//[^\n]*")
_C_BYTE = re.compile(r"(?:0x|\\x)([0-9A-Fa-f]{1,2})(?![0-9A-Fa-f])|\b([0-9A-Fa-f]{2})[hH]\b")
_LABEL = re.compile(r"^(?![0-9A-Fa-f]{2}:)[^:=]*[:=][\s\"'\[{(]*(?=(?:[0-9A-Fa-f]{2}[\s:,-]*){8})")
_OFFSET = re.compile(r"([0-9A-Fa-f]{4,16})(:?)(?:\s+|$)")
_OCTAL = re.compile(r"[0-7]{7}")
_TOKEN = re.compile(r"[0-9A-Fa-f]+")
_BETWEEN = re.compile(r"[\s,;:\[\]{}()\"'-]*")


def from_hex(text: str) -> Iterator[DeviceFigures]:
    """The readers whose descriptors are in ``text``, in hexadecimal.

    Raises:
        MalformedDescriptor: Descriptors are there, and are wrong.
    """
    head = unnamed(text)
    for content in dumps(text):
        yield from from_bytes(content, head)


def dumps(text: str) -> Iterator[bytes]:
    """The bytes of each dump in ``text`` that begins with a descriptor."""
    numbers = _C_BYTE.findall(_without_comments(text))
    is_array = len(numbers) > ROW
    for run in [bytes(int(c or h, 16) for c, h in numbers)] if is_array else _runs(text):
        if run[:2] in STARTS:
            yield run
        elif _begins(run):
            yield _swapped(run)


def _without_comments(text: str) -> str:
    """A C array without its comments."""
    first, *more = _LINE_COMMENT.sub(" ", text).split("/*")
    return " ".join([first, *(part.partition("*/")[2] for part in more)])


def _begins(content: bytes) -> bool:
    """Whether ``content`` begins with a descriptor, also with the bytes of each word exchanged."""
    return content[:2] in STARTS or content[1::-1] in STARTS


def _swapped(content: bytes) -> bytes:
    even = content[: len(content) & ~1]
    return bytes(byte for pair in zip(even[1::2], even[::2], strict=True) for byte in pair)


def _runs(text: str) -> Iterator[bytes]:
    """The bytes of each run of consecutive lines in hexadecimal."""
    run = _Run()
    for line in text.splitlines():
        if not run.take(line):
            yield bytes(run.content)
            run = _Run()
            run.take(line)
    yield bytes(run.content)


@dataclass
class _Run:
    """The lines of one dump.

    Attributes:
        content: The bytes so far.
        has_offsets: Whether each line begins with an offset; None before the first line.
        half: The first digit of a byte whose second digit is in the next line.
        row: Offset of the last line that has an offset; None if that line is complete.
        repeats: The last line was ``*``: the line before it repeats.
    """

    content: bytearray = field(default_factory=bytearray)
    has_offsets: bool | None = None
    half: str = ""
    row: int | None = None
    repeats: bool = False

    def take(self, line: str) -> bool:
        """Add a line; False if the line does not belong to this dump."""
        line = line.strip()
        if not line or line.startswith("```"):
            return True
        offset = _OFFSET.match(line)
        if self.has_offsets is None:
            self.has_offsets = offset is not None and (bool(offset[2]) or not int(offset[1], 16))
        if not self.has_offsets:
            return self._take_bare(line)
        if line == "*":
            self.repeats = True
        elif offset is None:
            self._take_rest(line)
        else:
            return self._take_row(offset, line)
        return True

    def _take_bare(self, line: str) -> bool:
        """Add a line that has bytes alone."""
        if len(self.content) > 1 and not _begins(bytes(self.content[:2])):
            return False  # ordinary words whose letters are hexadecimal digits
        digits = _all_digits(line if self.content else _LABEL.sub("", line), self.half)
        if digits is None:
            self.has_offsets = False if self.content else None
            return False
        even = len(digits) & ~1
        self.content += bytes.fromhex(digits[:even])
        self.half = digits[even:]
        return True

    def _take_row(self, offset: re.Match[str], line: str) -> bool:
        """Add a line with an offset, hexadecimal or (od) octal; False if another dump begins."""
        place = int(offset[1], 16)
        if not place and self.content:
            return False
        if self.repeats and self.content:
            while len(self.content) < place <= MAX_DUMP:
                self.content += self.content[-ROW:]
        self.repeats = False
        if len(self.content) - ROW < place < len(self.content):
            del self.content[place:]  # text beside the bytes of the last line
        here = len(self.content)
        if here not in (place, int(offset[1], 8) if _OCTAL.fullmatch(offset[1]) else place):
            return True  # the number is no offset of this dump: skip the line
        found, is_all = _row(line[offset.end() :], 2 if offset[2] else 3)
        self.content += found
        self.row = here if is_all else None
        return True

    def _take_rest(self, line: str) -> None:
        """Add the end of a line that a mail program broke: bytes, or the text beside them."""
        if self.row is not None:
            found, is_all = _row(line, 2)
            self.content += found[: self.row + ROW - len(self.content)]
            self.row = self.row if is_all else None


def _all_digits(line: str, half: str) -> str | None:
    """``half`` and the digits of a line that has only hexadecimal digits; None for any other line.
    The number of digits may be odd: the last byte continues in the next line."""
    if _BETWEEN.sub("", _TOKEN.sub("", line)):
        return None
    first, *more = _TOKEN.findall(line) or ("",)
    tokens = [half + first, *more]
    if not first or any(len(token) % 2 for token in tokens[:-1]):
        return None
    return "".join(tokens)


def _row(line: str, gap: int) -> tuple[bytes, bool]:
    """The bytes of a line, without the characters beside the bytes; and whether the line has no
    such characters.

    Args:
        line: The line without its offset.
        gap: Number of blanks between the bytes and the characters.
    """
    found = b""
    first_gap = re.match(r"\S+(\s+)", line)
    wide = max(gap, 1 + len(first_gap[1]) if first_gap else 0)
    shown, *beside = re.split(rf"\s{{{wide},}}|\s\|", line.replace("-", " "), maxsplit=1)
    for token in shown.split():
        if len(token) % 2 or _TOKEN.fullmatch(token) is None or len(found) >= ROW:
            return found[:ROW], False
        found += bytes.fromhex(token)
    return found[:ROW], not beside


# Bytes to readers -----------------------------------------------------------------------------


@dataclass
class _Interface:
    """An interface descriptor and the descriptors that belong to it."""

    head: InterfaceDescriptor
    card: SmartCardDescriptor | None = None
    endpoints: list[Fields] = field(default_factory=list)
    misplaced: bool = False


def from_bytes(content: bytes, head: Fields) -> Iterator[DeviceFigures]:
    """The readers among descriptors, one for each interface. Only the first configuration counts.

    Args:
        content: The descriptors, one after the other; zeros may follow.
        head: Fields of the device, used if no device descriptor is in ``content``.

    Raises:
        MalformedDescriptor: A descriptor is wrong, or incomplete.
    """
    interfaces: list[_Interface] = []
    has_configuration = False
    for kind, raw in _each(content):
        if kind == DescriptorType.DEVICE and len(raw) == DeviceDescriptor.size():
            yield from _readers(head, interfaces)
            head, interfaces, has_configuration = _head(raw), [], False
        elif kind == DescriptorType.CONFIGURATION:
            if has_configuration:
                yield from _readers(head, interfaces)
                return
            has_configuration = True
        elif kind == DescriptorType.INTERFACE:
            size = InterfaceDescriptor.size()
            interfaces.append(_Interface(InterfaceDescriptor.parse(raw[:size])))
        elif kind == DescriptorType.ENDPOINT and interfaces:
            size = EndpointDescriptor.size()
            endpoint = EndpointDescriptor.parse(bytes([size]) + raw[1:size])
            interfaces[-1].endpoints.append(vars_of(endpoint))
        elif kind in DESCRIPTOR_TYPES and len(raw) == CCID_DESCRIPTOR_LENGTH:
            if not interfaces:
                alone = InterfaceDescriptor(bNumEndpoints=BULK_AND_INTERRUPT)
                interfaces.append(_Interface(alone))
            behind = interfaces[-1]
            if behind.card is None:
                behind.card = SmartCardDescriptor.parse(raw)
                behind.misplaced = bool(behind.endpoints)
    yield from _readers(head, interfaces)


def _each(content: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place < len(content) and (length := content[place]):
        raw = content[place : place + length]
        if length < 2 or len(raw) < length:
            raise MalformedDescriptor(
                f"the descriptor at byte {place} has bLength {length}, and "
                f"{len(raw)} bytes are there",
                field="bLength",
            )
        yield raw[1], raw
        place += length


def _head(raw: bytes) -> Fields:
    descriptor = DeviceDescriptor.parse(raw)
    return {name: getattr(descriptor, name) for name in ("idVendor", "idProduct", "bcdDevice")}


def _readers(head: Fields, interfaces: list[_Interface]) -> Iterator[DeviceFigures]:
    for interface in interfaces:
        own = interface.head
        is_reader = own.bInterfaceClass in (CLASS_SMART_CARD, CLASS_VENDOR)
        if is_reader and interface.card is not None and own.bAlternateSetting == 0:
            yield device(
                head,
                vars_of(own) | {"iInterface": ""},
                vars_of(interface.card),
                interface.endpoints,
                misplaced=interface.misplaced,
            )
