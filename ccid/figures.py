"""Figures of real readers' descriptors: ``readers/descriptors/*.json``, one file a USB vendor.

They make virtual readers, and answer questions about readers that are not here; nothing reads
them when a reader is opened. A file has its readers by product id, each with one device or more
(one a firmware release or variant, the newest first), and for each CCID interface of a device the
fields of its descriptors by the specification's names. Left out are the fields that are 0, a
bInterfaceClass of 0x0B, and a bMaxCCIDBusySlots of 1.

    {"3437": [{"bcdDevice": "0x0200", "iProduct": "GemPC Twin", "interfaces": [{…}]}]}

A user's file (:mod:`ccid.quirks.library`) may have figures too: ``[["figures"."08e6:3437"]]``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccid.codes import CCID_DESCRIPTOR_TYPE, CLASS_SMART_CARD, InterfaceProtocol
from ccid.declaration import vars_of
from ccid.descriptors import (
    EndpointDescriptor,
    InterfaceDescriptor,
    SmartCardDescriptor,
    SmartCardInterface,
)
from ccid.descriptors.standard import TransferType
from ccid.errors import CcidError, ReaderTableError
from ccid.quirks.library import is_id, table, user_sources

USUAL = {
    "bInterfaceClass": CLASS_SMART_CARD,
    "bDescriptorType": CCID_DESCRIPTOR_TYPE,
    "bMaxCCIDBusySlots": 1,
}
"""What a field is that is left out, where it is not 0."""

INTERFACE_FIELDS = (
    "bInterfaceNumber", "bNumEndpoints", "bInterfaceClass", "bInterfaceSubClass",
    "bInterfaceProtocol",
)  # fmt: skip
SMART_CARD_FIELDS = tuple(vars_of(SmartCardDescriptor(dwFeatures=0)))[1:]
ENDPOINT_FIELDS = ("bEndpointAddress", "bmAttributes", "wMaxPacketSize", "bInterval")
HEXADECIMAL = {
    "bInterfaceClass": 2, "bInterfaceSubClass": 2, "bDescriptorType": 2, "bcdCCID": 4,
    "bVoltageSupport": 2, "dwProtocols": 8, "dwSynchProtocols": 8, "dwMechanical": 8,
    "dwFeatures": 8, "bClassGetResponse": 2, "bClassEnvelope": 2, "wLcdLayout": 4,
    "bPINSupport": 2, "bEndpointAddress": 2, "bmAttributes": 2,
}  # fmt: skip
"""Fields written in hexadecimal, as strings, and their digits."""


@dataclass(frozen=True, slots=True)
class InterfaceFigures:
    """One CCID interface of a device.

    Attributes:
        reader: Its descriptors. Where only the number of endpoints is known, theirs are made up.
        name: The string of iInterface; empty if not known.
        data_rates: What GET_DATA_RATES returns, bit/s.
        clock_frequencies: What GET_CLOCK_FREQUENCIES returns, kHz.
    """

    reader: SmartCardInterface
    name: str = ""
    data_rates: tuple[int, ...] = ()
    clock_frequencies: tuple[int, ...] = ()

    @property
    def number(self) -> int:
        """bInterfaceNumber."""
        return self.reader.interface.bInterfaceNumber

    @property
    def descriptor(self) -> SmartCardDescriptor:
        """The class descriptor."""
        return self.reader.smart_card


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """A device.

    Attributes:
        vendor_id, product_id: idVendor and idProduct.
        bcdDevice: Its firmware release.
        manufacturer, product: Its strings; empty if not known.
        interfaces: Its CCID interfaces.
    """

    vendor_id: int
    product_id: int
    bcdDevice: int
    manufacturer: str
    product: str
    interfaces: tuple[InterfaceFigures, ...]

    @property
    def id(self) -> str:
        """``vvvv:pppp``, as lsusb writes it."""
        return f"{self.vendor_id:04x}:{self.product_id:04x}"


# Reading --------------------------------------------------------------------------------------


@functools.cache
def _vendor(vendor_id: int) -> dict[str, Any]:
    """What the table has of one vendor's readers, by product id."""
    prefix = f"{vendor_id:04x}-"
    for file in (table() / "descriptors").iterdir():
        if file.name.startswith(prefix):
            content: dict[str, Any] = json.loads(file.read_bytes())
            return content
    return {}


