"""``ccid-probe dump``: every field of a reader's descriptors."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from typing import Any

from ccid.codec.declaration import Declared
from ccid.codec.descriptors import ClassControl
from ccid.codec.descriptors.standard import DescriptorType
from ccid.codes import DIRECTION_IN, ENGLISH_US, GET_DESCRIPTOR
from ccid.device.reader import Reader
from ccid.errors import CcidError
from ccid.ground.records import vars_of
from ccid.probe.fields import Field, device_fields, interface_fields, smart_card_fields
from ccid.probe.reader_choice import note, opened, print_json, readers, say
from ccid.transport import ReaderInfo

STRING_TIMEOUT_MS = 1000
MAX_STRING = 255
"""Bytes of the longest string descriptor."""


@dataclasses.dataclass
class Dump:
    """A reader with the lists that only an open reader returns.

    Attributes:
        info: The reader.
        clocks: The answer to GET_CLOCK_FREQUENCIES in kHz; None if it could not be read.
        rates: The answer to GET_DATA_RATES in bit/s; None if it could not be read.
    """

    info: ReaderInfo
    clocks: list[int] | None = None
    rates: list[int] | None = None


def run(options: argparse.Namespace) -> int:
    """Print the descriptors of the readers."""
    dumps = [take(options, info) for info in readers(options)]
    if options.json:
        print_json("dump", readers=[as_json(dump) for dump in dumps])
        return 0
    for index, dump in enumerate(dumps):
        if index:
            say()
        describe(dump)
    return 0


def take(options: argparse.Namespace, info: ReaderInfo) -> Dump:
    """Open the reader, and read its lists and the strings that the system does not give."""
    try:
        with opened(options, info) as reader:
            return take_from(reader)
    except CcidError as error:
        note(f"the lists of clocks and rates were not read: {error}")
        return Dump(info)


def take_from(reader: Reader) -> Dump:
    """The lists and strings of an open reader."""
    return Dump(with_strings(reader), reader.clock_frequencies, reader.data_rates)


def with_strings(reader: Reader) -> ReaderInfo:
    """``reader.info``, with strings that the system did not give read from the device."""
    info = reader.info
    device, interface = info.device, info.reader.interface
    return dataclasses.replace(
        info,
        manufacturer=info.manufacturer or _string(reader, device.iManufacturer),
        product=info.product or _string(reader, device.iProduct),
        serial=info.serial or _string(reader, device.iSerialNumber),
        interface_name=info.interface_name or _string(reader, interface.iInterface),
    )


def _string(reader: Reader, index: int) -> str | None:
    """A string descriptor of an open reader (USB 2.0, 9.6.7); None if it cannot be read."""
    if not index:
        return None
    request = ClassControl(
        DIRECTION_IN, GET_DESCRIPTOR, DescriptorType.STRING << 8 | index, ENGLISH_US, MAX_STRING
    )
    try:
        raw = reader.pipe.transport.control(request, STRING_TIMEOUT_MS)
    except CcidError:
        return None
    if raw[1:2] != bytes([DescriptorType.STRING]):
        return None
    return raw[2 : raw[0]].decode("utf-16-le", "replace")


def describe(dump: Dump) -> None:
    """Print a reader; the fields have the order of libccid's ``parse``."""
    info = dump.info
    say(f"Reader: {info.name}")
    say(f" Path: {info.path} (bus {info.bus}, device {info.address}, {info.speed} speed)")
    _print(device_fields(info))
    say(" Interface descriptor:")
    _print(interface_fields(info.reader, info.interface_name), " ")
    say(" CCID class descriptor:")
    _print(smart_card_fields(info.descriptor, dump.clocks, dump.rates), " ")


def _print(fields: Iterable[Field], indent: str = "") -> None:
    for field in fields:
        say(f"{indent} {field.name}: {field.value}")
        for meaning in field.meaning:
            say(f"{indent}   {meaning}")


def as_json(dump: Dump) -> dict[str, Any]:
    """One reader of ``dump --json``: every field by its name, with the value of the device."""
    info = dump.info
    return {
        "name": info.name,
        "path": info.path,
        "bus": info.bus,
        "address": info.address,
        "speed": info.speed,
        "strings": {
            "iManufacturer": info.manufacturer,
            "iProduct": info.product,
            "iSerialNumber": info.serial,
            "iInterface": info.interface_name,
        },
        "device": _values(info.device),
        "configuration": _values(info.configuration),
        "interface": _values(info.reader.interface),
        "endpoints": [_values(endpoint) for endpoint in info.reader.endpoints],
        "smart_card": _values(info.descriptor),
        "clock_frequencies": dump.clocks,
        "data_rates": dump.rates,
        "meaning": {
            field.name: list(field.meaning)
            for field in smart_card_fields(info.descriptor, dump.clocks, dump.rates)
            if field.meaning
        },
    }


def _values(descriptor: Declared) -> dict[str, int]:
    return dict(vars_of(descriptor))
