"""The computer sleeps while readers are open, and wakes up: a real USB stack loses its power.

The guest sleeps by ``echo freeze >/sys/power/state``. Both USB controllers of QEMU lose their power
with that, so the kernel resets each reader as it wakes up, as it does after suspend to RAM. Suspend
to RAM itself (``echo mem``) is beyond QEMU 7.2 without KVM: the machine sleeps, and its processor
meets a triple fault on its way back.

The guest has its files by virtio, whose driver for them does not survive sleep. So this guest is
for this test alone; what runs after the sleep has done it all once before (another program's
reset), and is in memory; and what it has to say comes by a serial line, which wakes the guest, too.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from lab.errors import LabError
from lab.guest import Guest
from lab.pcscd import pcscd
from lab.readers import ReaderSpec

from tests.vm.programs import CLIENT, DROPDIR, make_bundle
from tests.vm.test_pcscd import QEMU
from tests.vm.test_qemu_reader import HAND, OPEN, PRELOAD
from tests.vm.test_resets import HOW

LONG_S = 180.0
LINE = """
import fcntl, os, time, tty
wire = os.open("/dev/ttyS1", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
tty.setraw(wire)
def say(*words):
    os.write(wire, (" ".join(map(str, words)) + "\\n").encode())
def slept():
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
awake = max(slept() for _ in range(50)) + 0.1  # a look at two clocks takes time
"""
LIBRARY = """
with ccid.open_reader(find()) as reader:
    slot = reader.slots[0]
    card = slot.connect()
    reset(reader.info)  # once, so that all it takes is loaded
    lost = reply(card)
    card = slot.connect()
    say("library before", lost, reply(card))
    with open("/sys/class/tty/ttyS1/power/wakeup", "w") as there: there.write("enabled")
    state = os.open("/sys/power/state", os.O_WRONLY)
    until(lambda: os.path.exists("/run/lab/go"), 600)
    say("library sleeps")
    os.write(state, b"freeze")
    until(lambda: not reader.is_away, 60)
    say("library slept", slept() > awake)
    say("library after", reply(card), reply(card), slot.status().name)
    say("library again", reply(slot.connect()))
"""
PCSC = """
def reply(connection):
    try: return transmit(connection, "0010000002")
    except (CardConnectionException, NoCardException) as error:
        return "reset" if "reset" in str(error).lower() else repr(str(error))
def reset(name):
    for place in os.scandir("/sys/bus/usb/devices"):
        try: there = open(place.path + "/serial").read().strip()
        except OSError: continue
        if there == name:
            numbers = [int(open(f"{place.path}/{n}").read()) for n in ("busnum", "devnum")]
            fd = os.open("/dev/bus/usb/%03d/%03d" % tuple(numbers), os.O_WRONLY)
            fcntl.ioctl(fd, 0x5514, 0)
            os.close(fd)
def again(connection):
    for _ in range(100):
        try: connection.connect(); break
        except (CardConnectionException, NoCardException): time.sleep(0.1)
    return reply(connection)
connection = connect(sys.argv[1])
say("pcscd first", reply(connection))
reset(sys.argv[1])
time.sleep(1)
say("pcscd before", reply(connection), again(connection))
say("pcscd waits")
while slept() <= awake: time.sleep(0.05)
say("pcscd after", reply(connection), again(connection))
"""


class Wire:
    """The host's end of the serial line."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._socket.settimeout(0.5)
        self._said = b""

    def wait_for(self, what: str, *, ring: bool = False) -> str:
        """Wait for a line that begins with ``what``, and return the rest of it.

        Args:
            what: How it begins.
            ring: Write to the line meanwhile, which wakes a guest that sleeps.
        """
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            for line in self.lines:
                if line.startswith(what):
                    return line.removeprefix(what).strip()
            if ring:
                self._socket.sendall(b"\r")
            with suppress(TimeoutError):
                self._said += self._socket.recv(4096)
        pytest.fail(f"no line {what!r} in {self.lines}")

    def close(self) -> None:
        """Close the host's end."""
        self._socket.close()

    @property
    def lines(self) -> list[str]:
        """What was said, each line that is complete."""
        return self._said.decode().split("\n")[:-1]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[tuple[Guest, Wire]]:
    """A guest of its own, and a serial line to it."""
    path = tmp_path / "wire"
    line = ["-serial", f"unix:{path},server=on,wait=off"]
    readers = [ReaderSpec("uhci"), ReaderSpec("xhci")]
    try:
        guest = Guest(readers, udev=True, shared=tmp_path / "shared", qemu_args=line).start()
    except LabError as error:
        pytest.fail(str(error), pytrace=False)
    with closing(Wire(path)) as wire:
        yield guest, wire
    guest.stop()


def test_after_sleep_readers_are_open_again_and_their_cards_reset(
    sleeper: tuple[Guest, Wire],
) -> None:
    """The library on UHCI, and pcscd with our driver on xHCI, at the same time."""
    guest, wire = sleeper
    bundle = make_bundle(guest, guest.shared, [QEMU])
    guest.run(["cp", "-r", str(bundle), DROPDIR], check=True)
    words = [guest.readers[0].serial, "0", str(HAND)]
    library = guest.popen_script(OPEN + HOW + LINE + LIBRARY, *words, preload=PRELOAD)
    wire.wait_for("library before")
    with pcscd(guest, 1, timeout=LONG_S):
        source = CLIENT + LINE + PCSC
        job = guest.popen(["/usr/bin/python3", "-u", "-c", source, guest.readers[1].serial])
        wire.wait_for("pcscd waits")
        guest.run("touch /run/lab/go", check=True)
        try:
            wire.wait_for("library again", ring=True)
            wire.wait_for("pcscd after", ring=True)
        finally:
            print("LINES", wire.lines, library.stdout, library.stderr, job.stdout, job.stderr)
            guest.stop()  # it could not run another program
    said = dict(line.rsplit(" ", 1) for line in wire.lines)
    assert said["library slept"] == "True"
    assert said["library again"] == "00019000"
    (after,) = (line for line in wire.lines if line.startswith("library after"))
    assert after.startswith("library after CardReset CardReset ")
    (after,) = (line for line in wire.lines if line.startswith("pcscd after"))
    assert not after.startswith("pcscd after 00019000")
    assert after.endswith(" 00019000")
