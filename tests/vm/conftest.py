"""One guest for all tests here: QEMU boots once, every test runs its commands in it.

What is in it, all at once in one QEMU (7.2):

=====  ==========  =====  =======================================================
index  controller  port   card
=====  ==========  =====  =======================================================
0      UHCI        1      echo: ``ccid.virtual.EchoCard`` through T=0
1      xHCI        1      echo, another one
2      UHCI        2      libcacard's CAC
3      xHCI        2      none, until ``guest.readers[3].card_in()`` moves the CAC here
=====  ==========  =====  =======================================================

Each reader has its own serial number (``guest.readers[i].serial``), all are 08E6:4433. vhci-hcd is
loaded, systemd-udevd runs, so that pcscd sees readers come and go.

There is one CAC because libcacard is one per process: with a second ``ccid-card-emulated`` QEMU
starts and both readers show its ATR, but taking one out then blocked QEMU until it was killed.
A UHCI controller has two ports (the guest adds controllers for more readers), the xHCI eight.

Without KVM the boot takes about 8 s and a command 0.04 s, but Python is some twenty times slower
there than here, and importing ``ccid`` takes seconds. ``guest.script(source)`` runs Python in a
process that has it imported already, in 0.04 s.

``tmp_path`` is the same directory on both sides. Any other file of the host changed after the boot
may look to the guest as it was before, and what the guest writes elsewhere is gone at the end.
After each test its background jobs are stopped, and every reader and card is put back.

There is a second guest, ``modern``, with the same readers: a newer Debian with systemd and its own
pcscd as a service in its sandbox, in which our driver is installed by README's lines
(:mod:`tests.vm.modern`). ``tools/prepare-modern`` makes it; its tests are skipped without it.
``--guest SUITE`` runs the tests of ``guest`` in that guest, too: those that need nothing of the
host's own root file system.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from lab.errors import LabError, NotPrepared
from lab.guest import Guest
from lab.readers import ReaderSpec
from lab.systems import SuiteSystem, System

from tests.vm.modern import Service, install

READERS = [
    ReaderSpec("uhci"),
    ReaderSpec("xhci"),
    ReaderSpec("uhci", "cac"),
    ReaderSpec("xhci", "cac"),
]


def boot(shared: Path, system: System | None) -> Iterator[Guest]:
    """A guest. If it cannot start, the tests fail with the reason."""
    guest, wrong = None, ""
    try:
        guest = Guest(READERS, system=system, vhci=True, udev=True, shared=shared).start()
    except LabError as error:
        wrong = str(error)
    if guest is None:
        pytest.fail(wrong, pytrace=False)
    yield guest
    guest.stop()


@pytest.fixture(scope="session")
def guest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """The guest. If the guest cannot start, the tests fail with the reason; none is skipped."""
    if request.config.getoption("--guest") is not None:
        service: Service = request.getfixturevalue("service")
        service.uninstall()  # a test here installs the driver itself
        for reader in service.guest.readers:
            reader.plug()
        yield service.guest
        return
    yield from boot(tmp_path_factory.getbasetemp(), None)


@pytest.fixture(scope="session")
def modern(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """The guest with a newer Debian. Without its disk, which takes some ten minutes to make, tests
    are skipped, unless they run with full counts or are told to run there."""
    suite = request.config.getoption("--guest")
    try:
        system = SuiteSystem(suite or "forky")
        system.check()
    except NotPrepared as error:
        if suite is not None or request.config.getoption("--full"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    yield from boot(tmp_path_factory.getbasetemp(), system)


@pytest.fixture(scope="session")
def service(modern: Guest) -> Service:
    """pcscd in the guest with a newer Debian, and our driver, installed. One reader is plugged in:
    each costs seconds."""
    modern.leave_only(1)
    return install(modern)


@pytest.fixture(scope="session")
def with_full_counts(full: bool) -> None:
    """The test runs with full counts alone. It is skipped before there is a guest."""
    if not full:
        pytest.skip("runs with full counts: tools/full, or pytest --full")


@pytest.fixture(autouse=True)
def _put_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """Restore the state that the guest had before the test."""
    if "guest" in request.fixturenames:
        guest: Guest = request.getfixturevalue("guest")
    elif "service" in request.fixturenames:
        guest = request.getfixturevalue("service").guest
    else:
        yield
        return
    before = guest.jobs
    yield
    guest.reset(keep=before, readers="guest" in request.fixturenames)
