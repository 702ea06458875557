"""Descriptors in the output of libccid's ``parse`` and of ``lsusb -v``. Pure.

Indentation is ignored, because mails and web pages often lose it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from ccid.codec.descriptors.smart_card import DESCRIPTOR_TYPES, SmartCardDescriptor
from ccid.codes import CCID_DESCRIPTOR_LENGTH, CLASS_SMART_CARD, CLASS_VENDOR
from ccid.errors import MalformedDescriptor
from ccid.ground.records import vars_of
from ccid.ground.safe_text import short
from ccid.known.descriptor_figures import DeviceFigures
from ccid.probe.reader_from_fields import STRINGS, Fields, device, ids_in, spelled, unnamed

_BCD = ("bcdDevice", "bcdCCID")


def _bcd(name: str, text: str) -> int:
    """A BCD release, as both programs print it: ``1.10``."""
    match = re.fullmatch(r"([0-9A-Fa-f]{1,2})\.([0-9A-Fa-f]{1,2})", text)
    if match is None:
        raise ValueError(f"{name}: invalid literal {short(text)}, no release as 1.10")
    return int(match[1], 16) << 8 | int(match[2], 16)


# libccid's parse ------------------------------------------------------------------------------

_PARSE_LINE = re.compile(r"([A-Za-z]+):(?:\s+(.*))?$")
_SUPPORT = re.compile(r"Support (\d{1,10}) (kHz|bps)")
_MHZ = re.compile(r"(\d{1,8}(?:\.\d{1,6})?)\s+MHz")
_PARSE_NUMBER = re.compile(r"0x[0-9A-Fa-f]{1,16}|[0-9]{1,16}")


def from_parse(text: str) -> Iterator[DeviceFigures]:
    """The readers in the output of parse, one for each interface."""
    fields: Fields = {}
    lists: dict[str, list[int]] = {"bps": [], "kHz": []}
    for line in map(str.strip, text.splitlines()):
        support, match = _SUPPORT.match(line), _PARSE_LINE.match(line)
        if support is not None:
            lists[support[2]].append(int(support[1]))
        elif match is not None and (name := spelled(match[1])) is not None:
            if name == "idVendor":
                yield from _of_parse(fields, lists)
                fields, lists = {}, {"bps": [], "kHz": []}
            # bLength and bDescriptorType come twice: the value of the class descriptor is last
            fields[name] = _parse_value(name, match[2] or "")
    yield from _of_parse(fields, lists)


def _parse_value(name: str, value: str) -> int | str:
    """Parse a value: ``0x08E6``, ``1.10``, ``4.000 MHz`` or ``0x0000 0x0003``."""
    if name in STRINGS:
        return value
    if not value:
        raise ValueError(f"{name} has no value")
    words = value.split()
    if name in _BCD:
        return _bcd(name, words[0])
    if (clock := _MHZ.match(value)) is not None:
        return round(Decimal(clock[1]) * 1000)
    if any(_PARSE_NUMBER.fullmatch(word) is None for word in words[:1]):
        raise ValueError(f"{name}: invalid literal {short(words[0])}, no number")
    if name == "dwProtocols" and re.fullmatch(r"(0x[0-9A-Fa-f]{4}\s*){2}", value):
        return int(words[0], 16) << 16 | int(words[1], 16)
    return int(words[0], 16 if words[0].startswith("0x") else 10)


def _of_parse(fields: Fields, lists: dict[str, list[int]]) -> Iterator[DeviceFigures]:
    if "dwFeatures" not in fields:
        return
    if fields.get("iInterface", "").isdigit():  # an index: parse could not read the string
        fields["iInterface"] = ""
    yield device(fields, fields, fields, rates=lists["bps"], clocks=lists["kHz"])


# lsusb -v -------------------------------------------------------------------------------------

MOST = 64
"""Number of sections after an interface that may belong to the interface."""
SECTION = re.compile(
    r"(Device|Configuration|Interface|ChipCard Interface|Endpoint) Descriptor:", re.IGNORECASE
)
_LSUSB_LINE = re.compile(r"([A-Za-z][\w.]*)\s+(\S+)\s*(.*)$")
_LSUSB_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]{1,16}|\d{1,16}")
_HEX_FIELDS = {
    "dwSynchProtocols", "dwMechanical", "dwFeatures", "bClassGetResponse", "bClassEnvelope",
}  # fmt: skip
"""Fields that lsusb prints in hexadecimal without 0x."""
_RAW = re.compile(
    r"[\s*]{0,20}(?:UNRECOGNIZED|DEVICE CLASS|INTERFACE CLASS)\b[^:]*:([0-9A-Fa-f\s]*)",
    re.IGNORECASE,
)
"""A descriptor that lsusb prints as bytes."""
_MORE_RAW = re.compile(r"[0-9A-Fa-f][0-9A-Fa-f\s]*$")
"""The rest of such a descriptor after a broken line; the break may be inside a byte."""


@dataclass
class _Section:
    """A descriptor that lsusb printed."""

    kind: str
    fields: Fields = field(default_factory=dict)


def from_lsusb(text: str) -> Iterator[DeviceFigures]:
    """The readers in the output of lsusb, one for each interface. The text is split into sections;
    an interface and the sections after it make a reader."""
    sections = list(_sections(text))
    head: Fields = {}
    told = {} if ids_in(text) is None else unnamed(text)
    for index, section in enumerate(sections):
        if section.kind == "device":
            head = _with_strings(section.fields)
        elif section.kind == "interface" and section.fields.get("bInterfaceClass") in (
            CLASS_SMART_CARD, CLASS_VENDOR,
        ):  # fmt: skip
            yield from _of_lsusb(head or told, section.fields, sections[index + 1 : index + MOST])


def _sections(text: str) -> Iterator[_Section]:
    section = _Section("")
    lines = deque(map(str.strip, text.splitlines()))
    while lines:
        line = lines.popleft()
        heading, raw, match = SECTION.match(line), _RAW.match(line), _LSUSB_LINE.match(line)
        if heading is not None:
            yield section
            section = _Section(heading[1].lower())
        elif raw is not None:
            digits = _digits(raw[1])
            while lines and len(digits) < 2 * _length(digits) and _MORE_RAW.match(lines[0]):
                digits += _digits(lines.popleft())
            found = bytes.fromhex(digits[: len(digits) & ~1])
            if _is_class_descriptor(found):
                yield section
                section = _Section("chipcard interface", vars_of(_class_descriptor(found)))
        elif match is not None:
            _lsusb_field(section.fields, match[1], match[2], match[3])
    yield section


def _digits(text: str) -> str:
    return "".join(text.split())


def _length(digits: str) -> int:
    """bLength of a descriptor that begins with these digits; 1 if there are no two digits yet."""
    return int(digits[:2], 16) if len(digits) > 1 else 1


def _is_class_descriptor(raw: bytes) -> bool:
    """Whether ``raw`` begins as a smart card class descriptor (a HID descriptor has the same
    bDescriptorType, and another bLength)."""
    return len(raw) > 1 and raw[0] == CCID_DESCRIPTOR_LENGTH and raw[1] in DESCRIPTOR_TYPES


def _class_descriptor(raw: bytes) -> SmartCardDescriptor:
    if len(raw) < CCID_DESCRIPTOR_LENGTH:
        raise MalformedDescriptor(
            f"the class descriptor breaks off after {len(raw)} of {CCID_DESCRIPTOR_LENGTH} bytes",
            field="bLength",
        )
    return SmartCardDescriptor.parse(raw[:CCID_DESCRIPTOR_LENGTH])


def _with_strings(fields: Fields) -> Fields:
    """``fields`` with strings instead of string indexes."""
    return fields | {name: fields.get(f"{name} text", "") for name in STRINGS}


def _of_lsusb(head: Fields, interface: Fields, rest: Sequence[_Section]) -> Iterator[DeviceFigures]:
    card: Fields | None = None
    endpoints: list[Fields] = []
    misplaced = False
    for section in rest:
        if section.kind == "chipcard interface" and card is None:
            card, misplaced = section.fields, bool(endpoints)
        elif section.kind == "endpoint":
            endpoints.append(section.fields)
        elif section.kind != "chipcard interface":
            break
    if card is not None and interface.get("bAlternateSetting", 0) == 0:
        yield device(head, _with_strings(interface), card, endpoints, misplaced=misplaced)


def _lsusb_field(fields: Fields, name: str, word: str, rest: str) -> None:
    if name.lower() == "wlcdlayout":  # "16 cols 2 lines", or "none"
        numbers = re.findall(r"\d{1,9}", f"{word} {rest}")
        fields["wLcdLayout"] = int(numbers[1]) << 8 | int(numbers[0]) if len(numbers) == 2 else 0
        return
    known = spelled(name)
    if known is None or known in fields:
        return
    if known in _BCD:
        fields[known] = _bcd(known, word)
    elif word.lower() == "echo":
        fields[known] = 0xFF
    elif known in _HEX_FIELDS:
        if re.fullmatch(r"(?:0x)?[0-9A-Fa-f]{1,16}", word) is None:
            raise ValueError(f"{known}: invalid literal {short(word)}, no number")
        fields[known] = int(word, 16)
    elif _LSUSB_NUMBER.fullmatch(word) is not None:
        fields[known] = int(word, 0) if word[:2] in ("0x", "0X") else int(word)
        if known in STRINGS:
            fields[f"{known} text"] = "" if rest.startswith("(error") else rest
