"""Readers and cards that come and go, over a real USB stack."""

from __future__ import annotations

from lab.guest import Guest
from lab.pcscd import pcscd

from tests.vm.test_qemu_reader import ECHO, script, usbmon  # noqa: F401
from tests.vm.test_usbip import plugged

WATCH = """
import threading
from ccid.device.open_readers import opened
def watched(is_ours):
    for event in ccid.watch(120):
        if is_ours(event.reader):
            yield event.kind.value + ("" if event.slot is None else f" {event.slot}")
def hear(count):
    print(*(next(events) for _ in range(count)), sep=", ", flush=True)
"""
OUT, IN = ["card left 0"], ["card arrived 0"]
GONE, COME = ["card left 0, reader left"], ["reader arrived, card arrived 0"]


@ECHO
def test_readers_and_cards(
    guest: Guest,
    usbmon: str,  # noqa: F811
    number: int,
    full: bool,
) -> None:
    """While nothing happens no transfer goes over USB; and an application has priority."""
    said = script(
        guest,
        number,
        usbmon
        + WATCH
        + """
events = watched(lambda info: info.serial == serial)
hear(2)
for way in ("out", "in"):
    hand("card", way)
    hear(1)

monitor = Monitor(find())
waiting = threading.Thread(target=hear, args=[1])
waiting.start()
time.sleep(float(arguments[0]))
idle = len(monitor.urbs())
hand("card", "out")
waiting.join(30)
print(idle, monitor.urbs()[0][2])
hand("card", "in")
hear(1)

with ccid.open_reader(find()) as reader:
    with reader.slots[0].connect() as card: print(card.transmit(bytes.fromhex("0010000002")).hex())
    for way in ("out", "in"):
        hand("card", way)
        hear(1)
for way in ("out", "in"):
    hand("card", way)
    hear(1)

with ccid.open_reader(find()):
    for way in ("out", "in"):
        hand("reader", way)
        hear(2)
for way in ("out", "in"): hand("reader", way)
hear(4)
events.close()
print(len(opened.readers))
""",
        60 if full else 5,
        timeout=240,
    ).splitlines()
    assert said == [
        *(COME + OUT + IN),
        *[*OUT, "0 C", *IN],
        *["00019000", *OUT, *IN],
        *(OUT + IN),
        *(GONE + COME),
        ", ".join(GONE + COME),
        "0",
    ]


def test_a_reader_that_pcscd_holds(guest: Guest) -> None:
    """The cards are reported when pcscd has ended and another device was plugged in."""
    guest.leave_only(0)
    with pcscd(guest) as running:
        said = script(
            guest,
            0,
            WATCH
            + """
import glob, os
def is_held():  # not tried by opening: pcscd tries once only
    return glob.glob("/sys/bus/usb/drivers/usbfs/*:*")
def is_alive():
    with open("/proc/" + arguments[0] + "/stat") as file: return file.read().split()[2] != "Z"
def ended():
    try: return not is_alive()
    except FileNotFoundError: return True
events = watched(lambda info: info.serial == serial)
hear(1)
for way in ("out", "in"): hand("card", way)
hand("reader", "out")
hear(1)
events.close()

hand("reader", "in")
assert until(is_held, 30)
events = watched(lambda info: info.serial == serial)
hear(1)
for way in ("out", "in"): hand("card", way)
os.kill(int(arguments[0]), 15)
assert until(ended, 30)
subprocess.run([program, "reader", "1", "in"], check=True, stdout=subprocess.DEVNULL)
hear(1)
hand("card", "out")
hear(1)
""",
            running.pid,
            timeout=240,
        ).splitlines()
    assert said == ["reader arrived", "reader left", "reader arrived", *IN, *OUT]


def test_our_reader(guest: Guest, full: bool) -> None:
    """Two slots. The full count also runs without an interrupt endpoint. Python ends while
    everything is open."""
    for options in [[], ["--no-interrupt"]][: 2 if full else 1]:
        with plugged(guest, "--slots", "2", *options) as usb:
            said = usb.script(WATCH + OURS).splitlines()
        assert said == [
            "reader arrived, card arrived 0, card arrived 1",
            *("card left 1", "card left 0", "card arrived 1"),
            "card left 1, reader left",
        ]


# A card moves once the first notification and the status of both slots are heard: those of before
# may be told as an arrival. The two pipes have no order among each other.
OURS = """
events = watched(lambda info: info.manufacturer == "ccid")
hear(3)
(reader,) = (one for one in opened.there() if one.info.manufacturer == "ccid")
def is_of_now():
    asks = f"watch {reader.info.path}" in [thread.name for thread in threading.enumerate()]
    return not asks and (reader.cards.heard or not reader.cards.notifies)
assert until(is_of_now)
for line in ("card out 1", "card out 0", "card in 1"):
    hand(line)
    hear(1)
hand("reader out")
hear(2)
other = ccid.open_reader(next(r for r in ccid.list_readers() if r.manufacturer != "ccid"))
other.listen(print)
threading.Thread(target=hear, args=[1], daemon=True).start()
"""


def test_where_udev_is_not_heard(guest: Guest) -> None:
    """In a network namespace of its own, as a container has it, libusb is told nothing. The reader
    that came is one that libusb's list does not have."""
    said = script(
        guest,
        0,
        WATCH
        + """
import ctypes, os
assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0  # CLONE_NEWNET
os.environ["container"] = "lxc"
events = watched(lambda info: info.serial == serial)
hear(2)
for way in ("out", "in"):
    hand("reader", way)
    hear(2)
events.close()
with ccid.open_reader(find()) as reader, reader.slots[0].connect() as card:
    print(card.transmit(bytes.fromhex("0010000002")).hex())
""",
        timeout=240,
    )
    assert said.splitlines() == [*COME, *GONE, *COME, "00019000"]
