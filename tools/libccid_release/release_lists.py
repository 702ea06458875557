"""The lists of readers in a release of libccid: Info.plist and supported_readers.txt. Pure.

Both are text of others, and data: an id has its form or is refused, a name is made printable, and a
file is too long, or names a reader twice, only with an error that says so.

Info.plist has ids and names. Which readers work is in supported_readers.txt alone.
"""

from __future__ import annotations

import plistlib
import re
from dataclasses import dataclass

from ccid.errors import ReaderTableError
from ccid.ground.safe_text import printable, short

MAX_BYTES = 4 << 20
"""Greatest size of a list, in bytes."""
MAX_NAME = 128
"""Greatest length of a name in characters: that of PC/SC for a whole name of a reader."""
MAX_READERS = 4000
"""Greatest number of readers in a list; libccid 1.8.4 has 654."""

STATUSES = {
    "supported": "supported",
    "shouldwork": "should-work",
    "unsupported": "unsupported",
    "disabled": "disabled",
}
"""The status in the table of readers, by section of supported_readers.txt."""
DUPLICATES = "duplicates"
"""The section with the other names of readers that share an id."""

_ID = re.compile(r"0x([0-9A-Fa-f]{4})")
_SECTION = re.compile(r"# section: (.*)")
_READER = re.compile(r"(#?)0x([0-9A-Fa-f]{4}):0x([0-9A-Fa-f]{4}):(.*)")


@dataclass(frozen=True, slots=True)
class Listed:
    """One reader of a release.

    Attributes:
        id: ``vvvv:pppp``.
        name: Its name.
        status: As in the table of readers; None if the lists do not say.
        vendor: The heading above it in supported_readers.txt; empty without one.
    """

    id: str
    name: str
    status: str | None = None
    vendor: str = ""


Readers = dict[str, Listed]
"""Readers by id."""


def from_plist(content: bytes, file: str) -> tuple[str, Readers]:
    """The version and the readers of an Info.plist.

    Args:
        content: The bytes of the file.
        file: Its name, for errors.

    Raises:
        ReaderTableError: It is no Info.plist of a driver, or something in it is wrong.
    """
    _fits(content, file)
    try:
        plist = plistlib.loads(content, fmt=plistlib.FMT_XML)
    # plistlib raises what its parts raise: ExpatError, ValueError, AttributeError, IndexError, …
    except Exception as error:
        raise ReaderTableError(f"no property list: {short(str(error))}", file=file) from None
    if not isinstance(plist, dict):
        raise ReaderTableError("no property list of a driver", file=file)
    keys = ("ifdVendorID", "ifdProductID", "ifdFriendlyName")
    lists = []
    for key in keys:
        one = plist.get(key)
        if not isinstance(one, list) or not all(isinstance(text, str) for text in one):
            raise ReaderTableError("a list of strings is wanted here", file=file, key=key)
        lists.append(one)
    if len({len(one) for one in lists}) > 1:
        lengths = ", ".join(str(len(one)) for one in lists)
        raise ReaderTableError(f"lists of one length are wanted, not {lengths}", file=file)
    readers: Readers = {}
    for number, (vendor, product, name) in enumerate(zip(*lists, strict=True)):
        ids = [_ID.fullmatch(text) for text in (vendor, product)]
        for key, text, found in zip(keys, (vendor, product), ids, strict=False):
            if found is None:
                raise ReaderTableError(f"{short(text)} is no id", file=file, key=f"{key}[{number}]")
        one = Listed(":".join(found[1].lower() for found in ids if found), _name(name, file))
        _add(readers, one, file)
    version = plist.get("CFBundleShortVersionString")
    return printable(version)[:MAX_NAME] if isinstance(version, str) else "", readers


def from_list(content: bytes, file: str) -> Readers:
    """The readers of a supported_readers.txt.

    Args:
        content: The bytes of the file.
        file: Its name, for errors.

    Raises:
        ReaderTableError: It is no such list, or something in it is wrong.
    """
    _fits(content, file)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReaderTableError(f"cannot be read: {error}", file=file) from None
    readers: Readers = {}
    status, vendor = "", ""
    for number, line in enumerate(text.split("\n"), 1):
        reader, section = _READER.fullmatch(line), _SECTION.fullmatch(line)
        if section is not None:
            status = section[1].strip()
            if status not in (*STATUSES, DUPLICATES):
                raise ReaderTableError(f"{short(status)} is no section", file=file, line=number)
        elif reader is None:
            if not line.startswith("#") and line.strip():
                raise ReaderTableError("a reader is wanted here", file=file, line=number)
            vendor = printable(line[1:].strip())[:MAX_NAME] if line.startswith("# ") else vendor
        elif status != DUPLICATES:
            if not status:
                raise ReaderTableError("a reader before any section", file=file, line=number)
            if bool(reader[1]) == (status == "disabled"):
                found = f"{reader[2]}:{reader[3]}".lower()
                one = Listed(found, _name(reader[4], file, number), STATUSES[status], vendor)
                _add(readers, one, file, number)
    return readers


def joined(plist: Readers, listed: Readers) -> Readers:
    """The readers of both lists, in the order of their ids. A name is that of Info.plist, which
    programs see."""
    readers = {}
    for id_ in sorted(plist.keys() | listed.keys()):
        more = listed.get(id_, Listed(id_, ""))
        name = plist[id_].name if id_ in plist else more.name
        readers[id_] = Listed(id_, name, more.status, more.vendor)
    return readers


def _fits(content: bytes, file: str) -> None:
    if len(content) > MAX_BYTES:
        raise ReaderTableError(f"longer than {MAX_BYTES} bytes", file=file)


def _name(text: str, file: str, line: int = 0) -> str:
    name = printable(text)
    if not name.strip() or len(name) > MAX_NAME:
        raise ReaderTableError(
            f"{short(text)}: a name of 1 to {MAX_NAME} characters is wanted", file=file, line=line
        )
    return name


def _add(readers: Readers, one: Listed, file: str, line: int = 0) -> None:
    if one.id in readers:
        raise ReaderTableError(f"{one.id} is listed twice", file=file, line=line)
    if len(readers) == MAX_READERS:
        raise ReaderTableError(f"more than {MAX_READERS} readers", file=file, line=line)
    readers[one.id] = one
