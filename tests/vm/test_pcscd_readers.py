"""Readers of all kinds through Debian's pcscd and our driver: PIN pads, several slots, several
interfaces, a slot without a card detector. All are ours, over USB/IP
(:mod:`tests.vm.readers_server`). The answers for the PIN pads must be equal to libccid's.

One server and one pcscd serve all tests here; libccid runs before our driver.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab.guest import Guest
from lab.pcscd import Pcscd, pcscd, readers

from ccid.pcsc.plug.bundle import NAME
from tests.conftest import Tell
from tests.pin_pad import OTHER_PIN, PIN, WRONG_PIN
from tests.vm.attach import attach
from tests.vm.programs import DROPDIR, helpers, make_bundle
from tests.vm.readers_server import PADS, READERS
from tests.vm.test_pcscd import START_S, client, until
from tests.vm.test_qemu_reader import PRELOAD

ROOT = Path(__file__).parents[2]
PORT = 3247
SOCKET = "/run/readers"
LIBCCID = "/usr/lib/pcsc/drivers/ifd-ccid.bundle"
SLOTS = dict.fromkeys(READERS, 1) | {"at-once": 3, "in-turn": 2, "composite": 2}

NOT_TRANSACTED, UNSUPPORTED = "80100016", "8010001f"
"""SCARD_E_NOT_TRANSACTED and SCARD_E_UNSUPPORTED_FEATURE."""

Answers = dict[str, dict[str, str]]
"""By name of the reader and question."""


@dataclass(frozen=True)
class Served:
    """The USB/IP server in the guest.

    Attributes:
        guest: The guest.
        serials: Serial numbers by name.
    """

    guest: Guest
    serials: dict[str, str]

    def attach(self, names: list[str]) -> None:
        for name in names:
            attach(self.guest, f"1-{list(READERS).index(name) + 1}", PORT)
        self.guest.run("udevadm settle; sleep 1", check=True)

    def hand(self, line: str) -> None:
        """Send a line to :class:`ccid.virtual.control_socket.ControlCommands`."""
        name, *_ = words = line.split()
        where = f"1-{list(READERS).index(words[2]) + 1}"
        source = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
            "s.sendall(sys.argv[2].encode() + b'\\n'); answer = s.recv(1000); "
            "assert answer.startswith(b'ok'), answer"
        )
        order = " ".join([name, words[1], where, *words[3:]])
        self.guest.run(["/usr/bin/python3", "-c", source, SOCKET, order], check=True)


@pytest.fixture(autouse=True)
def _put_back(guest: Guest) -> Iterator[None]:
    """The lab's own readers stay out until the last test of this file: pcscd runs as long, and the
    lists that clients get must not grow meanwhile."""
    before = guest.jobs
    yield
    guest.reset(keep=before, readers=False)


@pytest.fixture(scope="module")
def served(guest: Guest) -> Iterator[Served]:
    """The PIN pads are attached; the other readers are attached later."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.vm.readers_server import main; main(int(sys.argv[1]), sys.argv[2])"
    )
    with guest.popen_script(code, str(PORT), SOCKET, preload=PRELOAD) as server:
        serials = server.wait_for(r"serving ([\d ]+)\n", 90)[1].split()
        made = Served(guest, dict(zip(READERS, serials, strict=True)))
        made.attach(list(READERS)[:PADS])
        yield made
    guest.reset(keep=guest.jobs)
    guest.run(
        "i=0; while usbip port 2>/dev/null | grep -q '^Port' && [ $i -lt 50 ]; "
        "do i=$((i+1)); sleep 0.1; done"
    )


@contextmanager
def options(guest: Guest, bundle: str, bits: int) -> Iterator[None]:
    """Write ifdDriverOptions into a bundle."""
    plist = f"$(readlink -f {bundle}/Contents/Info.plist)"
    change = "sed -i '/ifdDriverOptions/{{n;s/>0x[0-9A-Fa-f]*</>0x{:04X}</}}' " + plist
    guest.run(change.format(bits), check=True)
    yield
    guest.run(change.format(0), check=True)


@contextmanager
def daemon(guest: Guest, slots: int) -> Iterator[Pcscd]:
    """pcscd with this many slots of ours, with all other readers that are plugged in, and with a
    log of everything."""
    guest.leave_only()
    with pcscd(guest, slots, args=["--debug", "--apdu"], timeout=START_S) as running:
        assert len(running.readers) == slots
        yield running


@dataclass(frozen=True)
class Asked:
    """The answers of a driver, and pcscd's log."""

    answers: Answers
    log: str


