"""Unchanged PC/SC clients give the same results with pcscd and libccid, with pcscd and our driver,
and with our service in pcscd's place.
:mod:`tests.vm.clients` lists the clients and runs them; docs/clients.md shows the results."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from lab.errors import LabError
from lab.guest import Guest

from tests.vm import clients
from tests.vm.client_rows import CLIENTS, PROGRAMS, WATCHERS
from tests.vm.clients import (
    NEARLY,
    ROOT,
    SAME,
    Output,
    compare,
    is_current,
    page,
    seen,
    seen_on,
    verdict,
)

Said = dict[str, Output]


@pytest.fixture(scope="module")
def said(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """The output of each client in each of the three ways."""
    before = guest.jobs
    try:
        return compare(guest, tmp_path_factory.mktemp("drivers"))
    finally:
        guest.reset(keep=before)


@pytest.mark.parametrize("name", [*WATCHERS, *PROGRAMS, *CLIENTS])
def test_the_same_with_both_drivers(said: Said, name: str) -> None:
    libccid, ours = said[name].libccid, said[name].ours
    assert "\nexit status" not in libccid, libccid
    assert verdict(said[name])[0] == SAME, f"libccid:\n{libccid}\nours:\n{ours}"


@pytest.mark.parametrize("name", [*WATCHERS, *PROGRAMS, *CLIENTS])
def test_the_same_without_pcscd(said: Said, name: str) -> None:
    libccid, service = said[name].libccid, said[name].service
    expected = NEARLY if name == "pcsc_scan" else SAME
    assert verdict(said[name])[1] == expected, (
        f"pcscd and libccid:\n{libccid}\nno pcscd:\n{service}"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pcsc_scan", r"(?s)lab0.*Card removed.*lab0.*Card inserted.*Scanning.*Scanning.*lab0"),
        ("framework/sample_MonitorCards.py", r"(?s)(\+Inserted.*){3}(-Removed.*\+Inserted.*){2}"),
        ("framework/sample_MonitorReaders.py", r"(?s)Removed readers \['G.*lab0.*Added.*lab0"),
        ("simple/getATR.py", r"lab0\) 00 00 3B 68 .*\n.*lab2\) 01 00 3B 7A .*\n.* 02 00 3B DA "),
        ("opensc", r"Common Access Card \(CAC\)"),
        ("pkcs11-list", r"(?s)(Private Key Object; RSA.*){3}"),
        ("pkcs11-sign", "Verified OK"),
        ("pykcs11", "Verified: True"),
        ("gpg-status", r"Reader \.+: Gemalto PC Twin(?s:.*)Version \.+: 3\.4"),
        ("gpg-keys", r"(?s)Authentication key: [0-9A-F]{4} .*(ssb>.*){2}"),
        ("gpg-sign", "(?s)Good signature.*\nto be signed\n"),
    ],
)
def test_it_works(said: Said, name: str, expected: str) -> None:
    for output in said[name].own:
        assert re.search(expected, output), output


@pytest.mark.parametrize(("ends", "tries"), [(0, 1), (1, 2), (4, 5), (5, 5)])
def test_programs_that_watch_run_again(
    monkeypatch: pytest.MonkeyPatch, guest: Guest, ends: int, tries: int
) -> None:
    """pyscard's monitor ended ``ends`` times because a reader came between two of its calls."""
    traceback = "ListReadersException: Failed to list readers: Insufficient buffer. (0x80100008)"
    made: list[str] = []

    def watch(_guest: Guest, _settings: object, jobs: dict[str, SimpleNamespace]) -> None:
        is_ended = len(made) < ends
        made.append(traceback if is_ended else "")
        jobs |= {name: SimpleNamespace(stdout=made[-1]) for name in WATCHERS}
        if is_ended:
            raise LabError("pyscard's monitor ended")

    monkeypatch.setattr(clients, "watch", watch)
    said = clients.watchers(guest, {})
    assert len(made) == tries
    assert list(said) == list(WATCHERS)
    assert all(("\nexit status" in text) == (ends == tries) for text in said.values())


def test_the_page_is_current(guest: Guest, said: Said) -> None:
    """The columns of the other guest are held by :mod:`tests.vm.test_modern_clients`."""
    there = (ROOT / "docs/clients.md").read_text()
    made = page(said, [seen(guest, said), *seen_on(there)[1:]])
    assert is_current(there, made), f"run tools/clients-page; it would be:\n{made}"