def figures(vendor_id: int, product_id: int) -> list[DeviceFigures]:
    """All that is known of ``vendor_id:product_id``: the user's first, then the table's, the
    newest first; empty if nothing is.

    Raises:
        ReaderTableError: The user's file is wrong.
    """
    name = f"{vendor_id:04x}:{product_id:04x}"
    found = []
    for source in user_sources():
        devices = source.table(source.content.get("figures", {}), ["figures"]).get(name, [])
        for index, device in enumerate(devices):
            try:
                found.append(parse(vendor_id, product_id, device))
            except (ValueError, TypeError, KeyError, AttributeError, CcidError) as error:
                raise source.error(["figures", name, index], f"wrong figures: {error}") from None
    found += [
        parse(vendor_id, product_id, device)
        for device in _vendor(vendor_id).get(f"{product_id:04x}", [])
    ]
    return found


def all_figures() -> Iterator[DeviceFigures]:
    """The figures of every reader that they are known of, by vendor and product id."""
    ids = set()
    for file in (table() / "descriptors").iterdir():
        if file.name.endswith(".json"):
            vendor_id = int(file.name[:4], 16)
            ids |= {(vendor_id, int(key, 16)) for key in _vendor(vendor_id)}
    for source in user_sources():
        content = source.table(source.content.get("figures", {}), ["figures"])
        for key in content:
            if not is_id(key):
                raise source.error(["figures", key], 'a reader is named "vvvv:pppp", small letters')
        ids |= {(int(key[:4], 16), int(key[5:], 16)) for key in content}
    for vendor_id, product_id in sorted(ids):
        yield from figures(vendor_id, product_id)


def parse(vendor_id: int, product_id: int, device: Mapping[str, Any]) -> DeviceFigures:
    """A device of a file.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, CcidError: It is none.
    """
    known = {"bcdDevice", "iManufacturer", "iProduct", "interfaces"}
    if unknown := set(device) - known:
        raise ValueError(f"{', '.join(sorted(unknown))} is not known")
    return DeviceFigures(
        vendor_id,
        product_id,
        _number(device.get("bcdDevice", 0)),
        str(device.get("iManufacturer", "")),
        str(device.get("iProduct", "")),
        tuple(_interface(interface) for interface in device["interfaces"]),
    )


def _number(value: Any) -> int:
    return int(value, 0) if isinstance(value, str) else int(value)


def _interface(content: Mapping[str, Any]) -> InterfaceFigures:
    own = {"iInterface", "misplaced", "endpoints", "data-rates", "clock-frequencies"}
    if unknown := set(content) - own - set(INTERFACE_FIELDS) - set(SMART_CARD_FIELDS):
        raise ValueError(f"{', '.join(sorted(unknown))} is not known")
    numbers = {
        name: _number(content.get(name, USUAL.get(name, 0)))
        for name in (*INTERFACE_FIELDS, *SMART_CARD_FIELDS)
    }
    head = InterfaceDescriptor(**{name: numbers[name] for name in INTERFACE_FIELDS})
    endpoints = tuple(
        EndpointDescriptor(**{name: _number(endpoint.get(name, 0)) for name in ENDPOINT_FIELDS})
        for endpoint in content.get("endpoints", ())
    )
    return InterfaceFigures(
        SmartCardInterface(
            head,
            endpoints or usual_endpoints(head),
            SmartCardDescriptor(**{name: numbers[name] for name in SMART_CARD_FIELDS}),
            bool(content.get("misplaced", False)),
        ),
        str(content.get("iInterface", "")),
        tuple(content.get("data-rates", ())),
        tuple(content.get("clock-frequencies", ())),
    )


