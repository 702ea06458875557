"""QEMU's reader and two cards over a real USB stack: a reader that this project did not write."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lab.guest import Guest
from lab.pcscd import pcscd
from lab.qemu import check_prepared

from tests.integration.tools import tshark
from tests.pcapng import packets
from tests.vm import lsusb

HAND = Path(__file__).parents[2] / "tools/lab/hand"
ECHO = pytest.mark.parametrize("number", [0, 1], ids=["UHCI", "xHCI"])
"""The readers with the programmable card."""
PRELOAD = (
    "ccid",
    "ccid.device.find",
    "ccid.device.card",
    "ccid.trace",
    "ccid.transport.discovery",
    "ccid.virtual",
    "ccid.virtual.usbip",
    "usb.backend.libusb1",
    "logging",
    "json",
    "grp",
    "pwd",
)
"""Modules that scripts find imported already."""

OPEN = """
import ccid, json, subprocess, sys, time
from ccid import errors
serial, number, program, *arguments = sys.argv[1:]
def find():
    return next(r for r in ccid.list_readers() if r.serial == serial)
def hand(what, way):
    subprocess.run([program, what, number, way], check=True, stdout=subprocess.DEVNULL)
def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline: time.sleep(0.02)
    return condition()
"""


def script(guest: Guest, number: int, source: str, *arguments: object, **options: Any) -> str:
    """Run Python in the guest, with ``find()``, which returns the reader of this number, and
    ``hand()``, which moves the reader or its card."""
    words = [guest.readers[number].serial, str(number), str(HAND), *map(str, arguments)]
    return guest.script(OPEN + source, *words, preload=PRELOAD, **options).stdout


def probe(guest: Guest, *words: str, check: bool = True) -> Any:
    """Run ccid-probe in the guest."""
    source = "import sys; from ccid.probe.__main__ import main; sys.exit(main(sys.argv[1:]))"
    return guest.script(source, *words, preload=PRELOAD, check=check)


# Descriptors ----------------------------------------------------------------------------------


@ECHO
def test_dump_is_what_lsusb_says(guest: Guest, number: int) -> None:
    """Every field of every descriptor, and the strings."""
    name = guest.readers[number].serial
    (ours,) = json.loads(probe(guest, "dump", "--json", "--reader", f"({name})").stdout)["readers"]
    where = f"{ours['bus']}:{ours['address']}"
    theirs = lsusb.parse(guest.run(["lsusb", "-v", "-s", where], check=True).stdout)
    compared = 0
    for section in ("device", "configuration", "interface", "smart_card"):
        assert ours[section] == theirs[section], section
        compared += len(ours[section])
    assert ours["endpoints"] == theirs["endpoints"]
    compared += sum(len(endpoint) for endpoint in ours["endpoints"])
    assert ours["strings"].keys() == theirs["strings"].keys()
    for key, text in ours["strings"].items():
        assert theirs["strings"][key] == text
    assert compared == 14 + 8 + 9 + 22 + 3 * 6


def test_listing_opens_no_device(guest: Guest) -> None:
    """Counted where pyusb calls libusb, and checked in the list of open files."""
    counted = script(
        guest,
        0,
        """
import os
from ccid.transport.libusb import backend
lib, opened = backend().lib, []
real = lib.libusb_open
lib.libusb_open = lambda *a: opened.append(a) or real(*a)
before = sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1])
names = [r.name for r in ccid.list_readers()]
after = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]]
nodes = [f for f in after if f.startswith("/dev/bus/usb/")]
info = find()
info.connect(info).close()
print(json.dumps([len(names), nodes, len(opened)]))
""",
    )
    readers, nodes, opened = json.loads(counted)
    assert readers == 4
    assert nodes == []
    assert opened == 1, "by connect() alone"


def test_list_names_all(guest: Guest) -> None:
    document = json.loads(probe(guest, "list", "--json").stdout)
    assert document["virtual"] is False
    assert {r["serial"] for r in document["readers"]} == {r.serial for r in guest.readers}
    assert len({r["name"] for r in document["readers"]}) == 4
    assert {r["idProduct"] for r in document["readers"]} == {0x4433}
    assert {r["level"] for r in document["readers"]} == {"TPDU"}


# A conversation -------------------------------------------------------------------------------


@ECHO
def test_power_on_select_and_read(guest: Guest, number: int) -> None:
    said = script(
        guest,
        number,
        """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    print(card.atr.hex(), card.protocol)
    for apdu in ("00A4040000", "0010000010", "003000000461626364", "00C0000004", "0010000000"):
        print(card.transmit(bytes.fromhex(apdu)).hex())
