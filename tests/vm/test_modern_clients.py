"""Unchanged PC/SC clients under today's pcscd, with today's libccid, and with our driver: the rows
of docs/clients.md are true there, too. Runs with full counts only: it takes minutes."""

from __future__ import annotations

import pytest

from tests.vm.client_rows import CLIENTS, PROGRAMS, WATCHERS
from tests.vm.clients import ROOT, SAME, Output, compare_modern, seen, seen_on, verdict
from tests.vm.modern import Service

pytestmark = pytest.mark.usefixtures("with_full_counts")


@pytest.fixture(scope="module")
def said(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Output]:
    """The output of each client, in each way."""
    before = service.guest.jobs
    try:
        return compare_modern(service, tmp_path_factory.mktemp("drivers"))
    finally:
        service.guest.reset(keep=before, readers=False)


@pytest.mark.parametrize("name", [*WATCHERS, *PROGRAMS, *CLIENTS])
def test_the_same_with_both_drivers(said: dict[str, Output], name: str) -> None:
    one = said[name]
    assert "\nexit status" not in one.libccid, one.libccid
    assert verdict(one)[0] == SAME, f"libccid:\n{one.libccid}\nours:\n{one.ours}"


def test_the_page_says_so(service: Service, said: dict[str, Output]) -> None:
    """If only the versions differ, the suite has moved on: tools/clients-page writes the page."""
    _, there = seen_on((ROOT / "docs/clients.md").read_text())
    assert seen(service.guest, said) == there
