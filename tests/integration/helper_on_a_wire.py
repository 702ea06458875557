"""A helper of the plug whose virtual reader has two slots, takes some time for each command, and
writes into a file which cards have power. For
:mod:`tests.integration.test_helper_ends`.

The file has one byte each for: SIGTERM has its handler; the card in slot 0 has power; the card in
slot 1 has power; Python ran its own end, which frees what threads of libusb still use.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from typing import Any

from ccid.pcsc.plug import helper
from ccid.pcsc.plug.lazy_modules import load_lazily

COMMAND_S = 0.002
"""Time of a command on the bus."""
FILE = sys.argv[1]
install = signal.signal


def note(place: int, value: bool) -> None:
    """Write a byte of the file."""
    file = os.open(FILE, os.O_WRONLY)
    os.pwrite(file, b"1" if value else b"0", place)
    os.close(file)


def installed(number: int, handler: Any) -> Any:
    before = install(number, handler)
    if number == signal.SIGTERM:
        note(0, True)
    return before


def slow_reader(*modules: str) -> None:
    """Called when the helper imports the driver, at its first request."""
    load_lazily(*modules)
    from ccid.codes import ExchangeLevel
    from ccid.virtual import EchoCard, VirtualReader, make_descriptor, models
    from ccid.virtual.virtual_slot import VirtualSlot
    from ccid.virtual.virtual_transport import VirtualTransport

    descriptor = make_descriptor(ExchangeLevel.SHORT_APDU, 2, bMaxCCIDBusySlots=2)
    reader = VirtualReader([EchoCard(), EchoCard()], descriptor=descriptor)
    models.make = lambda *_: reader
    send = VirtualTransport.send

    def slowly(self: VirtualTransport, length: int, timeout_ms: int, /) -> None:
        time.sleep(COMMAND_S)
        send(self, length, timeout_ms)

    def noted(self: VirtualSlot, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name == "powered":
            note(1 + self.index, bool(value))

    VirtualTransport.send = slowly  # type: ignore[method-assign]
    VirtualSlot.__setattr__ = noted  # type: ignore[method-assign,assignment]


atexit.register(note, 3, True)
signal.signal = installed  # type: ignore[assignment]
helper.load_lazily = slow_reader  # type: ignore[attr-defined]
sys.argv = ["helper", ""]
helper.main()
