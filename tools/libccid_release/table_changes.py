"""What a release of libccid has otherwise than the table of readers, and the files after it. Pure.

An entry with a ``reason`` was decided by hand: a release changes neither its name nor its status.
A reader that a release does not have any more stays: that, too, is decided by hand.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ccid.errors import ReaderTableError
from ccid.known.quirks.table_entries import Entry, Source
from ccid.known.quirks.toml_values import quoted
from libccid_release.release_lists import Listed, Readers

Kind = Literal["new", "renamed", "status", "kept", "gone"]

UNKNOWN_STATUS = "should-work"
"""The status of a new reader where the release does not say."""
NO_REASON = "libccid leaves it out and gives no reason"
MAX_SLUG = 24
"""Greatest length of the vendor in the name of a file."""

_HEADER = re.compile(r"\[reader\.([0-9a-f]{4})\]")

Texts = Mapping[str, str]
"""The files of the table: name to text."""


@dataclass(frozen=True, slots=True)
class Change:
    """One reader that a release has otherwise than the table.

    Attributes:
        kind: ``new``, ``renamed`` and ``status`` change the table, ``kept`` and ``gone`` do not.
        reader: The reader in the release; of one that is gone, in the table.
        entry: The entry of the table; None for a new reader.
    """

    kind: Kind
    reader: Listed
    entry: Entry | None = None

    def __str__(self) -> str:
        reader, entry = self.reader, self.entry or Entry()
        match self.kind:
            case "new" if reader.status is None:
                what = f"{reader.name} (status unknown: there is no supported_readers.txt)"
            case "new":
                what = f"{reader.name} ({reader.status})"
            case "renamed":
                what = f"{entry.name} -> {reader.name}"
            case "status":
                what = f"{reader.name}: {entry.status} -> {reader.status}"
            case "kept":
                what = f"{reader.name}: {reader.status} there, {entry.status} here: {entry.reason}"
            case "gone":
                what = f"{reader.name} ({entry.status})"
        return f"{self.kind:8} {reader.id}  {what}"


def entries(texts: Texts) -> dict[str, Entry]:
    """All entries of the table, by ``vvvv:pppp``.

    Args:
        texts: The files of the table.

    Raises:
        ReaderTableError: A file of the table is wrong.
    """
    table = {}
    for file, text in texts.items():
        source = Source(file, text)
        for product in source.readers():
            table[f"{file[:4]}:{product}"] = source.entry(product) or Entry()
    return table


def changes(release: Readers, table: Mapping[str, Entry]) -> list[Change]:
    """What differs, new readers first.

    Args:
        release: The readers of the release.
        table: The entries of the table.
    """
    found = []
    for id_, reader in release.items():
        entry = table.get(id_)
        if entry is None:
            found.append(Change("new", reader))
        elif entry.reason is not None:
            if reader.status not in (None, entry.status):
                found.append(Change("kept", reader, entry))
        else:
            if reader.name != entry.name:
                found.append(Change("renamed", reader, entry))
            if reader.status not in (None, entry.status):
                found.append(Change("status", reader, entry))
    found += [
        Change("gone", Listed(id_, entry.name or "", entry.status), entry)
        for id_, entry in table.items()
        if id_ not in release and entry.reason is None
    ]
    order = ("new", "renamed", "status", "kept", "gone")
    return sorted(found, key=lambda one: (order.index(one.kind), one.reader.id))


def edited(texts: Texts, found: Iterable[Change]) -> dict[str, str]:
    """The files that change, with their new text.

    Raises:
        ReaderTableError: A file has no lines for a name or a status where they are wanted.
    """
    files = {name[:4]: name for name in texts}
    after: dict[str, str] = {}
    for change in found:
        reader = change.reader
        vendor, product = reader.id.split(":")
        name = files.setdefault(vendor, f"{vendor}-{slug(vendor_of(reader))}.toml")
        text = after.get(name, texts.get(name, f"vendor = {quoted(vendor_of(reader))}\n"))
        match change.kind:
            case "new":
                text = _with_entry(text, product, _entry(reader))
            case "renamed":
                text = _with_line(text, name, product, "name", [f"name = {quoted(reader.name)}"])
            case "status":
                text = _with_line(text, name, product, "status", _status(reader.status or ""))
            case _:
                continue
        after[name] = text
    return after


def difference(texts: Texts, after: Texts) -> str:
    """The change of the files as a patch."""
    lines: list[str] = []
    for name in sorted(after):
        old, new = texts.get(name, ""), after[name]
        lines += difflib.unified_diff(
            old.splitlines(keepends=True),
            new.splitlines(keepends=True),
            f"a/readers/{name}" if name in texts else "/dev/null",
            f"b/readers/{name}",
        )
    return "".join(lines)


def vendor_of(reader: Listed) -> str:
    """The name of a vendor that the table does not know yet: the heading, or the first word."""
    return reader.vendor or reader.name.split()[0]


def slug(vendor: str) -> str:
    """A vendor in the name of a file: small letters, digits and hyphens."""
    return re.sub("[^a-z0-9]+", "-", vendor.lower())[:MAX_SLUG].strip("-") or "vendor"


def _head(product: str) -> str:
    return f"[reader.{product}]"


def _entry(reader: Listed) -> list[str]:
    status = _status(reader.status or UNKNOWN_STATUS)
    return [_head(reader.id[5:]), f"name = {quoted(reader.name)}", *status]


def _status(status: str) -> list[str]:
    lines = [f"status = {quoted(status)}"]
    return [*lines, f"reason = {quoted(NO_REASON)}"] if status == "disabled" else lines


def _with_entry(text: str, product: str, entry: list[str]) -> str:
    """``text`` with an entry more, before the first one with a greater product id."""
    lines = text.rstrip("\n").split("\n")
    for number, line in enumerate(lines):
        header = _HEADER.fullmatch(line)
        if header is not None and header[1] > product:
            lines[number:number] = [*entry, ""]
            break
    else:
        lines += ["", *entry]
    return "\n".join(lines) + "\n"


def _with_line(text: str, file: str, product: str, key: str, new: list[str]) -> str:
    """``text`` with other lines for the name or the status of one reader."""
    lines = text.split("\n")
    if _head(product) in lines:
        for number in range(lines.index(_head(product)) + 1, len(lines)):
            if lines[number].startswith("["):
                break
            if lines[number].startswith(f"{key} = "):
                lines[number : number + 1] = new
                return "\n".join(lines)
    raise ReaderTableError("not on a line of its own", file=file, key=f"reader.{product}.{key}")
