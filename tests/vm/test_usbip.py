"""Our virtual reader as a real USB device: over USB/IP and vhci_hcd, through the kernel and
libusb."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab.guest import Guest
from lab.pcscd import pcscd

from tests.integration.tools import tshark
from tests.vm.attach import attach
from tests.vm.test_qemu_reader import PRELOAD

PORT = 3240
IDS = "08e6:3437"
"""Gemalto PC Twin: libccid's table has this identifier, too."""
LEVELS = ("character", "tpdu", "short", "extended")

OPEN = """
import ccid, json, socket, sys, threading, time
from ccid import errors
from ccid.iso7816.apdu import CommandApdu
from ccid.iso7816.timing import Timing
control, *arguments = sys.argv[1:]
def find(n=0):
    return [r for r in ccid.list_readers() if r.manufacturer == "ccid"][n]
def hand(line):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(control)
        s.sendall(line.encode() + b"\\n")
        answer = s.recv(1000).decode()
    assert answer.startswith("ok"), answer
    return answer.removeprefix("ok").strip()
def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline: time.sleep(0.02)
    return condition()
"""


SERVER = "import sys; from ccid.virtual.__main__ import main; sys.exit(main())"


class Plugged:
    """A USB/IP server in the guest, and its attached readers."""

    def __init__(self, guest: Guest, control: str) -> None:
        self.guest = guest
        self.control = control

    def script(self, source: str, *arguments: object, **options: Any) -> str:
        """Run Python in the guest with ``find()`` and ``hand()``."""
        words = [self.control, *map(str, arguments)]
        return self.guest.script(OPEN + source, *words, preload=PRELOAD, **options).stdout


@contextmanager
def plugged(guest: Guest, *options: str, count: int = 1) -> Iterator[Plugged]:
    """Serve virtual readers and attach them."""
    control = "/run/virtual-reader"
    words = ["--usbip", f"127.0.0.1:{PORT}", "--control", control, "--id", IDS]
    words += ["--count", str(count), *options]
    with guest.popen_script(SERVER, *words, preload=PRELOAD) as server:
        server.wait_for(rf"(?s)usbip: 1-{count}[^\n]*on 127.0.0.1:{PORT}", 60)
        for n in range(1, count + 1):
            attach(guest, f"1-{n}", PORT)
        wait = (
            "i=0; until [ $(grep -lsx ccid /sys/bus/usb/devices/*/manufacturer | wc -l) = "
            f"{count} ] || [ $i -gt 100 ]; do i=$((i+1)); sleep 0.1; done; udevadm settle"
        )
        guest.run(wait, check=True)
        yield Plugged(guest, control)
    guest.run(
        "i=0; while grep -lsqx ccid /sys/bus/usb/devices/*/manufacturer && [ $i -lt 100 ]; "
        "do i=$((i+1)); sleep 0.1; done"
    )


@pytest.mark.parametrize("level", LEVELS)
def test_a_conversation(guest: Guest, level: str) -> None:
    with plugged(guest, "--level", level, "--card", "echo") as usb:
        said = usb.script(
            """
info = find()
print(info.name, info.descriptor.exchange_level.name)
with ccid.open_reader(info) as reader, reader.slots[0].connect() as card:
    print(card.atr.hex())
    for n in range(1, 257):
        reply = card.transmit(bytes((0, 0x10, 7, 0, n & 255)))
        assert reply == bytes((j + 7) & 255 for j in range(n)) + b"\\x90\\x00", n
    for i in range(300):
        assert card.transmit(bytes.fromhex("00A40400")) == b"\\x90\\x00"
    print(reader.pipe.stale)
"""
        ).splitlines()
    names = {"short": "SHORT_APDU", "extended": "EXTENDED_APDU"}
    name = names.get(level, level.upper())
    assert said[0] == f"Gemalto PC Twin Reader {name}"
    assert said[1] == "3bd59600803 1fe45636369642165".replace(" ", "")
    assert said[2] == "0"