""",
    ).split("\n")
    assert said[0] == f"{guest.readers[number].atr.hex()} T=0"
    assert said[1:6] == [
        "9000",
        bytes(range(16)).hex() + "9000",
        "6104",
        "616263649000",
        bytes(range(256)).hex() + "9000",
    ]


@ECHO
def test_two_thousand_apdus(guest: Guest, number: int) -> None:
    said = script(
        guest,
        number,
        """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    wrong = 0
    for i in range(2000):
        n = i % 200 + 1
        wrong += card.transmit(bytes((0, 0x10, i & 255, 0, n))) != bytes(
            (j + i) & 255 for j in range(n)) + b"\\x90\\x00"
    print(wrong, reader.pipe.stale)
""",
    )
    assert said.split() == ["0", "0"]
    assert int(re.search(r"tpdus=(\d+)", guest.readers[number].ask("stats"))[1]) >= 2000  # type: ignore[index]


@ECHO
def test_replies_of_every_length(guest: Guest, number: int) -> None:
    """0 to 256 bytes of data, among them replies that fill their last packet."""
    said = script(
        guest,
        number,
        """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    for n in range(1, 257):
        reply = card.transmit(bytes((0, 0x10, 7, 0, n & 255)))
        assert reply == bytes((j + 7) & 255 for j in range(n)) + b"\\x90\\x00", n
    for n in range(0, 256):
        data = bytes(j ^ 0x5A for j in range(n))
        reply = card.transmit(bytes((0, 0x30, 0, 0, n)) + data)
        assert reply == (b"\\x61" + bytes([n]) if n else b"\\x90\\x00"), n
        if n:
            assert card.transmit(bytes((0, 0xC0, 0, 0, n))) == data + b"\\x90\\x00", n
    print("all")
""",
    )
    assert said == "all\n"


USBMON = """
import os
class Monitor:
    def __init__(self, info):
        self.fd = os.open(f"/sys/kernel/debug/usb/usbmon/{info.bus}u", os.O_RDONLY | os.O_NONBLOCK)
        self.device = f":{info.bus}:{info.address:03d}:"
        self.text = b""
    def take(self):  # the kernel keeps some eighty events, so this must be called often
        while True:
            try: self.text += os.read(self.fd, 65536)
            except BlockingIOError: break
    def urbs(self):
        self.take()
        lines = self.text.decode().splitlines()
        return [f for line in lines if self.device in (f := line.split())[3]]
"""


@pytest.fixture
def usbmon(guest: Guest) -> str:
    """The kernel's monitor of the bus, for scripts."""
    guest.run("modprobe usbmon", check=True)
    guest.run("mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug")
    return USBMON


@ECHO
def test_one_bulk_out_and_one_bulk_in(guest: Guest, usbmon: str, number: int) -> None:
    """For each APDU, counted by the kernel."""
    said = script(
        guest,
        number,
        usbmon
        + """
info = find()
with ccid.open_reader(info) as reader, reader.slots[0].connect() as card:
    monitor = Monitor(info)
    for _ in range(100):
        card.transmit(bytes.fromhex("0010000002"))
        monitor.take()
    kinds = [(f[2], f[3].split(":")[0]) for f in monitor.urbs()]
print(json.dumps({" ".join(kind): kinds.count(kind) for kind in sorted(set(kinds))}))
""",
    )
    assert json.loads(said) == {"S Bo": 100, "C Bo": 100, "S Bi": 100, "C Bi": 100}


# Cards come and go ----------------------------------------------------------------------------


