"""The end of pcscd and its helpers together, as the service manager ends them: libusb, with threads
at work in it, has to bear that, and no card may keep its power."""

from __future__ import annotations

import random
import time

from lab.guest import Guest

from tests.conftest import Tell
from tests.vm.programs import helpers
from tests.vm.test_pcscd import bundle, daemon, driver, start, until  # noqa: F401
from tests.vm.test_usbip import plugged

USES_CARD = """
import smartcard.Exceptions
print("begins", flush=True)
try:
    while True:
        connection = connect("USB/IP")
        print("connected", flush=True)
        for _ in range(3):
            transmit(connection, "00500064")
        connection.disconnect()
except (smartcard.Exceptions.SmartcardException, StopIteration, SystemError):
    print("pcscd has ended", flush=True)
"""
STATUS = "print(hand('status'))"
END_S = 30.0


def test_no_card_keeps_its_power_and_nobody_complains(
    guest: Guest,
    driver: None,  # noqa: F811
    full: bool,
    tell: Tell,
) -> None:
    chance, count = random.Random(14), 20 if full else 3
    with plugged(guest, "--level", "extended", "--card", "echo") as usb:
        for turn in range(count):
            with daemon(guest, more=1) as running, start(guest, USES_CARD) as client:
                client.wait_for("connected", 60)
                time.sleep(chance.uniform(0, 1))
                pids = [*map(str, helpers(guest)), str(running.pid)]
                assert len(pids) == 2
                guest.run(["kill", "-TERM", *pids])
                if turn % 2:  # again, in the middle of their ends
                    guest.run(["kill", "-TERM", *pids])
                until(guest, lambda: not helpers(guest), END_S)
                assert usb.script(STATUS).strip() == "1-1=attached:inactive"
            said = running.job.stdout + running.job.stderr
            for bad in ("Traceback", "Assertion", "ccid[", "libusb"):
                assert bad not in said
    tell(f"pcscd and its helper were ended together {count} times")
