"""One function for each part that reads bytes of others: ``bytes -> None``.

A target lets errors of :mod:`ccid.errors` through, which is what hostile bytes are to lead to. Any
other exception is a fault, and so is a result that contradicts itself. What a part documents beyond
that (a ValueError of a pure parser, for instance) its target catches.

``texts``: descriptions of readers, ATR lists, TOML. ``usb``: descriptors, messages, notifications,
and a whole activation with a reader that says anything. ``card``: ATR, PPS, T=0, T=1, APDUs.
``pads``: PIN structures and control codes. ``wires``: protocols of other programs.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.targets import card, pads, texts, usb, wires

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    "descriptors": usb.descriptors,
    "commands": usb.commands,
    "replies": usb.replies,
    "notifications": usb.notifications,
    "activation": usb.activation,
    "atr": card.atr,
    "historical": card.historical,
    "pps": card.pps,
    "apdu": card.apdu,
    "t0-host": card.t0_host,
    "t0-card": card.t0_card,
    "t1-host": card.t1_host,
    "t1-card": card.t1_card,
    "pin": pads.pin,
    "control": pads.control,
    "ifd": wires.ifd,
    "plug": wires.plug,
    "usbip": wires.usbip,
    "usbip-questions": wires.usbip_questions,
    "pcsc": wires.pcsc,
    "vpcd": wires.vpcd,
    "import": texts.imported,
    "toml": texts.toml,
    "atr-list": texts.atr_list,
    "hexadecimal": texts.hexadecimal,
}
"""The targets by name."""

SLOW = {
    "control",
    "ifd",
    "plug",
    "usbip",
    "activation",
    "import",
    "toml",
    "pcsc",
    "vpcd",
    "atr",
    "atr-list",
}
"""Targets that take a millisecond or more for an input."""
