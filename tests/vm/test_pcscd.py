"""Debian's pcscd in the guest with our driver: real, unchanged clients on QEMU's reader and on ours
over USB/IP; and processes that die."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab.guest import Guest
from lab.link import Job
from lab.pcscd import Pcscd, pcscd

from ccid.pcsc import system_package
from ccid.pcsc.plug.bundle import NAME
from tests.vm.programs import CLIENT, DROPDIR, driver_python, helpers, make_bundle
from tests.vm.test_usbip import APDUS, IDS, plugged

QEMU = "08e6:4433:Ours on QEMU"
OURS = f"{IDS}:Ours on USB/IP"
START_S = 120.0
"""Seconds to start: each helper imports everything, and without KVM that takes seconds."""


@pytest.fixture(scope="module")
def bundle(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle."""
    return make_bundle(guest, tmp_path_factory.mktemp("drivers"), [QEMU, OURS])


@pytest.fixture
def driver(guest: Guest, bundle: Path) -> Iterator[None]:
    """Our driver, installed in the guest beside libccid."""
    guest.run(["cp", "-r", str(bundle), DROPDIR], check=True)
    yield
    guest.run(["rm", "-rf", f"{DROPDIR}/{NAME}"], check=True)


@contextmanager
def daemon(guest: Guest, *numbers: int, more: int = 0) -> Iterator[Pcscd]:
    """pcscd, with these readers of the guest plugged in and no other QEMU reader (each costs
    seconds), and with ``more`` readers that are there besides."""
    guest.leave_only(*numbers)
    with pcscd(guest, len(numbers) + more, timeout=START_S) as running:
        assert len(running.readers) == len(numbers) + more
        yield running


def client(guest: Guest, source: str, *words: str, timeout: float = 120) -> Any:
    """Run a program with Debian's pyscard; returns its output, parsed as JSON."""
    command = ["/usr/bin/python3", "-c", CLIENT + source, *words]
    return json.loads(guest.run(command, timeout=timeout, check=True).stdout)


def start(guest: Guest, source: str, *words: str) -> Job:
    return guest.popen(["/usr/bin/python3", "-u", "-c", CLIENT + source, *words])


def until(guest: Guest, condition: Any, within_s: float) -> float:
    """Wait for ``condition``; returns the seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            pytest.fail(f"not within {within_s} s")
        time.sleep(0.2)
    return time.monotonic() - began


# Clients --------------------------------------------------------------------------------------


def test_pcscd_gives_us_the_readers(guest: Guest, driver: None) -> None:
    with daemon(guest, 0, 1, 2, 3) as running:
        assert all(name.startswith("Ours on QEMU") for name in running.readers)
        assert len(helpers(guest)) == 4


def test_the_same_answers_as_with_libccid(guest: Guest, driver: None) -> None:
    """On xHCI libccid loses its place after a reply that fills a packet, so our reader is used
    there."""
    source = """
connection = connect(sys.argv[2])
said = [bytes(connection.getATR()).hex()]
said += [transmit(connection, apdu) for apdu in json.loads(sys.argv[1])]
print(json.dumps(said))
"""
    apdus = json.dumps(APDUS)
    with daemon(guest, 0, 1):
        ours, on_xhci = (client(guest, source, apdus, name) for name in ("lab0", "lab1"))
    guest.run(["rm", "-rf", f"{DROPDIR}/{NAME}"], check=True)
    with daemon(guest, 0) as running:
        assert not any("Ours" in name for name in running.readers)
        assert client(guest, source, apdus, "lab0") == ours
    assert ours[0] == guest.readers[0].atr.hex()
    assert on_xhci[1:] == ours[1:]


def test_a_package_of_the_system_leaves_all_readers_to_libccid_until_it_is_told(
    guest: Guest, tmp_path: Path
) -> None:
    """The driver as a distribution's package has it, and as its command then names readers."""
    system_package.write(tmp_path, driver_python(guest))
    guest.run(["cp", "-r", str(tmp_path / system_package.DROPDIR[1:] / NAME), DROPDIR], check=True)
    settings = system_package.SETTINGS
    guest.run(f"mkdir -p {Path(settings).parent}", check=True)
    guest.run(["cp", str(tmp_path / system_package.TEMPLATE[1:]), settings], check=True)
    try:
        with daemon(guest, 0) as running:
            assert not any("Ours" in name for name in running.readers)
            assert client(guest, ONE, "lab0") == "00019000"
            assert helpers(guest) == []
        command = [
            driver_python(guest),
            "-m",
            "ccid.pcsc.plug.install",
            "--force",
            "--reader",
            QEMU,
        ]
        assert settings in guest.run(command, check=True).stdout
        with daemon(guest, 0) as running:
            assert all(name.startswith("Ours on QEMU") for name in running.readers)
            assert client(guest, ONE, "lab0") == "00019000"
            assert len(helpers(guest)) == 1
    finally:
        guest.run(["rm", "-rf", f"{DROPDIR}/{NAME}", str(Path(settings).parent)], check=True)


