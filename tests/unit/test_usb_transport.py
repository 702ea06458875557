"""Discovery and the USB transport, over a libusb that is a list of devices."""

from __future__ import annotations

import io
import os
import pwd
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ccid
from ccid import errors
from ccid.codec.descriptors import ClassControl
from ccid.link import locks
from ccid.link.pipe import Pipe
from ccid.pcsc.plug import helper
from ccid.transport import access_problems as cures
from ccid.transport import asynchronous, discovery, linux, usb
from ccid.transport.libusb import Status
from tests.unit.fake_events import FakeBulk, FakeEvents
from tests.unit.fake_usb import FakeBackend, FakeDevice, use_backend
from tests.unit.test_descriptors import BULK, QEMU, SMART_CARD, configuration, interface


@pytest.fixture
def events() -> FakeEvents:
    return FakeEvents()


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch, events: FakeEvents) -> Callable[..., FakeBackend]:
    """Have these devices on USB, and no system to ask for anything else."""

    def use(*devices: FakeDevice) -> FakeBackend:
        backend = FakeBackend(*devices)
        use_backend(monkeypatch, backend)
        return backend

    monkeypatch.setattr(asynchronous, "calls", events.calls)
    monkeypatch.setattr(asynchronous, "context", lambda: 1)
    monkeypatch.setattr(linux, "attribute", lambda *_: None)
    return use


def names() -> list[str]:
    return [info.name for info in ccid.list_readers()]


# Discovery ------------------------------------------------------------------------------------


def test_no_device_is_opened(plug: Callable[..., FakeBackend]) -> None:
    backend = plug(FakeDevice(QEMU), FakeDevice(QEMU, ports=(2,), address=3))
    assert len(ccid.list_readers()) == 2
    assert backend.opens == 0
    assert backend.calls == []


def test_what_libusb_took_apart_is_put_together_again(plug: Callable[..., FakeBackend]) -> None:
    plug(FakeDevice(QEMU, bcdDevice=0x0123))
    (info,) = ccid.list_readers()
    assert info.raw_configuration == QEMU
    assert info.descriptor.build() == SMART_CARD
    assert info.device.bcdDevice == 0x0123
    assert (info.id, info.path, info.speed) == ("1234:5678", "usb:1-1:1.0", "full")


def test_class_descriptors_behind_endpoints_survive(plug: Callable[..., FakeBackend]) -> None:
    data = configuration(interface(endpoints=2), BULK, BULK, SMART_CARD)
    plug(FakeDevice(data))
    (info,) = ccid.list_readers()
    assert info.reader.misplaced
    assert info.raw_configuration == data


def test_other_devices_are_no_readers(plug: Callable[..., FakeBackend]) -> None:
    plug(FakeDevice(configuration(interface(bInterfaceClass=9))), FakeDevice(QEMU, gone=True))
    assert ccid.list_readers() == []
    with pytest.raises(errors.ReaderNotFound):
        ccid.open_reader()


def test_a_broken_interface_hides_no_other(plug: Callable[..., FakeBackend]) -> None:
    data = configuration(interface(0), interface(1, 2), SMART_CARD, BULK, BULK, interfaces=2)
    plug(FakeDevice(data))
    found = discovery.discover()
    assert [info.interface_number for info in found.readers] == [1]
    (broken,) = found.broken
    assert broken.path == "usb:1-1:1.0"
    assert broken.error.field == "bDescriptorType"


def test_readers_come_in_the_order_of_their_ports(plug: Callable[..., FakeBackend]) -> None:
    plug(
        FakeDevice(QEMU, bus=2, ports=(1,)),
        FakeDevice(QEMU, bus=1, ports=(3, 1)),
        FakeDevice(QEMU, bus=1, ports=(2,)),
    )
    paths = [info.path for info in ccid.list_readers()]
    assert paths == ["usb:1-2:1.0", "usb:1-3.1:1.0", "usb:2-1:1.0"]


def strings(monkeypatch: pytest.MonkeyPatch, known: dict[tuple[str, str], str]) -> None:
    monkeypatch.setattr(linux, "attribute", lambda device, name, *_: known.get((device, name)))
    monkeypatch.setattr(discovery, "LINUX", True)


