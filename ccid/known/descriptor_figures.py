"""The descriptors of real readers, as figures: ``readers/descriptors/*.json``, one file per vendor.

Virtual readers are made of these figures, and ``ccid-probe readers`` shows them; opening a reader
reads none of them. A file has the readers of one USB vendor by product id. Each reader has one or
more devices: one for each firmware release or variant, the newest first. Each device has its
smart-card interfaces with the fields of their descriptors, by the names of the specification. A
field is left out if its value is 0, and bInterfaceClass if it is 0x0B, bDescriptorType if it is
0x21, bMaxCCIDBusySlots if it is 1.

    {"3437": [{"bcdDevice": "0x0200", "iProduct": "GemPC Twin", "interfaces": [{…}]}]}

A file of the user (:mod:`ccid.known.quirks.reader_table`) may have figures as well:
``[["figures"."08e6:3437"]]``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, cast

from ccid.codec.descriptors import (
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    SmartCardDescriptor,
    SmartCardInterface,
)
from ccid.codec.descriptors.smart_card import DESCRIPTOR_TYPES
from ccid.codec.descriptors.standard import TransferType
from ccid.codes import CCID_DESCRIPTOR_TYPE, CLASS_SMART_CARD, InterfaceProtocol
from ccid.errors import ReaderTableError
from ccid.ground.records import record, vars_of
from ccid.ground.safe_text import printable, short
from ccid.known.quirks import toml_values
from ccid.known.quirks.reader_table import is_id, table, user_source, user_sources
from ccid.known.quirks.table_entries import Source
from ccid.known.quirks.toml_values import Hexadecimal

USUAL = {
    "bInterfaceClass": CLASS_SMART_CARD,
    "bDescriptorType": CCID_DESCRIPTOR_TYPE,
    "bMaxCCIDBusySlots": 1,
}
"""The value of a field that is left out, if the value is not 0."""

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
"""Fields that a file has in hexadecimal, as strings, and the number of digits."""
HIGHEST = {
    field.name: 256 ** field.metadata["wire"].size - 1
    for cls in (DeviceDescriptor, InterfaceDescriptor, SmartCardDescriptor, EndpointDescriptor)
    for field in dataclasses.fields(cast(Any, cls))
} | {"data-rates": 0xFFFF_FFFF, "clock-frequencies": 0xFFFF_FFFF}
"""The greatest value of each field, which follows from the size of the field."""
MAX_STRING = 126
"""UTF-16 code units of a string descriptor, at most (USB 2.0, 9.6.7)."""
MAX_LISTED = 256
"""Elements of a list of clocks or data rates, at most; the class descriptor counts them in a
byte."""
MAX_ENDPOINTS = 30
"""Endpoints of a device besides the control pipe, at most (USB 2.0, 9.6.6)."""


@record
class InterfaceFigures:
    """The descriptors of one smart-card interface.

    Attributes:
        reader: The descriptors. If only the number of endpoints is known, the endpoint descriptors
            are the usual ones (:func:`usual_endpoints`).
        name: The string of iInterface; empty if unknown.
        data_rates: The answer to GET_DATA_RATES, in bit/s.
        clock_frequencies: The answer to GET_CLOCK_FREQUENCIES, in kHz.
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


@record
class DeviceFigures:
    """The descriptors of one device.

    Attributes:
        vendor_id, product_id: idVendor and idProduct.
        bcdDevice: The firmware release.
        manufacturer, product: The strings of iManufacturer and iProduct; empty if unknown.
        interfaces: The smart-card interfaces.
    """

    vendor_id: int
    product_id: int
    bcdDevice: int
    manufacturer: str
    product: str
    interfaces: tuple[InterfaceFigures, ...]

    @property
    def id(self) -> str:
        """``vvvv:pppp``, the notation of lsusb."""
        return f"{self.vendor_id:04x}:{self.product_id:04x}"


# Reading --------------------------------------------------------------------------------------


@functools.cache
def _vendor(vendor_id: int) -> dict[str, Any]:
    """The content of the file of one vendor, by product id; empty without a file."""
    prefix = f"{vendor_id:04x}-"
    for file in (table() / "descriptors").iterdir():
        if file.name.startswith(prefix):
            content: dict[str, Any] = json.loads(file.read_bytes())
            return content
    return {}


def figures(vendor_id: int, product_id: int) -> list[DeviceFigures]:
    """The known devices with this idVendor and idProduct; may be empty.

    Devices from files of the user come first, then those of the table, the newest first.

    Raises:
        ReaderTableError: A file of the user is wrong.
    """
    name = f"{vendor_id:04x}:{product_id:04x}"
    found = []
    for source in user_sources():
        devices = _user_devices(source, name) if name in _tables(source) else []
        for index, device in enumerate(devices):
            found.append(_parse_user_device(source, name, index, device))
    found += [
        parse(vendor_id, product_id, device)
        for device in _vendor(vendor_id).get(f"{product_id:04x}", [])
    ]
    return found


def _tables(source: Source) -> dict[str, Any]:
    """The table ``figures`` of a user's file, not yet checked."""
    return source.table(source.content.get("figures", {}), ["figures"])


