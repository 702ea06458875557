"""One function for each part that reads bytes of others: ``bytes -> None``.

A target lets errors of :mod:`ccid.errors` through, which is what hostile bytes are to lead to. Any
other exception is a fault, and so is a result that contradicts itself. What a part documents beyond
that (a ValueError of a pure parser, for instance) its target catches.

``texts``: descriptions of readers, ATR lists, TOML. ``usb``: descriptors, messages, notifications,
and a whole activation with a reader that says anything. ``card``: ATR, PPS, T=0, T=1, APDUs.
``pads``: PIN structures, control codes, contactless readers, virtual cards. ``wires``: protocols of
other programs. ``programs``: what the commands read.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.targets import card, pads, programs, texts, usb, wires

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    "descriptors": usb.descriptors,
    "commands": usb.commands,
    "replies": usb.replies,
    "notifications": usb.notifications,
    "activation": usb.activation,
    "iccd": usb.iccd,
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
    "storage": pads.storage,
    "virtual-card": pads.virtual_card,
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
    "apdu-file": programs.apdu_file,
    "card-list": programs.card_list,
    "bench-run": programs.bench_run,
    "shell": programs.shell,
    "control-socket": programs.control_socket,
    "service-answers": programs.service_answers,
    "access": programs.access,
    "device-strings": programs.device_strings,
    "settings": programs.settings,
}
"""The targets by name."""

SLOW = {"control", "ifd", "usbip", "activation", "iccd", "import", "atr", "atr-list", "access"}
"""Targets that take half a millisecond or more for an input."""
