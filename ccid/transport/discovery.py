"""Readers on USB, found without opening any device."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import field, replace
from functools import partial
from typing import Any, TypedDict, cast

from ccid.codec.declaration import Declared
from ccid.codec.descriptors import (
    ConfigurationDescriptor,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
    parse_configuration,
)
from ccid.codec.descriptors.configuration import SmartCardInterface, smart_card_interface
from ccid.codes import CLASS_SMART_CARD
from ccid.errors import CcidError, MalformedDescriptor, ReaderRemoved, UsbUnavailable
from ccid.ground.records import record
from ccid.known.quirks import lookup
from ccid.transport import ReaderInfo, Transport, linux, stale_list
from ccid.transport.contexts import Device
from ccid.transport.libusb import SPEEDS, status_of, status_text, usb_errors
from ccid.transport.libusb import backend as backend
from ccid.transport.usb import UsbTransport

LINUX = sys.platform.startswith("linux")
READING_ERRORS = (
    *(MalformedDescriptor, ValueError, TypeError),
    *(LookupError, AttributeError, ArithmeticError),
)
"""Errors from descriptors that are incomplete: a null pointer from libusb, a list shorter than its
count, a number out of range."""

logger = logging.getLogger("ccid.transport")


@record
class Broken:
    """A smart-card interface whose descriptors cannot be parsed."""

    path: str
    id: str
    error: MalformedDescriptor


@record
class Discovery:
    """The result of one search on USB.

    Attributes:
        readers: The readers, in the order of their ports.
        broken: Smart-card interfaces whose descriptors cannot be understood.
    """

    readers: list[ReaderInfo] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)


def discover() -> Discovery:
    """Find all readers on USB; open no device.

    Returns:
        The readers, and the interfaces whose descriptors cannot be parsed.

    Raises:
        UsbUnavailable: libusb cannot be loaded.
    """
    found = Discovery()
    with ExitStack() as stack:
        try:
            devices, by_node = stack.enter_context(stale_list.listed(backend()))
        except CcidError:
            raise
        except Exception as error:
            raise UsbUnavailable(
                f"libusb cannot list the devices on USB: {status_text(status_of(error))}"
            ) from None
        for device in devices:
            try:
                look_at(device, found, by_node=by_node)
            except usb_errors():
                continue  # the device was unplugged meanwhile
            except READING_ERRORS as error:  # one bad device hides no other device
                logger.warning("a device on USB cannot be understood: %s", error)
    found.readers.sort(key=lambda r: (r.bus, r.path))
    found.readers[:] = _named_apart(found.readers)
    return found


def look_at(
    device: Any, found: Discovery, *, system_name: str | None = None, by_node: bool = False
) -> None:
    """Add the readers of one device to ``found``.

    Args:
        device: pyusb's device.
        found: What was found.
        system_name: The kernel's name of a device that libusb was given, and whose ports it does
            not know; empty if the system does not tell.
        by_node: Open it by its node: ``device`` is gone then.
    """
    raw = backend().get_device_descriptor(device)
    ports = tuple(raw.port_numbers or ())
    name = linux.device_name(raw.bus, ports) if system_name is None else system_name
    is_known = bool(system_name or ports) or not raw.address
    where = f"usb:{name}" if is_known else f"usb:{raw.bus}.{raw.address}"
    descriptor = DeviceDescriptor.parse(_same(DeviceDescriptor, raw))
    ident = f"{descriptor.idVendor:04x}:{descriptor.idProduct:04x}"
    for data in _configurations(device, descriptor.bNumConfigurations, name):
        try:
            configuration = parse_configuration(data)
        except MalformedDescriptor as error:
            if _mentions_class(data):
                found.broken.append(Broken(where, ident, error))
            continue
        readers: list[tuple[str, SmartCardInterface]] = []
        value = configuration.descriptor.bConfigurationValue
        for interface in configuration.interfaces:
            number = interface.descriptor.bInterfaceNumber
            path = f"{where}:{value}.{number}"
            if interface.descriptor.bAlternateSetting:
                continue
            try:
                reader = smart_card_interface(interface)
            except MalformedDescriptor as error:
                found.broken.append(Broken(path, ident, error))
                continue
            if reader is not None:
                readers.append((path, reader))
        for path, reader in readers:
            strings = _strings(name, path) if LINUX else Strings()
            info = ReaderInfo(
                name=_model_name(descriptor, strings),
                path=path,
                device=descriptor,
                configuration=configuration.descriptor,
                reader=reader,
                connect=partial(
                    _connect, linux.node(raw.bus, raw.address) if by_node else device, os.getpid()
                ),
                bus=raw.bus,
                address=raw.address,
                speed=SPEEDS.get(raw.speed or 0, ""),
                siblings=len(readers),
                raw_configuration=data,
                **strings,
            )
            found.readers.append(info)


def _connect(device: Device, owner: int, info: ReaderInfo) -> Transport:
    """Open an interface of a device that process ``owner`` found.

    A forked child searches for the device again: libusb's object belongs to the parent.
    """
    if owner == os.getpid():
        return UsbTransport(info, device, find_again)
    place = (info.path, info.bus, info.address)
    for found in discover().readers:
        if (found.path, found.bus, found.address) == place:
            return found.connect(info)
    raise ReaderRemoved(f"{info.name} was unplugged", reader=info.name)


def find_again(info: ReaderInfo) -> tuple[ReaderInfo, Device] | None:
    """The reader at the port of ``info``, with its device, if it is the same one as far as its
    descriptors tell; None if there is none."""
    for found in discover().readers:
        if found.path == info.path and _identity(found) == _identity(info):
            opens: Any = found.connect
            return replace(found, name=info.name), opens.args[0]
    return None


def _identity(info: ReaderInfo) -> tuple[object, ...]:
    return info.device, info.raw_configuration, info.serial


class Strings(TypedDict, total=False):
    """A device's strings, as far as the system tells them."""

    manufacturer: str | None
    product: str | None
    serial: str | None
    interface_name: str | None