@pytest.mark.parametrize(
    ("manufacturer", "product", "name"),
    [
        ("ACME", "Reader", "ACME Reader"),
        ("ACME", "Acme Reader", "Acme Reader"),
        (None, "Reader", "Reader"),
        ("ACME", None, "ACME"),
        (None, None, "CCID reader 1234:5678"),
    ],
)
def test_names_come_from_the_system(
    plug: Callable[..., FakeBackend],
    monkeypatch: pytest.MonkeyPatch,
    manufacturer: str | None,
    product: str | None,
    name: str,
) -> None:
    plug(FakeDevice(QEMU))
    known = {("1-1", "manufacturer"): manufacturer, ("1-1", "product"): product}
    strings(monkeypatch, {k: v for k, v in known.items() if v})
    assert names() == [name]


def test_equal_names_are_told_apart(
    plug: Callable[..., FakeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = configuration(
        interface(0, 1), SMART_CARD, BULK, interface(1, 1), SMART_CARD, BULK, interfaces=2
    )
    plug(
        FakeDevice(two, ports=(1,)),
        FakeDevice(QEMU, ports=(2,)),
        FakeDevice(QEMU, ports=(3,)),
        FakeDevice(QEMU, ports=(4,)),
    )
    strings(
        monkeypatch,
        {
            **{(f"1-{n}", "product"): "Reader" for n in range(1, 5)},
            ("1-2", "serial"): "S2",
            ("1-1:1.1", "interface"): "contactless",
        },
    )
    assert names() == [
        "Reader [0]",
        "Reader [contactless]",
        "Reader (S2)",
        "Reader @1-3:1.0",
        "Reader @1-4:1.0",
    ]
    assert {info.model for info in ccid.list_readers()} == {"Reader"}


def test_only_the_active_configuration_counts(
    plug: Callable[..., FakeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(FakeDevice(QEMU))
    strings(monkeypatch, {("1-1", "bConfigurationValue"): "2"})
    assert names() == []
    strings(monkeypatch, {("1-1", "bConfigurationValue"): "1"})
    assert len(names()) == 1


# Choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        (None, "usb:1-1:1.0"),
        ("1234:5678", "usb:1-1:1.0"),
        ("ABCD:0001", "usb:1-2:1.0"),
        ("usb:1-2:1.0", "usb:1-2:1.0"),
        ("usb:1-2", "usb:1-2:1.0"),
        ("reader abcd", "usb:1-2:1.0"),
    ],
)
def test_which_reader_is_meant(
    plug: Callable[..., FakeBackend], wanted: str | None, path: str
) -> None:
    from ccid.device.find import select

    plug(FakeDevice(QEMU), FakeDevice(QEMU, ports=(2,), idVendor=0xABCD, idProduct=1))
    assert select(ccid.list_readers(), wanted).path == path


def test_a_port_is_not_another_that_begins_alike(plug: Callable[..., FakeBackend]) -> None:
    from ccid.device.find import select

    at = {"usb:1-1": (1,), "usb:1-10": (10,), "usb:1-1.2": (1, 2)}
    plug(*(FakeDevice(QEMU, ports=ports) for ports in at.values()))
    for place in at:
        for wanted in (place, f"{place}:1", f"{place}:1.0"):
            assert select(ccid.list_readers(), wanted).path == f"{place}:1.0"
    with pytest.raises(errors.ReaderNotFound, match="no reader is called"):
        select(ccid.list_readers(), "usb:1-")


@pytest.mark.parametrize(
    ("wanted", "says"), [("nobody", "no reader is called"), ("reader", "any of these")]
)
def test_which_reader_is_not_clear(
    plug: Callable[..., FakeBackend], wanted: str, says: str
) -> None:
    plug(FakeDevice(QEMU), FakeDevice(QEMU, ports=(2,)))
    with pytest.raises(errors.ReaderNotFound, match=says):
        ccid.open_reader(wanted)


# Opening --------------------------------------------------------------------------------------


@pytest.fixture
def bulk(events: FakeEvents) -> FakeBulk:
    return events.bulk


def transport(backend: FakeBackend) -> Any:
    info = ccid.list_readers()[0]
    return info.connect(info)


def test_open_and_close(plug: Callable[..., FakeBackend], bulk: FakeBulk) -> None:
    backend = plug(FakeDevice(QEMU))
    made = transport(backend)
    assert backend.calls == ["open_device", "claim_interface"]
    made.close()
    made.close()
    assert backend.calls[2:] == ["release_interface", "close_device"]


def test_a_fork_does_not_open_what_its_parent_found(
    plug: Callable[..., FakeBackend], bulk: FakeBulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To libusb that device is the parent's."""
    parents, own = FakeDevice(QEMU), FakeDevice(QEMU)
    backend = plug(parents)
    (info,) = ccid.list_readers()
    opens, opened = backend.open_device, list[FakeDevice]()

    def open_device(device: FakeDevice) -> Any:
        opened.append(device)
        return opens(device)

    monkeypatch.setattr(backend, "open_device", open_device)
    info.connect(info).close()
    monkeypatch.setattr("os.getpid", lambda: -1)
    backend.devices = (FakeDevice(QEMU, address=9), own)
    info.connect(info).close()
    assert opened == [parents, own]
    backend.devices = ()
    with pytest.raises(errors.ReaderRemoved):
        info.connect(info)


def test_a_kernel_driver_is_sent_away_and_gets_its_interface_back(
    plug: Callable[..., FakeBackend], bulk: FakeBulk
) -> None:
    backend = plug(FakeDevice(QEMU))
    backend.driver_active = True
    transport(backend).close()
    assert backend.calls == [
        "open_device",
        "detach_kernel_driver",
        "claim_interface",
        "release_interface",
        "attach_kernel_driver",
        "close_device",
    ]


@pytest.mark.parametrize("status", [Status.BUSY, Status.IO])
def test_a_kernel_driver_gets_its_interface_back_when_the_claim_fails(
    plug: Callable[..., FakeBackend], bulk: FakeBulk, status: Status
) -> None:
    backend = plug(FakeDevice(QEMU))
    backend.driver_active = True
    backend.fail["claim_interface"] = status
    with pytest.raises(errors.CcidError):
        transport(backend)
    assert backend.calls == [
        "open_device",
        "detach_kernel_driver",
        "claim_interface",
        "attach_kernel_driver",
        "close_device",
    ]


def test_systems_without_kernel_drivers_to_detach(
    plug: Callable[..., FakeBackend], bulk: FakeBulk
) -> None:
    backend = plug(FakeDevice(QEMU))
    backend.fail["is_kernel_driver_active"] = Status.NOT_SUPPORTED
    transport(backend).close()
    assert "claim_interface" in backend.calls


def test_an_unconfigured_device_is_configured(
    plug: Callable[..., FakeBackend], bulk: FakeBulk
) -> None:
    backend = plug(FakeDevice(QEMU))
    backend.current_configuration = 0
    transport(backend).close()
    assert backend.calls[1] == "set_configuration 1"


@pytest.mark.parametrize(
    ("call", "status", "error"),
    [
        ("open_device", Status.ACCESS, errors.AccessDenied),
        ("open_device", Status.NO_DEVICE, errors.ReaderRemoved),
        ("open_device", Status.NOT_SUPPORTED, errors.AccessDenied),
        ("open_device", Status.IO, errors.TransportError),
        ("claim_interface", Status.BUSY, errors.ReaderBusy),
        ("claim_interface", Status.NO_DEVICE, errors.ReaderRemoved),
        ("claim_interface", Status.ACCESS, errors.AccessDenied),
        ("claim_interface", Status.OTHER, errors.TransportError),
    ],
)
def test_what_can_go_wrong_on_opening(
    plug: Callable[..., FakeBackend],
    bulk: FakeBulk,
    call: str,
    status: Status,
    error: type[Exception],
) -> None:
    backend = plug(FakeDevice(QEMU))
    backend.fail[call] = status
    with pytest.raises(error):
        transport(backend)
    assert backend.calls.count("close_device") == (call != "open_device")


# Transfers ------------------------------------------------------------------------------------


def test_send_and_receive(plug: Callable[..., FakeBackend], bulk: FakeBulk) -> None:
    made = transport(plug(FakeDevice(QEMU)))
    made.out[:3] = b"abc"
    made.send(3, 1000)
    assert bulk.sent == [b"abc"]
    bulk.script = [(0, b"defg")]
    assert made.receive(0, 64, 1000) == 4
    assert bytes(made.inp[:4]) == b"defg"
    bulk.script = [(0, b"hi")]
    assert made.receive(4, 64, 1000) == 2
    assert bytes(made.inp[:6]) == b"defghi"
    made.close()


def test_what_came_before_the_time_ran_out_is_not_lost(
    plug: Callable[..., FakeBackend], bulk: FakeBulk
) -> None:
    made = transport(plug(FakeDevice(QEMU)))
    bulk.script = [(Status.TIMEOUT, b"part")]
    assert made.receive(0, 64, 1000) == 4
    made.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status.TIMEOUT, errors.TransportTimeout),
        (Status.PIPE, errors.TransportStall),
        (Status.OVERFLOW, errors.TransportError),
        (-42, errors.TransportError),
    ],
)
@pytest.mark.parametrize("way", ["send", "receive"])
def test_failed_transfers(
    plug: Callable[..., FakeBackend],
    bulk: FakeBulk,
    status: int,
    error: type[Exception],
    way: str,
) -> None:
    backend = plug(FakeDevice(QEMU))
    made = transport(backend)
    calls: dict[str, tuple[Any, ...]] = {
        "send": (made.send, 1, 100),
        "receive": (made.receive, 0, 64, 100),
    }
    call, *words = calls[way]
    bulk.script = [(status, b"")]
    with pytest.raises(error):
        call(*words)
    halted = {"send": "03", "receive": "82"}[way]
    assert (f"clear_halt {halted}" in backend.calls) is (status == Status.PIPE)
    made.close()


