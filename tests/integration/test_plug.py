"""The plug and its helper, called as pcscd calls them. The helper drives a virtual reader."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.plug import SOURCE, STRICT, Plug, build

LUN, OTHER = 0x0001_0000, 0x0002_0000
SELECT = bytes.fromhex("00A4000C023F00")
OK = b"\x90\x00"
UP, DOWN, RESET = 500, 501, 502
PRESENT, ABSENT, BROKEN = 615, 616, 612
SILENCE_S = 2


@pytest.fixture(scope="module")
def plug(tmp_path_factory: pytest.TempPathFactory) -> Plug:
    """The plug, with a shorter time limit for a helper that is stuck."""
    return Plug(build(tmp_path_factory.mktemp("plug"), f"-DSILENCE_S={SILENCE_S}"))


def helpers() -> list[int]:
    """The helper processes of this process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(status[1]) == os.getpid() and b"ccid.pcsc.plug.helper" in words:
                found.append(int(entry.name))
    return sorted(found)


@pytest.fixture
def lun(plug: Plug) -> Iterator[int]:
    assert plug.create(LUN, "virtual:") == 0
    yield LUN
    plug.close(LUN)
    assert helpers() == [], "the helper ended"


def ready(plug: Plug, lun: int) -> None:
    assert plug.presence(lun) == PRESENT
    assert plug.power(lun, UP)[0] == 0
    assert plug.protocol(lun, 2) == 0
    assert plug.transmit(lun, 1, SELECT) == (0, OK)


def test_a_conversation(plug: Plug, lun: int) -> None:
    ready(plug, lun)
    code, atr = plug.power(lun, RESET)
    assert (code, atr[:1]) == (0, b"\x3b")
    assert plug.get(lun, 0x0303) == (0, atr)
    assert plug.protocol(lun, 2) == 0
    assert plug.power(lun, DOWN) == (0, b"")
    assert plug.get(lun, 0x0303) == (0, b"")


def test_long_apdus_both_ways(plug: Plug, lun: int) -> None:
    ready(plug, lun)
    apdu = bytes.fromhex("00D60000") + (65535).to_bytes(3, "big") + bytes(65535)
    code, answer = plug.transmit(lun, 1, apdu)
    assert (code, len(answer)) == (0, 2)
    assert plug.transmit(lun, 1, SELECT, capacity=1) == (618, b"")
    assert plug.transmit(lun, 1, SELECT) == (0, OK)


@pytest.mark.parametrize(
    ("tag", "value"),
    [(0x0FAD, b"\x01"), (0x0FAF, b"\xff"), (0x0FAE, b"\x01"), (0x0FAC, b"\x01"), (0x0FB1, b""),
     (0x9_0300, b"\x02"), (0x1_0100, b"ccid\0")],
)  # fmt: skip
def test_capabilities(plug: Plug, lun: int, tag: int, value: bytes) -> None:
    assert plug.get(lun, tag) == (0, value)


def test_an_unknown_tag_leaves_the_room_as_it_was(plug: Plug, lun: int) -> None:
    """pcscd then answers for the name of a reader itself, and uses that length."""
    assert plug.length(lun, 0x7FFF_0003, 120) == (600, 120)


def test_an_application_with_little_room_does_no_harm(plug: Plug, lun: int) -> None:
    """SCardGetAttrib passes the size of the application's buffer on. The helper stays alive."""
    ready(plug, lun)
    before = helpers()
    assert plug.length(lun, 0x0007_A007, 1) == (618, 0)
    assert plug.transmit(lun, 1, SELECT) == (0, OK)
    assert helpers() == before


