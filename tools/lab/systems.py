"""What a guest boots: today's host, or a newer Debian from a disk of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.errors import LabError, NotPrepared
from lab.machine import controller
from lab.qemu import TOOLS, cache_dir

APPEND = "console=ttyS0 quiet loglevel=4 panic=-1 nokaslr mitigations=off random.trust_cpu=on"
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Without KVM compiling is slow, and what Python compiles there leaves no trace here."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

SHARES = ("checkout", "lab", "rw0", "rw1", "rw2")
"""What a machine whose state is saved has by 9p: always the same devices."""
SHARED = r"""
i=0
while [ $i -lt $LAB_RW ]; do
    eval "dir=\$LAB_RW_$i"
    mkdir -p "$dir"
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none "rw$i" "$dir"
    i=$((i + 1))
done
"""
READERS = r"""
i=0
until [ "$(grep -lsx 4433 /sys/bus/usb/devices/*/idProduct | wc -l)" -ge "$LAB_READERS" ] ||
    [ $i -ge 100 ]; do
    i=$((i + 1))
    sleep 0.05
done
"""
PORTS = r"""
for port in /sys/class/virtio-ports/*; do
    ln -s "/dev/${port##*/}" "/dev/lab/$(cat "$port/name")"
done
"""


class System(ABC):
    """A system that a guest boots.

    Attributes:
        name: For messages.
        python: The interpreter that runs the agent in the guest.
        boot_timeout: Seconds.
        memory, smp: MiB and processors.
        has_systemd: The first process is systemd, and pcscd is a service.
        is_resumed: QEMU goes on from the saved state of a machine, whose devices are given.
    """

    name: str
    python: str
    boot_timeout = 120.0
    memory = 1024
    smp = 1
    has_systemd = False
    is_resumed = False

    @abstractmethod
    def check(self) -> None:
        """See that its files are there.

        Raises:
            NotPrepared: They are not; the message names the script that makes them.
        """

    @abstractmethod
    def qemu(self) -> list[str]:
        """The options that boot it."""

    @abstractmethod
    def shares(self, folder: Path, rw: Sequence[Path]) -> list[tuple[str, str]]:
        """Tag and path of the host's directories that it may mount: ``folder`` is the guest's own,
        with its first script; ``rw`` are read-write."""

    @abstractmethod
    def job(self, settings: Mapping[str, str]) -> str:
        """The first script of the lab that it runs; ends with the agent."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The environment of commands."""

    @abstractmethod
    def directory(self) -> str:
        """The directory of commands."""

    @abstractmethod
    def script_path(self, run: Callable[[Sequence[str]], str]) -> list[str]:
        """``sys.path`` of scripts. ``run`` runs a command in the guest and returns its output."""


def _assignments(settings: Mapping[str, str]) -> str:
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items())


class HostSystem(System):
    """Debian's kernel over the host's root file system, without systemd: ``prepare-lab``'s guest.

    Commands run in this process's directory and environment.

    Args:
        python: The host's interpreter.
        udev: Run systemd-udevd.
    """

    name = "host"

    def __init__(self, python: str = sys.executable, *, udev: bool = False) -> None:
        self.python = python
        self._udev = udev

    def check(self) -> None:
        pass  # every guest checks for what prepare-lab makes

    def qemu(self) -> list[str]:
        cache = cache_dir()
        return [
            *("-kernel", str(cache / "kernel"), "-initrd", str(cache / "initramfs")),
            *("-append", APPEND),
        ]

    def shares(self, folder: Path, rw: Sequence[Path]) -> list[tuple[str, str]]:
        own = [("host", "/,readonly=on"), ("lab", f"{folder},readonly=on")]
        return own + [(f"rw{i}", str(path)) for i, path in enumerate(rw)]

    def job(self, settings: Mapping[str, str]) -> str:
        own = {"LAB_MODULES": str(cache_dir() / "modules"), "LAB_UDEV": "1" if self._udev else ""}
        return (
            _assignments({"PATH": PATH, **settings, **own})
            + r"""
mkdir -p /lib/modules
mount --bind "$LAB_MODULES" /lib/modules
/bin/busybox ip link set lo up
/bin/busybox hostname lab
for module in $LAB_MODPROBE; do modprobe "$module" || echo "lab: no module $module"; done
"""
            + SHARED
            + READERS
            + r"""
if [ -n "$LAB_UDEV" ]; then
    /lib/systemd/systemd-udevd --daemon
    udevadm trigger --action=add --subsystem-match=usb
    udevadm settle
fi
mkdir -p /run/pcscd /dev/lab
"""
            + PORTS
            + r"""
"$LAB_PYTHON" -I -S "$LAB_AGENT" /dev/lab/agent
echo b >/proc/sysrq-trigger
sleep 10
"""
        )

    def environment(self) -> dict[str, str]:
        return {**os.environ, **COMPILED}

    def directory(self) -> str:
        return str(Path.cwd())

    def script_path(self, run: Callable[[Sequence[str]], str]) -> list[str]:
        return [*filter(None, sys.path), str(TOOLS.parent)]