@ECHO
def test_card_out_and_in(guest: Guest, number: int) -> None:
    said = script(
        guest,
        number,
        """
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    for _ in range(3):
        card = slot.connect()
        card.transmit(bytes.fromhex("00A4040000"))
        hand("card", "out")
        print(until(lambda: slot.status().name == "ABSENT"))
        try: card.transmit(bytes.fromhex("00A4040000"))
        except errors.CardRemoved: print("removed")
        try: slot.connect()
        except errors.CardAbsent: print("absent")
        hand("card", "in")
        print(until(lambda: slot.status().name != "ABSENT"))
        try: card.transmit(bytes.fromhex("00A4040000"))
        except errors.CardRemoved: print("still removed")
        with slot.connect() as again:
            print(again.transmit(bytes.fromhex("0010000002")).hex())
""",
    ).splitlines()
    assert said == ["True", "removed", "absent", "True", "still removed", "00019000"] * 3


@ECHO
def test_reader_out_and_in(guest: Guest, number: int) -> None:
    said = script(
        guest,
        number,
        """
with ccid.open_reader(find()) as reader:
    card = reader.slots[0].connect()
    hand("reader", "out")
    try: card.transmit(bytes.fromhex("00A4040000"))
    except (errors.ReaderRemoved, errors.CardRemoved): print("removed") # its slot may go first
    try: reader.slots[0].status()
    except errors.ReaderRemoved: print("removed")
there = lambda: any(r.serial == serial for r in ccid.list_readers())
print(until(lambda: not there()))
hand("reader", "in")
print(until(there))
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    print(until(lambda: slot.status().name != "ABSENT"))
    with slot.connect() as card:
        print(card.transmit(bytes.fromhex("0010000002")).hex())
""",
    ).split()
    assert said == ["removed", "removed", "True", "True", "True", "00019000"]


# libcacard's card -----------------------------------------------------------------------------

CAC_READERS = pytest.mark.parametrize("number", [2, 3], ids=["UHCI", "xHCI"])
CAC_ATR = "3b7a18000073667465206364313434"
CAC = """
from ccid.iso7816.apdu import CommandApdu
TAGS, VALUES = 1, 2
def whole(apdu):
    reply = card.transmit(apdu)
    while reply[-2] == 0x61:
        reply = reply[:-2] + card.transmit(bytes((0, 0xC0, 0, 0, reply[-1])))
    assert reply[-2:] == b"\\x90\\x00", reply[-2:].hex()
    return reply[:-2]
def read(file, chunk):
    def part(offset, count):
        return whole(bytes((0, 0x52, offset >> 8, offset & 255, 2, file, count)))
    size = int.from_bytes(part(0, 2), "little")
    data = b""
    while len(data) < size:
        data += part(2 + len(data), min(chunk, size - len(data)))
    return data
"""


def certificate(cache: Path, number: int) -> str:
    """A certificate in libcacard's database, in hexadecimal."""
    command = ["certutil", "-L", "-d", f"sql:{cache / 'nss'}", "-n", f"cert{number}", "-r"]
    return subprocess.run(command, check=True, capture_output=True).stdout.hex()


@CAC_READERS
@pytest.mark.parametrize("chunk", [0x34, 0xFE])
def test_the_cac(guest: Guest, number: int, chunk: int) -> None:
    """SELECT and READ of three certificates, compared with those in NSS. In parts of 0x34 bytes
    every reply is a full packet of 64 bytes; on xHCI QEMU's reader then sends a stray empty
    packet."""
    guest.readers[number].card_in()
    said = script(
        guest,
        number,
        CAC
        + """
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    until(lambda: slot.status().name != "ABSENT")
    with slot.connect() as card:
        print(card.atr.hex())
        for applet in range(3):
            aid = bytes.fromhex("A00000007901") + bytes([applet])
            answer = whole(CommandApdu(0, 0xA4, 4, data=aid).build())
            assert answer[:2] == bytes.fromhex("6F0B"), answer.hex()
            tags, values = (read(file, int(arguments[0])) for file in (TAGS, VALUES))
            assert tags[:3] == bytes.fromhex("710170"), tags.hex()
            print(values[1:].hex())
""",
        chunk,
    ).splitlines()
    assert said[0] == CAC_ATR
    assert said[1:] == [certificate(check_prepared(), i) for i in (1, 2, 3)]


