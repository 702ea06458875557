"""Descriptors in hexadecimal, as xxd, hexdump, od, a C array or a person writes them. Pure.

They may be all of a device (device descriptor and configuration, as Linux has them in
``/sys/bus/usb/devices/*/descriptors``), a configuration, an interface with what follows it, or a
smart card class descriptor alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ccid.codec.declaration import vars_of
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
from ccid.known.descriptor_figures import DeviceFigures
from ccid.probe.told import Fields, device, unnamed

STARTS = (b"\x12\x01", b"\x09\x02", b"\x09\x04", b"\x36\x21", b"\x36\xff")
"""How bytes begin that are taken for descriptors: device, configuration, interface, class."""
ROW = 16
"""Bytes of a line with an offset, in every program's dump."""
MAX_DUMP = 0xFFFF
"""Bytes that a dump can have: more than wTotalLength is, no device sends."""
BULK_AND_INTERRUPT = 3

_LINE_COMMENT = re.compile(r"//[^\n]*")
_C_BYTE = re.compile(r"(?:0x|\\x)([0-9A-Fa-f]{1,2})(?![0-9A-Fa-f])|\b([0-9A-Fa-f]{2})[hH]\b")
_LABEL = re.compile(r"^(?![0-9A-Fa-f]{2}:)[^:=]*[:=][\s\"'\[{(]*(?=(?:[0-9A-Fa-f]{2}[\s:,-]*){8})")
_OFFSET = re.compile(r"([0-9A-Fa-f]{4,16})(:?)(?:\s+|$)")
_OCTAL = re.compile(r"[0-7]{7}")
_TOKEN = re.compile(r"[0-9A-Fa-f]+")
_BETWEEN = re.compile(r"[\s,;:\[\]{}()\"'-]*")


def from_hex(text: str) -> Iterator[DeviceFigures]:
    """The readers whose descriptors ``text`` has in hexadecimal.

    Raises:
        MalformedDescriptor: Descriptors begin there, and are wrong.
    """
    head = unnamed(text)
    for content in dumps(text):
        yield from from_bytes(content, head)


def dumps(text: str) -> Iterator[bytes]:
    """What the dumps in ``text`` have, of those that begin as descriptors do."""
    numbers = _C_BYTE.findall(_without_comments(text))
    is_array = len(numbers) > ROW
    for run in [bytes(int(c or h, 16) for c, h in numbers)] if is_array else _runs(text):
        if run[:2] in STARTS:
            yield run
        elif _begins(run):
            yield _swapped(run)


def _without_comments(text: str) -> str:
    """A C array without what explains its bytes."""
    first, *more = _LINE_COMMENT.sub(" ", text).split("/*")
    return " ".join([first, *(part.partition("*/")[2] for part in more)])


def _begins(content: bytes) -> bool:
    """Does it begin as descriptors do, maybe in words as a little-endian machine has them?"""
    return content[:2] in STARTS or content[1::-1] in STARTS


def _swapped(content: bytes) -> bytes:
    even = content[: len(content) & ~1]
    return bytes(byte for pair in zip(even[1::2], even[::2], strict=True) for byte in pair)


def _runs(text: str) -> Iterator[bytes]:
    """The bytes of lines in hexadecimal that follow each other."""
    run = _Run()
    for line in text.splitlines():
        if not run.take(line):
            yield bytes(run.content)
            run = _Run()
            run.take(line)
    yield bytes(run.content)


@dataclass
class _Run:
    """Lines of one dump.

    Attributes:
        content: The bytes so far.
        has_offsets: Each line begins with an offset; None until the first line has come.
        half: The first digit of a byte that the end of a line broke.
        row: Where the last line with an offset begins; None if what follows it is not of it.
        repeats: A line ``*`` stands for repetitions of the one before.
    """

    content: bytearray = field(default_factory=bytearray)
    has_offsets: bool | None = None
    half: str = ""
    row: int | None = None
    repeats: bool = False

    def take(self, line: str) -> bool:
        """Take a line; False if it is none of this dump."""
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
        """A line of bytes alone."""
        if len(self.content) > 1 and not _begins(bytes(self.content[:2])):
            return False  # words that happen to be hexadecimal
        digits = _all_digits(line if self.content else _LABEL.sub("", line), self.half)
        if digits is None:
            self.has_offsets = False if self.content else None
            return False
        even = len(digits) & ~1
        self.content += bytes.fromhex(digits[:even])
        self.half = digits[even:]
        return True

    def _take_row(self, offset: re.Match[str], line: str) -> bool:
        """A line with an offset, hexadecimal or (od) octal; False if another dump begins."""
        place = int(offset[1], 16)
        if not place and self.content:
            return False
        if self.repeats and self.content:
            while len(self.content) < place <= MAX_DUMP:
                self.content += self.content[-ROW:]
        self.repeats = False
        if len(self.content) - ROW < place < len(self.content):
            del self.content[place:]  # what stood beside the bytes of the last line
        here = len(self.content)
        if here not in (place, int(offset[1], 8) if _OCTAL.fullmatch(offset[1]) else place):
            return True  # no line of the dump, though it begins as one
        found, is_all = _row(line[offset.end() :], 2 if offset[2] else 3)
        self.content += found
        self.row = here if is_all else None
        return True

    def _take_rest(self, line: str) -> None:
        """What a mail program broke off a line: its last bytes, or what stands beside them."""
        if self.row is not None:
            found, is_all = _row(line, 2)
            self.content += found[: self.row + ROW - len(self.content)]
            self.row = self.row if is_all else None


def _all_digits(line: str, half: str) -> str | None:
    """The digits of a line that has nothing else, behind the half byte before it; None if it has
    something else. Its last byte may be a half one too."""
    if _BETWEEN.sub("", _TOKEN.sub("", line)):
        return None
    first, *more = _TOKEN.findall(line) or ("",)
    tokens = [half + first, *more]
    if not first or any(len(token) % 2 for token in tokens[:-1]):
        return None
    return "".join(tokens)


def _row(line: str, gap: int) -> tuple[bytes, bool]:
    """The bytes of a line behind its offset, without the characters that stand beside them; and
    whether nothing does.

    Args:
        line: The line.
        gap: How many blanks are before those.
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
    """An interface and the descriptors behind it."""

    head: InterfaceDescriptor
    card: SmartCardDescriptor | None = None
    endpoints: list[Fields] = field(default_factory=list)
    misplaced: bool = False


def from_bytes(content: bytes, head: Fields) -> Iterator[DeviceFigures]:
    """The readers among descriptors, an interface each; of several configurations the first.

    Args:
        content: The descriptors, one behind the other; zeros may follow.
        head: The fields of the device, where its descriptor is not among them.

    Raises:
        MalformedDescriptor: One is wrong, or breaks off.
    """
    interfaces: list[_Interface] = []
    has_configuration = False
    for kind, raw in _each(content):
        if kind == DescriptorType.DEVICE and len(raw) == DeviceDescriptor.layout.sizeof():
            yield from _readers(head, interfaces)
            head, interfaces, has_configuration = _head(raw), [], False
        elif kind == DescriptorType.CONFIGURATION:
            if has_configuration:
                yield from _readers(head, interfaces)
                return
            has_configuration = True
        elif kind == DescriptorType.INTERFACE:
            size = InterfaceDescriptor.layout.sizeof()
            interfaces.append(_Interface(InterfaceDescriptor.parse(raw[:size])))
        elif kind == DescriptorType.ENDPOINT and interfaces:
            size = EndpointDescriptor.layout.sizeof()
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
