"""docs/clients.md: what is read from its table is what was written into it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from tests.vm.client_rows import normal, rows  # noqa: E402
from tests.vm.clients import (  # noqa: E402
    DIFFERENT,
    NEARLY,
    SAME,
    Output,
    Seen,
    page,
    seen_on,
    without_spinner,
)


def test_the_columns_of_two_guests() -> None:
    said = {name: Output("a", "a", "b") for name in rows()}
    two: dict[str, tuple[str, ...]] = dict.fromkeys(rows(), (SAME, SAME))
    one: dict[str, tuple[str, ...]] = dict.fromkeys(rows(), (SAME,))
    guests = [
        Seen("pcscd 1.9.9, libccid 1.5.2", two | {"pcsc_scan": (SAME, NEARLY)}),
        Seen("pcscd 2.5.2, libccid 1.8.4", one | {"opensc": (DIFFERENT,)}),
    ]
    made = page(said, guests)
    assert seen_on(made) == guests
    assert page(said, seen_on(made)) == made


def test_the_page_has_two_guests_and_no_difference() -> None:
    guests = seen_on((ROOT / "docs/clients.md").read_text())
    assert [one.stack.partition(" ")[0] for one in guests] == ["pcscd"] * 2
    assert len({one.stack for one in guests}) == 2
    assert all(DIFFERENT not in two for one in guests for two in one.verdicts.values())


EVENT = "Sun Nov 29 08:46:06 2026\n Reader 0: One\n  Card state: Card removed,\n"
PROMPT, EXIT = "Insert or remove a card or a reader... \n", ".  (use Ctrl-C to exit)\n"


def test_what_pcsc_scan_shows_while_it_waits_does_not_count() -> None:
    """Its version 1.6 waits by a spinner, 1.7 by lines, which stand where it had to wait."""
    expected = f"Readers\n\n{EVENT}Scanning present readers...\n\n{EVENT}"
    for shown in (
        f"Readers\n\n{EVENT}\r \r-\r\\\r |Scanning present readers...\n\n{EVENT}",
        f"Readers\n\n{EXIT}{EVENT}{PROMPT}\r{EXIT}Scanning present readers...\n\n{EXIT}{EVENT}",
        f"Readers\n{EVENT}{PROMPT}\n\nScanning present readers...\n{EXIT}{EVENT}{PROMPT}{EXIT}",
    ):
        assert without_spinner(shown) == expected


def test_a_time_out_of_pyscard_is_left_out() -> None:
    """Nothing else: another exception from the same place stays."""
    text = (
        "+Inserted:  3B 00\n"
        "Traceback (most recent call last):\n"
        '  File "/usr/lib/python3/dist-packages/smartcard/CardMonitoring.py", line 163, in run\n'
        "    currentcards = self.cardrequest.waitforcardevent()\n"
        '  File "/usr/lib/python3/dist-packages/smartcard/x.py", line 352, in waitforcardevent\n'
        "    raise CardRequestTimeoutException()\n"
        "smartcard.Exceptions.CardRequestTimeoutException: Time-out during card request\n"
        "-Removed:  3B 00\n"
    )
    assert normal(text) == "+Inserted:  3B 00\n-Removed:  3B 00\n"
    other = text.replace("Timeout", "")
    assert normal(other) == other