@CAC_READERS
def test_two_thousand_apdus_with_the_cac(guest: Guest, number: int) -> None:
    guest.readers[number].card_in()
    said = script(
        guest,
        number,
        """
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    until(lambda: slot.status().name != "ABSENT")
    with slot.connect() as card:
        wrong = 0
        for i in range(1000):
            aid = bytes.fromhex("A00000007901") + bytes([i % 3])
            wrong += card.transmit(bytes.fromhex("00A4040007") + aid) != bytes.fromhex("610D")
            wrong += card.transmit(bytes.fromhex("00C000000D"))[4:11] != aid
        print(wrong)
""",
    )
    assert said == "0\n"


def test_the_cac_out_and_in(guest: Guest) -> None:
    """The card's device is removed from QEMU's reader, and put back."""
    reader = guest.readers[2]
    source = """
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    card = slot.connect()
    print(card.atr.hex(), flush=True)
    print(until(lambda: slot.status().name == "ABSENT", 30), flush=True)
    try: card.transmit(bytes.fromhex("00A4040007A0000000790100"))
    except errors.CardRemoved: print("removed", flush=True)
    print(until(lambda: slot.status().name != "ABSENT", 30))
    with slot.connect() as again:
        print(again.transmit(bytes.fromhex("00A4040007A0000000790100")).hex())
"""
    words = [reader.serial, "2", str(HAND)]
    with guest.popen_script(OPEN + source, *words, preload=PRELOAD) as job:
        job.wait_for(CAC_ATR, 30)
        reader.card_out()
        job.wait_for("removed", 30)
        reader.card_in()
        said = job.wait(60).stdout.split()
    assert said == [CAC_ATR, "True", "removed", "True", "610d"]


# libusb-package -------------------------------------------------------------------------------


def test_the_libusb_of_libusb_package(guest: Guest) -> None:
    """If the system has no libusb, the wheel's libusb is used: without udev, with the same
    result."""
    said = script(
        guest,
        1,
        """
import ctypes.util
real = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if "usb" in name else real(name)
from ccid.transport import libusb
libusb.SONAME = "libusb that is nowhere"
from ccid.transport.libusb import library_name
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    print("libusb_package" in library_name(), card.transmit(bytes.fromhex("0010000002")).hex())
""",
    )
    assert said.split() == ["True", "00019000"]


# The same as with libccid ---------------------------------------------------------------------

APDUS = [
    "00A4040000",
    "00A40400",
    "0010000001",
    "0010000034",
    "0010000035",
    "0010000036",
    "00100000FE",
    "0010000000",
    "0030000003616263",
    "00C0000003",
    "00C0000000",
    "0020000104 31323334",
    "00400000",
    "0052 6A82",
    "00FF0000",
    "00500064",
    "0030000034" + "AB" * 0x34,
    "00C0000034",
]

FULL_PACKETS = ("0010000034", "00C0000034")
"""Replies of 64 bytes: 10 of header, 52 of data, SW1 SW2."""

PYSCARD = """
import json, sys
from smartcard.System import readers
reader = next(r for r in readers() if f"({sys.argv[1]})" in r.name)
connection = reader.createConnection()
connection.connect()
said = [bytes(connection.getATR()).hex()]
for apdu in json.loads(sys.argv[2]):
    data, sw1, sw2 = connection.transmit(list(bytes.fromhex(apdu)))
    said.append(bytes([*data, sw1, sw2]).hex())
print(json.dumps(said))
"""


CAC_APDUS = [
    "00A4040007A0000000790100",
    "00C000000D",
    "0052000002 0102",
    "00C0000002",
    "0052000202 020A",
    "00C000000A",
    "0052000202 0234",
    "00C0000034",
    "0052000202 02FE",
    "00C00000FE",
    "00A4040008A000000116030000",
    "00FF000000",
]