def _user_devices(source: Source, name: str) -> list[Any]:
    """The devices of one reader in a user's file, not yet checked."""
    devices = _tables(source)[name]
    if not isinstance(devices, list):
        raise source.error(["figures", name], f'[[figures."{printable(name)}"]] is wanted here')
    return devices


def _parse_user_device(source: Source, name: str, index: int, device: Any) -> DeviceFigures:
    """A device of a user's file; an error names the place in the file."""
    try:
        return parse(int(name[:4], 16), int(name[5:], 16), device)
    except ValueError as error:
        raise source.error(["figures", name, index], f"wrong figures: {error}") from None


def _ids(source: Source) -> Iterator[str]:
    """The readers (``vvvv:pppp``) with figures in a user's file."""
    for key in _tables(source):
        if not is_id(key):
            raise source.error(["figures", key], 'a reader is named "vvvv:pppp", small letters')
        yield key


def of_user(file: str, content: bytes) -> list[DeviceFigures]:
    """All devices in a user's file; the entries of readers are checked as well.

    Args:
        file: Name of the file, for errors.
        content: The bytes of the file.

    Raises:
        ReaderTableError: The file is wrong.
    """
    source = user_source(file, content)
    return [
        _parse_user_device(source, name, index, device)
        for name in _ids(source)
        for index, device in enumerate(_user_devices(source, name))
    ]


def all_figures() -> Iterator[DeviceFigures]:
    """All known devices, in the order of idVendor and idProduct.

    Raises:
        ReaderTableError: A file of the user is wrong.
    """
    ids = set()
    for file in (table() / "descriptors").iterdir():
        if file.name.endswith(".json"):
            vendor_id = int(file.name[:4], 16)
            ids |= {(vendor_id, int(key, 16)) for key in _vendor(vendor_id)}
    for source in user_sources():
        ids |= {(int(key[:4], 16), int(key[5:], 16)) for key in _ids(source)}
    for vendor_id, product_id in sorted(ids):
        yield from figures(vendor_id, product_id)


def parse(vendor_id: int, product_id: int, device: Any) -> DeviceFigures:
    """One device of a file.

    Args:
        vendor_id, product_id: idVendor and idProduct.
        device: The content of the file for the device.

    Raises:
        ValueError: ``device`` is wrong; the message names the field.
    """
    check_table(device, {"bcdDevice", "iManufacturer", "iProduct", "interfaces"}, "a device")
    interfaces = device.get("interfaces")
    if not isinstance(interfaces, list) or not interfaces:
        raise ValueError("interfaces: a list of them is wanted")
    return DeviceFigures(
        vendor_id,
        product_id,
        number("bcdDevice", device.get("bcdDevice", 0)),
        string("iManufacturer", device.get("iManufacturer", "")),
        string("iProduct", device.get("iProduct", "")),
        distinct([_interface(interface) for interface in interfaces]),
    )


def check_table(content: Any, known: Set[str], what: str) -> None:
    """Check that ``content`` is a table that has no keys other than ``known``.

    Args:
        content: The content of a file.
        known: The allowed keys.
        what: The kind of table, for the error.

    Raises:
        ValueError: ``content`` is no table, or has another key.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{short(content)}: {what} is wanted, a table")
    if unknown := set(content) - known:
        raise ValueError(f"{', '.join(printable(name) for name in sorted(unknown))} is not known")


def number(name: str, value: Any) -> int:
    """The value of a field: a number, or text such as ``"0x0204"``.

    Raises:
        ValueError: ``value`` is no number, or does not fit the field ``name``.
    """
    found = value
    if isinstance(value, str):
        try:
            found = int(value, 0)
        except ValueError:
            raise ValueError(f"{name}: invalid literal {short(value)}, no number") from None
    if isinstance(found, bool) or not isinstance(found, int):
        raise ValueError(f"{name}: {short(value)} is no whole number")
    if not 0 <= found <= HIGHEST[name]:
        raise ValueError(f"{name}: {short(value)} does not fit, the highest is {HIGHEST[name]:#x}")
    if name == "bDescriptorType" and found not in DESCRIPTOR_TYPES:
        raise ValueError(f"{name}: {short(value)} is not that of a smart card class descriptor")
    return int(found)


def string(name: str, value: Any) -> str:
    """A string of a device, made printable.

    Raises:
        ValueError: ``value`` is no string, or too long for a string descriptor.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name}: {short(value)} is no string")
    text = printable(value)
    if len(text.encode("utf-16-le")) > 2 * MAX_STRING:
        raise ValueError(f"{name}: a string has at most {MAX_STRING} characters")
    return text


def numbers(name: str, value: Any) -> tuple[int, ...]:
    """A list of clocks (kHz) or data rates (bit/s).

    Raises:
        ValueError: ``value`` is no list, is too long, or has a wrong number.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: {short(value)} is no list")
    if len(value) > MAX_LISTED:
        raise ValueError(f"{name}: {len(value)} of them; a list has at most {MAX_LISTED}")
    return tuple(number(name, one) for one in value)


def flag(name: str, value: Any) -> bool:
    """A truth value.

    Raises:
        ValueError: ``value`` is neither true nor false.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {short(value)} is neither true nor false")
    return value