def test_codes_come_through(plug: Plug, lun: int) -> None:
    assert plug.get(lun, 0x0180) == (600, b"")
    assert plug.get(lun, 0x0FAE, 0) == (618, b"")
    assert plug.get(lun, 0x0FB3, 7) == (618, b"")
    assert plug.get(lun, 0x0FB4, 1) == (0, b"\x01")
    assert plug.power(lun, 7) == (614, b"")
    assert plug.protocol(lun, 1) == 607, "no ATR"
    assert plug.transmit(lun, 0, SELECT) == (BROKEN, b"")
    code, features = plug.control(lun, 0x42000D48, b"")
    assert (code, features) == (0, bytes.fromhex("120442330012"))
    assert plug.control(lun, 0x42000001, b"\x02") == (BROKEN, b""), "Escape is not allowed"
    assert plug.control(lun, 0x42001234, b"") == (606, b"")
    assert plug.set(lun, 0x0303, b"\x01") == 600
    assert plug.create(lun, "virtual:") == BROKEN, "that Lun is taken"


def test_what_is_not_there(plug: Plug) -> None:
    assert plug.create(LUN, "virtual:ffff:ffff") == 617
    assert plug.create(LUN, "/dev/ttyS0") == 617
    assert helpers() == []
    for code in (
        plug.close(LUN), plug.presence(LUN), plug.power(LUN, UP)[0], plug.protocol(LUN, 1),
        plug.get(LUN, 0x0303)[0], plug.set(LUN, 0x0FB4, b"\1"), plug.transmit(LUN, 1, SELECT)[0],
        plug.control(LUN, 0x42000D48, b"")[0],
    ):  # fmt: skip
        assert code == BROKEN


