"""``ccid-probe import``: a reader somebody told of becomes a table entry and a virtual reader."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from ccid.errors import MalformedDescriptor
from ccid.figures import DeviceFigures, as_toml, figures
from ccid.probe.imported import devices
from ccid.probe.session import note, say
from ccid.quirks import library, lookup


def run(options: argparse.Namespace) -> int:
    """Print what a user's file needs for the readers; add it there if asked to."""
    found: list[DeviceFigures] = []
    for name in options.files:
        found += [device for device in devices(_read(name), name) if device not in found]
    say(
        entry_of(found),
    )
    if options.save:
        save(found)
    else:
        note(f"with --save this goes into {target()}, and --virtual takes the reader")
    return 0


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except UnicodeDecodeError:
        raise MalformedDescriptor(f"{name}: it is no text") from None


def entry_of(found: Iterable[DeviceFigures]) -> str:
    """The TOML of the readers: entries of those the table does not have, and all figures."""
    parts: list[str] = []
    named = set()
    for device in found:
        known = lookup(device.vendor_id, device.product_id)
        if device.id in named:
            pass
        elif known.name is None:
            name = " ".join(word for word in (device.manufacturer, device.product) if word)
            text = json.dumps(name or device.id, ensure_ascii=False)
            parts.append(f'[reader."{device.id}"]\nname = {text}\nstatus = "should-work"\n')
        else:
            parts.append(f"# {device.id} is in the table: {known.name}, {known.status}\n")
        named.add(device.id)
        parts.append(as_toml(device))
    return "\n".join(parts).rstrip("\n")


def target() -> Path:
    """The user's file that --save adds to: the last that CCID_READERS names, or the usual one."""
    files = library.user_files()
    return files[-1] if files else library.default_user_file()


def save(found: list[DeviceFigures]) -> None:
    """Add to the user's file what it does not have."""
    new = [d for d in found if d not in figures(d.vendor_id, d.product_id)]
    file = target()
    if not new:
        note("all of it is known already")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text("utf-8") if file.is_file() else ""
    gap = "\n" if before and not before.endswith("\n\n") else ""
    file.write_text(f"{before}{gap}{entry_of(new)}\n", "utf-8")
    for device in new:
        note(f"{file} has it; try: ccid-probe card --virtual {device.id}")
