"""USB smart-card readers of the CCID class, driven from pure Python.

    import ccid

    with ccid.open_reader() as reader:
        with reader.slots[0].connect() as card:
            print(card.atr)
            print(card.transmit(bytes.fromhex("00A4000C023F00")).hex())

Importing this package is cheap: a public name is imported when it is first used.

The packages, from the bottom up; each imports only packages above it in this list:

- ``ground``: hexadecimal text, safe text, values made once, functions called at exit.
- ``errors``: all errors that the library raises.
- ``codes``: the coded values of USB CCID rev 1.1.
- ``codec``: descriptors and messages, bytes to objects and back.
- ``iso7816``: ATR, PPS, command APDUs, T=0 and T=1.
- ``known``: the table of readers: quirks, and figures of descriptors.
- ``transport``: USB through libusb, and the search for readers.
- ``pin``: structures and display texts for PIN pads.
- ``link``: commands to a slot, the matching of replies, the state of a card.
- ``masking``: PINs and keys in traffic, masked.
- ``session``: activation of a card, and the exchange of APDUs.
- ``trace``: traces of traffic, as log or pcapng file.
- ``virtual``: virtual readers and cards.
- ``device``: readers, slots and cards as objects.
- ``aio``: the same objects for tasks of asyncio.
- ``pcsc``: the driver in pcscd.
- ``probe``: the command ``ccid-probe``.
"""

from __future__ import annotations

import atexit
import importlib
from typing import TYPE_CHECKING, Any

from ccid._version import __version__
from ccid.ground import at_exit

if TYPE_CHECKING:
    from ccid import aio, errors
    from ccid.codes import ExchangeLevel, IccStatus, Protocol
    from ccid.device.card import Card
    from ccid.device.composite import Composite, open_composite
    from ccid.device.find import list_readers, open_fd, open_reader
    from ccid.device.reader import Reader
    from ccid.device.slot import Slot
    from ccid.device.storage_card import StorageCard
    from ccid.device.watching import Event, EventKind, watch
    from ccid.errors import CcidError
    from ccid.iso7816.atr import Atr
    from ccid.transport import ReaderInfo
    from ccid.virtual import VirtualReader

__all__ = [
    "Atr",
    "Card",
    "CcidError",
    "Composite",
    "Event",
    "EventKind",
    "ExchangeLevel",
    "IccStatus",
    "Protocol",
    "Reader",
    "ReaderInfo",
    "Slot",
    "StorageCard",
    "VirtualReader",
    "__version__",
    "aio",
    "errors",
    "list_readers",
    "open_composite",
    "open_fd",
    "open_reader",
    "watch",
]

atexit.register(at_exit.run)

_HOME = {
    "Atr": "ccid.iso7816.atr",
    "Card": "ccid.device.card",
    "CcidError": "ccid.errors",
    "Composite": "ccid.device.composite",
    "Event": "ccid.device.watching",
    "EventKind": "ccid.device.watching",
    "ExchangeLevel": "ccid.codes",
    "IccStatus": "ccid.codes",
    "Protocol": "ccid.codes",
    "Reader": "ccid.device.reader",
    "ReaderInfo": "ccid.transport",
    "Slot": "ccid.device.slot",
    "StorageCard": "ccid.device.storage_card",
    "VirtualReader": "ccid.virtual",
    "list_readers": "ccid.device.find",
    "open_composite": "ccid.device.composite",
    "open_fd": "ccid.device.find",
    "open_reader": "ccid.device.find",
    "watch": "ccid.device.watching",
}
"""The module that defines each public name."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in ("aio", "errors"):
        return importlib.import_module(f"ccid.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'ccid' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
