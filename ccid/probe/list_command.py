"""``ccid-probe list``: list the readers."""

from __future__ import annotations

import argparse
from typing import Any

from ccid.codes import EXCHANGE_LEVEL_TEXT
from ccid.device.find import list_readers
from ccid.device.verdict import judge
from ccid.errors import ReaderNotFound
from ccid.probe.check_command import painted_verdict
from ccid.probe.reader_choice import (
    broken,
    note,
    note_lacking,
    print_json,
    readers,
    say,
    virtual_infos,
)
from ccid.transport import ReaderInfo


def run(options: argparse.Namespace) -> int:
    """List the readers. If there is none, say so and list the built-in virtual reader."""
    virtual = options.virtual
    wrong = broken(options)
    note_lacking(options, wrong)
    for one in wrong:
        note(
            f"the smart-card interface {one.path} of {one.id} cannot be used, its descriptors "
            f"are wrong: {one.error}"
        )
    try:
        there = readers(options)
    except ReaderNotFound:
        if options.reader is not None or virtual or list_readers():
            raise
        note("no CCID reader on USB; this is the built-in virtual reader (--virtual)")
        there, virtual = virtual_infos(None), True
    if options.json:
        print_json("list", virtual=virtual, readers=[as_json(info) for info in there])
    else:
        for index, info in enumerate(there):
            describe(index, info)
    return 0


def describe(index: int, info: ReaderInfo) -> None:
    """Print two lines about a reader."""
    level = info.descriptor.exchange_level
    what = "several levels" if level is None else EXCHANGE_LEVEL_TEXT[level]
    slots = info.descriptor.slot_count
    say(f"{index}: {info.name}")
    say(
        f"   {info.id} at {info.path}, {what} level, {slots} slot{'' if slots == 1 else 's'}: ",
        painted_verdict(judge(info).level),
    )


def as_json(info: ReaderInfo) -> dict[str, Any]:
    """One reader of ``list --json``."""
    level = info.descriptor.exchange_level
    return {
        "name": info.name,
        "path": info.path,
        "idVendor": info.vendor_id,
        "idProduct": info.product_id,
        "bcdDevice": info.device.bcdDevice,
        "bInterfaceNumber": info.interface_number,
        "bus": info.bus,
        "address": info.address,
        "speed": info.speed,
        "manufacturer": info.manufacturer,
        "product": info.product,
        "serial": info.serial,
        "interface": info.interface_name,
        "slots": info.descriptor.slot_count,
        "level": None if level is None else level.name,
        "verdict": judge(info).level.value,
    }