def _strings(device: str, path: str) -> Strings:
    interface = path.removeprefix("usb:")
    return {
        "manufacturer": linux.attribute(device, "manufacturer"),
        "product": linux.attribute(device, "product"),
        "serial": linux.attribute(device, "serial"),
        "interface_name": linux.attribute(interface, "interface"),
    }


def _model_name(device: DeviceDescriptor, strings: Strings) -> str:
    """The name that all devices of a model share: from the table of readers; else from the device's
    own strings; else its ids."""
    known = lookup(device.idVendor, device.idProduct).name
    if known:
        return known
    maker, product = strings.get("manufacturer"), strings.get("product")
    if product and maker and not product.lower().startswith(maker.lower()):
        return f"{maker} {product}"
    return product or maker or f"CCID reader {device.idVendor:04x}:{device.idProduct:04x}"


def _named_apart(readers: list[ReaderInfo]) -> list[ReaderInfo]:
    """The readers with unique names: equal names get interface, serial number or path."""
    for distinction in (_by_interface, _by_serial, _by_place):
        names = [r.name for r in readers]
        readers = [
            replace(r, name=r.name + distinction(r)) if names.count(r.name) > 1 else r
            for r in readers
        ]
    return readers


def _by_interface(info: ReaderInfo) -> str:
    return f" [{info.interface_name or info.interface_number}]" if info.siblings > 1 else ""


def _by_serial(info: ReaderInfo) -> str:
    return f" ({info.serial})" if info.serial else ""


def _by_place(info: ReaderInfo) -> str:
    return f" @{info.path.removeprefix('usb:')}"


def _configurations(device: Any, count: int, name: str) -> list[bytes]:
    """The bytes of the active configuration; of all configurations if the active one is unknown."""
    active = linux.attribute(name, "bConfigurationValue") if LINUX else None
    found = []
    for index in range(count):
        with suppress(*usb_errors()):
            data = _raw_configuration(backend().get_configuration_descriptor(device, index))
            if active is None or active == str(data[5]):
                found.append(data)
    return found


def _raw_configuration(configuration: Any) -> bytes:
    """The bytes of a configuration, rebuilt from the structures of libusb."""
    parts = [bytes(configuration.extra_descriptors)]
    for i in range(configuration.bNumInterfaces):
        interface = configuration.interface[i]
        for j in range(interface.num_altsetting):
            setting = interface.altsetting[j]
            parts += [_same(InterfaceDescriptor, setting), _extra(setting)]
            for k in range(setting.bNumEndpoints):
                endpoint = setting.endpoint[k]
                parts += [_same(EndpointDescriptor, endpoint), _extra(endpoint)]
    body = b"".join(parts)
    head = _same(ConfigurationDescriptor, configuration)
    length = min(len(head) + len(body), 0xFFFF)
    return head[:2] + length.to_bytes(2, "little") + head[4:] + body


def _same(cls: type[Declared], struct: Any) -> bytes:
    """The bytes of the standard descriptor in a structure of libusb, without extra bytes."""
    names = [f.name for f in dataclasses.fields(cast(Any, cls))][2:]
    made: Any = cls
    return bytes(made(**{name: getattr(struct, name) for name in names}).build())


def _extra(struct: Any) -> bytes:
    return bytes(struct.extra[: struct.extra_length])


def _mentions_class(data: bytes) -> bool:
    """True if a configuration that cannot be parsed seems to have a smart-card interface."""
    marks = (i for i in range(len(data) - 5) if data[i : i + 2] == b"\x09\x04")
    return any(data[i + 5] == CLASS_SMART_CARD for i in marks)
