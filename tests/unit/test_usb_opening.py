"""Opening an interface on USB: the configuration, a device that wakes up, odd strings."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.codes import IccStatus
from ccid.link.slot_commands import SlotCommands
from ccid.transport import asynchronous, hotplug, libusb, linux, usb
from ccid.transport.bulk import BulkPair
from ccid.transport.libusb import Status
from tests.unit.fake_events import FakeBulk, FakeEvents
from tests.unit.fake_usb import FakeBackend, FakeDevice, error, use_backend
from tests.unit.test_descriptors import QEMU, SMART_CARD, configuration, interface

ANSWER = bytes.fromhex("81000000000000000000")


class Usbfs(FakeBackend):
    """A device that accepts no SET_CONFIGURATION while an interface is claimed, as on Linux."""

    def __init__(self, *devices: FakeDevice) -> None:
        super().__init__(*devices)
        self.claimed = 0
        self.after_set: Callable[[], object] = bool
        self.script: dict[str, list[Status]] = {}

    def _do(self, name: str) -> None:
        super()._do(name)
        failures = self.script.get(name.split()[0])
        if failures:
            raise error(failures.pop(0))

    def get_configuration(self, handle: Any) -> int:
        if self.script.get("get_configuration"):
            self._do("get_configuration")
        return self.current_configuration

    def set_configuration(self, handle: Any, value: int) -> None:
        self._do(f"set_configuration {value}")
        self.after_set()
        if self.claimed:
            raise error(Status.BUSY)
        self.current_configuration = value

    def claim_interface(self, handle: Any, number: int) -> None:
        self._do("claim_interface")
        self.claimed += 1

    def release_interface(self, handle: Any, number: int) -> None:
        super().release_interface(handle, number)
        self.claimed -= 1


Plug = Callable[[bytes], Usbfs]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The device node, which exists."""
    made = tmp_path / "node"
    made.touch()
    monkeypatch.setattr(linux, "node", lambda *_: made)
    monkeypatch.setattr(usb, "LINUX", True)
    return made


@pytest.fixture
def events() -> FakeEvents:
    return FakeEvents()


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch, node: Path, events: FakeEvents) -> Plug:
    def use(raw: bytes) -> Usbfs:
        backend = Usbfs(FakeDevice(raw))
        use_backend(monkeypatch, backend)
        return backend

    monkeypatch.setattr(asynchronous, "calls", events.calls)
    monkeypatch.setattr(asynchronous, "context", lambda: 1)
    monkeypatch.setattr(linux, "attribute", lambda *_: None)
    return use


@pytest.fixture
def bulk(events: FakeEvents) -> FakeBulk:
    return events.bulk


def numbered(raw: bytes, value: int) -> bytes:
    """The configuration with another bConfigurationValue."""
    return raw[:5] + bytes((value,)) + raw[6:]


BOTH_WAYS = QEMU[79:93]
"""The bulk endpoints of both directions."""
TWO = configuration(
    *(interface(0, 2), SMART_CARD, BOTH_WAYS),
    *(interface(1, 2), SMART_CARD, BOTH_WAYS),
    interfaces=2,
)


def connect(index: int = 0) -> Any:
    info = ccid.list_readers()[index]
    return info.connect(info)


def sets(backend: FakeBackend) -> list[str]:
    return [call for call in backend.calls if call.startswith("set_configuration")]


# The configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, 7, 255])
def test_an_active_configuration_is_not_set_again(plug: Plug, bulk: FakeBulk, value: int) -> None:
    backend = plug(numbered(TWO, value))
    backend.current_configuration = value
    made = [connect(0), connect(1)]
    assert sets(backend) == []
    assert backend.claimed == 2
    for one in made:
        one.close()


def test_an_unconfigured_device_is_configured_once(plug: Plug, bulk: FakeBulk) -> None:
    backend = plug(TWO)
    backend.current_configuration = 0
    made = [connect(0), connect(1)]
    assert sets(backend) == ["set_configuration 1"]
    for one in made:
        one.close()


