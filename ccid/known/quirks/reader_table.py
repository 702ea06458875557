"""The table of readers: the files of the package, the files of the user, and :func:`lookup`.

A lookup reads the small file of one vendor, once, and the files of the user: those that the
environment variable ``CCID_READERS`` names (several, separated as in ``PATH``; a later file
overrides an earlier one), else ``$XDG_CONFIG_HOME/ccid/readers.toml``, by default
``~/.config/ccid/readers.toml``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ccid.errors import ReaderTableError
from ccid.ground.records import record
from ccid.ground.safe_text import printable
from ccid.known.quirks.table_entries import Case, Entry, Source
from ccid.known.quirks.vocabulary import Quirks

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

VARIABLE = "CCID_READERS"
"""The environment variable with the names of the user's files."""
MAX_BYTES = 4 << 20
"""Greatest size of a user's file in bytes."""

DIGITS = set("0123456789abcdef")

_Stamp = tuple[str, int, int]
"""Name, time of last modification (ns) and size (bytes) of a user's file."""


@record
class Known:
    """A reader in the table.

    Attributes:
        vendor_id, product_id: idVendor and idProduct.
        vendor: Name of the vendor.
        quirks: The quirks that do not depend on conditions.
        cases: All quirks with their conditions; the quirks of all readers of the vendor come first.
        vendor_case: True if the first case holds the quirks of all readers of the vendor.
        file: Name of the file with the entry.
    """

    vendor_id: int
    product_id: int
    vendor: str
    quirks: Quirks
    cases: tuple[Case, ...]
    vendor_case: bool
    file: str

    @property
    def id(self) -> str:
        """``vvvv:pppp``, the notation of lsusb."""
        return f"{self.vendor_id:04x}:{self.product_id:04x}"


def is_id(text: str) -> bool:
    """True if ``text`` has the form ``vvvv:pppp``, in lower case."""
    return len(text) == 9 and text[4] == ":" and set(text[:4] + text[5:]) <= DIGITS


@functools.cache
def table() -> Traversable:
    """The folder of the table: in the package, or beside the package in a source tree."""
    package: Traversable = Path(__file__).parents[2]
    if not package.is_dir():  # in an archive; only then, because this import costs megabytes
        import importlib.resources

        package = importlib.resources.files("ccid")
    installed = package / "readers"
    return installed if installed.is_dir() else package.joinpath("..", "readers")


@functools.cache
def vendors() -> dict[int, str]:
    """The names of the files of the table, by idVendor."""
    folder = table()
    # os.listdir() is much faster than a Path for each file
    names = os.listdir(folder) if isinstance(folder, Path) else [f.name for f in folder.iterdir()]
    return {int(name[:4], 16): name for name in names if name.endswith(".toml")}


@functools.lru_cache(maxsize=2048)
def _source(vendor_id: int, product: str | None = None) -> Source | None:
    """The file of a vendor, or its part for one product; None without a file."""
    name = vendors().get(vendor_id)
    return None if name is None else Source(name, (table() / name).read_text("utf-8"), product)


# The user's files -----------------------------------------------------------------------------


def user_files() -> list[Path]:
    """The files of the user; a later file overrides an earlier one.

    Raises:
        ReaderTableError: A file that ``CCID_READERS`` names does not exist.
    """
    listed = os.environ.get(VARIABLE)
    if listed is not None:
        files = [Path(name) for name in listed.split(os.pathsep) if name]
        for file in files:
            if not _is_file(file):
                raise ReaderTableError(
                    f"{VARIABLE} names it, and there is no such file", file=str(file)
                )
        return files
    file = default_user_file()
    return [file] if _is_file(file) else []


def _is_file(file: Path) -> bool:
    """True if ``file`` exists and can be found. A folder that this user may not enter counts as
    empty: after ``su`` without a login the home directory is that of another user."""
    try:
        return file.is_file()
    except OSError:
        return False


def default_user_file() -> Path:
    """The user's file if ``CCID_READERS`` is not set; the file may be absent."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(configured) if configured else Path(os.path.expanduser("~")) / ".config"
    return home / "ccid" / "readers.toml"


def user_sources() -> tuple[Source, ...]:
    """The files of the user, parsed; read again after a change.

    Raises:
        ReaderTableError: A file is wrong.
    """
    return _user_sources(_stamps())


def _stamps() -> tuple[_Stamp, ...]:
    """The stamps of the user's files: a change of a file changes its stamp."""
    found = []
    for file in user_files():
        try:
            stat = file.stat()
        except OSError as error:
            raise ReaderTableError(f"cannot be read: {error}", file=str(file)) from None
        found.append((str(file), stat.st_mtime_ns, stat.st_size))
    return tuple(found)


