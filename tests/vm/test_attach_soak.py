"""Readers that are attached and detached again and again, over a real USB stack, while they are
watched: nothing is left of them. ``--full`` takes the large counts."""

from __future__ import annotations

import json
import time

import pytest
from lab.guest import Guest

from tests.conftest import Tell
from tests.vm.test_qemu_reader import script
from tests.vm.test_usbip import PORT, plugged
from tests.vm.test_watch import WATCH

ROUNDS, FULL_ROUNDS = 3, 1_000
"""Of each of two ways."""
OBJECTS, BLOCKS, BYTES = 30, 500, 4 << 20
"""So much more is no growth, as in ``tests/unit/test_soak.py``."""
LONGEST_S = 60
"""A round takes less."""

SOAK = """
import gc, os, threading
def there_is():
    for _ in range(3): gc.collect()
    with open("/proc/self/statm") as file: pages = int(file.read().split()[1])
    return {"objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks(),
            "threads": threading.active_count(), "descriptors": len(os.listdir("/proc/self/fd")),
            "bytes": pages * os.sysconf("SC_PAGE_SIZE")}
def heard(*wanted):
    told = [next(events) for _ in wanted]
    assert told == list(wanted), told
def in_use():
    with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
        assert card.transmit(APDU) == ANSWER
        move("out")
        try: card.transmit(APDU)
        except (errors.ReaderRemoved, errors.CardRemoved): pass
        else: raise AssertionError("nothing was noticed")
def round(number):
    if number % 3 == 0: in_use()
    else: move("out")
    heard("card left 0", "reader left")
    move("in")
    heard("reader arrived", "card arrived 0")
def soak(count):
    heard("reader arrived", "card arrived 0")
    for number in range(max(3, count // 10)): round(number)
    before, began = there_is(), time.process_time()
    for number in range(count): round(number)
    after = there_is()
    events.close()
    grown = {what: after[what] - before[what] for what in before}
    print(json.dumps([grown, time.process_time() - began]))
"""
HOTPLUG = """
APDU, ANSWER = bytes.fromhex("0010000002"), bytes.fromhex("00019000")
events = watched(lambda info: info.serial == serial)
def move(way): hand("reader", way)
soak(int(arguments[0]))
"""
USBIP = """
import subprocess
APDU, ANSWER = bytes.fromhex("00A4000C023F00"), bytes.fromhex("9000")
events = watched(lambda info: info.manufacturer == "ccid")
port, ours = arguments[1], find().path
def used():
    with open("/sys/devices/platform/vhci_hcd.0/status") as file:
        lines = [line.split() for line in file][1:]
    return [int(line[1]) for line in lines if line[2] == "006"]
def move(way):
    if way == "out":
        (number,) = used()
        subprocess.run(["usbip", "detach", "-p", str(number)], check=True, capture_output=True)
        assert until(lambda: not used())
        return
    attach = ["usbip", "--tcp-port", port, "attach", "-r", "127.0.0.1", "-b", "1-1"]
    for attempt in range(5):  # it fails now and then, before it has asked for anything
        if not subprocess.run(attach, check=attempt == 4, capture_output=True).returncode: return
        time.sleep(0.5)
soak(int(arguments[0]))
"""


@pytest.mark.parametrize("way", ["hotplug", "usbip"])
def test_attached_and_detached(guest: Guest, way: str, full: bool, tell: Tell) -> None:
    """Some of the readers are in use when they go. With ``usbip`` the server is in the guest."""
    count = FULL_ROUNDS if full else ROUNDS
    limit, began = LONGEST_S * (count + count // 10 + 6) + 60, time.monotonic()
    if way == "hotplug":
        said = script(guest, 1, WATCH + SOAK + HOTPLUG, count, timeout=limit)
    else:
        with plugged(guest) as usb:
            said = usb.script("import json\n" + WATCH + SOAK + USBIP, count, PORT, timeout=limit)
    grown, cpu_s = json.loads(said)
    tell(
        f"soak, attached and detached by {way}: {count} times, {time.monotonic() - began:.0f} s, "
        f"{cpu_s:.0f} s of CPU in the guest; more than before: "
        + ", ".join(f"{more} {what}" for what, more in grown.items())
    )
    assert grown["threads"] <= 0
    assert grown["descriptors"] <= 0
    assert grown["objects"] <= OBJECTS
    if full:
        assert grown["blocks"] <= BLOCKS
        assert grown["bytes"] <= BYTES
