"""What somebody told of a reader, field by field, and the figures that come of it. Pure."""

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
"""What was said of one thing, by the specification's names."""

DEVICE_FIELDS = ("idVendor", "idProduct", "bcdDevice")
STRINGS = ("iManufacturer", "iProduct", "iInterface")
NOBODY = 0, 0
"""idVendor and idProduct where nothing tells them."""

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
"""The fields by all the names that programs have given them, in small letters."""

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
    """A field by the specification's name; None for one that nothing is done with."""
    return _SPELLINGS.get(name.lower())


def ids_in(text: str) -> tuple[int, int] | None:
    """idVendor and idProduct where only a line of text tells them, as lsusb's first does; None
    if none does."""
    if (found := _IDS.search(text)) is not None:
        vendor_id, product_id = (part for part in found.groups() if part is not None)
        return int(vendor_id, 16), int(product_id, 16)
    vendor, product = _VENDOR.search(text), _PRODUCT.search(text)
    if vendor is None or product is None:
        return None
    return int(vendor[1], 16), int(product[1], 16)


def unnamed(text: str) -> Fields:
    """The fields of a device whose descriptor is not told, with what else ``text`` says of it."""
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
    """A device of one interface, from fields by name.

    Args:
        head: The fields of the device, and its strings.
        interface: Those of the interface, and its string.
        smart_card: Those of the class descriptor.
        endpoints: Those of each endpoint; without any they are the usual ones.
        misplaced: The class descriptor stood behind an endpoint.
        rates, clocks: What GET_DATA_RATES and GET_CLOCK_FREQUENCIES return.

    Raises:
        MalformedDescriptor: A field is missing.
        ValueError: A value is none for its field.
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
        raise ValueError(f"bNumEndpoints: {wanted}, and {len(endpoints)} endpoints are told of")
    return found


def _there(fields: Mapping[str, Any], name: str) -> Any:
    if not isinstance(fields, Mapping):
        raise ValueError(f"{name}: no fields are where it should be")
    if name not in fields:
        raise MalformedDescriptor(f"not all is there: {name} is missing", field=name)
    return fields[name]