@pytest.mark.parametrize("gone", [True, False])
def test_an_input_output_error_of_a_device_that_is_gone(
    plug: Callable[..., FakeBackend],
    bulk: FakeBulk,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    gone: bool,
) -> None:
    made = transport(plug(FakeDevice(QEMU)))
    monkeypatch.setattr(usb, "LINUX", True)
    node = tmp_path / "node"
    if not gone:
        node.touch()
    monkeypatch.setattr(linux, "node", lambda *_: node)
    bulk.script = [(Status.IO, b"")]
    with pytest.raises(errors.ReaderRemoved if gone else errors.TransportError):
        made.receive(0, 64, 100)
    made.close()


def test_after_removal_nothing_touches_usb(
    plug: Callable[..., FakeBackend], bulk: FakeBulk
) -> None:
    backend = plug(FakeDevice(QEMU))
    made = transport(backend)
    told: list[Exception] = []
    made.when_dead(told.append)
    bulk.script = [(Status.NO_DEVICE, b"")]
    with pytest.raises(errors.ReaderRemoved):
        made.send(1, 100)
    assert [type(error) for error in told] == [errors.ReaderRemoved]
    with pytest.raises(errors.ReaderRemoved):
        made.control(ClassControl.get_data_rates(0, 1), 100)
    made.close()