def test_a_configuration_0_that_is_not_set(plug: Plug, bulk: FakeBulk) -> None:
    """The configuration seems set until the interface is claimed: then there is no such
    interface."""
    backend = plug(numbered(TWO, 0))
    backend.current_configuration = 0
    backend.script = {"claim_interface": [Status.NOT_FOUND]}
    connect(0).close()
    assert backend.calls[:4] == [
        "open_device",
        "claim_interface",
        "set_configuration 0",
        "claim_interface",
    ]


def test_another_sets_it_at_the_same_moment(plug: Plug, bulk: FakeBulk) -> None:
    backend = plug(TWO)
    backend.current_configuration = 0

    def other() -> None:
        backend.current_configuration, backend.claimed = 1, 1

    backend.after_set = other
    connect(0).close()
    assert sets(backend) == ["set_configuration 1"]


def test_another_configuration_is_left_alone(plug: Plug, bulk: FakeBulk) -> None:
    """An interface with the same number in the active configuration is another interface."""
    backend = plug(numbered(TWO, 2))
    backend.current_configuration = 1
    with pytest.raises(errors.ReaderUnsupported, match=r"part of configuration 2.* 1 set"):
        connect(0)
    assert backend.calls == ["open_device", "close_device"]


def test_only_the_own_interfaces_kernel_driver_is_sent_away(
    plug: Plug, bulk: FakeBulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, asked = plug(TWO), list[int]()

    def is_active(_: Any, number: int) -> bool:
        asked.append(number)
        return number == 0

    monkeypatch.setattr(backend, "is_kernel_driver_active", is_active)
    connect(1).close()
    assert asked == [1]
    assert "detach_kernel_driver" not in backend.calls


# A device that wakes up -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", ["open_device", "get_configuration", "set_configuration", "claim_interface"]
)
def test_one_input_output_error_on_opening(plug: Plug, bulk: FakeBulk, call: str) -> None:
    backend = plug(TWO)
    backend.current_configuration = 0
    backend.script = {call: [Status.IO]}
    connect(0).close()
    backend.script = {call: [Status.IO, Status.IO]}
    backend.current_configuration = 0
    with pytest.raises(errors.TransportError, match="input/output error"):
        connect(0)


@pytest.mark.parametrize(
    "script",
    [
        [(Status.IO, b""), (0, b""), (0, ANSWER)],
        [(0, b""), (Status.IO, b""), (0, ANSWER)],
    ],
)
def test_one_input_output_error_of_the_first_command(
    plug: Plug, bulk: FakeBulk, script: list[tuple[int, bytes]]
) -> None:
    plug(QEMU)
    bulk.script = list(script)
    ccid.open_reader().close()
    assert bulk.script == []


@pytest.mark.parametrize(
    "script",
    [
        [(Status.IO, b""), (Status.IO, b"")],
        [(Status.IO, b""), (0, b""), (Status.IO, b"")],
        [(0, b""), (Status.IO, b""), (Status.IO, b"")],
    ],
)
def test_two_input_output_errors_of_the_first_command(
    plug: Plug, bulk: FakeBulk, monkeypatch: pytest.MonkeyPatch, script: list[tuple[int, bytes]]
) -> None:
    monkeypatch.setattr(usb, "GONE_S", 0.01)
    plug(QEMU)
    bulk.script = list(script)
    with pytest.raises(errors.TransportError, match="input/output error"):
        ccid.open_reader()
    assert bulk.script == []


@pytest.mark.parametrize("traced", [False, True])
def test_a_later_command_is_not_sent_twice(
    plug: Plug, bulk: FakeBulk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, traced: bool
) -> None:
    monkeypatch.setattr(usb, "GONE_S", 0.01)
    monkeypatch.setattr(SlotCommands, "status_timeout_s", 0.1)  # no answer comes at the end
    plug(QEMU)
    bulk.script = [(0, b""), (0, ANSWER)]
    with ccid.open_reader() as reader:
        if traced:
            reader.trace(str(tmp_path / "trace.pcapng"))
        for script in ([(Status.IO, b"")], [(0, b""), (Status.IO, b"")]):
            bulk.script, before = list(script), len(bulk.sent)
            with pytest.raises(errors.TransportError, match="input/output error"):
                reader.slots[0].status()
            assert len(bulk.sent) == before + 1
            assert bulk.script == []


