"""What runs in the guest beside pcscd: programs of pyscard, our driver's helpers; and the bundle of
our driver for the guest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.guest import Guest

from ccid.pcsc.plug import install
from ccid.pcsc.plug.bundle import NAME

DROPDIR = "/usr/lib/pcsc/drivers"
MAKE_S = 300.0
"""Longest time in s for the installer, which runs a C compiler: seconds on an idle machine."""
CLIENT = """
import json, sys, time
from smartcard.System import readers
from smartcard import scard
from smartcard.Exceptions import CardConnectionException, NoCardException
def find(text):
    for _ in range(50):
        try: return next(r for r in readers() if text in str(r))
        except SystemError: time.sleep(0.1)  # pyscard's list, while readers still come
    return next(r for r in readers() if text in str(r))
def connect(text):
    connection = find(text).createConnection()
    connection.connect()
    return connection
def transmit(connection, apdu):
    data, sw1, sw2 = connection.transmit(list(bytes.fromhex(apdu)))
    return bytes([*data, sw1, sw2]).hex()
"""


def helpers(guest: Guest) -> list[int]:
    said = guest.run("pgrep -f '[c]cid.pcsc.plug.helper'").stdout
    return [int(word) for word in said.split()]


def driver_python(guest: Guest) -> str:
    """The interpreter of our driver: the host's, which a guest with the host's root file system
    has, or the one that README installs."""
    return "/opt/ccid/bin/python" if guest.system.has_systemd else sys.executable


def make_bundle(guest: Guest, folder: Path, named: Sequence[str]) -> Path:
    """Make the bundle of our driver in ``folder``, which host and guest share.

    Args:
        guest: The guest.
        folder: The folder for the bundle.
        named: The readers, as for ``--reader``.

    Raises:
        LabError: The installer failed.
    """
    words = ["--dropdir", str(folder), *(f"--reader={name}" for name in named)]
    if guest.system.has_systemd:
        command = [driver_python(guest), "-m", install.__name__, *words]
        guest.run(command, check=True, timeout=MAKE_S)
    elif install.main(words):
        raise LabError("no bundle")
    return folder / NAME
