"""Readers and cards without hardware.

``reader`` is the product, :class:`VirtualReader`; ``function`` the CCID state machine; ``slot``
one slot of it; ``levels`` the levels of exchange, ``parameters`` what it sets and selects by
itself, ``tpdu`` its firmware in T=0 and T=1, ``wire`` its end of a card's contacts; ``usb`` the
device around it; ``port`` where it meets threads and the clock; ``faults`` what it can be made to
do wrong; ``journal`` its log; ``cards`` the cards; ``usbip``
serves it to a Linux kernel as a real USB device (``python -m ccid.virtual --usbip
127.0.0.1:3240``).

Importing this package imports none of its modules: each name is fetched when it is first used, so
that a card alone (:mod:`ccid.virtual.cards`) does not load the reader and the driver.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccid.virtual.cards import (
        Answer,
        Application,
        Contact,
        ContactOptions,
        EchoCard,
        FileSystemCard,
    )
    from ccid.virtual.virtual_reader import VirtualReader, make_descriptor

__all__ = [
    "Answer",
    "Application",
    "Contact",
    "ContactOptions",
    "EchoCard",
    "FileSystemCard",
    "VirtualReader",
    "make_descriptor",
]

_HOME = {
    "Answer": "ccid.virtual.cards",
    "Application": "ccid.virtual.cards",
    "Contact": "ccid.virtual.cards",
    "ContactOptions": "ccid.virtual.cards",
    "EchoCard": "ccid.virtual.cards",
    "FileSystemCard": "ccid.virtual.cards",
    "VirtualReader": "ccid.virtual.virtual_reader",
    "make_descriptor": "ccid.virtual.virtual_reader",
}
"""The module that defines each public name."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'ccid.virtual' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
