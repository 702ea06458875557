"""Readers and cards without hardware.

``reader`` is the product, :class:`VirtualReader`; ``function`` the CCID state machine; ``slot``
one slot of it; ``levels`` the levels of exchange, ``parameters`` what it sets and selects by
itself, ``tpdu`` its firmware in T=0 and T=1, ``wire`` its end of a card's contacts; ``usb`` the
device around it; ``port`` where it meets threads and the clock; ``faults`` what it can be made to
do wrong; ``journal`` its log; ``cards`` the cards; ``usbip``
serves it to a Linux kernel as a real USB device (``python -m ccid.virtual --usbip
127.0.0.1:3240``).
"""

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
