"""Helpers for tests that show a reader failing without its quirk and working with the quirk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

import ccid
from ccid.codes import ExchangeLevel
from ccid.known.quirks import VOCABULARY, reader_table
from ccid.virtual import EchoCard, make_descriptor
from ccid.virtual.cards import Application

T = TypeVar("T", bound=Callable[..., None])

CASE_1 = bytes.fromhex("00400000")
"""A case 1 command APDU; the echo card answers 9000."""

covered: dict[str, str] = {}
"""The test of each quirk, by the name of the quirk."""


def covers(*names: str) -> Callable[[T], T]:
    """Mark a test as the test of these quirks."""

    def note(test: T) -> T:
        for name in names:
            assert name in VOCABULARY, name
            covered[name] = f"{test.__module__}.{test.__qualname__}"
        return test

    return note


class Table:
    """The table of readers that the driver uses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._folder = folder
        self._numbers = itertools.count()
        self.as_it_is()

    def as_it_is(self) -> None:
        """Use the table without changes."""
        self._monkeypatch.setenv(reader_table.VARIABLE, "")

    def without(self, reader: str) -> None:
        """Use the table without the entry of ``reader``."""
        self._use(f'[reader."{reader}"]\nreplace = true\n')

    def only(self, reader: str, *quirks: str) -> None:
        """Use a table in which ``reader`` has these quirks only: lines of TOML such as ``no-pps =
        true``."""
        lines = "".join(f"quirks.{quirk}\n" for quirk in quirks)
        self._use(f'[reader."{reader}"]\nreplace = true\n{lines}')

    def _use(self, text: str) -> None:
        file = self._folder / f"readers-{next(self._numbers)}.toml"
        file.write_text(text)
        self._monkeypatch.setenv(reader_table.VARIABLE, str(file))


def virtual(
    reader: str,
    level: ExchangeLevel = ExchangeLevel.SHORT_APDU,
    card: Any = EchoCard,
    *,
    slots: int = 1,
    bcdDevice: int = 0x0100,
    fields: Mapping[str, int] | None = None,
    **function: Any,
) -> ccid.VirtualReader:
    """A virtual reader with the identifiers of ``reader``, ``vvvv:pppp``.

    Args:
        card: The card in slot 0; or a list, one card for each slot.
        fields: Fields of the class descriptor.
        **function: More arguments for the function of the device.
    """
    vendor_id, product_id = (int(part, 16) for part in reader.split(":"))
    inserted: Application | list[Application] = card() if isinstance(card, type) else card
    return ccid.VirtualReader(
        inserted,
        descriptor=make_descriptor(level, slots, **(fields or {})),
        vendor_id=vendor_id,
        product_id=product_id,
        bcdDevice=bcdDevice,
        **function,
    )


def answers(reader: ccid.VirtualReader, *apdus: bytes, **options: Any) -> list[bytes]:
    """The response APDUs of the card in slot 0 to ``apdus``; by default to one case 1 command."""
    with ccid.open_reader(reader, **options) as opened, opened.slots[0].connect() as card:
        return [card.transmit(apdu) for apdu in apdus or (CASE_1,)]