@pytest.mark.parametrize("protocol", ["T0", "T1"])
@pytest.mark.parametrize("level", ["character", "tpdu"])
def test_protocols_by_the_host(guest: Guest, level: str, protocol: str) -> None:
    """The host does PPS, parameters, IFSD and every block, in the card's own times."""
    options = ("--level", level, "--card", "echo", "--manual", "--real-time")
    with plugged(guest, *options) as usb:
        said = usb.script(
            """
with ccid.open_reader(find()) as reader:
    with reader.slots[0].connect(ccid.Protocol[arguments[0]], auto_get_response=True) as card:
        print(card.protocol, hex(card.fidi))
        for n in (1, 20, 255):
            apdu = CommandApdu(0, 0x30, data=bytes(range(n)), ne=256).build()
            assert card.transmit(apdu) == bytes(range(n)) + b"\\x90\\x00", n
        print(card.transmit(bytes.fromhex("005003E8")).hex())
""",
            protocol,
        ).split()
    assert said == [f"T={protocol[1]}", "0x96", "9000"]


@pytest.mark.parametrize("version", ["a", "b"])
def test_iccd(guest: Guest, version: str) -> None:
    """By control transfers through the kernel. libccid gives the same results for the same
    device."""
    atr = {"a": "3B15966363696421", "b": "3B95968131FE45636369642124"}[version]
    apdus = ["00400000", "0010000034", "0010070004", "00200000 03 616263", "00526A82"]
    with plugged(guest, "--iccd", version, "--card", "echo", "--atr", atr) as usb:
        ours = usb.script(
            """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    said = [card.atr.hex()]
    said += [card.transmit(bytes.fromhex(apdu)).hex() for apdu in json.loads(arguments[0])]
print(json.dumps(said))
""",
            json.dumps(apdus),
        )
        with pcscd(guest, 5):
            command = ["/usr/bin/python3", "-c", PYSCARD, json.dumps(apdus)]
            theirs = guest.run(command, timeout=120, check=True).stdout
    assert json.loads(ours) == json.loads(theirs)


def test_the_dump_is_the_same_as_in_process(guest: Guest) -> None:
    """The descriptors that libusb and the kernel report are equal to ours."""
    with plugged(guest, "--level", "extended", "--slots", "3") as usb:
        said = usb.script(
            """
from ccid.virtual.__main__ import main
info = find()
print(json.dumps([info.raw_configuration.hex(), info.device.build().hex(), info.serial]))
"""
        )
    raw, device, _ = json.loads(said)
    import ccid
    from ccid.codec.descriptors import parse_configuration, smart_card_interfaces
    from ccid.codes import ExchangeLevel

    virtual = ccid.VirtualReader(level=ExchangeLevel.EXTENDED_APDU, slots=3)
    (theirs,) = smart_card_interfaces(parse_configuration(bytes.fromhex(raw)))
    assert theirs.smart_card == virtual.info.descriptor
    assert theirs.endpoints == virtual.info.reader.endpoints
    assert device[16:24] == "e6083734"


@pytest.mark.parametrize("size", [1, 255, 256, 5000, 16384, 65535])
def test_extended_apdus(guest: Guest, size: int) -> None:
    with plugged(guest, "--level", "extended", "--card", "echo") as usb:
        said = usb.script(
            """
data = bytes(i * 7 & 255 for i in range(int(arguments[0])))
apdu = CommandApdu(0, 0x30, data=data, ne=65536, extended=True).build()
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    print(len(apdu), card.transmit(apdu) == data + b"\\x90\\x00")
""",
            size,
        )
    assert said.split() == [str(size + 9), "True"]