def test_a_device_that_is_gone_is_not_asked_again(plug: Plug, bulk: FakeBulk, node: Path) -> None:
    plug(QEMU)
    node.unlink()
    bulk.script = [(Status.IO, b"")]
    with pytest.raises(errors.ReaderRemoved):
        ccid.open_reader()
    assert len(bulk.sent) == 1


def test_after_the_first_command_the_path_is_the_short_one(
    plug: Plug, bulk: FakeBulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(QEMU)
    bulk.script = [(0, b""), (0, ANSWER)]
    with ccid.open_reader() as reader:

        def never(*_: Any) -> Any:
            raise AssertionError("the long way")

        bulk.script = [(0, b""), (0, ANSWER[:6] + b"\x01" + ANSWER[7:])]
        with monkeypatch.context() as patch:
            patch.setattr(BulkPair, "_finish_exchange", never)
            assert reader.slots[0].status() is IccStatus.ACTIVE


# Malformed strings and descriptors --------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [
        OSError(5, "Input/output error"),
        AttributeError("function 'libusb_open' not found"),
        ValueError("NULL pointer access"),
        TypeError("an integer is required"),
        NotImplementedError("not supported"),
    ],
)
@pytest.mark.parametrize("call", ["open_device", "get_configuration", "claim_interface"])
def test_no_foreign_error_leaves_opening(
    plug: Plug,
    bulk: FakeBulk,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    foreign: Exception,
) -> None:
    backend = plug(QEMU)

    def fail(*_: Any) -> Any:
        raise foreign

    monkeypatch.setattr(backend, call, fail)
    with pytest.raises(errors.CcidError):
        connect()


