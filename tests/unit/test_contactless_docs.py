"""The programs of docs/contactless.md run, and print what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ccid.known.quirks import known_readers, lookup
from tests.unit.quirk_bench import Table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contactless.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.S)


def test_there_are_four() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") == 4


@pytest.mark.usefixtures("table")
def test_the_readme_says_how_many_readers_have_a_buzzer() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    count = sum(1 for one in known_readers() if one.quirks.buzzer_escape)
    assert f"buzzer and LEDs of {count} readers" in readme


@pytest.mark.parametrize(("source", "printed"), PROGRAMS)
def test_each_runs(source: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(source, "docs/contactless.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == printed


def test_the_file_of_a_user(table: Table) -> None:
    (entry,) = re.findall(r"```toml\n\[reader\.\"1209:0001\"\]\n(.*?)```", PAGE, re.S)
    lines = [line.removeprefix("quirks.") for line in entry.splitlines()]
    table.only("1209:0001", *lines)
    quirks = lookup(0x1209, 0x0001)
    assert quirks.gadgets_source == "Reference manual, 5.3"
    assert quirks.led_escape == "E0 00 00 29 01 {red=01|green=02}"
