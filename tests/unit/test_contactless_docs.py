"""What the documents say of buzzers and LEDs is so. Their programs run in ``test_docs_code.py``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ccid.known.quirks import known_readers, lookup
from tests.unit.quirk_bench import Table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "beep-and-leds.md").read_text("utf-8")


@pytest.mark.usefixtures("table")
def test_the_readme_says_how_many_readers_have_a_buzzer_or_leds() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    quirks = [one.quirks for one in known_readers()]
    count = sum(1 for one in quirks if one.buzzer_escape or one.led_escape)
    assert f"buzzer or LEDs of {count} readers" in readme


def test_the_file_of_a_user(table: Table) -> None:
    (entry,) = re.findall(r"```toml\n\[reader\.\"1209:0001\"\]\n(.*?)```", PAGE, re.S)
    lines = [line.removeprefix("quirks.") for line in entry.splitlines() if line[0] != "#"]
    table.only("1209:0001", *lines)
    quirks = lookup(0x1209, 0x0001)
    assert quirks.gadgets_source == "Reference manual, 5.3"
    assert quirks.led_escape == "E0 00 00 29 01 {red=01|green=02}"
