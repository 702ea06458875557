"""``ccid-probe import``: make a table entry and a virtual reader of a reader's descriptors."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ccid.errors import CcidError, ReaderTableError
from ccid.ground.safe_text import printable
from ccid.known import descriptor_figures
from ccid.known.descriptor_figures import DeviceFigures, as_toml
from ccid.known.quirks import lookup, reader_table
from ccid.known.quirks.toml_values import quoted
from ccid.probe.command_files import replace, taken
from ccid.probe.imported import devices, unique
from ccid.probe.pasted import MAX_BYTES
from ccid.probe.reader_choice import note, print_json, say_lines
from ccid.probe.reader_from_fields import NOBODY


def run(options: argparse.Namespace) -> int:
    """Print the entries for the user's file of readers; with ``--save``, add them to the file."""
    found = unique(
        device for name in options.files for device in devices(taken(name, MAX_BYTES), name)
    )
    entries = entry_of(found)
    if not options.json:
        say_lines(entries)
    if any((device.vendor_id, device.product_id) == NOBODY for device in found):
        note(
            "idVendor and idProduct are not known, 0000:0000 stands for them; put a line such as "
            "`ID 08e6:3437` before the descriptor"
        )
    if options.save:
        save(found)
    else:
        note(f"--save adds this to {target()}; --virtual then finds the reader")
    if options.json:
        print_json(
            "import",
            readers=[as_json(device) for device in found],
            toml=entries,
            file=str(target()),
            saved=options.save,
        )
    return 0


def as_json(device: DeviceFigures) -> dict[str, Any]:
    """One reader of ``import --json``."""
    known = lookup(device.vendor_id, device.product_id)
    return {
        "id": device.id,
        "idVendor": device.vendor_id,
        "idProduct": device.product_id,
        "bcdDevice": device.bcdDevice,
        "manufacturer": device.manufacturer,
        "product": device.product,
        "interfaces": [interface.number for interface in device.interfaces],
        "known_as": known.name,
    }


def entry_of(found: Iterable[DeviceFigures]) -> str:
    """The TOML of the readers: an entry for each reader that the table does not have, and the
    figures of all."""
    parts: list[str] = []
    named = set()
    entered = {key for source in reader_table.user_sources() for key in source.readers()}
    for device in found:
        known = lookup(device.vendor_id, device.product_id)
        if device.id in named:
            pass
        elif known.name is not None:
            name = printable(known.name)
            parts.append(f"# {device.id} is in the table: {name}, {known.status}\n")
        elif device.id in entered:
            parts.append(f"# {device.id} has an entry in your file\n")
        else:
            name = " ".join(word for word in (device.manufacturer, device.product) if word)
            text = quoted(name or device.id)
            parts.append(f'[reader."{device.id}"]\nname = {text}\nstatus = "should-work"\n')
        named.add(device.id)
        parts.append(as_toml(device))
    return "\n".join(parts).rstrip("\n")


def target() -> Path:
    """The file for ``--save``: the last file in CCID_READERS, or the default file of the user."""
    files = reader_table.user_files()
    return files[-1] if files else reader_table.default_user_file()


def save(found: list[DeviceFigures]) -> None:
    """Add the readers that the user's file does not have. The new content is parsed and compared
    before it replaces the file; if anything is wrong, the file stays as it is.

    Raises:
        ReaderTableError: The user's file is wrong.
        CcidError: The new content would be wrong, or another program has changed the file.
        OSError: The file cannot be read or written.
    """
    new = [d for d in found if d not in descriptor_figures.figures(d.vendor_id, d.product_id)]
    file = target()
    if not new:
        note("all of these readers are known already")
        return
    before = file.read_bytes() if file.is_file() else b""
    ending = "\r\n" if b"\r\n" in before else "\n"
    text = f"{entry_of(new)}\n".replace("\n", ending)
    if before and not before.endswith(f"{ending}{ending}".encode()):
        text = (ending if before.endswith(b"\n") else 2 * ending) + text
    after = before + text.encode("utf-8")
    try:
        there = set(descriptor_figures.of_user(str(file), after))
    except ReaderTableError as error:
        raise CcidError(f"nothing was added, for the file would be wrong: {error}") from None
    if any(device not in there for device in new):
        raise CcidError(f"{file}: nothing was added, for its entries would be read differently")
    if not replace(file, before, after):
        raise CcidError(f"{file}: nothing was added, for another program has changed the file")
    for device in new:
        note(f"{file} has it; try: ccid-probe card --virtual {device.id}")