@pytest.mark.parametrize("number", [0, 1, 2], ids=["UHCI", "xHCI", "CAC"])
def test_the_same_as_through_pcscd_and_libccid(guest: Guest, number: int) -> None:
    """ATR and replies of one list of APDUs, byte for byte. On xHCI without the APDUs whose reply is
    a full packet: after the stray empty packet of the reader, libccid is one answer behind."""
    chosen = CAC_APDUS if number == 2 else APDUS
    chosen = [apdu for apdu in chosen if number != 1 or apdu not in FULL_PACKETS]
    apdus = json.dumps(chosen)
    ours = script(
        guest,
        number,
        """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    said = [card.atr.hex()]
    for apdu in json.loads(arguments[0]):
        said.append(card.transmit(bytes.fromhex(apdu)).hex())
    print(json.dumps(said))
""",
        apdus,
    )
    serial = guest.readers[number].serial
    with pcscd(guest, 4):
        command = ["/usr/bin/python3", "-c", PYSCARD, serial, apdus]
        theirs = guest.run(command, timeout=120, check=True).stdout
    assert json.loads(ours) == json.loads(theirs)
    assert len(json.loads(ours)) == 1 + len(chosen)


# Access to the device -------------------------------------------------------------------------


def test_busy_names_pcscd_and_how_to_stop_it(guest: Guest) -> None:
    source = """
try: ccid.open_reader(find())
except errors.ReaderBusy as error: print(error.holder + "\\n" + error.cure + "\\n" + str(error))
"""
    with pcscd(guest, 4) as daemon:
        holder, cure, text = script(guest, 0, source).splitlines()
        assert holder == f"pcscd (process {daemon.pid})"
        assert "systemctl stop pcscd" in cure
        assert holder in text
        report = probe(guest, "doctor", check=False)
        assert report.returncode == 1
        assert f"running: pcscd (process {daemon.pid})" in report.stdout
        assert report.stdout.count("TROUBLE") == 4
        assert report.stdout.count("cure: stop it") == 4
    report = probe(guest, "doctor")
    assert "TROUBLE" not in report.stdout
    assert "opens, and answers" in report.stdout


def test_without_permission_the_udev_rule_is_printed(guest: Guest) -> None:
    said = script(
        guest,
        0,
        """
import os
info = find()
os.setgid(65534); os.setuid(65534)
try: ccid.open_reader(info)
except errors.AccessDenied as error: print(str(error)); print(error.cure)
""",
    )
    assert 'SUBSYSTEM=="usb", ATTR{idVendor}=="08e6", ATTR{idProduct}=="4433"' in said
    assert "/dev/bus/usb/" in said
    assert "root root" in said


def test_the_udev_rules_work(guest: Guest) -> None:
    """The rules that error messages print, in the file that they name. The one gives the user of
    the seat access: the tag for logind is on the device. The other gives it to members of a group,
    and who is not in the group is told how to be."""
    rules = script(
        guest,
        0,
        """
from ccid.transport.access_cures import group_rule, seat_rule
ids = find().vendor_id, find().product_id
print(seat_rule(ids)); print(group_rule(ids))
""",
    )
    guest.run(["tee", "/etc/udev/rules.d/70-ccid.rules"], input=rules, check=True)
    apply = "udevadm control --reload && udevadm trigger --subsystem-match=usb && udevadm settle"
    guest.run(apply, check=True)
    node = script(guest, 0, "i = find(); print(f'/dev/bus/usb/{i.bus:03d}/{i.address:03d}')")
    assert ":uaccess:" in guest.run(["udevadm", "info", "-q", "property", node.strip()]).stdout
    opening = """
import grp, os
info = find()
os.setgroups([grp.getgrnam(name).gr_gid for name in arguments]); os.setgid(65534); os.setuid(65534)
try:
    with ccid.open_reader(info): print("opened")
except errors.AccessDenied as error: print(error)
"""
    assert script(guest, 0, opening, "plugdev") == "opened\n"
    said = script(guest, 0, opening)  # the root file system may be that of a container
    assert "usermod -aG plugdev" in said or "--group-add" in said
    guest.run(f"rm /etc/udev/rules.d/70-ccid.rules; {apply}; chown root:root {node}", check=True)