def usual_endpoints(head: InterfaceDescriptor) -> tuple[EndpointDescriptor, ...]:
    """Endpoints as an interface with this number of them has them: bulk-OUT, bulk-IN and
    interrupt-IN for CCID, interrupt-IN alone for ICCD."""
    if head.bInterfaceProtocol == InterfaceProtocol.CCID:
        kinds = [(0x01, TransferType.BULK), (0x82, TransferType.BULK)]
    else:
        kinds = []
    kinds.append((0x83, TransferType.INTERRUPT))
    return tuple(
        EndpointDescriptor(
            bEndpointAddress=address,
            bmAttributes=kind,
            wMaxPacketSize=16 if kind is TransferType.INTERRUPT else 64,
            bInterval=10 if kind is TransferType.INTERRUPT else 0,
        )
        for address, kind in kinds[: head.bNumEndpoints]
    )


# Writing --------------------------------------------------------------------------------------


def as_content(device: DeviceFigures) -> dict[str, Any]:
    """A device as a file has it."""
    content: dict[str, Any] = {"bcdDevice": f"0x{device.bcdDevice:04X}"}
    if device.manufacturer:
        content["iManufacturer"] = device.manufacturer
    if device.product:
        content["iProduct"] = device.product
    content["interfaces"] = [_interface_content(interface) for interface in device.interfaces]
    return content


def _interface_content(interface: InterfaceFigures) -> dict[str, Any]:
    content = _fields(vars_of(interface.reader.interface), INTERFACE_FIELDS)
    if interface.name:
        content["iInterface"] = interface.name
    content |= _fields(vars_of(interface.descriptor), SMART_CARD_FIELDS)
    if interface.reader.misplaced:
        content["misplaced"] = True
    if interface.reader.endpoints != usual_endpoints(interface.reader.interface):
        content["endpoints"] = [
            _fields(vars_of(endpoint), ENDPOINT_FIELDS) for endpoint in interface.reader.endpoints
        ]
    if interface.clock_frequencies:
        content["clock-frequencies"] = list(interface.clock_frequencies)
    if interface.data_rates:
        content["data-rates"] = list(interface.data_rates)
    return content


def _fields(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        name: f"0x{values[name]:0{HEXADECIMAL[name]}X}" if name in HEXADECIMAL else values[name]
        for name in names
        if values[name] != USUAL.get(name, 0)
    }


def as_json(readers: Mapping[str, Sequence[DeviceFigures]]) -> str:
    """The text of a vendor's file: a field a line, so that it diffs well.

    Args:
        readers: The devices, by product id as four hexadecimal digits.
    """
    content = {key: [as_content(device) for device in readers[key]] for key in sorted(readers)}
    return "\n".join(_lines(content, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    """``value`` as JSON, lists of plain values on one line."""
    is_flat_list = isinstance(value, list) and not any(isinstance(v, dict) for v in value)
    if not isinstance(value, dict | list) or is_flat_list:
        yield json.dumps(value, ensure_ascii=False)
        return
    yield "{" if isinstance(value, dict) else "["
    parts = list(value.items()) if isinstance(value, dict) else [(None, v) for v in value]
    for index, (key, part) in enumerate(parts):
        first, *rest = _lines(part, indent + " ")
        label = "" if key is None else f"{json.dumps(key)}: "
        body = [f"{indent} {label}{first}", *rest]
        body[-1] += "," if index < len(parts) - 1 else ""
        yield from body
    yield indent + ("}" if isinstance(value, dict) else "]")


def as_toml(device: DeviceFigures) -> str:
    """A device as a user's file has it."""
    lines = [f'[[figures."{device.id}"]]']
    content = as_content(device)
    interfaces = content.pop("interfaces")
    lines += [f"{key} = {_toml(value)}" for key, value in content.items()]
    for interface in interfaces:
        lines += ["", f'[[figures."{device.id}".interfaces]]']
        lines += [f"{key} = {_toml(value)}" for key, value in interface.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, str) and value.startswith("0x"):
        return value
    return json.dumps(value, ensure_ascii=False)


def check(text: str, file: str) -> None:
    """Is ``text`` a vendor's file as it is written?

    Raises:
        ReaderTableError: It is not.
    """
    vendor_id = int(file[:4], 16)
    readers = {
        key: [parse(vendor_id, int(key, 16), device) for device in found]
        for key, found in json.loads(text).items()
    }
    if as_json(readers) != text:
        raise ReaderTableError("not as tools/reader-figures writes it", file=file)