@functools.lru_cache(maxsize=4)
def _user_sources(stamps: tuple[_Stamp, ...]) -> tuple[Source, ...]:
    sources = []
    for name, _, size in stamps:
        if size > MAX_BYTES:
            raise ReaderTableError(f"cannot be read: it has {size} bytes", file=name)
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise ReaderTableError(f"cannot be read: {error}", file=name) from None
        sources.append(user_source(name, content))
    return tuple(sources)


def user_source(file: str, content: bytes) -> Source:
    """A user's file, with all its entries checked.

    Args:
        file: Name of the file, for errors.
        content: The bytes of the file.

    Raises:
        ReaderTableError: The file is wrong.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReaderTableError(f"cannot be read: {error}", file=file) from None
    source = Source(file, text)
    for key in source.content:
        if key not in ("reader", "figures"):
            raise source.error([key], "not known; there are reader, figures")
    for key in source.readers():
        if not is_id(key):
            raise source.error(["reader", key], 'a reader is named "vvvv:pppp", small letters')
        source.entry(key, user=True)
    return source


# The quirks of a reader ------------------------------------------------------------------------


def lookup(
    vendor_id: int,
    product_id: int,
    bcdDevice: int | None = None,
    *,
    slot: int = 0,
    interface: int = 0,
) -> Quirks:
    """The quirks of a reader.

    Args:
        vendor_id, product_id: idVendor and idProduct.
        bcdDevice: The firmware release; None if unknown: quirks with a condition on the release
            are then left out.
        slot: bSlot.
        interface: bInterfaceNumber.

    Raises:
        ReaderTableError: A file of the user is wrong.
    """
    return _lookup(vendor_id, product_id, bcdDevice, slot, interface, _stamps())


@functools.lru_cache(maxsize=2048)
def _lookup(
    vendor_id: int,
    product_id: int,
    bcdDevice: int | None,
    slot: int,
    interface: int,
    stamps: tuple[_Stamp, ...],
) -> Quirks:
    bare, cases = _gathered(vendor_id, product_id, stamps)
    return _with(bare, [case for case in cases if case.holds(bcdDevice, slot, interface)])


def _with(bare: Quirks, cases: list[Case]) -> Quirks:
    """``bare`` with the quirks of ``cases``."""
    values = {field: value for case in cases for field, value in case.values.items()}
    return replace(bare, **values) if values else bare


def _gathered(
    vendor_id: int, product_id: int, stamps: tuple[_Stamp, ...]
) -> tuple[Quirks, list[Case]]:
    """Name, status and reason without quirks, and all cases. A later entry overrides an earlier
    one."""
    source = _source(vendor_id, f"{product_id:04x}")
    of_vendor = None if source is None else source.vendor_case()
    cases = [] if of_vendor is None else [of_vendor]
    name, status, reason = None, None, ""
    entries = list(_entries(vendor_id, product_id, stamps))
    for entry in entries:
        if entry.replace:
            name, status, reason, cases = None, None, "", []
        name = entry.name or name
        if entry.status is not None:
            status, reason = entry.status, ""
        reason = reason if entry.reason is None else entry.reason
        cases += entry.cases
    # a reader that the user adds without a status should work
    return Quirks(name, status or ("should-work" if entries else "unknown"), reason), cases


def _entries(vendor_id: int, product_id: int, stamps: tuple[_Stamp, ...]) -> Iterator[Entry]:
    """The entries of a reader: of the table, then of the user's files."""
    product = f"{product_id:04x}"
    source = _source(vendor_id, product)
    if source is not None and (entry := source.entry(product)) is not None:
        yield entry
    for own in _user_sources(stamps):
        entry = own.entry(f"{vendor_id:04x}:{product_id:04x}", user=True)
        if entry is not None:
            yield entry


def known_readers() -> Iterator[Known]:
    """All readers of the table and of the user's files, in the order of idVendor and idProduct.

    Raises:
        ReaderTableError: A file is wrong.
    """
    stamps = _stamps()
    places: dict[tuple[int, int], str] = {}
    for vendor_id in vendors():
        source = _source(vendor_id)
        if source is not None:
            places |= {(vendor_id, int(key, 16)): source.file for key in source.readers()}
    for own in _user_sources(stamps):
        for key in own.readers():
            vendor_id, product_id = (int(part, 16) for part in key.split(":"))
            places[vendor_id, product_id] = own.file
    for (vendor_id, product_id), file in sorted(places.items()):
        source = _source(vendor_id)
        vendor = "" if source is None else printable(str(source.content.get("vendor", "")))
        bare, cases = _gathered(vendor_id, product_id, stamps)
        always = [case for case in cases if not case.condition]
        of_vendor = source is not None and bool(cases) and cases[0] == source.vendor_case()
        quirks = _with(bare, always)
        yield Known(vendor_id, product_id, vendor, quirks, tuple(cases), of_vendor, file)