def distinct(interfaces: Sequence[InterfaceFigures]) -> tuple[InterfaceFigures, ...]:
    """The interfaces of one device, checked to have different numbers.

    Raises:
        ValueError: Two interfaces have the same bInterfaceNumber.
    """
    found = set()
    for interface in interfaces:
        if interface.number in found:
            raise ValueError(f"bInterfaceNumber: {interface.number} twice")
        found.add(interface.number)
    return tuple(interfaces)


def make_interface(
    values: Mapping[str, Any],
    endpoints: Any,
    *,
    misplaced: Any = False,
    name: Any = "",
    data_rates: Any = (),
    clock_frequencies: Any = (),
) -> InterfaceFigures:
    """An interface from unchecked values.

    Args:
        values: The fields of interface descriptor and class descriptor.
        endpoints: A table of fields for each endpoint; empty for the usual endpoints.
        misplaced: See :class:`~ccid.codec.descriptors.SmartCardInterface`.
        name, data_rates, clock_frequencies: See :class:`InterfaceFigures`.

    Raises:
        ValueError: A value is wrong; the message names the field.
    """
    if not isinstance(endpoints, list | tuple) or len(endpoints) > MAX_ENDPOINTS:
        raise ValueError(f"endpoints: a list of at most {MAX_ENDPOINTS} is wanted")
    for endpoint in endpoints:
        check_table(endpoint, set(ENDPOINT_FIELDS), "an endpoint")
    head = InterfaceDescriptor(**{n: number(n, values[n]) for n in INTERFACE_FIELDS})
    known = tuple(
        EndpointDescriptor(**{n: number(n, endpoint.get(n, 0)) for n in ENDPOINT_FIELDS})
        for endpoint in endpoints
    )
    card = SmartCardDescriptor(**{n: number(n, values[n]) for n in SMART_CARD_FIELDS})
    return InterfaceFigures(
        SmartCardInterface(
            head, known or usual_endpoints(head), card, flag("misplaced", misplaced)
        ),
        string("iInterface", name),
        numbers("data-rates", data_rates),
        numbers("clock-frequencies", clock_frequencies),
    )


def _interface(content: Any) -> InterfaceFigures:
    own = {"iInterface", "misplaced", "endpoints", "data-rates", "clock-frequencies"}
    check_table(content, own | set(INTERFACE_FIELDS) | set(SMART_CARD_FIELDS), "an interface")
    return make_interface(
        {
            name: content.get(name, USUAL.get(name, 0))
            for name in (*INTERFACE_FIELDS, *SMART_CARD_FIELDS)
        },
        content.get("endpoints", []),
        misplaced=content.get("misplaced", False),
        name=content.get("iInterface", ""),
        data_rates=content.get("data-rates", []),
        clock_frequencies=content.get("clock-frequencies", []),
    )


def usual_endpoints(head: InterfaceDescriptor) -> tuple[EndpointDescriptor, ...]:
    """The endpoints that an interface with bNumEndpoints endpoints usually has: bulk-OUT, bulk-IN
    and interrupt-IN for CCID, only interrupt-IN for ICCD."""
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
    """A device in the form of a file."""
    content: dict[str, Any] = {"bcdDevice": Hexadecimal(device.bcdDevice, 4)}
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
        name: Hexadecimal(values[name], HEXADECIMAL[name]) if name in HEXADECIMAL else values[name]
        for name in names
        if values[name] != USUAL.get(name, 0)
    }


def as_json(readers: Mapping[str, Sequence[DeviceFigures]]) -> str:
    """The text of a vendor's file. Each field has a line of its own, for readable diffs.

    Args:
        readers: The devices by product id, written as four hexadecimal digits.
    """
    content = {key: [as_content(device) for device in readers[key]] for key in sorted(readers)}
    return "\n".join(_lines(content, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    """The lines of ``value`` as JSON; a list of plain values is one line."""
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
    """The TOML text of a device for a user's file."""
    lines = [f'[[figures."{device.id}"]]']
    content = as_content(device)
    interfaces = content.pop("interfaces")
    lines += [f"{key} = {toml_values.value(value)}" for key, value in content.items()]
    for interface in interfaces:
        lines += ["", f'[[figures."{device.id}".interfaces]]']
        lines += [f"{key} = {toml_values.value(value)}" for key, value in interface.items()]
    return "\n".join(lines) + "\n"


def check(text: str, file: str) -> None:
    """Check that ``text`` is what ``tools/reader-figures`` writes for a vendor's file.

    Args:
        text: The text of the file.
        file: Name of the file, which begins with the vendor id.

    Raises:
        ReaderTableError: ``text`` differs.
    """
    vendor_id = int(file[:4], 16)
    readers = {
        key: [parse(vendor_id, int(key, 16), device) for device in found]
        for key, found in json.loads(text).items()
    }
    if as_json(readers) != text:
        raise ReaderTableError("not as tools/reader-figures writes it", file=file)
