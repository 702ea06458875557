"""``ccid.open_fd``: a reader whose device another process opened, over a fake of libusb."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import aio, errors
from ccid.transport import (
    claim,
    contexts,
    discovery,
    given_descriptor,
    libusb,
    linux,
    wrapped_handle,
)
from ccid.transport.libusb import Status
from tests.unit.fake_usb import FakeBackend, FakeDevice
from tests.unit.open_descriptors import descriptors
from tests.unit.test_descriptors import SMART_CARD, configuration, interface
from tests.unit.test_reset import ANSWER, APDU, OverUsb, refused

pytestmark = pytest.mark.usefixtures("collected")

HUGE = pytest.param(1 << 20_000, id="huge")
"""Python refuses to write so many digits."""


class Given:
    """libusb's function that takes a descriptor.

    Attributes:
        status: Its return code.
        taken: The descriptors that it took.
    """

    def __init__(self) -> None:
        self.status: int = Status.SUCCESS
        self.taken: list[int] = []

    def function(self, name: str, *_: Any, **__: Any) -> Callable[..., int]:
        return self._wrap if name == "libusb_wrap_sys_device" else lambda _: 1

    def _wrap(self, _context: Any, fd: int, handle: int) -> int:
        if not self.status:
            self.taken.append(fd)
            ctypes.c_void_p.from_address(handle).value = 1
        return self.status


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.open("/dev/null", os.O_RDWR)
    yield made
    os.close(made)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    made = Given()
    monkeypatch.setattr(wrapped_handle, "function", made.function)
    monkeypatch.setattr(linux, "device_at", lambda *_: None)
    return made


def serve(monkeypatch: pytest.MonkeyPatch, backend: FakeBackend) -> None:
    """``backend`` has one device, which is the one of every handle."""
    made, parsed = backend.get_device_descriptor, backend.get_configuration_descriptor
    (device,) = backend.devices
    monkeypatch.setattr(backend, "ctx", None, raising=False)
    monkeypatch.setattr(backend, "get_device_descriptor", lambda _: made(device))
    monkeypatch.setattr(backend, "get_configuration_descriptor", lambda _, i: parsed(device, i))
    device.ports = ()
    for module in (claim, contexts, discovery, given_descriptor, wrapped_handle):
        monkeypatch.setattr(module, "backend", lambda: backend)
    monkeypatch.setattr(given_descriptor, "backend_without_devices", lambda: backend)
    monkeypatch.setattr(linux, "attribute", lambda *_: None)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: Given) -> OverUsb:
    made = OverUsb(monkeypatch, tmp_path)
    serve(monkeypatch, made.backend)
    return made


def test_a_conversation(lab: OverUsb, given: Given, fd: int) -> None:
    before = descriptors()
    with ccid.open_fd(fd) as reader:
        assert reader.info.path == "usb:1.2:1.0"
        with reader.slots[0].connect() as card:
            assert card.transmit(APDU) == ANSWER
    assert lab.backend.opens == 0
    assert fd not in given.taken
    os.fstat(fd)  # the caller's own
    assert lab.backend.calls.count("close_device") == len(given.taken)
    del reader, card
    gc.collect()
    assert descriptors() == before


def test_the_device_tells_its_strings(lab: OverUsb, given: Given, fd: int) -> None:
    """Where the system does not."""
    asked: list[tuple[int, ...]] = []
    transfer = lab.backend.ctrl_transfer

    def counted(handle: Any, *request: Any) -> int:
        asked.append(request[:3])
        return transfer(handle, *request)

    lab.backend.ctrl_transfer = counted  # type: ignore[method-assign]
    (info,) = given_descriptor.readers_of(fd)
    wanted = {info.device.iManufacturer, info.device.iProduct, info.device.iSerialNumber} - {0}
    assert {value & 0xFF for _, _, value in asked if value >> 8 == 3} >= wanted
    assert (info.product is not None) == (info.device.iProduct > 0)


def test_a_reset(lab: OverUsb, given: Given, fd: int) -> None:
    """The descriptor is the only way to the device: it is claimed again by the same handle."""
    with ccid.open_fd(fd) as reader:
        card = reader.slots[0].connect()
        taken = len(given.taken)
        for _ in range(2):
            lab.reset()
            refused(card)
            card = reader.slots[0].connect()
            assert card.transmit(APDU) == ANSWER
        assert len(given.taken) == taken
        lab.leave()
        with pytest.raises(errors.ReaderRemoved):
            card.transmit(APDU)


@pytest.mark.parametrize(("interface", "protocol"), [(None, 1), (0, 1), (2, 2)])
def test_one_of_several_interfaces(
    monkeypatch: pytest.MonkeyPatch, given: Given, fd: int, interface: int | None, protocol: int
) -> None:
    data = configuration(
        *(interface_of(0, 1), SMART_CARD, interface_of(2, 2), SMART_CARD), interfaces=2
    )
    serve(monkeypatch, FakeBackend(FakeDevice(data)))
    info = given_descriptor.select(fd, interface)
    assert info.reader.protocol == protocol
    with pytest.raises(errors.ReaderNotFound, match="no CCID interface 1; it has 0, 2"):
        given_descriptor.select(fd, 1)


def interface_of(number: int, protocol: int) -> bytes:
    return interface(number, endpoints=0, bInterfaceProtocol=protocol)


def test_a_device_without_such_an_interface(
    monkeypatch: pytest.MonkeyPatch, given: Given, fd: int
) -> None:
    serve(monkeypatch, FakeBackend(FakeDevice(configuration(interface(bInterfaceClass=9)))))
    with pytest.raises(errors.ReaderNotFound, match="has no CCID interface"):
        ccid.open_fd(fd)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status.IO, errors.TransportError),
        (Status.NO_DEVICE, errors.TransportError),
        (Status.NOT_SUPPORTED, errors.UsbUnavailable),
    ],
)
def test_no_descriptor_of_a_device(
    lab: OverUsb, given: Given, fd: int, status: Status, error: type[Exception]
) -> None:
    given.status = status
    before = descriptors()
    with pytest.raises(error):
        ccid.open_fd(fd)
    assert descriptors() == before


@pytest.mark.parametrize("wrong", [-1, 9999, 1 << 70, HUGE])
def test_no_descriptor_at_all(lab: OverUsb, wrong: int) -> None:
    with pytest.raises(errors.TransportError, match="cannot be used"):
        ccid.open_fd(wrong)


@pytest.mark.parametrize("wrong", [7, -1, HUGE, "\x1b[2J"])
def test_no_interface_of_this_number(lab: OverUsb, fd: int, wrong: Any) -> None:
    with pytest.raises(errors.ReaderNotFound, match="no CCID interface") as caught:
        ccid.open_fd(fd, interface=wrong)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["3", None, 3.0, True])
def test_no_number(lab: OverUsb, wrong: Any) -> None:
    with pytest.raises(TypeError, match="is a number"):
        ccid.open_fd(wrong)


def test_for_tasks(lab: OverUsb, fd: int) -> None:
    async def main() -> None:
        async with aio.open_fd(fd) as reader, reader.slots[0].connect() as card:
            assert await card.transmit(APDU) == ANSWER
            assert not reader.is_away
            assert reader.info.path == "usb:1.2:1.0"

    asyncio.run(main())


def test_a_libusb_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        lib = ctypes.CDLL(None)

    Old.lib._name = "libold.so"
    monkeypatch.setattr(libusb, "backend", Old)
    with pytest.raises(errors.UsbUnavailable, match=r"lacks libusb_no_such; 1\.0\.23 or newer"):
        libusb.function("libusb_no_such", ctypes.c_int, since="1.0.23")


def test_a_process_that_may_not_look_for_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """libusb does not begin, until it is told to look for none."""
    options: list[int] = []

    def backend() -> str:
        if not options:
            raise errors.UsbUnavailable("libusb does not begin")
        return "backend"

    def set_no_discovery() -> bool:
        options.append(libusb.NO_DEVICE_DISCOVERY)
        return True

    monkeypatch.setattr(libusb, "backend", backend)
    monkeypatch.setattr(libusb, "_set_no_discovery", set_no_discovery)
    assert libusb.backend_without_devices() == "backend"
    assert options == [2]
    monkeypatch.setattr(libusb, "_set_no_discovery", lambda: False)
    options.clear()
    with pytest.raises(errors.UsbUnavailable, match="does not begin"):
        libusb.backend_without_devices()


def test_the_option_is_one_of_the_loaded_library() -> None:
    libusb.backend()
    assert libusb._set_no_discovery()