def test_the_helper_has_nothing_but_its_own_descriptors(plug: Plug) -> None:
    secret = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(secret, True)
    assert plug.create(LUN, "virtual:") == 0
    (pid,) = helpers()
    names = {int(fd.name): os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    os.close(secret)
    plug.close(LUN)
    assert names.pop(0) == "/dev/null"
    assert names.pop(1) == names.pop(2)
    assert len(names) == 3, names
    assert all(name.startswith("socket:") for name in names.values())


def test_two_readers_have_two_helpers(plug: Plug, lun: int) -> None:
    assert plug.create(OTHER, "virtual:08e6:4433") == 0
    assert len(helpers()) == 2
    ready(plug, lun)
    assert plug.presence(OTHER) == PRESENT
    assert plug.close(OTHER) == 0
    assert len(helpers()) == 1
    assert plug.transmit(lun, 1, SELECT) == (0, OK)


# A helper that dies or is stuck ---------------------------------------------------------------


def stop(pid: int) -> None:
    """Send SIGSTOP, and wait until the process has stopped."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.005)


def until_back(plug: Plug, lun: int, within_s: float) -> list[int]:
    """The presence codes until a card is there again, as seen by a thread that informs others
    (pcscd's thread does)."""
    said, deadline = [], time.monotonic() + within_s
    while time.monotonic() < deadline:
        said.append(plug.presence(lun))
        if said[-1] == PRESENT:
            return said
        plug.wait(lun, 100)
        time.sleep(0.1)
    pytest.fail(f"no card within {within_s} s: {said}")


def test_a_helper_that_is_killed_is_replaced(plug: Plug, lun: int) -> None:
    ready(plug, lun)
    (pid,) = helpers()
    os.kill(pid, signal.SIGKILL)
    assert plug.transmit(lun, 1, SELECT) == (BROKEN, b"")
    assert plug.transmit(lun, 1, SELECT) == (BROKEN, b"")
    said = until_back(plug, lun, 10)
    assert said[0] == ABSENT, "the card is reported removed"
    assert set(said[:-1]) == {ABSENT}
    assert helpers() != [pid]
    ready(plug, lun)


def test_a_helper_that_is_stopped_is_replaced(plug: Plug, lun: int) -> None:
    ready(plug, lun)
    (pid,) = helpers()
    stop(pid)
    began = time.monotonic()
    assert plug.presence(lun) == BROKEN
    assert SILENCE_S - 0.1 < time.monotonic() - began < SILENCE_S + 3
    until_back(plug, lun, 10)
    assert pid not in helpers()
    ready(plug, lun)


def test_the_polling_function_notices_the_end_of_the_helper(plug: Plug, lun: int) -> None:
    (pid,) = helpers()
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    began = time.monotonic()
    assert plug.wait(lun, 60_000) == BROKEN
    assert time.monotonic() - began < 5
    until_back(plug, lun, 10)


def test_after_a_restart_it_is_asked_again_at_once(plug: Plug, lun: int) -> None:
    """No event will report that the card is there."""
    plug.wait(lun, 300)
    os.kill(helpers()[0], signal.SIGKILL)
    while plug.presence(lun) != ABSENT:
        pass
    began = time.monotonic()
    plug.wait(lun, 60_000)
    assert time.monotonic() - began < 5
    until_back(plug, lun, 10)


def test_it_is_not_started_more_than_once_a_second(plug: Plug, lun: int, tmp_path: Path) -> None:
    """Even if the helper ends at once each time."""
    count = tmp_path / "count"
    count.touch()
    wrong = tmp_path / "python"
    wrong.write_text(f"#!/bin/sh\necho >>{count}\n")
    wrong.chmod(0o755)
    named = plug.path.with_name("interpreter")
    before = named.read_text()
    named.write_text(f"{wrong}\n")
    try:
        os.kill(helpers()[0], signal.SIGKILL)
        began = time.monotonic()
        while time.monotonic() - began < 3.5:
            assert plug.presence(lun) in (ABSENT, BROKEN)
            time.sleep(0.02)
    finally:
        named.write_text(before)
    assert 2 <= len(count.read_text()) <= 5
    until_back(plug, lun, 10)


FAILS = """
import sys; from pathlib import Path
from ccid.pcsc.ifd import Code, IFDHandler; from ccid.pcsc.plug import helper
opens = IFDHandler.create_channel_by_name
def fails(self, lun, name):
    with Path({asked!r}).open("a") as file: file.write("!")
    return Code.COMMUNICATION_ERROR if Path({held!r}).exists() else opens(self, lun, name)
IFDHandler.create_channel_by_name = fails
sys.argv = ["helper", ""]; helper.main()
"""


def test_a_reader_that_a_new_helper_does_not_get_at_once(
    plug: Plug, lun: int, tmp_path: Path
) -> None:
    """The kernel may hold the old helper, and with it the reader, for a moment."""
    held, asked, wrong = tmp_path / "held", tmp_path / "asked", tmp_path / "python"
    (tmp_path / "fails.py").write_text(FAILS.format(asked=str(asked), held=str(held)))
    wrong.write_text(f"#!/bin/sh\nexec {sys.executable} -I {tmp_path}/fails.py\n")
    wrong.chmod(0o755)
    named = plug.path.with_name("interpreter")
    before = named.read_text()
    named.write_text(f"{wrong}\n")
    held.touch()
    try:
        os.kill(helpers()[0], signal.SIGKILL)
        began = time.monotonic()
        while time.monotonic() - began < 4:
            assert plug.presence(lun) in (ABSENT, BROKEN)
            time.sleep(0.02)
        assert 2 <= len(asked.read_text()) <= 5, "once a second"
        waited = time.monotonic()
        assert plug.wait(lun, 60_000) == 0
        assert time.monotonic() - waited < 1.5
    finally:
        held.unlink()
        named.write_text(before)
    until_back(plug, lun, 10)
    ready(plug, lun)


def test_a_helper_that_is_stopped_for_a_moment_is_left_in_peace(plug: Plug, lun: int) -> None:
    ready(plug, lun)
    (pid,) = helpers()
    stop(pid)
    threading.Timer(SILENCE_S / 2, os.kill, (pid, signal.SIGCONT)).start()
    assert plug.transmit(lun, 1, SELECT) == (0, OK)
    assert helpers() == [pid]


# Waiting --------------------------------------------------------------------------------------


def test_waiting_ends_when_told(plug: Plug, lun: int) -> None:
    plug.wait(lun, 300)  # the notification that the reader sends when it is opened
    threading.Timer(0.2, plug.stop, (lun,)).start()
    began = time.monotonic()
    assert plug.wait(lun, 600_000) == 0
    assert 0.1 < time.monotonic() - began < 0.4


def test_waiting_ends_after_its_time(plug: Plug, lun: int) -> None:
    plug.wait(lun, 300)
    began = time.monotonic()
    assert plug.wait(lun, 300) == 0
    assert 0.25 < time.monotonic() - began < 1


def test_an_idle_helper_does_nothing(plug: Plug, lun: int) -> None:
    """Measured after the health messages have ended: then one thread waits for events, and no
    more."""
    plug.presence(lun)
    time.sleep(5)
    (pid,) = helpers()
    status = Path(f"/proc/{pid}/task")

    def switches() -> int:
        return sum(
            int(line.split()[1])
            for task in status.iterdir()
            for line in (task / "status").read_text().splitlines()
            if line.startswith("voluntary_ctxt_switches")
        )

    before = switches()
    time.sleep(4)
    assert switches() - before <= 4


# The end of pcscd -----------------------------------------------------------------------------


def test_the_helper_ends_with_its_parent(plug: Plug) -> None:
    """After SIGKILL nobody closes a channel."""
    source = (
        "import sys, time; from pathlib import Path; from tests.integration.plug import Plug\n"
        f"plug = Plug(Path({str(plug.path)!r})); assert plug.create({LUN}, 'virtual:') == 0\n"
        f"assert plug.power({LUN}, 500)[0] == 0\n"
        "from tests.integration.test_plug import helpers; print(*helpers(), flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # nobody reaps the process here
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{pid}").exists()


def test_no_interpreter_no_reader(tmp_path: Path) -> None:
    other = Plug(build(tmp_path))
    (tmp_path / "interpreter").write_text("relative/python\n")
    assert other.create(LUN, "virtual:") == BROKEN
    (tmp_path / "interpreter").unlink()
    assert other.create(LUN, "virtual:") == BROKEN
    (tmp_path / "interpreter").write_text("/nonexistent/python\n")
    assert other.create(LUN, "virtual:") == BROKEN


@pytest.mark.parametrize(
    ("starts", "code", "seconds"),
    [
        (f"sleep 2; exec {sys.executable}", 0, (2, 30)),
        ("exit 1", BROKEN, (0, 2)),
        ("exec sleep 60 #", BROKEN, (4, 8)),
    ],
    ids=["slowly", "not", "never"],
)
def test_the_interpreter_starts(
    tmp_path: Path, starts: str, code: int, seconds: tuple[float, float]
) -> None:
    """It has a time limit of its own, longer than that of a helper at work."""
    other = Plug(build(tmp_path, "-DSILENCE_S=1", "-DSTART_S=4"))
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\n{starts} "$@"\n')
    script.chmod(0o755)
    (tmp_path / "interpreter").write_text(f"{script}\n")
    began = time.monotonic()
    try:
        assert other.create(LUN, "virtual:") == code
        assert seconds[0] - 0.1 < time.monotonic() - began < seconds[1]
    finally:
        other.close(LUN)


@pytest.mark.parametrize(
    ("end", "is_told"),
    [("exit 1", True), ("kill -KILL $$", True), ("kill -SEGV $$", True), ("kill -TERM $$", False)],
)
def test_what_is_told_of_a_helper_that_ends_while_it_starts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], end: str, is_told: bool
) -> None:
    """Nothing if a service manager may have ended it together with pcscd."""
    other = Plug(build(tmp_path))
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 0.2; {end}\n")
    script.chmod(0o755)
    (tmp_path / "interpreter").write_text(f"{script}\n")
    assert other.create(LUN, "virtual:") == BROKEN
    said = capfd.readouterr().err
    told = r"ccid: the helper of virtual: \(process \d+\) hung up\n" if is_told else ""
    assert re.fullmatch(told, said)


# Memory ---------------------------------------------------------------------------------------

HARNESS = Path(__file__).with_name("plug_harness.c")


def test_under_the_address_sanitizer(tmp_path: Path) -> None:
    """Every function, a killed helper and a stopped helper: no leak, no undefined behaviour."""
    sanitize = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = tmp_path / "harness"
    command = ["cc", *STRICT, *sanitize, f"-DSILENCE_S={SILENCE_S}", str(HARNESS), str(SOURCE)]
    command += ["-o", str(program), "-pthread", "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "interpreter").write_text(f"{sys.executable}\n")
    ran = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("done\n")
    assert "Sanitizer" not in ran.stderr
