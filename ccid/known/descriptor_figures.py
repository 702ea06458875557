"""Figures of real readers' descriptors: ``readers/descriptors/*.json``, one file a USB vendor.

They make virtual readers, and answer questions about readers that are not here; nothing reads
them when a reader is opened. A file has its readers by product id, each with one device or more
(one a firmware release or variant, the newest first), and for each CCID interface of a device the
fields of its descriptors by the specification's names. Left out are the fields that are 0, a
bInterfaceClass of 0x0B, and a bMaxCCIDBusySlots of 1.

    {"3437": [{"bcdDevice": "0x0200", "iProduct": "GemPC Twin", "interfaces": [{…}]}]}

A user's file (:mod:`ccid.known.quirks.reader_table`) may have figures too:
``[["figures"."08e6:3437"]]``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from ccid.codec.declaration import vars_of
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
HIGHEST = {
    part.name: 256 ** part.sizeof() - 1
    for cls in (DeviceDescriptor, InterfaceDescriptor, SmartCardDescriptor, EndpointDescriptor)
    for part in cls.layout.subcons
} | {"data-rates": 0xFFFF_FFFF, "clock-frequencies": 0xFFFF_FFFF}
"""The highest value of each field, by its size."""
MAX_STRING = 126
"""UTF-16 units of a string descriptor (USB 2.0, 9.6.7)."""
MAX_LISTED = 256
"""Clocks or rates of a list; their number in the class descriptor is a byte."""
MAX_ENDPOINTS = 30
"""Endpoints that a device can have besides the control pipe (USB 2.0, 9.6.6)."""


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
        devices = _listed(source, name) if name in _tables(source) else []
        for index, device in enumerate(devices):
            found.append(_of_user(source, name, index, device))
    found += [
        parse(vendor_id, product_id, device)
        for device in _vendor(vendor_id).get(f"{product_id:04x}", [])
    ]
    return found


def _tables(source: Source) -> dict[str, Any]:
    """The figures in a user's file, as they stand."""
    return source.table(source.content.get("figures", {}), ["figures"])


def _listed(source: Source, name: str) -> list[Any]:
    """The devices of one reader in a user's file, as they stand."""
    devices = _tables(source)[name]
    if not isinstance(devices, list):
        raise source.error(["figures", name], f'[[figures."{printable(name)}"]] is wanted here')
    return devices


def _of_user(source: Source, name: str, index: int, device: Any) -> DeviceFigures:
    try:
        return parse(int(name[:4], 16), int(name[5:], 16), device)
    except ValueError as error:
        raise source.error(["figures", name, index], f"wrong figures: {error}") from None


def _ids(source: Source) -> Iterator[str]:
    """The readers that a user's file has figures of."""
    for key in _tables(source):
        if not is_id(key):
            raise source.error(["figures", key], 'a reader is named "vvvv:pppp", small letters')
        yield key


def of_user(file: str, content: bytes) -> list[DeviceFigures]:
    """All figures of a user's file, with everything else in it looked at too.

    Args:
        file: Its name, for errors.
        content: What is in it.

    Raises:
        ReaderTableError: It is wrong.
    """
    source = user_source(file, content)
    return [
        _of_user(source, name, index, device)
        for name in _ids(source)
        for index, device in enumerate(_listed(source, name))
    ]


def all_figures() -> Iterator[DeviceFigures]:
    """The figures of every reader that they are known of, by vendor and product id."""
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
    """A device of a file.

    Raises:
        ValueError: It is none; the field that is wrong is named.
    """
    table_of(device, {"bcdDevice", "iManufacturer", "iProduct", "interfaces"}, "a device")
    interfaces = device.get("interfaces")
    if not isinstance(interfaces, list) or not interfaces:
        raise ValueError("interfaces: a list of them is wanted")
    return DeviceFigures(
        vendor_id,
        product_id,
        number("bcdDevice", device.get("bcdDevice", 0)),
        string("iManufacturer", device.get("iManufacturer", "")),
        string("iProduct", device.get("iProduct", "")),
        apart([_interface(interface) for interface in interfaces]),
    )


def table_of(content: Any, known: Set[str], what: str) -> None:
    """Is ``content`` a table with no other keys than these?

    Raises:
        ValueError: It is not.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{short(content)}: {what} is wanted, a table")
    if unknown := set(content) - known:
        raise ValueError(f"{', '.join(printable(name) for name in sorted(unknown))} is not known")


def number(name: str, value: Any) -> int:
    """The value of a field: a number, or its text as ``"0x0204"``.

    Raises:
        ValueError: It is none, or does not fit.
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
    """A string of a device, printable.

    Raises:
        ValueError: It is none, or longer than a string descriptor can be.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name}: {short(value)} is no string")
    text = printable(value)
    if len(text.encode("utf-16-le")) > 2 * MAX_STRING:
        raise ValueError(f"{name}: a string has at most {MAX_STRING} characters")
    return text


def numbers(name: str, value: Any) -> tuple[int, ...]:
    """A list of clocks or rates.

    Raises:
        ValueError: It is none, or has a number that does not fit.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: {short(value)} is no list")
    if len(value) > MAX_LISTED:
        raise ValueError(f"{name}: {len(value)} of them; a list has at most {MAX_LISTED}")
    return tuple(number(name, one) for one in value)


def flag(name: str, value: Any) -> bool:
    """True or false.

    Raises:
        ValueError: It is neither.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {short(value)} is neither true nor false")
    return value


def apart(interfaces: Sequence[InterfaceFigures]) -> tuple[InterfaceFigures, ...]:
    """The interfaces of one device.

    Raises:
        ValueError: Two have the same number.
    """
    found = set()
    for interface in interfaces:
        if interface.number in found:
            raise ValueError(f"bInterfaceNumber: {interface.number} twice")
        found.add(interface.number)
    return tuple(interfaces)


def made(
    values: Mapping[str, Any],
    endpoints: Any,
    *,
    misplaced: Any = False,
    name: Any = "",
    data_rates: Any = (),
    clock_frequencies: Any = (),
) -> InterfaceFigures:
    """An interface from what somebody wrote, each value looked at.

    Args:
        values: The fields of interface and class descriptor.
        endpoints: Tables with the fields of the endpoints'; none for the usual ones.
        misplaced, name, data_rates, clock_frequencies: As :class:`InterfaceFigures` has them.

    Raises:
        ValueError: A value is none for its field, which is named.
    """
    if not isinstance(endpoints, list | tuple) or len(endpoints) > MAX_ENDPOINTS:
        raise ValueError(f"endpoints: a list of at most {MAX_ENDPOINTS} is wanted")
    for endpoint in endpoints:
        table_of(endpoint, set(ENDPOINT_FIELDS), "an endpoint")
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
    table_of(content, own | set(INTERFACE_FIELDS) | set(SMART_CARD_FIELDS), "an interface")
    return made(
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
    lines += [f"{key} = {toml_values.value(value)}" for key, value in content.items()]
    for interface in interfaces:
        lines += ["", f'[[figures."{device.id}".interfaces]]']
        lines += [f"{key} = {toml_values.value(value)}" for key, value in interface.items()]
    return "\n".join(lines) + "\n"


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