@pytest.mark.parametrize("traced", [False, True])
def test_a_thread_that_waited_while_the_reader_was_closed_reaches_no_usb(
    plug: Callable[..., FakeBackend],
    bulk: FakeBulk,
    monkeypatch: pytest.MonkeyPatch,
    traced: bool,
) -> None:
    """A handle that was closed is freed memory: libusb must not see it any more."""
    monkeypatch.setattr(locks, "QUIET_S", 0.3)
    backend = plug(FakeDevice(QEMU))
    bulk.script = [(0, b""), (0, bytes.fromhex("81000000000000000000"))]
    reader = ccid.open_reader(ccid.list_readers()[0])
    assert isinstance(reader.pipe, Pipe)
    send = reader.pipe.way(0, lambda _: 1.0, lambda reply: reply.data).transmit
    if traced:
        reader.trace(io.BytesIO())
    closed, entered, raised = threading.Event(), threading.Event(), []

    def wait() -> None:
        entered.set()
        try:
            send(bytes(5))
        except errors.CcidError as error:
            raised.append(error)

    def hold() -> None:
        with reader.slots[0].turn():
            holds.set()
            assert closed.wait(10)

    holds = threading.Event()
    threads = [threading.Thread(target=hold), threading.Thread(target=wait)]
    threads[0].start()
    assert holds.wait(10)
    threads[1].start()
    assert entered.wait(10)
    reader.close()
    assert backend.calls[-1] == "close_device"
    calls = bulk.calls
    closed.set()
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in raised] == [errors.ReaderClosed]
    assert bulk.calls == calls, "no call after close_device"


