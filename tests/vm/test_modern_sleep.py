"""The computer sleeps and wakes up while readers are open: by the library, and by today's pcscd
with our driver. Runs with full counts only: it needs a newer Debian of its own, which has lost the
host's files when it wakes up."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from lab.guest import Guest
from lab.systems import SuiteSystem

from tests.conftest import Tell
from tests.vm.conftest import boot
from tests.vm.modern import START_S, Service, install
from tests.vm.programs import CLIENT, driver_python
from tests.vm.test_modern_pcscd import OF_OURS
from tests.vm.test_resets import HOW

pytestmark = pytest.mark.usefixtures("with_full_counts")

SLEEPS = 3
TOLD = """
def told():
    with open("/run/told") as pipe: return pipe.read() == "awake\\n"
"""
LIBRARY = (
    TOLD
    + """
import time
import ccid
from ccid import errors
"""
    + HOW
    + """
def back(reader):
    until = time.monotonic() + 60
    while reader.is_away and time.monotonic() < until: time.sleep(0.05)
readers = [ccid.open_reader(info) for info in ccid.list_readers()]
cards = [one.slots[0].connect() for one in readers]
print(*map(reply, cards), flush=True)
while told():
    for one in readers: back(one)
    print("lost", *map(reply, cards), flush=True)
    print("still", *map(reply, cards), flush=True)
    cards = [one.slots[0].connect() for one in readers]
    print("again", *map(reply, cards), flush=True)
for one in readers: one.close()
"""
)
PCSC = (
    TOLD
    + """
def reply(connection):
    try: return transmit(connection, "0010000002")
    except (CardConnectionException, NoCardException) as error: return type(error).__name__
connection = connect(sys.argv[1])
print(reply(connection), flush=True)
while told():
    print("lost", reply(connection), flush=True)
    for _ in range(300):
        try:
            connection = connect(sys.argv[1])
            break
        except (CardConnectionException, NoCardException, StopIteration): time.sleep(0.1)
    print("again", reply(connection), flush=True)
"""
)


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A guest of its own, with our driver installed by README's lines. Two readers are plugged in,
    one on each kind of controller."""
    for guest in boot(tmp_path_factory.mktemp("sleeper"), SuiteSystem("forky")):
        guest.leave_only(0, 1)
        guest.run("mkfifo /run/told", check=True)
        yield install(guest)


def sleep(guest: Guest) -> None:
    """Have the guest sleep, and tell the program that it is awake again."""
    guest.sleep()
    guest.run("echo awake >/run/told", check=True)


def test_the_library(sleeper: Service, tell: Tell) -> None:
    """Readers that are open are open again by themselves; their cards were reset."""
    guest = sleeper.guest
    guest.run(["systemctl", "stop", "pcscd.socket", "pcscd.service"], check=True)
    with guest.popen([driver_python(guest), "-uc", LIBRARY]) as job:
        job.wait_for("(00019000 ?){2}\n", START_S)
        for n in range(SLEEPS):
            sleep(guest)
            job.wait_for(f"(?s)(again[^\n]*\n.*){{{n + 1}}}", START_S)
        guest.run("echo over >/run/told", check=True)
        assert job.wait(START_S).returncode == 0, job.stderr
    said = job.stdout.splitlines()[1:]
    expected = [
        "lost CardReset CardReset",
        "still CardReset CardReset",
        "again 00019000 00019000",
    ]
    assert said == expected * SLEEPS, job.stderr
    tell(f"{SLEEPS} sleeps of the computer, two readers open in the library: reset, used again")


def test_pcscd_with_our_driver(sleeper: Service, tell: Tell) -> None:
    """A client's card is lost, and it can connect again; nothing is said in the journal."""
    guest = sleeper.guest
    guest.run(["systemctl", "start", "pcscd.socket"], check=True)
    since = sleeper.mark()
    command = ["/usr/bin/python3", "-uc", CLIENT + PCSC, guest.readers[1].serial]
    with guest.popen(command) as job:
        job.wait_for("00019000\n", START_S)
        sleeper.await_helpers(2)
        for n in range(SLEEPS):
            sleep(guest)
            job.wait_for(f"(?s)(again[^\n]*\n.*){{{n + 1}}}", START_S)
            assert len(sleeper.await_readers(2)) == 2
        guest.run("echo over >/run/told", check=True)
        assert job.wait(START_S).returncode == 0, job.stderr
    said = job.stdout.splitlines()[1:]
    assert said[1::2] == ["again 00019000"] * SLEEPS, job.stderr
    lost = {line.removeprefix("lost ") for line in said[::2]}
    assert "00019000" not in lost, "the card was reset, and the client must know"
    sleeper.await_helpers(2)
    ours = [line for line in sleeper.journal(since) if re.search(OF_OURS, line)]
    assert ours == []
    assert sleeper.crashes(since) == []
    tell(f"{SLEEPS} sleeps of the computer, pcscd with our driver: a client got {lost}")
