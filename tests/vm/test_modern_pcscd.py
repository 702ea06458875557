"""Our driver under today's pcscd as Debian ships it: a service with a user of its own, no
capabilities, a filter of system calls, started by its socket, ended when it is idle. The reader is
QEMU's, on xHCI, with our echo card; where a card's power is looked at, ours over USB/IP.

Without full counts a short list runs, for CI: the installation, the sandbox, a card and a reader
that come and go, a stop of the service with a card in use. The others have the mark
``full_counts``: the older Debian shows much the same, without systemd
(:mod:`tests.vm.test_pcscd`)."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator

import pytest
from lab.guest import Guest

from tests.conftest import Tell
from tests.pin_pad import OTHER_PIN, PIN, WRONG_PIN
from tests.vm.attach import attach
from tests.vm.modern import (
    BUNDLE,
    CONTROL,
    INSTALLER,
    PORT,
    ROOT,
    START_S,
    Service,
    until,
    virtual_reader,
)
from tests.vm.programs import CLIENT, MAKE_S, helpers
from tests.vm.readers_server import READERS
from tests.vm.test_qemu_reader import PRELOAD

AUTO_EXIT_S = 60.0
"""After so many seconds without a client pcscd ends; the figure is its own."""
SLOW_MS = 5000
OF_OURS = r"Traceback|Exception ignored|Fatal Python|Assertion|libusb_|\bccid(: |\[)"
"""In lines of the journal: what the plug, a helper, Python and libusb say of a fault."""
PAD = list(READERS).index("pad-t1")

full_counts = pytest.mark.usefixtures("with_full_counts")

ONE = """
connection = connect(sys.argv[1])
print(json.dumps([bytes(connection.getATR()).hex(), transmit(connection, "0010000002")]))
"""
USES_CARD = """
import smartcard.Exceptions
try:
    while True:
        connection = connect(sys.argv[1])
        print("connected", flush=True)
        while True:
            transmit(connection, "0010000002")
            time.sleep(0.05)
except (smartcard.Exceptions.SmartcardException, StopIteration, SystemError):
    print("over", flush=True)
"""
WATCHES = """
_, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
known = {}
while True:
    _, names = scard.SCardListReaders(context, [])
    for name in set(known) - set(names):
        print("reader gone", flush=True)
        del known[name]
    for name in set(names) - set(known):
        print("reader there", flush=True)
        known[name] = 0
    code, states = scard.SCardGetStatusChange(context, 500, [*known.items()])
    if code:
        continue
    for name, state, _ in states:
        card = state & (scard.SCARD_STATE_PRESENT | scard.SCARD_STATE_EMPTY)
        before = known[name] & (scard.SCARD_STATE_PRESENT | scard.SCARD_STATE_EMPTY)
        known[name] = state & ~scard.SCARD_STATE_CHANGED
        if card and card != before:
            print("card in" if card & scard.SCARD_STATE_PRESENT else "card out", flush=True)
"""


@pytest.fixture(autouse=True)
def warnings(service: Service) -> Iterator[list[str]]:
    """After the test the journal has no warning of ours, except one for each of the patterns that
    the test has put into this list; and no process has crashed."""
    since = service.mark()
    expected: list[str] = []
    yield expected
    said = service.journal(since)
    ours = [line for line in said if re.search(OF_OURS, line)]
    for pattern in expected:
        assert any(re.search(pattern, line) for line in ours), (pattern, said)
    assert not [s for s in ours if not any(re.search(p, s) for p in expected)], "\n".join(said)
    assert service.crashes(since) == []


@pytest.fixture
def guest_reader(service: Service) -> Iterator[Guest]:
    """QEMU's reader is plugged in, with its card, after the test, too."""
    yield service.guest
    service.guest.readers[1].restore()
    service.guest.settle()


def one(service: Service) -> object:
    return service.client(ONE, "lab1")


def right(service: Service) -> list[str]:
    return [service.guest.readers[1].atr.hex(), "00019000"]


