"""Readers that are reset, leave USB and come back, or are given as a file descriptor: over a real
USB stack."""

from __future__ import annotations

from lab.guest import Guest

from tests.vm.test_qemu_reader import ECHO, script

HOW = """
import fcntl, os
from ccid.transport import recovery
recovery.RETURN_S = 60.0  # this guest is slow
USBDEVFS_RESET = 0x5514
APDU = bytes.fromhex("0010000002")
def node(info):
    return f"/dev/bus/usb/{info.bus:03d}/{info.address:03d}"
def write(file, *words):
    for word in words:
        with open(file, "w") as there: there.write(word)
def reset(info):
    fd = os.open(node(info), os.O_WRONLY)
    try: fcntl.ioctl(fd, USBDEVFS_RESET, 0)
    finally: os.close(fd)
def device(info):
    return info.path.removeprefix("usb:").partition(":")[0]
def authorize(info):
    write(f"/sys/bus/usb/devices/{device(info)}/authorized", "0", "1")
def replug(info):
    hand("reader", "out")
    hand("reader", "in")
def reply(card):
    try: return card.transmit(APDU).hex()
    except errors.CcidError as error: return type(error).__name__
"""


@ECHO
def test_reset_deauthorized_and_replugged(guest: Guest, number: int) -> None:
    """With and without a thread that waits for events; a watch tells nothing of it.

    QEMU's reader may say, as it is pulled out, that its card left; then the card was removed.
    """
    said = script(
        guest,
        number,
        HOW
        + """
import threading
before = find()
with ccid.open_reader(before) as reader:
    told, slot = [], reader.slots[0]
    for how in (reset, authorize, replug):
        for waits in (False, True):
            card = slot.connect()
            first = reply(card)
            if waits:
                watch = threading.Thread(target=lambda: told.extend(ccid.watch(3)), daemon=True)
                watch.start()
                until(lambda: len(told) >= 2)
            how(reader.info)
            until(lambda: not reader.is_away, 60)
            print(how.__name__, first, reply(card), reply(card), slot.status().name != "ABSENT")
            if waits:
                watch.join()
                mine = [e.kind.name for e in told if e.reader.serial == serial]
                print(mine.count("READER_LEFT"), mine.count("READER_ARRIVED"))
                told.clear()
    print(reply(slot.connect()), reader.info.address != before.address,
          reader.info.address == find().address)
""",
        timeout=240,
    ).splitlines()
    said = [
        line.replace("CardRemoved", "CardReset") if line.startswith("replug") else line
        for line in said
    ]
    expected = []
    for how in ("reset", "authorize", "replug"):
        line = f"{how} 00019000 CardReset CardReset True"
        expected += [line, line, "0 1"]
    assert said == [*expected, "00019000 True True"]


def test_a_process_without_rights_that_is_given_a_descriptor(guest: Guest) -> None:
    said = script(
        guest,
        0,
        HOW
        + """
info = find()
fd = os.open(node(info), os.O_RDWR)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try: ccid.open_reader(find())
except errors.AccessDenied: print("denied")
with ccid.open_fd(fd) as reader:
    print(reader.info.path == info.path, reader.info.serial == serial)
    card = reader.slots[0].connect()
    print(reply(card))
    fcntl.ioctl(fd, USBDEVFS_RESET, 0)
    print(reply(card), reply(reader.slots[0].connect()))
with ccid.open_fd(fd) as reader: print(reply(reader.slots[0].connect()))
for wrong in (os.open("/dev/null", os.O_RDWR), 9999):
    try: ccid.open_fd(wrong)
    except errors.TransportError: print("no device")
""",
    ).splitlines()
    assert said == [
        "denied",
        "True True",
        "00019000",
        "CardReset 00019000",
        "00019000",
        "no device",
        "no device",
    ]
