"""Unchanged programs under ``ccid-run``, with cards that are not ours and with our PIV card: GnuPG
with jcecard's OpenPGP card, Yubico's ``ykman``, PyKCS11, ``pkcs11-tool``. There is no pcscd."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ccid.iso7816.apdu import CommandApdu
from ccid.virtual import Answer, Application
from ccid.virtual.vpcd_messages import Control, control_in
from tests.integration.test_vpcd import Peer
from tests.integration.tools import need
from tests.vm.client_rows import CLIENTS, MODULE, gnupg_files, script
from tests.vm.openpgp_server import OpenPgp

RUN = [sys.executable, "-m", "ccid.pcsc.service.run_program"]
TIMEOUT_S = 120
ATR_S = 30.0
PYTHON = "/usr/bin/python3"
"""The one that has Debian's PyKCS11."""


class LentCard(Peer):
    """A card of this process, in the reader that listens at a port."""

    def __init__(self, port: int, card: Application) -> None:
        self._card = card
        super().__init__(("127.0.0.1", port), lambda apdu: card.transmit(apdu).apdu, card.atr)

    def _take(self, content: bytes) -> None:
        if control_in(content) in (Control.POWER_ON, Control.RESET):
            self._card.reset()
        super()._take(content)


@contextlib.contextmanager
def lent(port: int, card: Application) -> Iterator[None]:
    """The card is in the reader, from the time when that listens."""
    until = time.monotonic() + ATR_S
    while True:
        try:
            peer = LentCard(port, card)
            break
        except OSError:
            assert time.monotonic() < until, "the reader does not listen"
            time.sleep(0.05)
    try:
        while Control.ATR not in peer.controls:
            assert time.monotonic() < until, "the reader does not ask for the ATR"
            time.sleep(0.02)
        yield
    finally:
        peer.close()


def run_with(card: Application, model: str, commands: str, folder: Path, **settings: str) -> str:
    """Run commands of a shell under ``ccid-run``; returns what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--virtual", model, "--card", f"vpcd:{port}"]
    with subprocess.Popen(
        [*RUN, *words, "--", "sh", "-c", f"read -r go\n{commands}"],
        cwd=folder,
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            with lent(port, card):
                said, _ = process.communicate("\n", TIMEOUT_S)
        finally:
            process.terminate()
    assert process.returncode == 0, said
    return said


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: GnuPG's sockets are there."""
    with tempfile.TemporaryDirectory(prefix="ccid-") as name:
        yield Path(name)


def test_gnupg(folder: Path) -> None:
    """Status, keys made on the card, a signature, a decryption: as in docs/clients.md."""
    need("gpg")
    home = folder / "gnupg"
    home.mkdir(0o700)
    for path, text in gnupg_files(str(folder)).items():
        Path(path).write_text(text)
    (home / "pinentry").chmod(0o755)
    (folder / "text").write_text("to be signed\n")
    rows = [script(CLIENTS[name]) for name in ("gpg-status", "gpg-keys", "gpg-sign")]
    commands = "\n".join(["trap 'gpgconf --kill all' EXIT", *rows])
    said = run_with(OpenPgp(folder / "card"), "08e6:3437", commands, folder, GNUPGHOME=str(home))
    for expected in (
        r"Reader \.+: Gemalto PC Twin Reader \(\d+\) 00 00\n(?s:.*)Version \.+: 3\.4",
        r"(?s)Authentication key: [0-9A-F]{4} .*(ssb>.*){2}",
        r"(?s)Good signature.*\nto be signed\n",
    ):
        assert re.search(expected, said), said


class YubiKeyManagement(Application):
    """What ``ykman info`` asks of a YubiKey: its management application, which tells the version
    and the configuration as tag, length and value."""

    atr = bytes.fromhex("3BFD1300008131FE158073C021C057597562694B657940")
    AID = bytes.fromhex("A000000527471117")
    CONFIGURATION = bytes.fromhex(
        "0102023F 0302023F 020400BC614E 040101 0503050403 06020000 07010F 080100 0A0100"
    )
    """Applications that there are, and are switched on, by USB; serial number; form; version."""

    def process(self, command: CommandApdu) -> Answer:
        match command.ins, command.data:
            case 0xA4, self.AID:
                return Answer(b"Virtual mgr - FW version 5.4.3")
            case 0x1D, _:
                return Answer(bytes([len(self.CONFIGURATION)]) + self.CONFIGURATION)
            case 0xA4, _:
                return Answer(sw=0x6A82)
        return Answer(sw=0x6D00)


def test_ykman(folder: Path) -> None:
    """It finds its keys by the names of the readers, which begin with *Yubico YubiKey*."""
    need("ykman")
    # ykman runs `pkill -9 scdaemon` where a card is not to be had: that is not for other processes
    (folder / "pkill").write_text("#!/bin/sh\nexit 1\n")
    (folder / "pkill").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    card = YubiKeyManagement()
    said = run_with(card, "1050:0407", "ykman list && ykman info", folder, PATH=path)
    assert "YubiKey 5A (5.4.3) [OTP+FIDO+CCID] Serial: 12345678" in said
    assert "Form factor: Keychain (USB-A)" in said
    assert re.search(r"YubiHSM Auth\s+Not available", said)


PYKCS11 = """
import sys
from PyKCS11 import *
library = PyKCS11Lib()
library.load(sys.argv[1])
session = library.openSession(library.getSlotList(tokenPresent=True)[0], CKF_SERIAL_SESSION)
session.login("123456")
text, mechanism = "Hello World!", Mechanism(CKM_SHA256_RSA_PKCS, None)
private, = session.findObjects([(CKA_CLASS, CKO_PRIVATE_KEY), (CKA_ID, [1])])
public, = session.findObjects([(CKA_CLASS, CKO_PUBLIC_KEY), (CKA_ID, [1])])
signature = session.sign(private, text, mechanism)
print("Verified:", session.verify(public, text, signature, mechanism))
"""
PKCS11_TOOL = """
set -e
echo 'to be signed' >text
pkcs11-tool --login --pin 123456 --id 01 --sign -m SHA256-RSA-PKCS -i text -o signature
pkcs11-tool --id 01 --read-object --type cert -o cert
openssl x509 -inform der -in cert -pubkey -noout >key
openssl dgst -sha256 -verify key -signature signature text
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ((PYTHON, "-c", PYKCS11, MODULE), "Verified: True"),
        (("sh", "-c", PKCS11_TOOL), "Verified OK"),
    ],
    ids=["PyKCS11", "pkcs11-tool"],
)
def test_pkcs11_signs_with_our_piv_card(folder: Path, program: tuple[str, ...], said: str) -> None:
    need("pkcs11-tool")
    done = subprocess.run(
        [*RUN, "--virtual", "--card", "piv", "--", *program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