@pytest.mark.parametrize("level", ["tpdu", "short", "extended"])
def test_our_reader_over_usbip(guest: Guest, driver: None, level: str) -> None:
    source = """
connection = connect("USB/IP")
print(json.dumps([transmit(connection, apdu) for apdu in json.loads(sys.argv[1])]))
"""
    with plugged(guest, "--card", "echo", "--level", level):
        with daemon(guest, more=1):
            said = client(guest, source, json.dumps(APDUS))
    assert said[0] == "9000"
    assert said[1] == bytes(range(0x34)).hex() + "9000"


def test_reset_and_other_dispositions(guest: Guest, driver: None) -> None:
    said_of_all = """
hresult, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
name = str(find("lab0"))
both = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
hresult, card, protocol = scard.SCardConnect(context, name, scard.SCARD_SHARE_SHARED, both)
said = [hresult, protocol]
for how in (scard.SCARD_RESET_CARD, scard.SCARD_UNPOWER_CARD, scard.SCARD_LEAVE_CARD):
    hresult, protocol = scard.SCardReconnect(card, scard.SCARD_SHARE_SHARED, both, how)
    said.append(hresult)
    hresult, answer = scard.SCardTransmit(card, scard.SCARD_PCI_T0, [0, 0x10, 0, 0, 2])
    said += [hresult, bytes(answer).hex()]
hresult, feature = scard.SCardControl(card, 0x42000D48, [])
said += [hresult, bytes(feature).hex()]
hresult, name = scard.SCardGetAttrib(card, scard.SCARD_ATTR_VENDOR_NAME)
said += [hresult, bytes(name).rstrip(b"\\0").decode()]
hresult = scard.SCardDisconnect(card, scard.SCARD_RESET_CARD)
print(json.dumps([*said, hresult]))
"""
    with daemon(guest, 0):
        said = client(guest, said_of_all)
    assert said[:2] == [0, 1]
    assert said[2:11] == [0, 0, "00019000"] * 3
    assert said[11:13] == [0, "060442330006" + "0a044233000a" + "120442330012"]
    assert said[13] == 0
    assert said[15] == 0


def test_a_card_out_and_in_is_removed_and_not_reset(guest: Guest, driver: None) -> None:
    source = """
hresult, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
name = str(find("lab1"))
both = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
hresult, card, protocol = scard.SCardConnect(context, name, scard.SCARD_SHARE_SHARED, both)
print("connected", flush=True)
input()
hresult, answer = scard.SCardTransmit(card, scard.SCARD_PCI_T0, [0, 0x10, 0, 0, 2])
print("transmit", hex(hresult & 0xffffffff), flush=True)
hresult = scard.SCardBeginTransaction(card)
print("begin", hex(hresult & 0xffffffff), flush=True)
hresult, card, protocol = scard.SCardConnect(context, name, scard.SCARD_SHARE_SHARED, both)
hresult, answer = scard.SCardTransmit(card, scard.SCARD_PCI_T0, [0, 0x10, 0, 0, 2])
print("again", bytes(answer).hex(), flush=True)
"""
    fifo = "/run/removed"
    with daemon(guest, 1):
        guest.run(f"rm -f {fifo}; mkfifo {fifo}", check=True)
        words = ["sh", "-c", f'exec /usr/bin/python3 -u -c "$1" <>{fifo}', "sh", CLIENT + source]
        with guest.popen(words) as job:
            job.wait_for("connected", 60)
            guest.readers[1].card_out()
            time.sleep(0.5)
            guest.readers[1].card_in()
            time.sleep(1)
            guest.run(f"echo >{fifo}", check=True)
            job.wait_for(r"again \w*\n", 60)
            said = dict(line.split() for line in job.stdout.splitlines() if " " in line)
    assert said == {"transmit": "0x80100069", "begin": "0x80100069", "again": "00019000"}


