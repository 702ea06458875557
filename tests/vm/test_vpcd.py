"""``ccid-probe lend`` and the real vpcd, the virtual reader of vsmartcard in Debian's pcscd."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
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


@contextmanager
def lent(guest: Guest, *words: str) -> Iterator[None]:
    """A virtual reader's card is in pcscd's virtual reader."""
    lend = [sys.executable, "-m", "ccid.probe", "lend", "--virtual", *words, f"127.0.0.1:{PORT}"]
    with guest.popen(lend) as job:
        job.wait_for(r"is lent to 127\.0\.0\.1", timeout=300)
        for _ in range(20):
            if card_is_in(guest):
                break
        yield


def test_a_virtual_readers_card_is_lent(guest: Guest, vpcd: Job) -> None:
    with lent(guest):
        atr, selected, challenge = ask(guest, "00A4000C023F00", "0084000008")
        assert bytes.fromhex(atr) == FileSystemCard.atr
        assert selected == "9000"
        assert challenge.endswith("9000")
        assert len(challenge) == 20
    for _ in range(20):
        if not card_is_in(guest):
            break
    assert not card_is_in(guest)


@pytest.mark.parametrize(("key", "mechanism"), [("01", "SHA256-RSA-PKCS"), ("02", "ECDSA-SHA256")])
def test_opensc_signs_with_the_piv_card(
    guest: Guest, vpcd: Job, tmp_path: Path, key: str, mechanism: str
) -> None:
    message, signature, certificate = (
        tmp_path / name for name in ("message", "signature", "certificate")
    )
    message.write_bytes(b"to be signed")
    with lent(guest, "--card", "piv"):
        command = ["pkcs11-tool", "--login", "--pin", "123456", "--sign", "-m", mechanism]
        files = ["--id", key, "-i", str(message), "-o", str(signature)]
        guest.run([*command, *files, "--signature-format", "openssl"], timeout=300, check=True)
        read = ["pkcs11-tool", "-r", "-y", "cert", "--id", key, "-o", str(certificate)]
        guest.run(read, timeout=300, check=True)
    public = x509.load_der_x509_certificate(certificate.read_bytes()).public_key()
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature.read_bytes(), b"to be signed", padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signature.read_bytes(), b"to be signed", ec.ECDSA(hashes.SHA256()))
