"""Text of people and other programs: descriptions of readers, ATR lists, TOML, hexadecimal."""

from __future__ import annotations

import tomllib

from ccid.errors import ReaderTableError
from ccid.ground import hexadecimal as hexadecimal_text
from ccid.ground.hexadecimal import NotHexadecimal
from ccid.known.descriptor_figures import as_toml, of_user
from ccid.known.quirks.plain_toml import parsed
from ccid.probe import atr_stats
from ccid.probe.atr_list import entries
from ccid.probe.imported import devices


def imported(data: bytes) -> None:
    """A report, or what ``lsusb -v`` or libccid's ``parse`` printed, or hexadecimal: what is made
    of it can be written to the user's file and read again."""
    for device in devices(data, "a file"):
        written = as_toml(device)
        assert of_user("a file", written.encode("utf-8")) == [device]


def toml(data: bytes) -> None:
    """A user's file of readers; the quick way to read plain TOML, too."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        quick = parsed(text)
        if quick is not None:
            assert quick == tomllib.loads(text)
    try:
        of_user("a file", data)
    except ReaderTableError as error:
        assert str(error).isprintable()
        assert error.line >= 0
        raise


def atr_list(data: bytes) -> None:
    """A list of ATRs, or the output of a program that has some."""
    try:
        found = list(entries(data.decode("utf-8", "replace").split("\n")))
    except NotHexadecimal as error:
        assert "line " in str(error)
        return
    for byte in ("TA1", "TC1", "TD1"):
        atr_stats.count(found, byte)


def hexadecimal(data: bytes) -> None:
    """Bytes as people paste them."""
    text = data.decode("utf-8", "replace")
    try:
        read = hexadecimal_text.parse(text)
    except NotHexadecimal as error:
        assert 0 <= error.position <= len(text)
        return
    assert hexadecimal_text.parse(read.hex(" ")) == read
