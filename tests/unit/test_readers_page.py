"""The HTML page of all readers: every reader is on the page, and the filters use the right data."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ccid.codes import ExchangeLevel
from ccid.known.catalog import Entry, catalog

ROOT = Path(__file__).parents[2]
FACETS = {"pin", "extended", "level", "protocol", "voltage", "slots", "status", "kind", "more"}


class Page(HTMLParser):
    """The data- attributes of the rows, the boxes of the filters, and everything that the page
    loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self.boxes: dict[str, list[str]] = {}
        self.fetched: list[str] = []
        self.presets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "tr" and "data-text" in values:
            self.rows.append({k[5:]: v for k, v in values.items() if k.startswith("data-")})
        if tag == "input" and values.get("type") == "checkbox":
            self.boxes.setdefault(values["name"], []).append(values["value"])
        if values.get("data-preset"):
            self.presets.append(values["data-preset"])
        self.fetched += [values[name] for name in ("src", "href") if name in values]

    def ids(self, **wanted: str) -> set[str]:
        """The readers whose attributes contain these words."""
        return {
            row["text"][:9]
            for row in self.rows
            if all(word in row[name].split() for name, word in wanted.items())
        }


@pytest.fixture(scope="module")
def text() -> str:
    command = [sys.executable, str(ROOT / "tools/readers-page"), "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return list(catalog())


def ids(entries: Iterable[Entry]) -> set[str]:
    return {entry.known.id for entry in entries}


def test_every_reader_is_in_it_once(page: Page, entries: list[Entry]) -> None:
    assert sorted(row["text"][:9] for row in page.rows) == sorted(ids(entries))


def test_it_needs_nothing_else(text: str, page: Page) -> None:
    assert page.fetched == ["#results"]
    assert not re.search(r"https?://|@import|url\(|<!--[A-Z]+-->", text)
    assert len(text.encode()) < 600_000


def test_every_row_has_what_the_filters_look_at(page: Page) -> None:
    assert set(page.boxes) == FACETS
    for row in page.rows:
        assert set(row) == FACETS | {"text"}
        for name in FACETS:
            assert set(row[name].split()) <= set(page.boxes[name]), row


def test_every_box_finds_something(page: Page) -> None:
    for name, values in page.boxes.items():
        for value in values:
            assert page.ids(**{name: value}), (name, value)


def test_presets_tick_boxes_that_are_there(page: Page) -> None:
    assert len(page.presets) == 3
    for preset in page.presets:
        for part in preset.split("&"):
            name, values = part.split("=")
            assert set(values.split(",")) <= set(page.boxes[name])


def test_extended_apdus_and_a_pin_pad(page: Page, entries: list[Entry]) -> None:
    wanted = {e.known.id for e in entries if e.extended == "yes" and "verify" in e.pin_pad}
    assert page.ids(extended="yes", pin="verify") == wanted
    assert len(wanted) > 20


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ({"status": "disabled"}, lambda e: e.known.quirks.status == "disabled"),
        ({"level": "tpdu"}, lambda e: ExchangeLevel.TPDU in e.levels),
        ({"protocol": "t0"}, lambda e: 0 in e.protocols),
        ({"voltage": "1.8"}, lambda e: "1.8 V" in e.voltages),
        ({"slots": "1"}, lambda e: e.slots == 1),
        ({"slots": "3"}, lambda e: e.slots > 2),
        ({"kind": "iccd-b"}, lambda e: "ICCD B" in e.kinds),
        ({"more": "virtual"}, lambda e: e.is_virtual),
        ({"pin": "display"}, lambda e: e.display != ""),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_filter_finds_what_it_says(
    page: Page, entries: list[Entry], wanted: dict[str, str], fits: object
) -> None:
    assert callable(fits)
    assert page.ids(**wanted) == ids(entry for entry in entries if fits(entry))


def test_a_wrong_command_line() -> None:
    command = [sys.executable, str(ROOT / "tools/readers-page")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "tools/readers-page FILE" in done.stderr