def ask_pads(served: Served, running: Pcscd) -> Asked:
    names = list(READERS)[:PADS]
    words = [str(ROOT / "tests/vm/pads.py"), *(served.serials[name] for name in names)]
    done = served.guest.run(["/usr/bin/python3", *words], timeout=120, check=True)
    answers = json.loads(done.stdout)
    found = {name: answers[served.serials[name]] for name in names}
    return Asked(found, running.job.stdout + running.job.stderr)


@dataclass(frozen=True)
class Bench:
    """Our driver at work.

    Attributes:
        running: pcscd, with our driver, ifdDriverOptions 1 and all readers.
        asked: The answers of each driver for the PIN pads, by driver and ifdDriverOptions.
    """

    running: Pcscd
    asked: dict[tuple[str, int], Asked]


@pytest.fixture(scope="module")
def bench(
    served: Served, guest: Guest, tmp_path_factory: pytest.TempPathFactory, full: bool
) -> Iterator[Bench]:
    """The PIN pads with libccid; then our driver is installed and gets all readers. Without Escape,
    too, where time does not count."""
    folder = tmp_path_factory.mktemp("drivers")
    named = [f"{ids}:Ours {name}" for name, ids in READERS.items()]
    made = make_bundle(guest, folder, named)
    own = f"{DROPDIR}/{NAME}"
    asked = {}
    for bits in (0, 1) if full else (1,):
        with options(guest, LIBCCID, bits), daemon(guest, PADS) as running:
            assert not any("Ours" in name for name in running.readers)
            asked["libccid", bits] = ask_pads(served, running)
    guest.run(["cp", "-r", str(made), DROPDIR], check=True)
    try:
        if full:
            with daemon(guest, PADS) as running:
                asked["ours", 0] = ask_pads(served, running)
        served.attach(list(READERS)[PADS:])
        with options(guest, own, 1), daemon(guest, sum(SLOTS.values())) as running:
            asked["ours", 1] = ask_pads(served, running)
            yield Bench(running, asked)
    finally:
        guest.run(["rm", "-rf", own], check=True)


@pytest.fixture
def running(bench: Bench) -> Pcscd:
    return bench.running


# PIN pads -------------------------------------------------------------------------------------

PAD_NAMES = list(READERS)[:PADS]


@pytest.mark.parametrize("name", PAD_NAMES)
def test_pin_pads_answer_as_with_libccid(bench: Bench, name: str, tell: Tell) -> None:
    """Features, properties, PIN entries with each outcome, Escape and attributes, one by one."""
    for (driver, bits), theirs in bench.asked.items():
        if driver != "libccid":
            continue
        ours = bench.asked["ours", bits].answers[name]
        lines = [f"{name}, ifdDriverOptions {bits}: ours, libccid"]
        for question, answer in ours.items():
            if answer != UNSUPPORTED:
                lines.append(f"  {question:27} {answer:34} {theirs.answers[name][question]}")
        tell("\n".join(lines))
        assert ours == theirs.answers[name]


@pytest.mark.parametrize("name", PAD_NAMES)
def test_pin_pads_do_what_people_do(bench: Bench, name: str) -> None:
    for (driver, bits), asked in bench.asked.items():
        if driver != "ours":
            continue
        ours = asked.answers[name]
        done = [value for key, value in ours.items() if key.startswith(("verify ", "modify "))]
        right, wrong, cancelled, timeout = "9000", "63c2", "6401", "6400"
        wanted = [right, wrong, cancelled, timeout, right, right, right, wrong, cancelled, timeout]
        wanted += [right] if name == "pad-t1" else [right, "6402", right]
        assert done[: len(wanted)] == wanted
        assert ours["APDU between"] == ours["APDU after all"] == "9000"
        assert ours["MCT"] == "902070000000"
        assert ours["Escape"] == ("90010203" if bits else NOT_TRANSACTED)


def test_no_pin_in_the_log(bench: Bench) -> None:
    for (driver, _), asked in bench.asked.items():
        if driver == "ours":
            assert "CONTROL" in asked.log, "it is the log that would tell"
            log = re.sub(r"(?m)^\d{8} ", "", asked.log)  # the microseconds of each line
            for secret in (PIN, OTHER_PIN, WRONG_PIN):
                for text in (secret.decode(), secret.hex(), secret.hex(" ")):
                    assert text not in log


# Several slots, several interfaces ------------------------------------------------------------


def test_every_slot_of_every_reader_and_one_helper_a_device(
    running: Pcscd, served: Served, guest: Guest
) -> None:
    for name, slots in SLOTS.items():
        there = [one for one in running.readers if f"({served.serials[name]})" in one]
        assert len(there) == slots, name
        assert all(one.startswith(f"Ours {name}") for one in there)
    assert len(helpers(guest)) == len(READERS)


