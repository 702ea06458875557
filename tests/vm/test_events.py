"""Events without polling, over a real USB stack: QEMU's reader, and ours over USB/IP."""

from __future__ import annotations

import json

import pytest
from lab.guest import Guest

from tests.conftest import Tell
from tests.vm.test_qemu_reader import ECHO, script, usbmon  # noqa: F401
from tests.vm.test_usbip import plugged

REMOVED = """
def removed(call):
    try: call()
    except errors.CardRemoved: return "removed"
    return "not removed"
pattern = bytes.fromhex("0010000002")
"""


@ECHO
def test_exchanged_between_two_calls(guest: Guest, number: int) -> None:
    """No command went to the reader meanwhile."""
    said = script(
        guest,
        number,
        REMOVED
        + """
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    for use in ("transmit", "exclusive", "reset"):
        card = slot.connect()
        card.transmit(pattern)
        hand("card", "out")
        time.sleep(0.3)
        hand("card", "in")
        time.sleep(0.3)
        print(removed({
            "transmit": lambda: card.transmit(pattern),
            "exclusive": lambda: card.exclusive().__enter__(),
            "reset": card.reset,
        }[use]))
    with slot.connect() as card: print(card.transmit(pattern).hex())
""",
    ).split("\n")
    assert said == [*["removed"] * 3, "00019000", ""]


def test_exchanged_on_a_reader_that_activates_cards(guest: Guest) -> None:
    """The new card has power, as the old card had, and would execute the command."""
    with plugged(guest, "--card", "echo", "--auto-activate") as usb:
        said = usb.script(
            REMOVED
            + """
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    for _ in range(3):
        with slot.connect() as card:
            card.transmit(pattern)
            hand("card out")
            time.sleep(0.1)
            hand("card in")
            time.sleep(0.1)
            print(removed(lambda: card.transmit(pattern)))
    with slot.connect() as card: print(card.transmit(pattern).hex())
"""
        ).split("\n")
    assert said == [*["removed"] * 3, "00019000", ""]


SLOW = """
import threading
with ccid.open_reader(find()) as reader:
    (slot,) = reader.slots
    for _ in range(3):
        card, told = slot.connect(), []
        stop = reader.listen(lambda slots: told.append(time.monotonic()))
        timer = threading.Timer(0.5, take_out)
        timer.start()
        print(removed(lambda: card.transmit(bytes.fromhex("0038003C"))))
        ended = time.monotonic()
        timer.join()
        stop()
        until(lambda: told)
        delays.append(ended - told[-1])
        put_in()
        until(lambda: slot.status().name != "ABSENT")
        with slot.connect() as card: print(card.transmit(pattern).hex())
print(max(delays))
"""


@ECHO
def test_taken_out_while_it_thinks(guest: Guest, number: int, tell: Tell) -> None:
    """QEMU's reader then does not answer the command."""
    hand = 'delays = []\ndef take_out(): hand("card", "out")\ndef put_in(): hand("card", "in")\n'
    *said, delay = script(guest, number, REMOVED + hand + SLOW, timeout=240).split()
    assert said == ["removed", "00019000"] * 3
    tell(f"taken out while it thinks: told {float(delay):.2f} s after the notification")
    assert float(delay) < 30, "it would be waited for a minute"


@pytest.mark.parametrize("level", ["short", "tpdu"])
def test_taken_out_of_a_reader_that_answers_nothing_then(guest: Guest, level: str) -> None:
    hand = 'delays = []\ndef take_out(): hand("card out")\ndef put_in(): hand("card in")\n'
    with plugged(guest, "--card", "echo", "--silent-removal", "--level", level) as usb:
        *said, _ = usb.script(REMOVED + hand + SLOW).split()
    assert said == ["removed", "00019000"] * 3


@ECHO
def test_nothing_goes_over_usb_while_nothing_happens(
    guest: Guest,
    usbmon: str,  # noqa: F811
    number: int,
    full: bool,
) -> None:
    """A transfer waits, and none completes, until a card moves."""
    said = script(
        guest,
        number,
        usbmon
        + """
info, told = find(), []
with ccid.open_reader(info) as reader:
    stop = reader.listen(told.append)
    time.sleep(1)
    monitor = Monitor(info)
    time.sleep(float(arguments[0]))
    idle = monitor.urbs()
    told.clear()
    hand("card", "out")
    until(lambda: told)
    print(len(idle), monitor.urbs()[0][2], bool(told))
    stop()
""",
        60 if full else 5,
        timeout=120,
    )
    assert said.split() == ["0", "C", "True"]


@ECHO
def test_pulled_out_while_transfers_wait(guest: Guest, number: int, tell: Tell) -> None:
    """An interrupt transfer waits, and a bulk transfer of a card that computes for a minute."""
    said = script(
        guest,
        number,
        """
import threading
before = threading.active_count()
reader = ccid.open_reader(find())
told, raised = [], []
stop = reader.listen(lambda slots: told.append(time.monotonic()))
card = reader.slots[0].connect()
def think():
    try: card.transmit(bytes.fromhex("0038003C"))
    except (errors.CardRemoved, errors.ReaderRemoved): raised.append(time.monotonic())
thread = threading.Thread(target=think)
thread.start()
time.sleep(0.5)
told.clear()
hand("reader", "out")
out = time.monotonic()
thread.join(30)
print(bool(until(lambda: reader.transport.dead)), bool(raised))
print(type(reader.transport.dead).__name__, bool(told))
stop()
reader.close()
print(until(lambda: threading.active_count() == before))
print(json.dumps([told[0] - out, raised[0] - out]))
hand("reader", "in")
""",
    ).splitlines()
    assert said[:3] == ["True True", "ReaderRemoved True", "True"]
    told, ended = json.loads(said[3])
    tell(f"pulled out: told after {told:.3f} s, transmit ended after {ended:.3f} s")


@ECHO
def test_waiting_ends_at_once(guest: Guest, number: int, tell: Tell) -> None:
    """Although no event would come for ten minutes. Closing does not wait either."""
    said = script(
        guest,
        number,
        """
import threading
before, took = threading.active_count(), []
for _ in range(10):
    reader = ccid.open_reader(find())
    stop = reader.listen(lambda slots: None)
    time.sleep(0.05)
    began = time.monotonic()
    stop()
    took.append(time.monotonic() - began)
    reader.listen(lambda slots: None)
    began = time.monotonic()
    reader.close()
    took.append(time.monotonic() - began)
print(threading.active_count() == before, max(took))
""",
    ).split()
    assert said[0] == "True"
    tell(f"waiting ended within {float(said[1]) * 1000:.1f} ms")