def test_cards_come_and_go(guest: Guest) -> None:
    with plugged(guest, "--card", "echo") as usb:
        said = usb.script(
            """
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    for _ in range(3):
        card = slot.connect()
        hand("card out")
        try: card.transmit(bytes.fromhex("00A40400"))
        except errors.CardRemoved: print("removed")
        try: slot.connect()
        except errors.CardAbsent: print("absent")
        hand("card in")
        with slot.connect() as again:
            print(again.transmit(bytes.fromhex("00A40400")).hex())
"""
        ).split()
    assert said == ["removed", "absent", "9000"] * 3


def test_notifications_arrive(guest: Guest) -> None:
    with plugged(guest, "--card", "echo") as usb:
        said = usb.script(
            """
info = find()
with ccid.open_reader(info) as reader:
    seen = []
    stop = reader.listen(lambda slots: seen.append(f"{slots[0].present:d}{slots[0].changed:d}"))
    until(lambda: len(seen) == 1)
    hand("card out")
    until(lambda: len(seen) == 2)
    hand("card in")
    until(lambda: len(seen) == 3)
    stop()
    print(*seen)
"""
        ).split()
    assert said == ["11", "01", "11"]


def test_a_card_taken_out_while_it_thinks(guest: Guest) -> None:
    with plugged(guest, "--card", "echo") as usb:
        said = usb.script(
            """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    threading.Timer(0.5, hand, ["card out"]).start()
    began = time.monotonic()
    try: card.transmit(bytes.fromhex("0038003C"))
    except errors.CardRemoved: print("removed", time.monotonic() - began < 3)
"""
        )
    assert said.split() == ["removed", "True"]


def test_the_reader_is_pulled_out_while_a_card_thinks(guest: Guest) -> None:
    """It has 2 s to come back, in a guest that may be slow. The card thinks for 60 s."""
    with plugged(guest, "--card", "echo") as usb:
        said = usb.script(
            """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    threading.Timer(0.5, hand, ["reader out"]).start()
    began = time.monotonic()
    try: card.transmit(bytes.fromhex("0038003C"))
    except errors.ReaderRemoved: print("removed", time.monotonic() - began < 30)
    try: reader.slots[0].status()
    except errors.ReaderRemoved: print("removed")
"""
        )
    assert said.split() == ["removed", "True", "removed"]


def test_time_extensions_and_the_abort_pair(guest: Guest) -> None:
    with plugged(guest, "--card", "echo", "--level", "short") as usb:
        said = usb.script(
            """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    card.agreement.timing = Timing(0, 0, 0, 0, 0, 0)  # 3 s, and the card takes 4
    print(card.timeout_s, card.transmit(bytes.fromhex("00500FA0")).hex())
    threading.Timer(0.5, reader.slots[0].cancel).start()
    began = time.monotonic()
    try: card.transmit(bytes.fromhex("0038003C"))
    except errors.CommandCancelled as error: print("cancelled", "did not" in str(error))
    print(time.monotonic() - began < 5)
    print(card.transmit(bytes.fromhex("00A40400")).hex())
"""
        )
    assert said.split() == ["3.0", "9000", "cancelled", "False", "True", "9000"]


def test_several_slots(guest: Guest) -> None:
    with plugged(guest, "--card", "echo", "--slots", "3") as usb:
        said = usb.script(
            """
with ccid.open_reader(find()) as reader:
    print(*(slot.status().name for slot in reader.slots))
    cards = [slot.connect() for slot in reader.slots]
    for i in range(50):
        for n, card in enumerate(cards):
            apdu = CommandApdu(0, 0x30, data=b"%d %d" % (n, i), ne=256).build()
            assert card.transmit(apdu) == b"%d %d\\x90\\x00" % (n, i)
    print("all")
"""
        )
    assert said.splitlines() == ["INACTIVE INACTIVE INACTIVE", "all"]