def test_a_kernel_driver_is_named_sent_away_and_put_back(guest: Guest) -> None:
    """Linux's generic serial driver has claimed the reader."""
    guest.run("modprobe usbserial vendor=0x08e6 product=0x4433", check=True)
    interface = script(guest, 0, "print(find().path.removeprefix('usb:'))").strip()
    folder = f"/sys/bus/usb/devices/{interface}/driver"
    bound = f"basename $(readlink {folder})"
    wait = f"i=0; until [ -e {folder} ] || [ $i -gt 50 ]; do i=$((i+1)); sleep 0.1; done; "
    name = guest.run(wait + bound).stdout.strip()
    assert name == "usbserial_generic"
    said = script(
        guest,
        0,
        """
from ccid.transport.access_problems import busy
info = find()
print(busy(info).holder)
print("blacklist usbserial_generic" in busy(info).cure)
with ccid.open_reader(info) as reader, reader.slots[0].connect() as card:
    print(card.transmit(bytes.fromhex("0010000002")).hex())
""",
    ).splitlines()
    assert said == ["the kernel driver usbserial_generic", "True", "00019000"]
    assert guest.run(bound).stdout.strip() == "usbserial_generic", "it has its interface back"
    assert "usbserial_generic is bound" in probe(guest, "doctor", check=False).stdout
    guest.run("rmmod usbserial", check=True)


# Traces ---------------------------------------------------------------------------------------


@ECHO
def test_wireshark_reads_every_message(guest: Guest, number: int, tmp_path: Path) -> None:
    file = tmp_path / "session.pcapng"
    script(
        guest,
        number,
        """
with ccid.open_reader(find()) as reader, reader.trace(arguments[0]):
    slot = reader.slots[0]
    with slot.connect() as card:
        for n in (1, 52, 53, 54, 200, 0):
            card.transmit(bytes((0, 0x10, 0, 0, n)))
        card.transmit(bytes.fromhex("00200001083133353739303836"))
        card.reset()
        c = slot.commands
        for call in (c.get_parameters, c.reset_parameters, c.slot_status,
                     lambda: c.escape(b"x"), lambda: c.icc_clock(0), lambda: c.abort(),
                     lambda: c.t0_apdu(bClassGetResponse=0), lambda: c.mechanical(1)):
            try: call()
            except errors.CcidError as error: print(type(error).__name__)
""",
        file,
    )
    assert tshark(file, "-Y", "_ws.malformed || _ws.expert.severity >= 0x600000") == []
    bulk = tshark(file, "-Y", "usb.transfer_type == 3 && usb.data_len > 0")
    assert tshark(file, "-Y", "usbccid") == bulk
    assert len(bulk) >= 30
    assert b"3579" not in file.read_bytes()


@ECHO
def test_a_trace_is_what_the_kernel_saw(
    guest: Guest, usbmon: str, number: int, tmp_path: Path
) -> None:
    """Our file compared with usbmon, message by message; usbmon shows the first 32 bytes of
    each."""
    file = tmp_path / "session.pcapng"
    said = script(
        guest,
        number,
        usbmon
        + """
info = find()
with ccid.open_reader(info) as reader:
    monitor = Monitor(info)
    with reader.trace(arguments[0]), reader.slots[0].connect() as card:
        for n in range(1, 60):
            card.transmit(bytes((0, 0x10, n, 0, n)))
            monitor.take()
    urbs = [f for f in monitor.urbs() if "=" in f]
print(json.dumps([[f[3][:2], f[5], "".join(f[f.index("=") + 1:])] for f in urbs]))
""",
        file,
    )
    kernel = json.loads(said)
    ours = [u for u in packets(file.read_bytes()) if u.kind == 3 and u.data]
    assert [
        ["Bi" if u.endpoint & 0x80 else "Bo", str(len(u.data)), u.data[:32].hex()] for u in ours
    ] == kernel
    assert len(kernel) > 120
