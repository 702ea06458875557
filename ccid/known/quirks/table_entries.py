"""One file of the table of readers: TOML text to checked entries. Pure.

    vendor = "Gemalto"

    [quirks]                             # of every reader of this vendor, listed or not
    firmware-escape = "02"

    [reader.3480]
    name = "Gemalto GemCore SIM Pro Smart Card Reader"
    status = "supported"
    quirks.no-pin-support = true

    [[reader.3480.when]]                 # only under these conditions
    max-bcdDevice = 0x01FF
    min-slot = 1
    quirks.dwMaxDataRate = 125000

A file of the user has readers of any vendor, by ``vvvv:pppp``: ``[reader."08e6:3480"]``. Such an
entry adds its quirks to those of the table; with ``replace = true`` it replaces the entry of the
table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ccid.errors import ReaderTableError
from ccid.ground.records import record
from ccid.ground.safe_text import printable, short
from ccid.known.quirks import plain_toml, value_kinds
from ccid.known.quirks.vocabulary import VOCABULARY

STATUSES = ("supported", "should-work", "unsupported", "disabled")
"""The values of ``status``."""

_KEYS = {"name", "status", "reason", "quirks", "when"}
"""Keys of an entry."""
_CONDITIONS = {"bcdDevice", "min-bcdDevice", "max-bcdDevice", "min-slot", "interface", "quirks"}
"""Keys of ``[[…when]]``: conditions, and the quirks."""


@record
class Case:
    """Quirks, and the conditions under which they are in force.

    Attributes:
        values: The values of quirks, by field of :class:`ccid.known.quirks.Quirks`.
        releases: The values of bcdDevice; empty for all.
        min_release, max_release: The range of bcdDevice, both ends included; None for no limit.
        min_slot: The lowest bSlot.
        interface: The bInterfaceNumber; None for all.
    """

    values: Mapping[str, Any]
    releases: tuple[int, ...] = ()
    min_release: int | None = None
    max_release: int | None = None
    min_slot: int = 0
    interface: int | None = None

    def holds(self, bcdDevice: int | None, slot: int, interface: int) -> bool:
        """True if the conditions are fulfilled.

        Args:
            bcdDevice: The firmware release; None if unknown. An unknown release fulfils no
                condition on the release.
            slot: bSlot.
            interface: bInterfaceNumber.
        """
        if slot < self.min_slot or self.interface not in (None, interface):
            return False
        if not self.releases and self.min_release is None and self.max_release is None:
            return True
        if bcdDevice is None or (self.releases and bcdDevice not in self.releases):
            return False
        low = self.min_release or 0
        high = 0xFFFF if self.max_release is None else self.max_release
        return low <= bcdDevice <= high

    @property
    def condition(self) -> str:
        """The conditions in words; empty without conditions."""
        words = []
        if self.releases:
            words.append("bcdDevice " + " or ".join(f"{r:04X}" for r in self.releases))
        if self.min_release is not None:
            words.append(f"bcdDevice {self.min_release:04X} and later")
        if self.max_release is not None:
            words.append(f"bcdDevice up to {self.max_release:04X}")
        if self.min_slot:
            words.append(f"slot {self.min_slot} and up")
        if self.interface is not None:
            words.append(f"interface {self.interface}")
        return ", ".join(words)


class Entry(NamedTuple):
    """The entry of one reader in a file.

    Attributes:
        name, status, reason: None without the key.
        cases: The quirks; a later case overrides an earlier one.
        replace: The entry replaces all other knowledge about the reader.
    """

    name: str | None = None
    status: str | None = None
    reason: str | None = None
    cases: tuple[Case, ...] = ()
    replace: bool = False


def part_of(text: str, product: str) -> str:
    """The part of a file that concerns one reader: its entry, and the quirks of all readers of the
    vendor. Parsing the part is several times as fast as parsing the file.

    Args:
        text: The text of the file.
        product: The product id as four hexadecimal digits.
    """
    own = (f"reader.{product}]", f"reader.{product}.", f"[reader.{product}.")
    head, *blocks = text.split("\n[")
    kept = [b for b in blocks if b.startswith(own) or not b.startswith(("reader.", "[reader."))]
    return "\n[".join([head, *kept])


DEEP = r"(?:[\w\"'-]{1,64}\s{0,8}\.\s{0,8}){32}"
"""A key with 32 parts or more, which no table of readers has."""


class Source:
    """One file of the table of readers: its content and entries, and errors with file and line.

    Args:
        file: Name of the file, for errors.
        text: Text of the file.
        product: Parse only this reader, four hexadecimal digits; None for the whole file.

    Raises:
        ReaderTableError: ``text`` is no TOML.
    """

    def __init__(self, file: str, text: str, product: str | None = None) -> None:
        self.file = file
        self.text = text
        self._vendor_case: Case | None = None
        wanted = text if product is None else part_of(text, product)
        plain = None if product is None else plain_toml.parsed(wanted)
        self.content: dict[str, Any] = self._any(wanted, product) if plain is None else plain

    def _any(self, wanted: str, product: str | None) -> dict[str, Any]:
        """What tomllib makes of ``wanted``, which is the text or a part of it."""
        import tomllib

        file, text = self.file, self.text
        try:
            if re.search(DEEP, wanted) is not None:  # tomllib's time grows with the depth squared
                raise RecursionError
            return tomllib.loads(wanted)
        except RecursionError:
            raise ReaderTableError("nested too deeply", file=file) from None
        except ValueError as error:  # TOMLDecodeError, or a number with too many digits
            from ccid.known.quirks.toml_lines import line_of_error

            if product is not None:
                Source(file, text)  # raises the error with the line number in the whole file
            line = line_of_error(text, str(error))
            raise ReaderTableError(str(error), file=file, line=line) from None

    def error(self, key: Sequence[str | int], message: str) -> ReaderTableError:
        """The error for a wrong value at ``key``; the caller raises the error."""
        from ccid.known.quirks.toml_lines import line_of

        parts = [printable(str(k)) for k in key]
        shown = ".".join(f'"{part}"' if ":" in part else part for part in parts)
        return ReaderTableError(message, file=self.file, line=line_of(self.text, key), key=shown)

    def table(self, content: Any, key: Sequence[str | int]) -> dict[str, Any]:
        """``content``, checked to be a table.

        Raises:
            ReaderTableError: ``content`` is no table.
        """
        if not isinstance(content, dict):
            raise self.error(key, "a table is wanted here")
        return content

    def word(self, content: Mapping[str, Any], key: Sequence[str | int], name: str) -> str | None:
        """The string ``name`` of a table, made printable; None without the key.

        Raises:
            ReaderTableError: The value is no string.
        """
        value = content.get(name)
        if value is not None and not isinstance(value, str):
            raise self.error([*key, name], "a string is wanted here")
        return None if value is None else printable(value)

    def readers(self) -> dict[str, Any]:
        """The entries of all readers, not yet checked.

        Raises:
            ReaderTableError: ``reader`` is no table.
        """
        return self.table(self.content.get("reader", {}), ["reader"])

    def vendor_case(self) -> Case | None:
        """The quirks that all readers of the vendor have; None without such quirks.

        Raises:
            ReaderTableError: The quirks are wrong.
        """
        if self._vendor_case is None and "quirks" in self.content:
            self._vendor_case = Case(self._quirks(self.content["quirks"], ["quirks"]))
        return self._vendor_case

    def entry(self, name: str, *, user: bool = False) -> Entry | None:
        """The entry of one reader; None without an entry.

        Args:
            name: The key of the reader: product id, or ``vvvv:pppp`` in a user's file.
            user: The file is a user's file, in which no key is obligatory.

        Raises:
            ReaderTableError: The entry is wrong.
        """
        readers = self.readers()
        if name not in readers:
            return None
        key = ["reader", name]
        content = self.table(readers[name], key)
        allowed = _KEYS | {"replace"} if user else _KEYS
        for found in content:
            if found not in allowed:
                raise self.error(
                    [*key, found], f"not known; there are {', '.join(sorted(allowed))}"
                )
        if not user:
            for needed in ("name", "status"):
                if needed not in content:
                    raise self.error(key, f"{needed} is missing")
        status = self.word(content, key, "status")
        if status is not None and status not in STATUSES:
            raise self.error([*key, "status"], f"{short(status)} is none of {', '.join(STATUSES)}")
        replace = content.get("replace", False)
        if not isinstance(replace, bool):
            raise self.error([*key, "replace"], "true or false is wanted here")
        return Entry(
            self.word(content, key, "name"),
            status,
            self.word(content, key, "reason"),
            tuple(self._cases(content, key)),
            replace,
        )

    def _cases(self, content: dict[str, Any], key: list[str]) -> Iterator[Case]:
        if "quirks" in content:
            yield Case(self._quirks(content["quirks"], [*key, "quirks"]))
        cases = content.get("when", [])
        if not isinstance(cases, list):
            raise self.error([*key, "when"], "[[…when]] is wanted here")
        for index, case in enumerate(cases):
            yield self._case(self.table(case, [*key, "when", index]), [*key, "when", index])

    def _case(self, content: dict[str, Any], key: list[str | int]) -> Case:
        for found in content:
            if found not in _CONDITIONS:
                raise self.error(
                    [*key, found], f"not known; there are {', '.join(sorted(_CONDITIONS))}"
                )
        if len(content) < 2 or "quirks" not in content:
            raise self.error(key, "a condition and quirks are wanted here")
        releases = content.get("bcdDevice", [])
        return Case(
            self._quirks(content["quirks"], [*key, "quirks"]),
            tuple(
                self._parsed(value_kinds.RELEASE, one, [*key, "bcdDevice"])
                for one in (releases if isinstance(releases, list) else [releases])
            ),
            self._optional(value_kinds.RELEASE, content, key, "min-bcdDevice"),
            self._optional(value_kinds.RELEASE, content, key, "max-bcdDevice"),
            self._optional(value_kinds.BYTE, content, key, "min-slot") or 0,
            self._optional(value_kinds.BYTE, content, key, "interface"),
        )

    def _optional(
        self, kind: value_kinds.Kind, content: dict[str, Any], key: list[str | int], name: str
    ) -> int | None:
        if name not in content:
            return None
        number: int = self._parsed(kind, content[name], [*key, name])
        return number

    def _quirks(self, content: Any, key: Sequence[str | int]) -> dict[str, Any]:
        """The values of the quirks in a table, by field of :class:`ccid.known.quirks.Quirks`."""
        values = {}
        for name, value in self.table(content, key).items():
            description = VOCABULARY.get(name)
            if description is None:
                raise self.error([*key, name], "there is no such quirk; docs/quirks.md has them")
            values[description.field] = self._parsed(description.kind, value, [*key, name])
        return values

    def _parsed(self, kind: value_kinds.Kind, value: Any, key: Sequence[str | int]) -> Any:
        try:
            return kind.parse(value)
        except ValueError as error:
            raise self.error(key, f"{short(value)}: {error} is wanted here") from None
