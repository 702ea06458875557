"""Descriptors that somebody sent: a report, libccid's ``parse`` output, ``lsusb -v``. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ccid.codes import CLASS_SMART_CARD, CLASS_VENDOR
from ccid.descriptors import EndpointDescriptor, InterfaceDescriptor, SmartCardDescriptor
from ccid.descriptors.configuration import SmartCardInterface
from ccid.errors import CcidError, MalformedDescriptor
from ccid.figures import (
    ENDPOINT_FIELDS,
    INTERFACE_FIELDS,
    SMART_CARD_FIELDS,
    DeviceFigures,
    InterfaceFigures,
    usual_endpoints,
)

Fields = dict[str, Any]
"""What was said of one thing, by the specification's names."""


def devices(text: str, file: str) -> list[DeviceFigures]:
    """The devices that ``text`` tells of.

    Args:
        text: A report or dump of ``ccid-probe``, what libccid's parse printed, or ``lsusb -v``.
        file: Its name, for errors.

    Raises:
        MalformedDescriptor: It tells of none, or not all that is needed.
    """
    try:
        found = list(_merged(_reader_of(text)(text)))
    except (CcidError, ValueError, KeyError, TypeError, AttributeError) as error:
        field = str(error) if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise MalformedDescriptor(f"{file}: not all is there: {field}") from None
    if not found:
        raise MalformedDescriptor(
            f"{file}: no smart-card reader is told of; a report, libccid's parse output or "
            f"`lsusb -v` is wanted"
        )
    return found


def _reader_of(text: str) -> Callable[[str], Iterator[DeviceFigures]]:
    if text.lstrip().startswith("{"):
        return _from_json
    if "Device Descriptor:" in text or "ChipCard Interface Descriptor:" in text:
        return _from_lsusb
    return _from_parse


def _merged(found: Iterator[DeviceFigures]) -> Iterator[DeviceFigures]:
    """Interfaces of the same device, told of one by one, as one device."""
    whole: DeviceFigures | None = None
    for device in found:
        if whole is not None:
            numbers = {interface.number for interface in whole.interfaces}
            same = replace(device, interfaces=()) == replace(whole, interfaces=())
            if same and not numbers & {i.number for i in device.interfaces}:
                whole = replace(whole, interfaces=whole.interfaces + device.interfaces)
                continue
            yield whole
        whole = device
    if whole is not None:
        yield whole


def _device(
    device: Fields,
    interface: Fields,
    smart_card: Fields,
    endpoints: list[Fields],
    *,
    misplaced: bool = False,
    rates: Any = (),
    clocks: Any = (),
) -> DeviceFigures:
    """A device of one interface, from fields by name."""
    head = InterfaceDescriptor(**{name: interface[name] for name in INTERFACE_FIELDS})
    known = tuple(EndpointDescriptor(**{n: e[n] for n in ENDPOINT_FIELDS}) for e in endpoints)
    card = SmartCardDescriptor(**{name: smart_card[name] for name in SMART_CARD_FIELDS})
    card.build()  # raises if a value does not fit its field
    reader = SmartCardInterface(head, known or usual_endpoints(head), card, misplaced)
    return DeviceFigures(
        device["idVendor"],
        device["idProduct"],
        device["bcdDevice"],
        device.get("manufacturer") or "",
        device.get("product") or "",
        (
            InterfaceFigures(
                reader, interface.get("name") or "", tuple(rates or ()), tuple(clocks or ())
            ),
        ),
    )


# A report, or dump --json ---------------------------------------------------------------------


def _from_json(text: str) -> Iterator[DeviceFigures]:
    document = json.loads(text)
    if not str(document.get("schema", "")).startswith(("ccid-probe/report/", "ccid-probe/dump/")):
        raise ValueError("no report of ccid-probe")
    for reader in document["readers"]:
        strings = reader["strings"]
        yield _device(
            {
                **reader["device"],
                "manufacturer": strings["iManufacturer"],
                "product": strings["iProduct"],
            },
            {**reader["interface"], "name": strings["iInterface"]},
            reader["smart_card"],
            reader["endpoints"],
            misplaced=bool(reader.get("misplaced", False)),
            rates=reader["data_rates"],
            clocks=reader["clock_frequencies"],
        )


# libccid's parse ------------------------------------------------------------------------------

_LINE = re.compile(r"\s*((?:id|i|b|bcd|dw|w)[A-Z]\w*):\s*(.*?)\s*$")
_SUPPORT = re.compile(r"\s*Support (\d+) (kHz|bps)")
_STRINGS = {"iManufacturer": "manufacturer", "iProduct": "product", "iInterface": "name"}
_BCD = {"bcdDevice", "bcdCCID", "bcdUSB"}


