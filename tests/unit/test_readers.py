"""The table of readers."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ccid.quirks import Quirks, lookup, table

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "readers").glob("*.toml"))
STATUSES = {"supported", "should-work", "unsupported", "disabled"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_right(file: Path) -> None:
    content = tomllib.loads(file.read_text("utf-8"))
    assert set(content) == {"vendor", "reader"}
    vendor_id = int(file.name[:4], 16)
    for product_id, entry in content["reader"].items():
        assert len(product_id) == 4
        assert product_id == product_id.lower()
        assert entry["status"] in STATUSES
        known = lookup(vendor_id, int(product_id, 16))
        assert (known.name, known.status) == (entry["name"], entry["status"])


def test_one_file_a_vendor() -> None:
    ids = [file.name[:4] for file in FILES]
    assert len(ids) == len(set(ids)) == 150


def test_every_reader_is_there() -> None:
    content = [tomllib.loads(file.read_text("utf-8")) for file in FILES]
    assert sum(len(vendor["reader"]) for vendor in content) == 642


@pytest.mark.parametrize(
    ("vendor_id", "product_id", "name"),
    [(0x08E6, 0x3437, "Gemalto PC Twin Reader"), (0x1050, 0x0407, "Yubico YubiKey OTP+FIDO+CCID")],
)
def test_names(vendor_id: int, product_id: int, name: str) -> None:
    assert lookup(vendor_id, product_id).name == name


@pytest.mark.parametrize(("vendor_id", "product_id"), [(0x08E6, 0xFFFF), (0xFFFF, 0x0001)])
def test_an_unknown_reader(vendor_id: int, product_id: int) -> None:
    assert lookup(vendor_id, product_id) == Quirks()


def test_in_a_source_tree_the_table_is_beside_the_package() -> None:
    assert (table() / "08e6-gemalto.toml").is_file()


def test_supported_readers_is_current() -> None:
    command = [sys.executable, str(ROOT / "tools/supported-readers"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
