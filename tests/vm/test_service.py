"""``ccid-pcscd`` as a user who is not root, with QEMU's reader on USB: cards and readers come and
go while programs of libpcsclite look on. No pcscd runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.guest import Guest

from tests.vm.test_qemu_reader import PRELOAD

ROOT = Path(__file__).parents[2]
LAB = 0
NOBODY = 65534
FOLDER = "/run/user-service"
SOCKET = f"{FOLDER}/pcscd.comm"
RULE = """SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{idVendor}=="08e6", OWNER="nobody"\n"""
"""What gives this user the reader: udev's rules are root's, once."""
RULES = "/run/udev/rules.d/70-lab.rules"
SERVICE = (
    "import os, sys; from ccid.pcsc.service.__main__ import main; "
    f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3); "
    "sys.exit(main(sys.argv[1:]))"
)
BECOME = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
START_S = 120


@pytest.fixture
def users_reader(guest: Guest) -> Iterator[None]:
    """One reader is plugged in; it is this user's, also when it comes back."""
    guest.leave_only(LAB)
    apply = "udevadm control --reload; udevadm trigger --action=change --subsystem-match=usb; "
    guest.run(f"mkdir -p {FOLDER} /run/udev/rules.d; chown {NOBODY} {FOLDER}", check=True)
    guest.run(f"cat >{RULES}; {apply} udevadm settle", input=RULE, check=True)
    # the interpreter may be in the home of another; what the guest changes stays in the guest
    places = {Path(sys.prefix), Path(sys.base_prefix), ROOT}
    folders = {str(folder) for place in places for folder in (place, *place.parents)}
    guest.run(["chmod", "o+x", *sorted(folders)], check=True)
    yield
    guest.run(f"rm {RULES}; {apply} udevadm settle", check=True)


@pytest.mark.usefixtures("users_reader")
def test_readers_and_cards_come_and_go(guest: Guest) -> None:
    reader = guest.readers[LAB]
    settings = {"PCSCLITE_CSOCK_NAME": SOCKET}
    tool = [*BECOME, "opensc-tool", "--reader", "0", "--send-apdu", "0010000004"]
    modules = ("ccid.pcsc.service.__main__", "ccid.pcsc.service.socket_server")
    words = ("--socket", SOCKET, "--ready-fd", "1", "--log-level", "info")
    with guest.popen_script(SERVICE, *words, preload=(*PRELOAD, *modules)) as service:
        service.wait_for(r"\A\n", START_S)
        with guest.popen([*BECOME, "pcsc_scan", "-n"], env=settings) as scan:
            scan.wait_for("Card inserted", START_S)
            assert "SW1=0x90, SW2=0x00" in guest.run(tool, env=settings, check=True).stdout
            reader.card_out()
            scan.wait_for("Card removed", START_S)
            reader.card_in()
            scan.wait_for("(?s)Card removed.*Card inserted", START_S)
            reader.unplug()
            scan.wait_for(r"(?s)Scanning(.*)Scanning[^:]*Waiting for the first reader", START_S)
            reader.plug()
            scan.wait_for(r"(?s)Waiting for the first reader.*Card inserted", START_S)
            assert "SW1=0x90, SW2=0x00" in guest.run(tool, env=settings, check=True).stdout
        done = service.stop()
    assert done.returncode == 0, service.stderr
    assert "Traceback" not in service.stderr