def test_a_short_write_is_an_error(plug: Callable[..., FakeBackend], bulk: FakeBulk) -> None:
    made = transport(plug(FakeDevice(QEMU)))
    bulk.most = 1
    with pytest.raises(errors.TransportError, match="1 of 3"):
        made.send(3, 100)
    made.close()


def test_control(plug: Callable[..., FakeBackend], bulk: FakeBulk) -> None:
    backend = plug(FakeDevice(QEMU))
    made = transport(backend)
    seen: list[tuple[int, ...]] = []
    backend.on_control = lambda *request: seen.append(request) or bytes(range(8))  # type: ignore[func-returns-value]
    assert made.control(ClassControl.get_data_rates(0, 2), 100) == bytes(range(8))
    assert seen == [(0xA1, 3, 0, 0)]
    backend.fail["ctrl_transfer"] = Status.PIPE
    with pytest.raises(errors.TransportStall):
        made.control(ClassControl.get_data_rates(0, 2), 100)
    backend.fail["ctrl_transfer"] = Status.TIMEOUT
    with pytest.raises(errors.TransportTimeout):
        made.control(ClassControl.get_data_rates(0, 2), 100)
    made.close()


# What stands in the way, and its cure ---------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system in which a reader is plugged in at 1-1."""
    monkeypatch.setattr(linux, "ROOT", tmp_path)
    for name in ("attribute", "driver", "holders", "node", "running"):
        real = getattr(linux, name)
        monkeypatch.setattr(linux, name, lambda *a, real=real: real(*a, root=tmp_path))
    device = tmp_path / "sys/bus/usb/devices/1-1"
    device.mkdir(parents=True)
    (device / "manufacturer").write_text("ACME\n")
    (device / "product").write_text("Reader\n")
    (tmp_path / "sys/bus/usb/devices/1-1:1.0").mkdir()
    (tmp_path / "proc").mkdir()
    (tmp_path / "dev/bus/usb/001").mkdir(parents=True)
    (tmp_path / "dev/bus/usb/001/002").touch()
    return tmp_path


def bind(root: Path, driver: str) -> None:
    target = root / "sys/bus/usb/drivers" / driver
    target.mkdir(parents=True)
    (root / "sys/bus/usb/devices/1-1:1.0/driver").symlink_to(target)


def process(root: Path, pid: int, name: str, *files: str) -> None:
    folder = root / "proc" / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text(name + "\n")
    for number, file in enumerate(files):
        (folder / "fd" / str(number)).symlink_to(file)


@pytest.fixture
def info(monkeypatch: pytest.MonkeyPatch) -> ccid.ReaderInfo:
    monkeypatch.setattr(discovery, "backend", lambda: FakeBackend(FakeDevice(QEMU)))
    monkeypatch.setattr(sys, "platform", "linux")
    return ccid.list_readers()[0]


def test_the_kernel_driver_is_named_with_the_line_that_blacklists_it(
    root: Path, info: ccid.ReaderInfo
) -> None:
    bind(root, "pn533_usb")
    error = cures.busy(info)
    assert error.holder == "the kernel driver pn533_usb"
    assert "blacklist pn533_usb" in error.cure
    assert "blacklist pn533_usb" in str(error)


