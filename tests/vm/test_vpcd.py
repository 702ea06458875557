"""``ccid-probe lend`` and the real vpcd, the virtual reader of vsmartcard in Debian's pcscd."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.guest import Guest
from lab.link import Job
from lab.qemu import cache_dir

from ccid.virtual import FileSystemCard

PORT = 35963
READER = "Virtual PCD 00 00"
CONFIGURATION = """
FRIENDLYNAME "Virtual PCD"
DEVICENAME /dev/null:0x{port:04X}
LIBPATH {driver}
CHANNELID 0x{port:04X}
"""
CLIENT = """
import json, sys, time
from smartcard.System import readers
connection = next(r for r in readers() if str(r) == sys.argv[1]).createConnection()
connection.connect()
told = [bytes(connection.getATR()).hex()]
for apdu in sys.argv[2:]:
    data, sw1, sw2 = connection.transmit(list(bytes.fromhex(apdu)))
    told.append(bytes([*data, sw1, sw2]).hex())
print(json.dumps(told))
"""


@pytest.fixture
def vpcd(guest: Guest, tmp_path: Path) -> Iterator[Job]:
    """pcscd with the driver vpcd, in the guest, where its port is nobody else's."""
    driver = cache_dir() / "vpcd" / "libifdvpcd.so"
    assert driver.exists(), "vpcd is not unpacked; get it with: sudo tools/prepare-lab"
    configuration = tmp_path / "readers"
    configuration.mkdir()
    text = CONFIGURATION.format(port=PORT, driver=driver)
    (configuration / "vpcd").write_text(text)
    guest.leave_only()
    script = 'mkdir -p /run/pcscd; ip link set lo up 2>/dev/null; exec "$@"'
    command = ["pcscd", "--foreground", "-c", str(configuration), "--debug"]
    with guest.popen(["sh", "-c", script, "sh", *command]) as job:
        job.wait_for(r"daemon ready", timeout=30)
        yield job


def ask(guest: Guest, *apdus: str) -> list[str]:
    done = guest.run(["/usr/bin/python3", "-c", CLIENT, READER, *apdus], timeout=120, check=True)
    told: list[str] = json.loads(done.stdout)
    return told


def card_is_in(guest: Guest) -> bool:
    listed = guest.run(["opensc-tool", "-l"], timeout=60).stdout
    line = next(line for line in listed.splitlines() if READER in line)
    return "Yes" in line


def test_a_virtual_readers_card_is_lent(guest: Guest, vpcd: Job) -> None:
    lend = [sys.executable, "-m", "ccid.probe", "lend", "--virtual", f"127.0.0.1:{PORT}"]
    with guest.popen(lend) as job:
        job.wait_for(r"is lent to 127\.0\.0\.1", timeout=120)
        for _ in range(20):
            if card_is_in(guest):
                break
        atr, selected, challenge = ask(guest, "00A4000C023F00", "0084000008")
        assert bytes.fromhex(atr) == FileSystemCard.atr
        assert selected == "9000"
        assert challenge.endswith("9000")
        assert len(challenge) == 20
    for _ in range(20):
        if not card_is_in(guest):
            break
    assert not card_is_in(guest)
