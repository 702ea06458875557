"""The table of readers: every file of the table, and everything that is made from the table."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from ccid.known.quirks import Quirks, known_readers, lookup, table
from ccid.known.quirks.table_entries import Source
from tests.unit.each import each

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "readers").glob("*.toml"))
STATUSES = {"supported", "should-work", "unsupported", "disabled"}


@each(file=FILES)
def test_every_file_is_right(file: Path) -> None:
    content = tomllib.loads(file.read_text("utf-8"))
    assert set(content) - {"quirks"} == {"vendor", "reader"}
    vendor_id = int(file.name[:4], 16)
    for product_id, entry in content["reader"].items():
        assert len(product_id) == 4
        assert product_id == product_id.lower()
        assert entry["status"] in STATUSES
        known = lookup(vendor_id, int(product_id, 16))
        assert (known.name, known.status) == (entry["name"], entry["status"])


@each(file=FILES)
def test_a_part_of_a_file_says_what_the_whole_says(file: Path) -> None:
    text = file.read_text("utf-8")
    whole = Source(file.name, text)
    for product in whole.readers():
        part = Source(file.name, text, product)
        assert list(part.readers()) == [product]
        assert part.entry(product) == whole.entry(product)
        assert part.vendor_case() == whole.vendor_case()
    assert Source(file.name, text, "fffe").readers() == {}


def test_one_file_a_vendor() -> None:
    ids = [file.name[:4] for file in FILES]
    assert len(ids) == len(set(ids)) >= 153


def test_every_reader_is_there() -> None:
    """No reader is missing. A new reader needs no change here."""
    statuses = Counter(known.quirks.status for known in known_readers())
    assert statuses.keys() == {"supported", "should-work", "unsupported", "disabled"}
    assert statuses.total() >= 668
    assert statuses["supported"] >= 61


def test_those_disabled_say_why() -> None:
    silent = [
        k.id for k in known_readers() if k.quirks.status == "disabled" and not k.quirks.reason
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("vendor_id", "product_id", "name"),
    [
        (0x08E6, 0x3437, "Gemalto PC Twin Reader"),
        (0x1050, 0x0407, "Yubico YubiKey OTP+FIDO+CCID"),
        (0x0C4B, 0x0500, "REINER SCT cyberJack RFID standard"),
        (0x1E0D, 0x0013, "NEOWAVE Winkeo SIM V2"),
    ],
)
def test_names(vendor_id: int, product_id: int, name: str) -> None:
    assert lookup(vendor_id, product_id).name == name


@pytest.mark.parametrize(
    ("vendor_id", "product_id", "status"),
    [
        (0x0A5C, 0x5884, "should-work"), (0x0A5C, 0x5885, "should-work"),
        (0x0A5C, 0x5886, "unsupported"), (0x0A5C, 0x5887, "unsupported"),
        (0x0A89, 0x0035, "should-work"), (0x076B, 0x5520, "should-work"),
        (0x076B, 0x5521, "should-work"), (0x076B, 0x5522, "should-work"),
        (0x1E0D, 0x0014, "should-work"), (0x1370, 0x0911, "should-work"),
        (0x08E6, 0x34C8, "should-work"), (0x04E6, 0x5292, "unsupported"),
    ],
)  # fmt: skip
def test_those_that_libccid_1_8_4_added(vendor_id: int, product_id: int, status: str) -> None:
    assert lookup(vendor_id, product_id).status == status


@pytest.mark.parametrize(("vendor_id", "product_id"), [(0x04E6, 0xFFFF), (0xFFFF, 0x0001)])
def test_an_unknown_reader(vendor_id: int, product_id: int) -> None:
    assert lookup(vendor_id, product_id) == Quirks()


def test_an_unknown_reader_of_a_vendor_with_quirks_has_those() -> None:
    found = lookup(0x08E6, 0xFFFF)
    assert (found.name, found.status) == (None, "unknown")
    assert found.features_escape == b"\x6a"


def test_in_a_source_tree_the_table_is_beside_the_package() -> None:
    assert (table() / "08e6-gemalto.toml").is_file()


@pytest.mark.parametrize("tool", ["supported-readers", "quirks-table", "reader-figures"])
def test_what_is_made_from_the_table_is_current(tool: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / tool), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
