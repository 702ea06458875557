"""Shared by all tests: the option ``--full``, and fixtures that print figures and make
folders."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import hypothesis
import pytest

# A busy machine is no failure: an example has no deadline
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

os.environ["CCID_CARD_LIST"] = ""  # whatever names of cards this machine knows

LONGEST = (
    "vm/test_clients.py",
    "vm/test_modern_pcscd.py",
    "vm/test_pcscd.py",
    "vm/test_pcscd_removal.py",
    "vm/test_differential.py",
    "vm/test_usbip.py",
    "vm/test_pcscd_events.py",
    "vm/test_pcscd_readers.py",
    "vm/test_resets.py",
    "vm/test_pcscd_stop.py",
    "vm/test_vpcd.py",
    "vm/test_qemu_reader.py",
    "integration/test_debian_package.py",
    "integration/test_package.py",
)
"""The files that take longest, longest first. They begin, so that processes which share the files
end at the same time; the others of ``vm`` follow, because a process has a guest then."""

Tell = Callable[[str], None]
FIGURES = "figures"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="large counts (APDUs, insertions, conversations) as tools/full runs them",
    )
    parser.addoption(
        "--guest",
        metavar="SUITE",
        help="run tests/vm in the guest with this Debian (tools/prepare-modern), as forky",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: number for number, name in enumerate(LONGEST)}
    here = Path(__file__).parent

    @cache
    def rank(path: Path) -> tuple[int, bool]:
        file = path.relative_to(here) if path.is_relative_to(here) else path
        return ranks.get(file.as_posix(), len(LONGEST)), file.parts[0] != "vm"

    items.sort(key=lambda item: rank(item.path))


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """True to run the full counts instead of CI's small ones."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """A function that prints a figure after all tests, whichever process ran the test."""
    return lambda text: record_property(FIGURES, text)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="ccid-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    told = [
        value
        for report in sorted(reports, key=lambda report: report.nodeid)
        if report.when == "call"
        for key, value in report.user_properties
        if key == FIGURES
    ]
    if told:
        terminalreporter.section(FIGURES)
        for text in told:
            terminalreporter.write_line(text)
