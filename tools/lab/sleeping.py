"""Sleep of a guest: suspend to idle, as a laptop does that is shut.

A byte on the guest's serial line wakes it. Without KVM neither its clock nor the power button does
that with QEMU 7.2, and suspend to RAM ends with a triple fault on the way back. Both kinds of USB
controller that QEMU has lose their power; the kernel finds the readers anew.

Linux has no sleep for virtio's 9p: afterwards the guest has no files of the host. So it must be
a system with a disk of its own (:class:`lab.systems.SuiteSystem`).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.errors import LabError
from lab.link import Job
from lab.qemu import Monitor

SERIAL = "serial0"
"""QEMU's name for what is behind the guest's first serial line."""
RING_S, LONG_S = 2.0, 120.0
"""Seconds between two bytes, and until the guest has to be awake."""
SLEEP = """
import sys
def count():
    with open("/sys/power/suspend_stats/success") as there: return int(there.read())
before = count()
print("sleeps", flush=True)
while count() == before:
    try:
        with open("/sys/power/state", "w") as there: there.write("freeze")
    except OSError as error:  # a byte that came too early woke it before it slept
        print(error, file=sys.stderr, flush=True)
print("slept", flush=True)
"""
COMMAND = """
exec 9<>/dev/ttyS0
stty raw -echo <&9
echo enabled >/sys/class/tty/ttyS0/power/wakeup
"$0" -c "$1"
"""


def sleep(
    monitor: Monitor,
    popen: Callable[[list[str]], contextlib.AbstractContextManager[Job]],
    python: str,
    console: Path,
    for_s: float,
) -> None:
    """Have a guest sleep.

    Args:
        monitor: Of its QEMU.
        popen: Starts a command in it.
        python: An interpreter on its disk.
        console: Gets what its kernel says.
        for_s: Seconds until it is woken.

    Raises:
        LabError: It does not sleep, or does not wake up.
    """
    command = ["/bin/sh", "-c", COMMAND, python, SLEEP]
    with _wire(monitor, console) as wire, popen(command) as job:
        job.wait_for("sleeps", LONG_S)
        time.sleep(for_s)
        deadline = time.monotonic() + LONG_S
        while "slept" not in job.stdout:
            if time.monotonic() > deadline or not job.running:
                raise LabError(f"the guest does not wake up: {job.stdout}{job.stderr}")
            wire.sendall(b"\r")
            with contextlib.suppress(LabError):
                job.wait_for("slept", RING_S)


@contextlib.contextmanager
def _wire(monitor: Monitor, console: Path) -> Iterator[socket.socket]:
    """The other end of the serial line, which is a file before and afterwards."""
    path = console.with_name("serial")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        address = {"type": "unix", "data": {"path": str(path)}}
        there = {"addr": address, "server": False, "logfile": str(console), "logappend": True}
        monitor.call("chardev-change", id=SERIAL, backend={"type": "socket", "data": there})
        wire, _ = listener.accept()
    path.unlink()
    reader = threading.Thread(target=_drain, args=(wire,), daemon=True)
    reader.start()
    try:
        yield wire
    finally:
        there = {"out": str(console), "append": True}
        monitor.call("chardev-change", id=SERIAL, backend={"type": "file", "data": there})
        wire.close()
        reader.join()


def _drain(wire: socket.socket) -> None:
    """Read what the guest says there: QEMU has put it into the log."""
    with contextlib.suppress(OSError):
        while wire.recv(4096):
            pass