def test_the_process_that_holds_the_reader_is_named(root: Path, info: ccid.ReaderInfo) -> None:
    bind(root, "usbfs")
    process(root, 41, "bash", "/dev/tty")
    process(root, 42, "pcscd", "/dev/null", str(linux.node(1, 2)))
    error = cures.busy(info)
    assert error.holder == "pcscd (process 42)"
    assert "systemctl stop pcscd" in error.cure


def test_the_helper_of_our_driver_is_named_as_pcscds(root: Path, info: ccid.ReaderInfo) -> None:
    """Its process is a python3, which nobody is to end."""
    bind(root, "usbfs")
    for pid, words in ((42, f"-I\0-m\0{helper.__name__}\0/usr/lib"), (43, "my.py")):
        process(root, pid, "python3", str(linux.node(1, 2)))
        (root / f"proc/{pid}/cmdline").write_text(f"/opt/ccid/bin/python\0{words}\0")
    error = cures.busy(info)
    assert error.holder == "pcscd's driver (process 42), python3 (process 43)"
    assert error.cure.startswith("stop pcscd (systemctl stop pcscd.socket pcscd.service)")
    assert error.cure.endswith("end python3, or wait until it is done")


def test_a_holder_nobody_can_see(root: Path, info: ccid.ReaderInfo) -> None:
    bind(root, "usbfs")
    assert "another user" in cures.busy(info).holder


def test_nobody_seen_at_all(root: Path, info: ccid.ReaderInfo) -> None:
    error = cures.busy(info)
    assert "pcscd" in error.cure
    assert "scdaemon" in error.cure


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, or as the user of a service."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_no_permission_prints_the_udev_rule(
    root: Path, info: ccid.ReaderInfo, person: None
) -> None:
    (root / "run/systemd/users").mkdir(parents=True)
    (root / "run/systemd/users/1000").write_text("ACTIVE_SEATS=seat0\n")
    error = cures.access_denied(info)
    rule = 'SUBSYSTEM=="usb", ATTR{idVendor}=="1234", ATTR{idProduct}=="5678", TAG+="uaccess"'
    assert rule in error.cure
    assert rule in str(error)
    assert "001/002" in str(error)


def test_the_user_of_a_service_is_told_of_its_own_group(
    root: Path, info: ccid.ReaderInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uaccess gives nothing to pcscd, which runs as a user of its own."""
    (daemon,) = (user for user in pwd.getpwall() if user.pw_name == "daemon")
    monkeypatch.setattr(os, "geteuid", lambda: daemon.pw_uid)
    cure = cures.access_denied(info).cure
    assert 'MODE="0660", GROUP="daemon"' in cure
    assert "TAG" not in cure
    assert "udevadm trigger" in cure


@pytest.mark.parametrize(("platform", "words"), [("darwin", "ifdreader"), ("win32", "WinUSB")])
def test_other_systems_have_drivers_of_their_own(
    info: ccid.ReaderInfo, monkeypatch: pytest.MonkeyPatch, platform: str, words: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert words in str(cures.access_denied(info))
    assert words in str(cures.busy(info))


def test_strings_of_sysfs(root: Path) -> None:
    assert linux.attribute("1-1", "manufacturer") == "ACME"
    assert linux.attribute("1-1", "serial") is None
    assert linux.driver("1-1", 1, 0) is None


def test_running_daemons(root: Path) -> None:
    process(root, 7, "scdaemon")
    process(root, 8, "other")
    assert [str(p) for p in linux.running({"pcscd", "scdaemon"})] == ["scdaemon (process 7)"]


def test_permissions_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.touch(mode=0o640)
    said = linux.permissions(file)
    assert said is not None
    assert said.startswith("-rw-r-----")
    assert linux.permissions(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("bus", "ports", "name"), [(1, (2,), "1-2"), (3, (1, 4), "3-1.4"), (2, (), "usb2")]
)
def test_the_kernels_names_of_devices(bus: int, ports: tuple[int, ...], name: str) -> None:
    assert linux.device_name(bus, ports) == name
