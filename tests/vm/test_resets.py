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


@ECHO
def test_a_reader_that_linux_suspends(guest: Guest, number: int) -> None:
    """Once it is closed, and never while it is open; opened again, it is awake."""
    said = script(
        guest,
        number,
        HOW
        + """
info = find()
power = f"/sys/bus/usb/devices/{device(info)}/power/"
def status():
    with open(power + "runtime_status") as there: return there.read().strip()
write(power + "autosuspend_delay_ms", "0")
write(power + "control", "auto")
try:
    for _ in range(2):
        until(lambda: status() == "suspended")
        print("suspended")
        with ccid.open_reader(info) as reader:
            card = reader.slots[0].connect()
            print(status(), reply(card))
            time.sleep(3)  # longer than any pause between two looks of the kernel
            print(status(), reply(card))
    until(lambda: status() == "suspended")
    events = [e.kind.name for e in ccid.watch(3) if e.reader.serial == serial]
    print(*events)
    until(lambda: status() == "suspended")
finally:
    write(power + "control", "on")
print(status())
""",
        timeout=120,
    ).splitlines()
    once = ["suspended", "active 00019000", "active 00019000"]
    assert said == [*once, *once, "READER_ARRIVED CARD_ARRIVED", "active"]


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


def test_readers_that_are_open_at_the_same_time(guest: Guest) -> None:
    """Each has a context of libusb's of its own. While threads use two of them, the card of a third
    leaves and comes; and one is reset, and replugged, in its context."""
    said = script(
        guest,
        1,
        HOW
        + """
import threading
infos = sorted(ccid.list_readers(), key=lambda one: one.serial == serial)
def count(what): return len(os.listdir(f"/proc/self/{what}"))
def opened():
    there = count("task"), count("fd")
    readers = [ccid.open_reader(one) for one in infos]
    print(len({one.transport._context for one in readers}), count("task") == there[0])
    return readers, there[1]
for one in opened()[0]: one.close()
readers, before = opened()
mine = readers[-1]
busy = [one for one in readers[:-1] if one.slots[0].status().name != "ABSENT"]
ends, wrong, sent, told = threading.Event(), [], [], []
def work(reader):
    card = reader.slots[0].connect()
    first = card.transmit(APDU)
    while not ends.is_set():
        if card.transmit(APDU) != first: wrong.append(reader.name)
        sent.append(1)
threads = [threading.Thread(target=work, args=[one], daemon=True) for one in busy]
for one in threads: one.start()
leave = mine.listen(told.append)
for way in ("out", "in"):
    hand("card", way)
    print(way, until(lambda: len(told) > ("out", "in").index(way), 60))
leave()
slot = mine.slots[0]
card = slot.connect()
print(reply(card))
for how in (reset, replug):
    how(mine.info)
    until(lambda: not mine.is_away, 60)
    was_told, card = reply(card) in ("CardReset", "CardRemoved"), slot.connect()
    print(how.__name__, was_told, reply(card))
ends.set()
for one in threads: one.join(60)
print(len(busy), wrong, len(sent) > 10)
for one in readers: one.close()
print(count("fd") == before)
""",
        timeout=240,
    ).splitlines()
    assert said == [
        "4 True",
        "4 True",
        "out True",
        "in True",
        "00019000",
        "reset True 00019000",
        "replug True 00019000",
        "2 [] True",
        "True",
    ]
