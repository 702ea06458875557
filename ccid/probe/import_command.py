"""``ccid-probe import``: a reader somebody told of becomes a table entry and a virtual reader."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from ccid.errors import CcidError, ReaderTableError
from ccid.ground.safe_text import printable
from ccid.known import descriptor_figures
from ccid.known.descriptor_figures import DeviceFigures, as_toml
from ccid.known.quirks import lookup, reader_table
from ccid.known.quirks.toml_values import quoted
from ccid.probe.command_files import replace, taken
from ccid.probe.imported import devices, unique
from ccid.probe.pasted import MAX_BYTES
from ccid.probe.reader_choice import note, say_lines
from ccid.probe.told import NOBODY


def run(options: argparse.Namespace) -> int:
    """Print what a user's file needs for the readers; add it there if asked to."""
    found = unique(
        device for name in options.files for device in devices(taken(name, MAX_BYTES), name)
    )
    say_lines(entry_of(found))
    if any((device.vendor_id, device.product_id) == NOBODY for device in found):
        note(
            "no idVendor and idProduct are told, 0000:0000 stands for them; a line before the "
            "descriptor tells them, as `ID 08e6:3437`"
        )
    if options.save:
        save(found)
    else:
        note(f"with --save this goes into {target()}, and --virtual takes the reader")
    return 0


def entry_of(found: Iterable[DeviceFigures]) -> str:
    """The TOML of the readers: entries of those the table does not have, and all figures."""
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
    """The user's file that --save adds to: the last that CCID_READERS names, or the usual one."""
    files = reader_table.user_files()
    return files[-1] if files else reader_table.default_user_file()


def save(found: list[DeviceFigures]) -> None:
    """Add to the user's file what it does not have. The file is replaced only by one that was
    read again, with all that is in it; else it stays as it is.

    Raises:
        ReaderTableError: The user's file is wrong.
        CcidError: It would be, or it changed meanwhile.
        OSError: It cannot be read or written.
    """
    new = [d for d in found if d not in descriptor_figures.figures(d.vendor_id, d.product_id)]
    file = target()
    if not new:
        note("all of it is known already")
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
        raise CcidError(f"nothing was added, the file would be wrong then: {error}") from None
    if any(device not in there for device in new):
        raise CcidError(f"{file}: nothing was added, it would not be read as it was told")
    if not replace(file, before, after):
        raise CcidError(f"{file}: nothing was added, another program changed it meanwhile")
    for device in new:
        note(f"{file} has it; try: ccid-probe card --virtual {device.id}")
