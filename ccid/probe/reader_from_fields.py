"""The figures of a reader, made of the fields in a report or a program's output. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ccid.errors import MalformedDescriptor
from ccid.known.descriptor_figures import (
    ENDPOINT_FIELDS,
    INTERFACE_FIELDS,
    SMART_CARD_FIELDS,
    DeviceFigures,
    InterfaceFigures,
    make_interface,
    number,
    string,
)

Fields = dict[str, Any]
"""Values of descriptor fields, by the specification's names."""

DEVICE_FIELDS = ("idVendor", "idProduct", "bcdDevice")
STRINGS = ("iManufacturer", "iProduct", "iInterface")
NOBODY = 0, 0
"""idVendor and idProduct if the text has none."""

_SPELLINGS = {
    "bclassenveloppe": "bClassEnvelope",
    "nmaxslotindex": "bMaxSlotIndex",
    "dwmaxiumumclock": "dwMaximumClock",
    "bnumdataratessupp.": "bNumDataRatesSupported",
    "dwsyncprotocols": "dwSynchProtocols",
    "dwmaxccidmsglen": "dwMaxCCIDMessageLength",
} | {
    name.lower(): name
    for name in (
        *DEVICE_FIELDS, *STRINGS, "bAlternateSetting",
        *INTERFACE_FIELDS, *SMART_CARD_FIELDS, *ENDPOINT_FIELDS,
    )
}  # fmt: skip
"""The fields by all names that programs print, in lower case."""

_IDS = re.compile(
    r"\bID\s+([0-9a-f]{4}):([0-9a-f]{4})\b"
    r"|\bVID_([0-9a-f]{4})&PID_([0-9a-f]{4})\b"
    r"|^[ \t]*([0-9a-f]{4}):([0-9a-f]{4})[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_VENDOR, _PRODUCT = (
    re.compile(rf"\b{name}\b[\s=:]{{1,40}}(?:0x)?([0-9a-f]{{4}})\b", re.IGNORECASE)
    for name in ("idVendor", "idProduct")
)


def spelled(name: str) -> str | None:
    """The specification's name of a field; None for a field that is not used here."""
    return _SPELLINGS.get(name.lower())


def ids_in(text: str) -> tuple[int, int] | None:
    """idVendor and idProduct from a line of text, such as the first line of lsusb; None if no line
    has them."""
    if (found := _IDS.search(text)) is not None:
        vendor_id, product_id = (part for part in found.groups() if part is not None)
        return int(vendor_id, 16), int(product_id, 16)
    vendor, product = _VENDOR.search(text), _PRODUCT.search(text)
    if vendor is None or product is None:
        return None
    return int(vendor[1], 16), int(product[1], 16)


def unnamed(text: str) -> Fields:
    """The fields of a device without a device descriptor: the ids in ``text``, or none."""
    vendor_id, product_id = ids_in(text) or NOBODY
    return {"idVendor": vendor_id, "idProduct": product_id, "bcdDevice": 0}


def device(
    head: Mapping[str, Any],
    interface: Mapping[str, Any],
    smart_card: Mapping[str, Any],
    endpoints: Sequence[Any] = (),
    *,
    misplaced: Any = False,
    rates: Any = (),
    clocks: Any = (),
) -> DeviceFigures:
    """A device of one interface, made of fields by name.

    Args:
        head: Fields and strings of the device descriptor.
        interface: Fields and string of the interface descriptor.
        smart_card: Fields of the class descriptor.
        endpoints: Fields of each endpoint descriptor; if empty, the usual endpoints are assumed.
        misplaced: The class descriptor stood behind an endpoint descriptor.
        rates, clocks: Answers to GET_DATA_RATES (bit/s) and GET_CLOCK_FREQUENCIES (kHz).

    Raises:
        MalformedDescriptor: A field is missing.
        ValueError: A value is not possible for its field.
    """
    vendor_id, product_id, release = (number(n, _there(head, n)) for n in DEVICE_FIELDS)
    return DeviceFigures(
        vendor_id,
        product_id,
        release,
        string("iManufacturer", head.get("iManufacturer") or ""),
        string("iProduct", head.get("iProduct") or ""),
        (
            _interface(
                interface, smart_card, endpoints, misplaced=misplaced, rates=rates, clocks=clocks
            ),
        ),
    )


def _interface(
    interface: Mapping[str, Any],
    smart_card: Mapping[str, Any],
    endpoints: Sequence[Any],
    *,
    misplaced: Any,
    rates: Any,
    clocks: Any,
) -> InterfaceFigures:
    values = {name: _there(interface, name) for name in INTERFACE_FIELDS}
    values |= {name: _there(smart_card, name) for name in SMART_CARD_FIELDS}
    found = make_interface(
        values,
        [{name: _there(endpoint, name) for name in ENDPOINT_FIELDS} for endpoint in endpoints],
        misplaced=misplaced,
        name=interface.get("iInterface") or "",
        data_rates=() if rates is None else rates,
        clock_frequencies=() if clocks is None else clocks,
    )
    wanted = found.reader.interface.bNumEndpoints
    if len(endpoints) > wanted:
        raise ValueError(f"bNumEndpoints: {wanted}, and {len(endpoints)} endpoints are described")
    return found


def _there(fields: Mapping[str, Any], name: str) -> Any:
    if not isinstance(fields, Mapping):
        raise ValueError(f"{name}: the table of its fields is missing")
    if name not in fields:
        raise MalformedDescriptor(f"{name} is missing", field=name)
    return fields[name]
