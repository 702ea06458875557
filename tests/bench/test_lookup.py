"""What it costs to ask the table of readers. Goal: at most 2 ms for the largest vendor's file, the
import of the TOML parser apart."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ccid.known.quirks import lookup, reader_table

GOAL_S = 0.002


@pytest.fixture(autouse=True)
def no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table alone, whatever this user added to it."""
    monkeypatch.delenv(reader_table.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def forget() -> None:
    """As in a process that has asked nothing yet."""
    for cached in (
        reader_table.vendors,
        reader_table._source,
        reader_table._lookup,
        reader_table._user_sources,
    ):
        cached.cache_clear()


def largest() -> int:
    """The vendor with the largest file."""
    files = reader_table.vendors()
    return max(files, key=lambda vendor: len((reader_table.table() / files[vendor]).read_bytes()))


@pytest.mark.benchmark(group="lookup", min_rounds=50)
def test_the_first_lookup_of_the_largest_vendor(benchmark: Any) -> None:
    vendor_id = largest()
    text = (reader_table.table() / reader_table.vendors()[vendor_id]).read_text("utf-8")
    (product, *_) = tomllib.loads(text)["reader"]
    found = benchmark.pedantic(
        lookup, (vendor_id, int(product, 16), 0x0100), setup=forget, rounds=100
    )
    assert found.name is not None
    if benchmark.enabled:
        assert benchmark.stats.stats.median <= GOAL_S


@pytest.mark.benchmark(group="lookup", min_rounds=50)
def test_a_lookup_again(benchmark: Any) -> None:
    found = benchmark(lookup, 0x08E6, 0x3437, 0x0200)
    assert found.name is not None
