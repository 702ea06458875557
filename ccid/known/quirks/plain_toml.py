"""The plain lines of TOML that the table of readers consists of. Pure.

To import tomllib takes as long as to open a reader: it brings datetime, and compiles long regular
expressions. So the part of a file that concerns one reader is read here: headers, and keys with a
string without escapes, a number, true, false or a list of these. :func:`parsed` says None wherever
it sees anything else, whether that is right or wrong, and tomllib then has the word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


class _OtherError(Exception):
    """Something that is not plain."""


def parsed(text: str) -> dict[str, Any] | None:
    """What tomllib makes of ``text``; None if that has to be asked for it."""
    if not text.replace("\n", "").isprintable():
        return None
    try:
        return _Plain().read(text)
    except _OtherError:
        return None


class _Plain:
    """A document that grows line by line. Tables and arrays are known by their ``id``: a header may
    go on with those that headers have made, and a dotted key with those of dotted keys under the
    same header."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}
        self._of_headers = {id(self._root)}
        self._of_keys: set[int] = set()

    def read(self, text: str) -> dict[str, Any]:
        table = self._root
        for line in map(str.strip, text.split("\n")):
            if line.startswith("["):
                table = self._header(line)
            elif line and line[0] != "#":
                key, equals, value = line.partition("=")
                if not equals:
                    raise _OtherError
                self._assign(table, [*_parts(key.strip())], _value(value.strip()))
        return self._root

    def _header(self, line: str) -> dict[str, Any]:
        """The table that the lines after ``[…]`` or ``[[…]]`` belong to."""
        line = line.partition("#")[0].rstrip()
        is_array = line.startswith("[[")
        brackets = 2 if is_array else 1
        if not line.endswith("]" * brackets):
            raise _OtherError
        *path, last = _parts(line[brackets:-brackets])
        table, made = self._root, dict[str, Any]()
        for part in path:
            table = table.setdefault(part, {})
            if not table:
                self._of_headers.add(id(table))
            if id(table) not in self._of_headers or not isinstance(table, dict):
                raise _OtherError
        if is_array:
            array = table.setdefault(last, [])
            if not array:
                self._of_headers.add(id(array))
            if id(array) not in self._of_headers or not isinstance(array, list):
                raise _OtherError
            array.append(made)
        elif last in table:
            raise _OtherError
        else:
            table[last] = made
            self._of_headers.add(id(made))
        self._of_keys = set()
        return made

    def _assign(self, table: dict[str, Any], path: list[str], value: Any) -> None:
        *inner, last = path
        for part in inner:
            if part not in table:
                table[part] = {}
                self._of_keys.add(id(table[part]))
            table = table[part]
            if id(table) not in self._of_keys:
                raise _OtherError
        if last in table:
            raise _OtherError
        table[last] = value


def _parts(key: str) -> Iterator[str]:
    """The parts of a dotted key."""
    for part in key.split("."):
        if not part or not BARE.issuperset(part):
            raise _OtherError
        yield part


def _value(text: str) -> Any:
    if text.startswith('"'):
        string, quote, behind = text[1:].partition('"')
        behind = behind.strip()
        if not quote or "\\" in string or (behind and behind[0] != "#"):
            raise _OtherError
        return string
    text = text.partition("#")[0].strip()
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip()) for part in text[1:-1].split(",")]
    return text == "true" if text in ("true", "false") else _number(text)


def _number(text: str) -> int | float:
    if text.startswith("0x") and len(text) > len("0x") and HEXADECIMAL.issuperset(text[2:]):
        return int(text, 16)
    whole, point, fraction = text.partition(".")
    if not _is_decimal(whole) or (len(whole) > 1 and whole[0] == "0"):
        raise _OtherError
    if not point:
        return int(whole)
    if not _is_decimal(fraction):
        raise _OtherError
    return float(text)


def _is_decimal(text: str) -> bool:
    """Digits, perhaps with an underscore between two of them; not more than int takes."""
    return len(text) < 100 and all(
        group.isascii() and group.isdecimal() for group in text.split("_")
    )
