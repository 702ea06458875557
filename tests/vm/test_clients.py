"""Unchanged PC/SC clients give the same results with our driver and with libccid.
:mod:`tests.vm.clients` lists the clients and runs them; docs/clients.md shows the results."""

from __future__ import annotations

import re

import pytest
from lab.guest import Guest

from tests.vm.clients import CLIENTS, PROGRAMS, ROOT, WATCHERS, compare, is_current, page, same

Said = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def said(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """The output of each client with libccid, and with our driver."""
    before = guest.jobs
    try:
        return compare(guest, tmp_path_factory.mktemp("drivers"))
    finally:
        guest.reset(keep=before)


@pytest.mark.parametrize("name", [*WATCHERS, *PROGRAMS, *CLIENTS])
def test_the_same_with_both_drivers(said: Said, name: str) -> None:
    libccid, ours = said[name]
    assert same(said[name]), f"libccid:\n{libccid}\nours:\n{ours}"


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
    assert re.search(expected, said[name][1]), said[name][1]


def test_the_page_is_current(said: Said) -> None:
    made = page(said)
    there = (ROOT / "docs/clients.md").read_text()
    assert is_current(there, made), f"run tools/clients-page; it would be:\n{made}"
