"""Facts on USB devices from Linux's /sys and /proc, without opening a device.

Every function takes the root of the file system, for tests. No function raises: a file that cannot
be read counts as absent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from ccid.ground.records import record
from ccid.ground.safe_text import printable

ROOT = Path("/")
LINUX = sys.platform.startswith("linux")

HELPER = "pcscd's driver"
"""The name of the process that drives a reader for pcscd (:mod:`ccid.pcsc.plug.helper`). The kernel
calls it ``python3``."""
_HELPER_WORDS = (b"-m", b"ccid.pcsc.plug.helper")


@record
class Holder:
    """A process that has a device node open. ``name`` is made printable."""

    pid: int
    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def device_name(bus: int, ports: tuple[int, ...]) -> str:
    """The kernel's name of a device: ``1-2.3``, or ``usb1`` for a root hub."""
    return f"{bus}-{'.'.join(map(str, ports))}" if ports else f"usb{bus}"


def device_in(path: str) -> str:
    """The kernel's name of the device in a reader's path, which is ``usb:`` and the interface's."""
    return path.removeprefix("usb:").partition(":")[0]


def device_at(bus: int, address: int, root: Path = ROOT) -> str | None:
    """The kernel's name of the device with this address; None where sysfs does not tell."""
    for folder in _files("*-*/devnum", root):
        name = folder.parent.name
        numbers = attribute(name, "busnum", root), attribute(name, "devnum", root)
        if numbers == (str(bus), str(address)):
            return name
    return None


def _files(pattern: str, root: Path) -> list[Path]:
    """The files of all USB devices that match. ``glob`` raises where /sys may not be searched, as
    in a service with ``InaccessiblePaths=/sys``."""
    try:
        return sorted((root / "sys/bus/usb/devices").glob(pattern))
    except OSError:
        return []


def node(bus: int, address: int, root: Path = ROOT) -> Path:
    """The device node that libusb opens."""
    return root / f"dev/bus/usb/{bus:03d}/{address:03d}"


def attribute(device: str, name: str, root: Path = ROOT) -> str | None:
    """A file of the device's folder in sysfs: ``manufacturer``, ``1-2:1.0/interface``, …"""
    try:
        text = (root / "sys/bus/usb/devices" / device / name).read_text("utf-8", "replace")
    except OSError:
        return None
    return text.strip() or None


def is_unconfigured(path: str, root: Path = ROOT) -> bool:
    """The device of this reader's path is there, and has no configuration: it is not authorized,
    or is being reset."""
    device = device_in(path)
    there = attribute(device, "idVendor", root) is not None
    return there and attribute(device, "bConfigurationValue", root) is None


def identities(root: Path = ROOT) -> list[tuple[str, int, int]]:
    """All USB devices: the kernel's name, idVendor, idProduct."""
    found = []
    for folder in _files("*/idVendor", root):
        name = folder.parent.name
        numbers = attribute(name, "idVendor", root), attribute(name, "idProduct", root)
        if numbers[0] is not None and numbers[1] is not None:
            with suppress(ValueError):
                found.append((name, int(numbers[0], 16), int(numbers[1], 16)))
    return found


def addresses(root: Path = ROOT) -> set[tuple[int, int]]:
    """All USB devices: the numbers of bus and device."""
    found = set()
    for folder in _files("*/devnum", root):
        name = folder.parent.name
        bus, number = attribute(name, "busnum", root), attribute(name, "devnum", root)
        if bus is not None and number is not None:
            with suppress(ValueError):
                found.add((int(bus), int(number)))
    return found


def driver(device: str, configuration: int, interface: int, root: Path = ROOT) -> str | None:
    """The kernel driver bound to an interface; ``usbfs`` if a process has claimed it."""
    link = root / "sys/bus/usb/devices" / f"{device}:{configuration}.{interface}" / "driver"
    try:
        return Path(os.readlink(link)).name
    except OSError:
        return None


def holders(bus: int, address: int, root: Path = ROOT) -> list[Holder]:
    """The processes that have the device node open, as far as this user may see them."""
    wanted = str(node(bus, address))
    found = []
    for pid in _processes(root):
        folder = root / "proc" / str(pid)
        try:
            links = [os.readlink(fd) for fd in (folder / "fd").iterdir()]
            if pid != os.getpid() and wanted in links:
                found.append(Holder(pid, HELPER if _is_helper(folder) else _command(folder)))
        except OSError:
            continue
    return found


def running(names: set[str], root: Path = ROOT) -> list[Holder]:
    """The processes called one of ``names``."""
    found = []
    for pid in _processes(root):
        try:
            name = _command(root / "proc" / str(pid))
        except OSError:
            continue
        if name in names:
            found.append(Holder(pid, name))
    return found


def _command(folder: Path) -> str:
    """The name that a process gave itself; it may hold any bytes."""
    return (folder / "comm").read_text("utf-8", "backslashreplace").strip()


def _is_helper(folder: Path) -> bool:
    """The process is a helper of our driver for pcscd."""
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return _HELPER_WORDS in pairwise(words)


def _processes(root: Path) -> Iterator[int]:
    try:
        entries = sorted(
            int(entry.name) for entry in (root / "proc").iterdir() if entry.name.isdigit()
        )
    except OSError:
        return
    yield from entries


def permissions(path: Path) -> str | None:
    """Mode, owner and group of a file, as ``ls -l`` prints them; None if the file is missing."""
    import grp
    import pwd
    import stat

    try:
        status = path.stat()
    except OSError:
        return None
    try:
        owner: str = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    try:
        group: str = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return f"{stat.filemode(status.st_mode)} {owner} {group}"