def test_no_foreign_error_leaves_a_request(
    plug: Plug, bulk: FakeBulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccid.codec.descriptors import ClassControl

    backend = plug(QEMU)
    made = connect()

    def fail(*_: Any) -> Any:
        raise ValueError("NULL pointer access")

    monkeypatch.setattr(backend, "ctrl_transfer", fail)
    with pytest.raises(errors.TransportError):
        made.control(ClassControl.get_data_rates(0, 1), 100)
    made.close()


@pytest.mark.parametrize("how", ["NULL", "short", "missing", "long"])
def test_a_device_that_cannot_be_understood_hides_no_other(
    plug: Plug, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    backend = plug(QEMU)
    backend.devices = (FakeDevice(QEMU, ports=(9,), idVendor=0xBAD), FakeDevice(QEMU))
    described = backend.get_configuration_descriptor

    class Null:
        def __getitem__(self, _: object) -> Any:
            raise ValueError("NULL pointer access")

    def broken(device: FakeDevice, index: int) -> Any:
        found = described(device, index)
        if device.ports == (9,):
            if how == "NULL":
                found.interface = Null()
            elif how == "short":
                found.interface = []
            elif how == "missing":
                del found.bConfigurationValue
            else:
                found.bMaxPower = 1 << 20
        return found

    monkeypatch.setattr(backend, "get_configuration_descriptor", broken)
    assert [info.path for info in ccid.list_readers()] == ["usb:1-1:1.0"]


def test_devices_that_cannot_be_listed(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = plug(QEMU)
    for foreign in (NotImplementedError("no"), OSError(13, "Permission denied"), error(Status.IO)):

        def fail(foreign: Exception = foreign) -> Any:
            raise foreign

        monkeypatch.setattr(backend, "enumerate_devices", fail)
        with pytest.raises(errors.UsbUnavailable):
            ccid.list_readers()


def test_no_memory_for_a_transfer(
    plug: Plug, bulk: FakeBulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(QEMU)
    fake = FakeEvents()
    monkeypatch.setattr(asynchronous, "calls", lambda: fake.calls()._replace(alloc_transfer=int))
    bulk.script = [(0, b""), (0, ANSWER)]
    with pytest.raises(errors.TransportError, match="no memory"):
        ccid.open_reader()


def test_processes_with_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "proc" / "7"
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_bytes(b"pc\xffscd\n")
    (folder / "fd" / "0").symlink_to(linux.node(1, 2))
    assert linux.holders(1, 2, tmp_path) == [linux.Holder(7, "pc\\xffscd")]
    assert linux.running({"pc\\xffscd"}, tmp_path) == [linux.Holder(7, "pc\\xffscd")]


@pytest.mark.parametrize("content", [b"zz\n", b"\xff\xfe", b"0x\n"])
def test_devices_with_odd_numbers(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "sys/bus/usb/devices/1-1"
    folder.mkdir(parents=True)
    (folder / "idVendor").write_bytes(content)
    (folder / "idProduct").write_bytes(b"0001\n")
    assert linux.identities(tmp_path) == []


@pytest.mark.parametrize("name", ["\0", "[", "(?:", "\ud800", "\x1b[31m", "x" * 1_000_000, "\n"])
def test_odd_names_of_readers(plug: Plug, name: str) -> None:
    plug(QEMU)
    with pytest.raises(errors.ReaderNotFound, match="no reader is called") as raised:
        ccid.open_reader(name)
    assert len(str(raised.value)) < 1000
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("text", ["x" * 300, "\ud800", "\U0001f4b3" * 70, "a\0b"])
def test_odd_strings_of_a_virtual_device(text: str) -> None:
    virtual = ccid.VirtualReader(name=text)
    with ccid.open_reader(virtual) as reader:
        made: Any = reader.transport
        said = made.string(virtual.device.descriptor.iProduct)
        assert said
        assert len(said.encode("utf-16-le", "surrogatepass")) <= 252


def test_a_fork_hears_no_hotplug(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reports hot-plug events is the parent's: the child lists the devices
    instead."""
    fake = FakeEvents()
    monkeypatch.setattr(asynchronous, "calls", fake.calls)
    monkeypatch.setattr(asynchronous, "context", lambda: 1)
    monkeypatch.setattr(libusb._State, "is_fork", True)
    assert hotplug.on_hotplug(lambda: None) is None
    assert not fake.hears_hotplug


def test_no_thread_for_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    fake, virtual = FakeEvents(), ccid.VirtualReader()
    monkeypatch.setattr(asynchronous, "calls", fake.calls)
    monkeypatch.setattr(asynchronous, "context", lambda: 1)
    attendants = asynchronous.Attendants()
    with ccid.open_reader(virtual) as reader:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(errors.TransportError, match="no thread"):
            attendants.add(bool)
        with pytest.raises(errors.TransportError, match="no thread"):
            reader.transport.attend()
        monkeypatch.undo()
        monkeypatch.setattr(asynchronous, "calls", fake.calls)
        monkeypatch.setattr(asynchronous, "context", lambda: 1)
        attendants.add(bool)()
        reader.transport.attend()()


def test_claims_go_by_the_port_and_not_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ports at the same time with an equal id()."""
    one, two = ccid.VirtualReader(), ccid.VirtualReader()
    monkeypatch.setattr("builtins.id", lambda _: 1)
    with ccid.open_reader(one), ccid.open_reader(two):
        pass


def test_a_status_that_is_no_number() -> None:
    odd: Any = types.SimpleNamespace
    made = libusb.usb_error()("odd")
    made.backend_error_code = odd  # type: ignore[attr-defined]
    assert libusb.status_of(made) == Status.OTHER


# Which libusb ---------------------------------------------------------------------------------


def test_the_loader_is_asked_for_libusb_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``find_library`` runs ldconfig, which takes longer than all the rest of opening."""
    asked: list[str] = []
    monkeypatch.setattr("ctypes.CDLL", asked.append)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"found {name}")
    assert libusb._find("usb-1.0") == "libusb-1.0.so.0"
    assert asked == ["libusb-1.0.so.0"]

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert libusb._find("usb-1.0") == "found usb-1.0"


# The library ----------------------------------------------------------------------------------


def test_neither_the_system_nor_a_package_has_libusb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions have no libusb-package: where the system's libusb is missing, too, the error
    says so, and is one of ours."""
    from usb.backend import libusb1

    monkeypatch.setattr(libusb1, "get_backend", lambda **_: None)
    monkeypatch.setitem(sys.modules, "libusb_package", None)
    with pytest.raises(errors.UsbUnavailable, match=r"apt install libusb-1\.0-0"):
        libusb._load()
