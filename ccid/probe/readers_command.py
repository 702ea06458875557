"""``ccid-probe readers``: search the table of known readers."""

from __future__ import annotations

import argparse
from typing import Any

from ccid.codes import EXCHANGE_LEVEL_TEXT
from ccid.known.catalog import Entry, catalog, search
from ccid.known.quirks import VOCABULARY
from ccid.known.quirks.value_kinds import shown
from ccid.probe.fields import bcd
from ccid.probe.reader_choice import note, print_json, say

FEW = 3
"""Up to this number of readers are shown with all details."""


def run(options: argparse.Namespace) -> int:
    """Print the readers that all words fit. Exit status 1 if there is none."""
    words = options.words if options.model is None else [*options.words, options.model]
    found = search(catalog(), words)
    if options.virtual:
        found = [entry for entry in found if entry.is_virtual]
    if options.json:
        print_json("readers", readers=[as_json(entry) for entry in found])
        return 0 if found else 1
    for entry in found:
        say(f"{entry.known.id}  {entry.known.quirks.status:11}  {entry.name}")
        if len(found) <= FEW:
            describe(entry)
    if not found:
        note("no reader in the table fits")
        return 1
    if len(found) > FEW:
        note(f"{len(found)} readers; more words find fewer; up to {FEW} readers are shown in full")
    return 0


def describe(entry: Entry) -> None:
    """Print everything that is known of a reader."""
    quirks = entry.known.quirks
    if quirks.reason:
        say(f"  reason: {quirks.reason}")
    if not entry.descriptors:
        say("  its descriptors are not known; a `ccid-probe report` of one would help")
    for interface, d in zip(entry.interfaces, entry.descriptors, strict=True):
        level = d.exchange_level
        what = "several levels" if level is None else f"{EXCHANGE_LEVEL_TEXT[level]} level"
        slots = f"{d.slot_count} slot{'' if d.slot_count == 1 else 's'}"
        say(
            f"  interface {interface.number}: {what}, {slots}, messages of up to "
            f"{d.dwMaxCCIDMessageLength} bytes, up to {d.dwMaxDataRate} bit/s"
        )
    if entry.descriptors:
        protocols = ", ".join(map(str, entry.protocols)) or "no protocol"
        say(f"  cards: {protocols}; {', '.join(entry.voltages) or 'no voltage named'}")
        say(f"  extended APDUs: {entry.extended}")
        say(f"  PIN pad: {', '.join(entry.pin_pad) or 'no'}")
        if entry.display:
            say(f"  display: {entry.display} characters")
        releases = ", ".join(bcd(device.bcdDevice) for device in entry.devices)
        say(f"  known with firmware {releases}")
    for quirk in quirks_of(entry):
        only = f" (only {quirk['condition']})" if quirk["condition"] else ""
        say(f"  quirk {quirk['name']} = {quirk['value']}{only}")
        say(f"    {VOCABULARY[quirk['name']].why}")
    if entry.is_virtual:
        say(f"  virtual: ccid-probe card --virtual {entry.known.id}")


def quirks_of(entry: Entry) -> list[dict[str, str]]:
    """The quirks of a reader, each with its condition."""
    return [
        {
            "name": d.name,
            "value": shown(case.values[d.field], d.kind),
            "condition": case.condition,
        }
        for case in entry.known.cases
        for d in VOCABULARY.values()
        if d.field in case.values
    ]


def as_json(entry: Entry) -> dict[str, Any]:
    """One reader of ``readers --json``."""
    known = entry.known
    return {
        "id": known.id,
        "idVendor": known.vendor_id,
        "idProduct": known.product_id,
        "vendor": known.vendor,
        "name": entry.name,
        "status": known.quirks.status,
        "reason": known.quirks.reason,
        "file": known.file,
        "quirks": quirks_of(entry),
        "figures": bool(entry.descriptors),
        "levels": [level.name for level in entry.levels],
        "protocols": [str(protocol) for protocol in entry.protocols],
        "voltages": entry.voltages,
        "slots": entry.slots,
        "interfaces": [interface.number for interface in entry.interfaces],
        "pin_pad": entry.pin_pad,
        "display": entry.display,
        "extended": entry.extended,
        "kinds": entry.kinds,
        "releases": [bcd(device.bcdDevice) for device in entry.devices],
        "virtual": entry.is_virtual,
    }