# Processes that die ---------------------------------------------------------------------------

ONE = """
connection = connect(sys.argv[1])
print(json.dumps(transmit(connection, "0010000002")))
"""


def pid_of_helper(guest: Guest, number: int) -> int:
    """The helper that has the device node of this reader open."""
    serial = guest.readers[number].serial
    script = (
        f"d=$(dirname $(grep -lx {serial} /sys/bus/usb/devices/*/serial)); "
        'node=$(printf "/dev/bus/usb/%03d/%03d" $(cat $d/busnum) $(cat $d/devnum)); '
        "for p in $(pgrep -f '[c]cid.pcsc.plug.helper'); do "
        "ls -l /proc/$p/fd | grep -q $node && echo $p; done; true"
    )
    return int(guest.run(script, check=True).stdout)


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_helper_that_dies_or_stops_is_replaced(guest: Guest, driver: None, signal: str) -> None:
    """The new helper is there within 15 s, and the client of the other reader does not notice. The
    first answer of the new helper takes as long again as a start takes here."""
    with daemon(guest, 0, 1):
        assert client(guest, ONE, "lab0") == "00019000"
        pid = pid_of_helper(guest, 0)
        guest.run(["kill", f"-{signal}", str(pid)], check=True)
        guest.popen(["/usr/bin/python3", "-c", CLIENT + ONE, "lab0"])  # a client uses the card
        assert client(guest, ONE, "lab1") == "00019000"

        def is_replaced() -> bool:
            there = helpers(guest)
            return pid not in there and len(there) == 2

        def works() -> bool:
            command = ["/usr/bin/python3", "-c", CLIENT + ONE, "lab0"]
            return guest.run(command, timeout=60).stdout.strip() == '"00019000"'

        until(guest, is_replaced, 15)
        until(guest, works, 20)


@pytest.mark.parametrize("signal", ["TERM", "KILL", "INT"])
def test_the_end_of_pcscd(guest: Guest, driver: None, signal: str) -> None:
    """Helpers power the cards off, release the readers, and end."""
    with daemon(guest, 0, 1) as running:
        assert client(guest, ONE, "lab0") == "00019000"
        guest.run(["kill", f"-{signal}", str(running.pid)], check=True)
        until(guest, lambda: not helpers(guest), 10)
        drivers = guest.run("readlink /sys/bus/usb/devices/*/driver").stdout
        assert "usbfs" not in drivers


BUSY = '''#!{python}
"""The helper, while another program has claimed the interface that it claims, too."""
import fcntl, os, runpy, struct, sys
from ccid.transport import claim as claims
take = claims.Claim._claim
def meanwhile(self):
    holder = os.open(f"/dev/bus/usb/{{self.info.bus:03d}}/{{self.info.address:03d}}", os.O_RDWR)
    fcntl.ioctl(holder, 0x8004550F, struct.pack("I", self.info.interface_number))
    try:
        take(self)
    finally:
        os.close(holder)
claims.Claim._claim = meanwhile
sys.argv = ["helper", sys.argv[-1]]
runpy.run_module("ccid.pcsc.plug.helper", run_name="__main__", alter_sys=True)
'''


@pytest.mark.parametrize("how", ["hangs up", "claim fails"])
def test_if_ours_does_not_open_libccid_gets_the_reader(
    guest: Guest, driver: None, tmp_path: Path, how: str
) -> None:
    """A helper that does not start, ends at once, or finds the interface claimed, leaves the reader
    to the class driver, in working order."""
    broken = tmp_path / "python"
    broken.write_text(
        "#!/bin/sh\nexit 0\n" if how == "hangs up" else BUSY.format(python=driver_python(guest))
    )
    broken.chmod(0o755)
    named = f"{DROPDIR}/{NAME}/Contents/Linux/interpreter"
    guest.run(f"echo {broken} >{named}", check=True)
    with daemon(guest, 0) as running:
        assert client(guest, ONE, "lab0") == "00019000"
        assert helpers(guest) == []
        assert re.search("libccid|Gem|CCID", " ".join(running.readers)) is not None
        assert (" is held by " in running.job.stderr + running.job.stdout) == (how == "claim fails")