TWO_AT_A_TIME = """
import threading
serial = f"({sys.argv[1]})"
names = sorted(str(r) for r in readers() if serial in str(r))
found = [next(r for r in readers() if str(r) == name) for name in names]
connections = [r.createConnection() for r in found[:2]]
for connection in connections:
    connection.connect()
done, answers = [], {}
def slow():
    answers["slow"] = transmit(connections[0], "00500BB8")
    done.append("slow")
def quick():
    answers["quick"] = [transmit(connections[1], f"0010{n:02x}0002") for n in range(10)]
    done.append("quick")
threads = [threading.Thread(target=one) for one in (slow, quick)]
threads[0].start()
time.sleep(0.3)
threads[1].start()
for thread in threads:
    thread.join()
print(json.dumps([done, answers]))
"""


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("at-once", ["quick", "slow"]),
        ("in-turn", None),
        ("composite", None),
    ],
)
def test_slots_beside_each_other(
    running: Pcscd, served: Served, guest: Guest, name: str, order: list[str] | None
) -> None:
    """Three seconds of work in one slot do not delay the other slot, if the reader can work in
    both; if not, the answers are right all the same. The composite reader hangs if its interfaces
    do not take turns."""
    done, answers = client(guest, TWO_AT_A_TIME, served.serials[name])
    assert answers["slow"] == "9000"
    assert answers["quick"] == [bytes((n, n + 1)).hex() + "9000" for n in range(10)]
    assert order is None or done == order


SEEN = """
serial = f"({sys.argv[1]})"
hresult, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
hresult, names = scard.SCardListReaders(context, [])
states = [(name, 0) for name in sorted(names) if serial in name]
hresult, states = scard.SCardGetStatusChange(context, 0, states)
print(json.dumps([bool(state & scard.SCARD_STATE_PRESENT) for _, state, _ in states]))
"""


def present(guest: Guest, served: Served, name: str) -> list[bool]:
    found: list[bool] = client(guest, SEEN, served.serials[name])
    return found


def test_cards_come_and_go_slot_by_slot(running: Pcscd, served: Served, guest: Guest) -> None:
    def becomes(*wanted: bool) -> None:
        until(guest, lambda: present(guest, served, "at-once") == list(wanted), 20)

    becomes(True, True, False)
    served.hand("card in at-once 2")
    becomes(True, True, True)
    served.hand("card out at-once 0")
    becomes(False, True, True)
    served.hand("card out at-once 2")
    served.hand("card in at-once 0")
    becomes(True, True, False)


def test_a_slot_that_does_not_tell_of_its_card(
    running: Pcscd, served: Served, guest: Guest
) -> None:
    """pcscd never powers a slot that is reported empty: the driver tries a power-up."""
    until(guest, lambda: present(guest, served, "sim") == [False], 20)
    served.hand("card in sim 0")
    until(guest, lambda: present(guest, served, "sim") == [True], 20)
    source = """
connection = next(r for r in readers() if f"({sys.argv[1]})" in str(r)).createConnection()
connection.connect()
print(json.dumps(transmit(connection, "0010000002")))
"""
    assert client(guest, source, served.serials["sim"]) == "00019000"


# A card that takes its time -------------------------------------------------------------------


def test_a_card_that_computes_for_minutes(
    running: Pcscd, served: Served, guest: Guest, full: bool
) -> None:
    """By waiting time extensions of T=1, which the host sees, and by time extensions of a reader at
    APDU level, again and again: neither the helper nor the plug has a shorter limit of its own.
    Both run at the same time, which saves time."""
    seconds = 300 if full else 13
    source = """
import threading
seconds = int(sys.argv[1])
answers = {}
def one(serial):
    connection = next(r for r in readers() if f"({serial})" in str(r)).createConnection()
    connection.connect()
    began = time.monotonic()
    answers[serial] = [transmit(connection, f"0038{seconds:04x}"), time.monotonic() - began]
threads = [threading.Thread(target=one, args=[serial]) for serial in sys.argv[2:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(answers))
"""
    words = [served.serials["pad-t1"], served.serials["at-once"]]
    answers = client(guest, source, str(seconds), *words, timeout=seconds + 120)
    for serial in words:
        answer, took = answers[serial]
        assert answer == "9000"
        assert took >= seconds


def test_readers_are_still_there(running: Pcscd, guest: Guest) -> None:
    """After all tests no helper was replaced, and no reader was lost."""
    assert running.job.running
    assert len([name for name in readers(guest) if "Ours" in name]) == sum(SLOTS.values())
    assert len(helpers(guest)) == len(READERS)