def status(guest: Guest, pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    said = guest.run(["cat", f"/proc/{pid}/status"], check=True).stdout
    return {key: value.strip() for key, _, value in (s.partition(":") for s in said.splitlines())}


# Installation -----------------------------------------------------------------------------------


def test_the_lines_of_readme_are_enough(service: Service, tell: Tell) -> None:
    """Nothing else was done; pcscd's own service gives the reader to our driver."""
    since = service.mark()
    assert one(service) == right(service)
    (helper,) = service.await_helpers(1)
    assert "1 reader" in service.said
    assert service.journal(since) == []
    versions = "dpkg-query -W -f '${Package} ${Version}, ' pcscd libccid python3; uname -r"
    tell(f"modern guest: {service.guest.run(versions).stdout.strip()}; helper {helper}")
    tell(f"installed by README's lines in {', '.join(f'{s:.0f} s' for s in service.took)}")


def test_check_says_that_all_is_well(service: Service) -> None:
    done = service.guest.run([INSTALLER, "--check"], timeout=MAKE_S)
    assert (done.returncode, "in good order" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_helper_is_in_the_sandbox(service: Service) -> None:
    """A user of its own, no capability, no new privileges, and the filter of system calls."""
    assert one(service) == right(service)
    (helper,) = service.await_helpers(1)
    (pcscd,) = map(int, service.show("MainPID"))
    account = service.guest.run("id -u pcscd", check=True).stdout.strip()
    for pid in (pcscd, helper):
        there = status(service.guest, pid)
        assert there["Uid"].split() == [account] * 4
        assert int(there["CapEff"], 16) == int(there["CapBnd"], 16) == 0
        assert (there["NoNewPrivs"], there["Seccomp"]) == ("1", "2")
    denies = service.show("MemoryDenyWriteExecute", "ProtectSystem", "ProtectHome", "User")
    assert denies == ["yes", "strict", "yes", "pcscd"]


# Cards and readers come and go ------------------------------------------------------------------


def test_card_and_reader_come_and_go(service: Service, guest_reader: Guest) -> None:
    """A program sees each, once and in order. QEMU's reader on xHCI still tells that its card goes
    before it goes itself: a program may see that, too (:mod:`tests.vm.test_pcscd_removal`)."""
    reader = guest_reader.readers[1]
    assert one(service) == right(service)
    with guest_reader.popen(["/usr/bin/python3", "-uc", CLIENT + WATCHES]) as job:
        steps = [
            (guest_reader.settle, "reader there\ncard in\n"),
            (reader.card_out, "card out\n"),
            (reader.card_in, "card in\n"),
            (reader.unplug, "(card out\n)?reader gone\n"),
            (reader.plug, "reader there\ncard in\n"),
        ]
        expected = ""
        for step, seen in steps:
            step()
            expected += seen
            job.wait_for(f"(?s)^{expected}", START_S)
        assert re.fullmatch(expected, job.stdout)
    assert one(service) == right(service)
    service.await_helpers(1)


@full_counts
def test_a_slow_card(service: Service, guest_reader: Guest) -> None:
    """The card asks for more time, and gets it."""
    reader = guest_reader.readers[1]
    assert one(service) == right(service)
    reader.ask(f"delay {SLOW_MS}")
    source = """
connection = connect(sys.argv[1])
began = time.monotonic()
print(json.dumps([transmit(connection, "0010000002"), time.monotonic() - began]))
"""
    said = service.client(source, "lab1")
    assert isinstance(said, list)
    answer, seconds = said
    assert answer == "00019000"
    assert seconds >= SLOW_MS / 1000


# Processes that die -----------------------------------------------------------------------------


@full_counts
@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_helper_that_dies_or_stops_is_replaced(
    service: Service, guest_reader: Guest, signal: str, warnings: list[str]
) -> None:
    assert one(service) == right(service)
    (helper,) = service.await_helpers(1)
    gone = ["hung up", "has ended"] if signal == "KILL" else ["is stuck and is ended"]
    warnings += [rf"ccid: the helper of .*\(process {helper}\) {what}$" for what in gone]
    with guest_reader.popen(["/usr/bin/python3", "-uc", CLIENT + USES_CARD, "lab1"]) as job:
        job.wait_for("connected", START_S)
        guest_reader.run(["kill", f"-{signal}", str(helper)], check=True)
        job.wait_for("over", START_S)
    until(lambda: helper not in helpers(guest_reader), START_S)
    command = ["/usr/bin/python3", "-c", CLIENT + ONE, "lab1"]
    until(lambda: guest_reader.run(command, timeout=START_S).returncode == 0, START_S)
    assert one(service) == right(service)


def test_the_service_is_stopped_while_a_card_is_in_use(
    service: Service, full: bool, tell: Tell
) -> None:
    """systemd ends pcscd and the helper at the same moment. Each time the card loses its power,
    nothing is left, and nobody complains."""
    chance, count = random.Random(14), 20 if full else 1
    longest = 0.0
    service.guest.readers[1].unplug()
    try:
        with virtual_reader(service.guest, "--level", "extended", "--card", "echo") as hand:
            service.stop()
            for _ in range(count):
                since = service.mark()
                command = ["/usr/bin/python3", "-uc", CLIENT + USES_CARD, "(0001)"]
                with service.guest.popen(command) as job:
                    job.wait_for("connected", START_S)
                    service.await_helpers(1)
                    time.sleep(chance.uniform(0, 1))
                    began = time.monotonic()
                    service.stop()
                    longest = max(longest, time.monotonic() - began)
                    job.wait_for("over", START_S)
                until(lambda: not service.is_active() or not helpers(service.guest), START_S)
                service.stop()  # the client may have started it again
                assert helpers(service.guest) == []
                assert hand("status") == "1-1=attached:inactive"
                assert service.show("Result") == ["success"]
                assert service.journal(since) == []
    finally:
        service.guest.readers[1].restore()
        service.guest.settle()
    tell(f"the service was stopped {count} times while a card was in use; longest {longest:.1f} s")


# The life of the service ------------------------------------------------------------------------


@full_counts
def test_its_socket_starts_it_and_idle_it_ends(service: Service, full: bool) -> None:
    """Without a client pcscd gets SIGALRM after a minute and ends, with the helper. Where time
    counts, the test sends that signal."""
    service.stop()
    assert not service.is_active()
    assert helpers(service.guest) == []
    assert one(service) == right(service)
    first, started = service.show("MainPID", "NRestarts")
    assert service.is_active()
    if full:
        time.sleep(AUTO_EXIT_S)
    else:
        service.guest.run(["kill", "-ALRM", first], check=True)
    until(lambda: not service.is_active(), START_S)
    assert service.show("Result", "NRestarts") == ["success", started]
    assert helpers(service.guest) == []
    assert one(service) == right(service)
    assert service.show("MainPID") != [first]


@full_counts
@pytest.mark.parametrize("how", ["ends at once", "is not there"])
def test_without_our_helper_libccid_gets_the_reader(
    service: Service, how: str, warnings: list[str]
) -> None:
    named = f"{BUNDLE}/Contents/Linux/interpreter"
    keep = service.guest.run(["cat", named], check=True).stdout
    path = "/bin/true" if how == "ends at once" else "/opt/not-there"
    warnings.append("hung up$" if how == "ends at once" else f"{path} cannot be started: No such")
    service.stop()
    service.guest.run(f"echo {path} >{named}", check=True)
    try:
        service.await_readers(1)
        assert helpers(service.guest) == []
        assert one(service) == right(service)
    finally:
        service.guest.run(f"cat >{named}", input=keep, check=True)
        service.stop()
    assert one(service) == right(service)
    service.await_helpers(1)


@full_counts
def test_a_reader_that_is_not_named_is_libccids_until_it_is(service: Service) -> None:
    """A PIN pad is plugged in, which our driver does not name: libccid drives it, beside ours. Then
    our driver names it, and gives the same answers: PIN entries with each outcome, features,
    properties, attributes. No PIN is in the journal."""
    guest = service.guest
    assert one(service) == right(service)
    since = service.mark()
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.vm.readers_server import main; main(int(sys.argv[1]), sys.argv[2])"
    )
    answers = []
    with guest.popen_script(code, str(PORT), CONTROL, preload=PRELOAD) as server:
        serial = server.wait_for(r"serving ([\d ]+)\n", START_S)[1].split()[PAD]
        words = ["/usr/bin/python3", str(ROOT / "tests/vm/pads.py"), serial]
        attach(guest, f"1-{PAD + 1}", PORT)
        guest.run("udevadm settle", check=True)
        for count in (1, 2):
            names = service.await_readers(2)
            assert any(f"({serial})" in name for name in names)
            service.await_helpers(count)
            asked = guest.run(words, timeout=MAKE_S, check=True)
            answers.append(json.loads(asked.stdout)[serial])
            if count == 1:
                service.name_attached()
    theirs, ours = answers
    done = [value for key, value in ours.items() if key.startswith(("verify ", "modify "))]
    wrong, cancelled, late = "63c2", "6401", "6400"
    verified, modified = done[:5], done[5:10]
    assert verified == ["9000", wrong, cancelled, late, "9000"]
    assert modified == ["9000", "9000", wrong, cancelled, late]
    assert ours == theirs
    journal = re.sub(r"(?m)^\d{8} ", "", "\n".join(service.journal(since)))  # microseconds
    for pin in (PIN, OTHER_PIN, WRONG_PIN):
        assert pin.decode() not in journal
        assert pin.hex() not in journal.replace(" ", "")


@full_counts
def test_uninstalled_it_leaves_the_reader_to_libccid(service: Service) -> None:
    service.uninstall()
    (name,) = service.await_readers(1)
    assert "(lab1)" in name
    assert helpers(service.guest) == []
    service.name_attached()
    assert one(service) == right(service)
    service.await_helpers(1)