class SuiteSystem(System):
    """A newer Debian with systemd, as its packages are: ``prepare-modern``'s guest.

    Without KVM systemd takes a minute to boot. So ``prepare-modern`` boots it once, and saves the
    state of the machine (:mod:`lab.booted`); each guest goes on from there, in seconds. Its disk is
    as it was then. The checkout is there at the host's path, read-only.

    Args:
        suite: The name of the release.
    """

    python = "/opt/lab/bin/python"
    boot_timeout = 120.0
    memory = 1536
    has_systemd = True
    is_resumed = True

    def __init__(self, suite: str = "forky") -> None:
        self.name = suite
        self.folder = cache_dir() / "suites" / suite
        self._path: list[str] | None = None

    def check(self) -> None:
        command = [str(TOOLS / "prepare-modern"), "--check", "--suite", self.name]
        check = subprocess.run(command, capture_output=True, text=True)
        if check.returncode:
            more = "" if self.name == "forky" else f" --suite {self.name}"
            raise NotPrepared(
                f"{(check.stdout + check.stderr).strip()}\n"
                f"Run once, as root: sudo tools/prepare-modern{more}"
            )

    def qemu(self) -> list[str]:
        state = shlex.quote(str(self.folder / "state"))
        options = [*disk(self.folder, writable=False), *controller("uhci"), *controller("xhci")]
        return [*options, "-incoming", f"exec:cat {state}"]

    def shares(self, folder: Path, rw: Sequence[Path]) -> list[tuple[str, str]]:
        if len(rw) > len(SHARES) - 2:
            raise LabError(
                f"this guest has {len(SHARES) - 2} read-write directories, not {len(rw)}"
            )
        paths = dict.fromkeys(SHARES, f"{folder},readonly=on")  # one without use is not mounted
        paths["checkout"] = f"{TOOLS.parent},readonly=on"
        paths |= {f"rw{i}": str(path) for i, path in enumerate(rw)}
        return list(paths.items())

    def job(self, settings: Mapping[str, str]) -> str:
        own = {"LAB_CHECKOUT": str(TOOLS.parent), "LAB_NOW": f"{time.time():.3f}"}
        return (
            _assignments({"PATH": PATH, **settings, **own})
            + r"""
date -s "@$LAB_NOW" >/dev/null
for module in $LAB_MODPROBE; do modprobe "$module" || echo "lab: no module $module"; done
mkdir -p "$LAB_CHECKOUT"
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro checkout "$LAB_CHECKOUT"
"""
            + SHARED
            + "mkdir -p /dev/lab\n"
            + PORTS
            + 'exec "$LAB_PYTHON" -I -S "$LAB_AGENT" /dev/lab/agent\n'
        )

    def environment(self) -> dict[str, str]:
        return {
            "PATH": PATH,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "SYSTEMD_COLORS": "0",
            "SYSTEMD_PAGER": "",
        }

    def directory(self) -> str:
        return "/"

    def script_path(self, run: Callable[[Sequence[str]], str]) -> list[str]:
        if self._path is None:
            source = "import json, sys; print(json.dumps(list(filter(None, sys.path))))"
            listed: list[str] = json.loads(run([self.python, "-c", source]))
            self._path = [*listed, str(TOOLS.parent), str(TOOLS)]
        return self._path


def disk(folder: Path, *, writable: bool) -> list[str]:
    """The options for a machine that boots from the disk in ``folder``. The machine whose state is
    saved writes to the disk; those that go on from there do not."""
    drive = f"file={folder / 'root.img'},format=raw,if=none,id=root"
    return [
        *("-kernel", str(folder / "kernel"), "-initrd", str(folder / "initramfs")),
        *("-append", f"{APPEND} systemd.show_status=0 apparmor=0"),
        *("-drive", drive + ("" if writable else ",snapshot=on")),
        *("-device", "virtio-blk-pci,drive=root"),
    ]
