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
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from lab.errors import LabError
from lab.guest import Guest
from lab.readers import ReaderSpec

READERS = [
    ReaderSpec("uhci"),
    ReaderSpec("xhci"),
    ReaderSpec("uhci", "cac"),
    ReaderSpec("xhci", "cac"),
]


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest. If the guest cannot start, the tests fail with the reason; none is skipped."""
    guest, wrong = None, ""
    try:
        guest = Guest(READERS, vhci=True, udev=True, shared=tmp_path_factory.getbasetemp()).start()
    except LabError as error:
        wrong = str(error)
    if guest is None:
        pytest.fail(wrong, pytrace=False)
    yield guest
    guest.stop()


@pytest.fixture(autouse=True)
def _put_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """Restore the state that the guest had before the test."""
    if "guest" not in request.fixturenames:
        yield
        return
    guest: Guest = request.getfixturevalue("guest")
    before = guest.jobs
    yield
    guest.reset(keep=before)
