"""Our driver in a newer Debian, as that Debian is: installed by README's lines, run by the service
``pcscd``, which has a user of its own, no capabilities and a filter of system calls."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lab.guest import Guest
from lab.pcscd import readers

from ccid.pcsc.plug.bundle import NAME
from tests.vm.attach import attach
from tests.vm.programs import CLIENT, DROPDIR, MAKE_S, helpers

ROOT = Path(__file__).parents[2]
BUNDLE = f"{DROPDIR}/{NAME}"
INSTALLER = "/opt/ccid/bin/ccid-install-driver"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels"}
INSTALL_S = 900.0
"""Longest time in s: Python's own pip, which compiles what it installs, is slow without KVM."""
START_S = 120.0
PORT = 3241
QEMU_READER = "08e6:4433"
CONTROL = "/run/virtual-reader"


def lines_of_readme() -> list[str]:
    """The commands of README that install the driver."""
    section = (ROOT / "README.md").read_text().partition("## Plugged into pcscd")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block
    return block[1].splitlines()


@dataclass
class Service:
    """The service and what is around it.

    Attributes:
        guest: The guest.
        said: What the installation printed.
        took: Seconds of each line of the installation.
    """

    guest: Guest
    said: str = field(default="")
    took: list[float] = field(default_factory=list)

    def systemctl(self, *words: str) -> None:
        self.guest.run(["systemctl", *words], check=True)

    def show(self, *properties: str) -> list[str]:
        """Values of properties of the service."""
        words = [f"-p{name}" for name in properties]
        shown = self.guest.run(["systemctl", "show", *words, "pcscd.service"], check=True).stdout
        values = dict(line.split("=", 1) for line in shown.splitlines())
        return [values[name] for name in properties]

    def is_active(self) -> bool:
        return self.show("ActiveState") == ["active"]

    def stop(self) -> None:
        """Stop the service; its socket starts it for the next client."""
        self.guest.run("systemctl stop pcscd.service 2>/dev/null", check=True)

    def name_attached(self) -> None:
        """Have our driver name all readers that are plugged in. pcscd reads that when it starts."""
        self.guest.run([INSTALLER, "--attached"], check=True, timeout=MAKE_S)
        self.stop()

    def uninstall(self) -> None:
        """Take the driver out of pcscd; its virtual environment stays."""
        self.guest.run([INSTALLER, "--uninstall"], check=True, timeout=MAKE_S)
        self.stop()

    def mark(self) -> str:
        """A place in the journal."""
        shown = self.guest.run("journalctl -n 0 --show-cursor -o cat", check=True).stdout
        return shown.partition("cursor: ")[2].strip()

    def journal(self, since: str) -> list[str]:
        """The lines that the processes of the service wrote since ``mark``."""
        self.guest.run(["journalctl", "--sync"], check=True)
        words = ["_SYSTEMD_UNIT=pcscd.service", "-o", "cat", f"--after-cursor={since}"]
        said = self.guest.run(["journalctl", *words]).stdout
        return [line for line in said.splitlines() if not line.startswith("-- ")]

    def crashes(self, since: str) -> list[str]:
        """What the kernel has said of processes that crashed since ``mark``."""
        words = ["journalctl", "-k", "-o", "cat", f"--after-cursor={since}"]
        said = self.guest.run(words).stdout.splitlines()
        return [line for line in said if re.search("segfault|general protection|traps:", line)]

    def client(self, source: str, *words: str, timeout: float = 120) -> object:
        """The output of a program with Debian's pyscard, parsed as JSON."""
        command = ["/usr/bin/python3", "-c", CLIENT + source, *words]
        return json.loads(self.guest.run(command, timeout=timeout, check=True).stdout)

    def readers(self) -> list[str]:
        return readers(self.guest, START_S)

    def await_readers(self, count: int) -> list[str]:
        """The names, once there are so many."""
        until(lambda: len(self.readers()) == count, START_S)
        return self.readers()

    def await_helpers(self, count: int) -> list[int]:
        """Their processes, once there are so many."""
        until(lambda: len(helpers(self.guest)) == count, START_S)
        return helpers(self.guest)


def until(condition: Callable[[], bool], within_s: float) -> None:
    """Wait for ``condition``."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s} s")
        time.sleep(0.2)


def install(guest: Guest) -> Service:
    """Install the checkout in the guest by the lines of README, from a wheel, without a network."""
    folder = guest.shared / "dist"
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    service = Service(guest)
    for line in lines_of_readme():
        line = re.sub(r"\bsudo ", "", line)
        line = re.sub(r"install \.$", f"install {shlex.quote(str(wheel))}", line)
        began = time.monotonic()
        done = guest.run(f"exec 2>&1; {line}", env=OFFLINE, timeout=INSTALL_S, check=True)
        service.said += done.stdout
        service.took.append(time.monotonic() - began)
    return service


@contextmanager
def virtual_reader(guest: Guest, *options: str) -> Iterator[Callable[[str], str]]:
    """A virtual reader of the installed library, by USB/IP, with the ids of QEMU's, which our
    driver names; the value says a line to its control socket, and returns the answer."""
    command = ["/opt/ccid/bin/python", "-um", "ccid.virtual", "--usbip", f"127.0.0.1:{PORT}"]
    command += ["--control", CONTROL, "--id", QEMU_READER, *options]
    source = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.sendall(sys.argv[2].encode() + b'\\n'); print(s.recv(1000).decode())"
    )

    def hand(line: str) -> str:
        words = ["/usr/bin/python3", "-c", source, CONTROL, line]
        answer = guest.run(words, check=True).stdout.strip()
        assert answer.startswith("ok"), answer
        return answer.removeprefix("ok").strip()

    there = "grep -lsx ccid /sys/bus/usb/devices/*/manufacturer"
    with guest.popen(command) as server:
        server.wait_for(r"usbip: 1-1[^\n]*on 127.0.0.1", START_S)
        attach(guest, "1-1", PORT)
        wait = f"i=0; until {there} || [ $i -gt 100 ]; do i=$((i+1)); sleep 0.1; done"
        guest.run(f"{wait}; udevadm settle", check=True)
        yield hand
    guest.run(f"i=0; while {there} && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.1; done")