def _from_parse(text: str) -> Iterator[DeviceFigures]:
    fields: Fields = {}
    lists: dict[str, list[int]] = {"bps": [], "kHz": []}
    for line in text.splitlines():
        support, match = _SUPPORT.match(line), _LINE.match(line)
        if support is not None:
            lists[support[2]].append(int(support[1]))
        elif match is not None:
            name, value = match[1], match[2]
            if name == "idVendor" and "dwFeatures" in fields:
                yield _of_parse(fields, lists)
                fields, lists = {}, {"bps": [], "kHz": []}
            if name in _STRINGS:
                fields[_STRINGS[name]] = value
            else:  # bLength and bDescriptorType come twice, the class descriptor's last
                fields[name] = _parse_value(name, value)
    if "dwFeatures" in fields:
        yield _of_parse(fields, lists)


def _parse_value(name: str, value: str) -> int:
    """A value as parse prints it: ``0x08E6``, ``1.10``, ``4.000 MHz``, ``0x0000 0x0003``."""
    words = value.split()
    if name in _BCD:
        return _bcd(words[0])
    if len(words) > 1 and words[1] == "MHz":
        return round(float(words[0]) * 1000)
    if name == "dwProtocols" and len(words) > 1 and words[1].startswith("0x"):
        return int(words[0], 16) << 16 | int(words[1], 16)
    return int(words[0], 0)


def _bcd(text: str) -> int:
    major, minor = text.split(".")
    return int(major, 16) << 8 | int(minor, 16)


def _of_parse(fields: Fields, lists: dict[str, list[int]]) -> DeviceFigures:
    if fields.get("name", "").isdigit():  # an index whose string was not read
        fields["name"] = ""
    return _device(fields, fields, fields, [], rates=lists["bps"], clocks=lists["kHz"])


# lsusb -v -------------------------------------------------------------------------------------

_LSUSB_NAMES = {
    "nMaxSlotIndex": "bMaxSlotIndex",
    "dwMaxiumumClock": "dwMaximumClock",
    "bNumDataRatesSupp.": "bNumDataRatesSupported",
    "dwSyncProtocols": "dwSynchProtocols",
    "dwMaxCCIDMsgLen": "dwMaxCCIDMessageLength",
    "wlcdLayout": "wLcdLayout",
}
_HEXADECIMAL = {
    "dwSynchProtocols",
    "dwMechanical",
    "dwFeatures",
    "bClassGetResponse",
    "bClassEnvelope",
}
_LSUSB_LINE = re.compile(r"\s+((?:b|w|i|d|n)[A-Za-z][\w.]*)\s+(\S+)\s*(.*?)\s*$")
_SECTION = re.compile(
    r"\s*(Device|Configuration|Interface|ChipCard Interface|Endpoint) Descriptor:"
)


def _from_lsusb(text: str) -> Iterator[DeviceFigures]:
    """Takes the text apart into sections, and puts a reader together at the end of each."""
    sections: list[tuple[str, Fields]] = []
    for line in text.splitlines():
        section, match = _SECTION.match(line), _LSUSB_LINE.match(line)
        if section is not None:
            sections.append((section[1], {}))
        elif match is not None and sections:
            _lsusb_field(sections[-1][1], match[1], match[2], match[3])
    device: Fields = {}
    for index, (kind, fields) in enumerate(sections):
        if kind == "Device":
            device = fields | {
                "manufacturer": fields.get("iManufacturer text", ""),
                "product": fields.get("iProduct text", ""),
            }
        elif kind == "Interface" and fields.get("bInterfaceClass") in (
            CLASS_SMART_CARD, CLASS_VENDOR,
        ):  # fmt: skip
            yield from _of_lsusb(device, fields, sections[index + 1 :])


def _of_lsusb(
    device: Fields, interface: Fields, rest: list[tuple[str, Fields]]
) -> Iterator[DeviceFigures]:
    card: Fields | None = None
    endpoints: list[Fields] = []
    misplaced = False
    for kind, fields in rest:
        if kind == "ChipCard Interface":
            card, misplaced = fields, bool(endpoints)
        elif kind == "Endpoint":
            endpoints.append(fields)
        else:
            break
    if card is not None and interface["bAlternateSetting"] == 0:
        head = interface | {"name": interface.get("iInterface text", "")}
        yield _device(device, head, card, endpoints, misplaced=misplaced)


def _lsusb_field(fields: Fields, name: str, word: str, rest: str) -> None:
    name = _LSUSB_NAMES.get(name, name)
    if name in fields:
        return
    if name in _BCD:
        fields[name] = _bcd(word)
    elif name == "wLcdLayout":  # "2 cols 16 lines", or "none"
        numbers = re.findall(r"\d+", f"{word} {rest}")
        fields[name] = int(numbers[1]) << 8 | int(numbers[0]) if len(numbers) == 2 else 0
    elif word == "echo":
        fields[name] = 0xFF
    elif name in _HEXADECIMAL:
        fields[name] = int(word, 16)
    elif re.fullmatch(r"0x[0-9A-Fa-f]+|\d+", word):
        fields[name] = int(word, 0)
        fields[f"{name} text"] = rest if not rest.startswith("(error") else ""
