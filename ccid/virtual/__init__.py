"""Readers and cards without hardware.

===================== ==========================================================================
Module                Content
===================== ==========================================================================
``virtual_reader``    :class:`VirtualReader`, a whole virtual USB device with cards
``models``            virtual readers with the descriptors of known real readers
``ccid_function``     the CCID interface: command messages in, reply messages out
``iccd_function``     the interface of an ICCD, version A and version B
``other_interface``   an interface of another class beside the reader's
``virtual_slot``      the state of one slot
``exchange_levels``   PC_to_RDR_XfrBlock at each level of exchange
``parameters``        parameters and PPS, by PC_to_RDR_SetParameters and by the reader itself
``tpdu_firmware``     T=0 and T=1 of a reader at TPDU level
``contact_wire``      the reader's end of a card's contacts
``contact_options``   command-line options of a card's contacts
``card_kinds``        the cards that the command line can name
``vpcd_messages``     the vpcd protocol: bytes to messages and back
``vpcd_card``         a card that a program elsewhere provides over the vpcd protocol
``vpcd_listener``     the socket at which such programs connect
``vpcd_sockets``      TCP without delays, for the vpcd protocol
``control_socket``    the control socket: inserts and removes cards and readers
``usb_device``        the USB device around the interfaces: endpoints, control pipe
``port``              the edge to threads and to the clock
``virtual_transport`` the transport of the host to a virtual reader in this process
``usbip``             a USB/IP server: virtual readers for a Linux kernel
``usbip_cable``       one attached reader of the USB/IP server: the URBs of one connection
``usbip_messages``    the USB/IP protocol: bytes to messages and back
``faults``            what a virtual reader does wrong on request
``known_faults``      what known real readers do wrong
``hostile_faults``    what malicious readers and cards do
``journal``           the log of a virtual reader
``reply_making``      replies that more than one command has
``cards``             the cards
===================== ==========================================================================

``python -m ccid.virtual --usbip 127.0.0.1:3240`` serves virtual readers to a Linux kernel.

Importing this package imports none of its modules: each name is fetched at its first use. So a card
alone (:mod:`ccid.virtual.cards`) does not load the reader and the driver.
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
