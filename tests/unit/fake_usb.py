"""A backend of pyusb over a list of devices instead of libusb."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import usb.core

from ccid.codec.descriptors import DeviceDescriptor, InterfaceDescriptor
from ccid.codec.descriptors.configuration import descriptors
from ccid.codec.descriptors.standard import DescriptorType
from ccid.transport import claim, contexts, discovery
from ccid.transport import usb as usb_transport
from ccid.transport.libusb import Status


def error(status: Status) -> Exception:
    """The error pyusb raises for a return code of libusb."""
    if status is Status.NOT_SUPPORTED:
        return NotImplementedError("not supported")
    made: Exception = usb.core.USBError(status.name, status, None)
    return made


def use_backend(monkeypatch: pytest.MonkeyPatch, backend: Any) -> None:
    """Have ``backend`` in libusb's place, wherever devices are found and opened."""
    for module in (claim, contexts, discovery, usb_transport):
        monkeypatch.setattr(module, "backend", lambda: backend)


class FakeDevice:
    """A device: its descriptors, its port, and the context of libusb's that lists it."""

    def __init__(
        self,
        configuration: bytes,
        *,
        ports: tuple[int, ...] = (1,),
        bus: int = 1,
        address: int = 2,
        gone: bool = False,
        **descriptor: int,
    ) -> None:
        self.descriptor = DeviceDescriptor(
            **{"idVendor": 0x1234, "idProduct": 0x5678, **descriptor}
        )
        self.configuration = configuration
        self.ports, self.bus, self.address, self.gone = ports, bus, address, gone
        self.context = 1
        """Address of the context of libusb's that lists it."""


class FakeBackend:
    """pyusb's backend interface over a list of :class:`FakeDevice`.

    Attributes:
        opens: How many devices were opened.
        calls: The calls for open devices, in order.
        fail: By the name of a call: its return code.
    """

    def __init__(self, *devices: FakeDevice) -> None:
        self.devices = devices
        self.opens = 0
        self.calls: list[str] = []
        self.fail: dict[str, Status] = {}
        self.driver_active = False
        self.current_configuration = 1
        self.on_control: Callable[..., bytes] = lambda *_: b""

    def enumerate_devices(self) -> list[FakeDevice]:
        if "enumerate_devices" in self.fail:
            raise error(self.fail["enumerate_devices"])
        return list(self.devices)

    def get_device_descriptor(self, device: FakeDevice) -> Any:
        if device.gone:
            raise error(Status.NO_DEVICE)
        fields = {name: getattr(device.descriptor, name) for name in _names(device.descriptor)}
        return SimpleNamespace(
            **fields, bus=device.bus, address=device.address, port_numbers=device.ports, speed=2
        )

    def get_configuration_descriptor(self, device: FakeDevice, index: int) -> Any:
        """The configuration as libusb parses it: descriptors that libusb does not know are left
        out."""
        raw = device.configuration
        interfaces: dict[int, list[Any]] = {}
        extra, behind = bytearray(), None
        for kind, part in descriptors(raw[9:], "fake"):
            if kind == DescriptorType.INTERFACE:
                interface = InterfaceDescriptor.parse(part)
                behind = _struct(interface, endpoint=[])
                interfaces.setdefault(interface.bInterfaceNumber, []).append(behind)
                setting = behind
            elif kind == DescriptorType.ENDPOINT:
                behind = SimpleNamespace(
                    bEndpointAddress=part[2],
                    bmAttributes=part[3],
                    wMaxPacketSize=int.from_bytes(part[4:6], "little"),
                    bInterval=part[6],
                    extra=bytearray(),
                    extra_length=0,
                )
                setting.endpoint.append(behind)
                setting.bNumEndpoints = len(setting.endpoint)
            elif behind is None:
                extra += part
            else:
                behind.extra += part
                behind.extra_length = len(behind.extra)
        return SimpleNamespace(
            wTotalLength=int.from_bytes(raw[2:4], "little"),
            bNumInterfaces=len(interfaces),
            bConfigurationValue=raw[5],
            iConfiguration=raw[6],
            bmAttributes=raw[7],
            bMaxPower=raw[8],
            extra_descriptors=bytes(extra),
            interface=[
                SimpleNamespace(altsetting=settings, num_altsetting=len(settings))
                for settings in interfaces.values()
            ],
        )

    # Calls for an open device ---------------------------------------------------------------------

    def _do(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail:
            raise error(self.fail[name])

    def open_device(self, device: FakeDevice) -> Any:
        self.opens += 1
        self._do("open_device")
        return SimpleNamespace(handle=SimpleNamespace(value=1))

    def close_device(self, handle: Any) -> None:
        self._do("close_device")

    def get_configuration(self, handle: Any) -> int:
        return self.current_configuration

    def set_configuration(self, handle: Any, value: int) -> None:
        self._do(f"set_configuration {value}")

    def is_kernel_driver_active(self, handle: Any, number: int) -> bool:
        if "is_kernel_driver_active" in self.fail:
            raise error(self.fail["is_kernel_driver_active"])
        return self.driver_active

    def detach_kernel_driver(self, handle: Any, number: int) -> None:
        self._do("detach_kernel_driver")

    def attach_kernel_driver(self, handle: Any, number: int) -> None:
        self._do("attach_kernel_driver")

    def claim_interface(self, handle: Any, number: int) -> None:
        self._do("claim_interface")

    def release_interface(self, handle: Any, number: int) -> None:
        self._do("release_interface")

    def clear_halt(self, handle: Any, endpoint: int) -> None:
        self._do(f"clear_halt {endpoint:02x}")

    def ctrl_transfer(self, handle: Any, *request: Any) -> int:
        data = request[4]
        reply = self.on_control(*request[:4])
        self._do("ctrl_transfer")
        for i, byte in enumerate(reply[: len(data)]):
            data[i] = byte
        return min(len(reply), len(data))


def _names(descriptor: DeviceDescriptor) -> list[str]:
    return [
        name for name in dir(descriptor) if name.startswith(("b", "i", "w")) and name != "build"
    ]


def _struct(interface: InterfaceDescriptor, **more: Any) -> Any:
    fields = {
        name: getattr(interface, name)
        for name in dir(interface)
        if name.startswith(("bI", "bA", "iI"))
    }
    return SimpleNamespace(**fields, bNumEndpoints=0, extra=bytearray(), extra_length=0, **more)