def test_several_readers_are_told_apart(guest: Guest) -> None:
    with plugged(guest, count=2) as usb:
        said = usb.script(
            """
infos = [r for r in ccid.list_readers() if r.manufacturer == "ccid"]
print(len({r.name for r in infos}), len({r.path for r in infos}))
with ccid.open_reader(infos[0]) as a, ccid.open_reader(infos[1]) as b:
    print(a.slots[0].status().name, b.slots[0].status().name)
"""
        )
    assert said.split() == ["2", "2", "INACTIVE", "INACTIVE"]


def test_open_twice_is_busy(guest: Guest) -> None:
    with plugged(guest) as usb:
        said = usb.script(
            """
info = find()
with ccid.open_reader(info):
    try: ccid.open_reader(info)
    except errors.ReaderBusy: print("busy")
ccid.open_reader(info).close()
print("free")
"""
        )
    assert said.split() == ["busy", "free"]


def test_a_forked_child_opens_its_own(guest: Guest) -> None:
    """The child has a context of libusb of its own; the parent's works on undisturbed."""
    with plugged(guest, "--card", "echo") as usb:
        said = usb.script(
            """
import os
info = find()
reader = ccid.open_reader(info)
card = reader.slots[0].connect()
def child(work):
    pid = os.fork()
    if pid == 0:
        try: work()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(pid, 0)
def tell():
    try: card.transmit(bytes.fromhex("00A40400"))
    except errors.ReaderForked: print("forked")
    reader.close()
sys.stdout.flush()
child(tell)
print(card.transmit(bytes.fromhex("00A40400")).hex())
reader.close()
sys.stdout.flush()
def own():
    with ccid.open_reader(find()) as r, r.slots[0].connect() as c:
        print(c.transmit(bytes.fromhex("00A40400")).hex())
child(own)
"""
        )
    assert said.split() == ["forked", "9000", "9000"]


def test_wireshark_reads_it(guest: Guest, tmp_path: Path) -> None:
    file = tmp_path / "session.pcapng"
    with plugged(guest, "--card", "echo", "--level", "extended") as usb:
        usb.script(
            """
with ccid.open_reader(find()) as reader, reader.trace(arguments[0]):
    with reader.slots[0].connect() as card:
        for n in (1, 52, 54, 500, 5000):
            apdu = CommandApdu(0, 0x30, data=bytes(n), ne=65536, extended=True).build()
            card.transmit(apdu)
""",
            file,
        )
    assert tshark(file, "-Y", "_ws.malformed") == []
    assert len(tshark(file, "-Y", "usbccid")) > 20


PYSCARD = """
import json, sys
from smartcard.System import readers
reader = next(r for r in readers() if "PC Twin" in r.name)
connection = reader.createConnection()
connection.connect()
said = [bytes(connection.getATR()).hex()]
for apdu in json.loads(sys.argv[1]):
    data, sw1, sw2 = connection.transmit(list(bytes.fromhex(apdu)))
    said.append(bytes([*data, sw1, sw2]).hex())
print(json.dumps(said))
"""
APDUS = [
    "00A4040000",
    "0010000034",
    "00100000F4",
    "0010000000",
    "0030000003616263",
    "0050012C",
    "00FF0000",
]


@pytest.mark.parametrize("level", LEVELS)
def test_libccid_drives_it_as_we_do(guest: Guest, level: str) -> None:
    """The reference driver judges our device: the same ATR and replies."""
    extended = ["00100000000800", "0010000000 1000"] if level == "extended" else []
    apdus = json.dumps(APDUS + extended)
    with plugged(guest, "--card", "echo", "--level", level) as usb:
        ours = usb.script(
            """
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    said = [card.atr.hex()]
    said += [card.transmit(bytes.fromhex(apdu)).hex() for apdu in json.loads(arguments[0])]
print(json.dumps(said))
""",
            apdus,
        )
        with pcscd(guest, 5):
            command = ["/usr/bin/python3", "-c", PYSCARD, apdus]
            theirs = guest.run(command, timeout=120, check=True).stdout
    assert json.loads(ours) == json.loads(theirs)
