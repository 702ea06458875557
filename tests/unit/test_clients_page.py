"""docs/clients.md: what is read from its table is what was written into it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from tests.vm.client_rows import rows  # noqa: E402
from tests.vm.clients import DIFFERENT, NEARLY, SAME, Output, Seen, page, seen_on  # noqa: E402


def test_the_columns_of_two_guests() -> None:
    said = {name: Output("a", "a", "b") for name in rows()}
    verdicts = dict.fromkeys(rows(), (SAME, SAME))
    guests = [
        Seen("pcscd 1.9.9, libccid 1.5.2", verdicts | {"pcsc_scan": (SAME, NEARLY)}),
        Seen("pcscd 2.5.2, libccid 1.8.4", verdicts | {"opensc": (DIFFERENT, SAME)}),
    ]
    made = page(said, guests)
    assert seen_on(made) == guests
    assert page(said, seen_on(made)) == made


def test_the_page_has_two_guests_and_no_difference() -> None:
    guests = seen_on((ROOT / "docs/clients.md").read_text())
    assert [one.stack.partition(" ")[0] for one in guests] == ["pcscd", "pcscd"]
    assert len({one.stack for one in guests}) == 2
    assert all(DIFFERENT not in two for one in guests for two in one.verdicts.values())
