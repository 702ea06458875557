"""Programs of the real libpcsclite against our service: pcsc_scan, opensc-tool, pyscard."""

from __future__ import annotations

import contextlib
import grp
import os
import pty
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.integration.scripted_service import (
    CALLS,
    FUNCTIONS,
    PROGRAMS,
    PYTHON,
    SAID,
    SCRIPTS,
    TIMEOUT_S,
    Service,
)

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "ccid.pcsc.service.run_program"]
SERVE = [sys.executable, "-m", "ccid.pcsc.service", "--socket"]
ATR = "3B 9B 96 80 B1 FE 45 1F C7 80 31 F0 73 F6 21 E0 83 05 90 00 4C"
NOBODY = 65534

needed = {
    "pcsc_scan": "pcsc-tools",
    "opensc-tool": "opensc",
    "pkcs11-tool": "opensc",
}


@pytest.fixture(autouse=True, scope="module")
def _programs() -> None:
    lacking = {package for name, package in needed.items() if shutil.which(name) is None}
    if subprocess.run([PYTHON, "-c", "import smartcard"], capture_output=True).returncode:
        lacking.add("python3-pyscard")
    assert not lacking, f"apt install {' '.join(sorted(lacking))}"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    if made.path.exists():
        made.end()


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(service: Service, script: str) -> None:
    assert service.play(script) == SAID.get(script, "")


def test_each_function(service: Service) -> None:
    """By ctypes: buffers that libpcsclite makes, states, a wait that is cancelled."""
    assert service.play_words([str(CALLS), "libpcsclite.so.1"]) == FUNCTIONS + "\n"


def test_who_waits_has_the_card_at_once(service: Service, tell: Tell) -> None:
    worst = float(service.play("wake_up"))
    tell(f"PC/SC service: a transaction that is waited for begins {worst} ms after the other's end")
    assert worst < 200


def test_a_killed_holder_of_a_transaction(service: Service) -> None:
    """Whoever waits goes on, and is told that the card was reset."""
    with service.start("survives") as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "connected\n"
        with service.start("killed") as holder:  # its transaction would keep connects waiting
            assert holder.stdout is not None
            assert holder.stdout.readline() == "kill\n"
            other.stdin.write("go\n")
            other.stdin.flush()
            assert other.stdout.readline() == "waiting\n"
            holder.kill()
        _, errors = other.communicate("go\n", TIMEOUT_S)
        assert other.returncode == 0, errors


# Programs under ccid-run --------------------------------------------------------------------------


def run(*words: str, status: int = 0, prefix: tuple[str, ...] = (), **how: object) -> str:
    """Run a command; returns what it printed."""
    done = subprocess.run(
        [*prefix, *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        **how,  # type: ignore[call-overload]
    )
    assert done.returncode == status, done.stderr
    return str(done.stdout)


def test_pcsc_scan_lists_readers() -> None:
    assert "0: Virtual Reader" in run(*RUN, "--virtual", "--", "pcsc_scan", "-r")


def test_pcsc_scan_shows_cards() -> None:
    for options in (("-n",), ("-t", "1")):
        told = run(*RUN, "--virtual", "--", "pcsc_scan", "-c", *options)
        assert f"ATR: {ATR}" in told
        assert "Card inserted" in told


def test_opensc_tool() -> None:
    told = run(*RUN, "--virtual", "--", "opensc-tool", "-a")
    assert ATR.replace(" ", ":").lower() in told
    told = run(*RUN, "--virtual", "--", "opensc-tool", "-s", "00A4000C023F00")
    assert "SW1=0x90, SW2=0x00" in told
    told = run(*RUN, "--virtual", "08e6:3437", "--virtual", "--", "opensc-tool", "-l")
    assert "Gemalto PC Twin Reader" in told
    assert "Virtual Reader" in told


def test_pkcs11_tool() -> None:
    assert "Virtual Reader" in run(*RUN, "--virtual", "--", "pkcs11-tool", "-L")


def test_without_a_card() -> None:
    told = run(*RUN, "--virtual", "--card", "none", "--", "opensc-tool", "-l")
    assert "No" in told


# ccid-run itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("no-such-program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_exit_status(program: tuple[str, ...], status: int) -> None:
    run(*RUN, "--virtual", "--", *program, status=status)


def test_a_wrong_reader_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run(*RUN, "--virtual", "9999:9999", "--", "touch", str(mark), status=1)
    assert not mark.exists()


def test_a_signal_goes_to_the_program_and_the_service_ends(tmp_path: Path) -> None:
    script = 'trap "exit 5" TERM; echo $PCSCLITE_CSOCK_NAME; sleep 60 & wait'
    with subprocess.Popen(
        [*RUN, "--virtual", "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        assert path.is_socket()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 5
        assert not path.parent.exists()


def test_a_killed_ccid_run_leaves_no_service_behind() -> None:
    script = "echo $PCSCLITE_CSOCK_NAME; exec sleep 60"
    with subprocess.Popen(
        [*RUN, "--virtual", "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
        until = time.monotonic() + TIMEOUT_S
        while path.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        for child in children:  # the program goes on: it was not told
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)
    shutil.rmtree(path.parent)


COUNTS = """\
import signal, sys, time
count = 0
def handler(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, handler)
print("ready", flush=True)
until = time.monotonic() + 1
while time.monotonic() < until:
    time.sleep(0.1)
print(f"interrupts: {count}", flush=True)
"""


def test_ctrl_c_reaches_the_program_once() -> None:
    """The terminal sends it to the program, too."""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(RUN[0], [*RUN, "--virtual", "--", sys.executable, "-c", COUNTS])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while b"interrupts: " not in said:
        said += os.read(terminal, 1024)
    assert b"interrupts: 1" in said
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)


# ccid-pcscd itself --------------------------------------------------------------------------------


@contextlib.contextmanager
def start(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start ccid-pcscd, and wait until it listens. It is gone behind this."""
    ready, told = os.pipe()
    path = folder / "pcscd.comm"
    with subprocess.Popen(
        [*SERVE, str(path), "--ready-fd", str(told), "--virtual", *options],
        pass_fds=[told],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            os.close(told)
            assert os.read(ready, 1) == b"\n"
            os.close(ready)
            yield process, path
        finally:
            process.kill()


def test_the_socket_is_this_users_alone_and_goes_with_the_service(tmp_path: Path) -> None:
    with start(tmp_path) as (process, path):
        assert path.stat().st_mode & 0o777 == 0o600
        second = subprocess.run(
            [*SERVE, str(path), "--virtual"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert second.returncode == 1
        assert "listens at" in second.stderr
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    assert not path.exists()


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    with start(tmp_path) as (process, path):
        process.kill()
    assert path.is_socket()
    with start(tmp_path) as (process, _):
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_a_socket_from_systemd(tmp_path: Path) -> None:
    """It is used, and left where it is."""
    path = tmp_path / "pcscd.comm"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        script = (
            f"import os, sys; os.dup2({listener.fileno()}, 3); os.environ['LISTEN_FDS'] = '1'; "
            "os.environ['LISTEN_PID'] = str(os.getpid()); "
            "os.execv(sys.executable, [sys.executable, '-m', 'ccid.pcsc.service', '--virtual'])"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script], pass_fds=[listener.fileno()]
        ) as process:
            environment = {**os.environ, "PCSCLITE_CSOCK_NAME": str(path)}
            assert "Virtual Reader" in run("pcsc_scan", "-r", env=environment)
            process.terminate()
            assert process.wait(TIMEOUT_S) == 0
    assert path.exists()


def test_a_thousand_connections_and_half_messages(tmp_path: Path, tell: Tell) -> None:
    """They cost nobody but the process that has them."""
    chance = random.Random(1)
    with start(tmp_path) as (process, path), contextlib.ExitStack() as stack:
        environment = {**os.environ, "PCSCLITE_CSOCK_NAME": str(path)}
        many = []
        for _ in range(1000):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(path))
            with contextlib.suppress(OSError):  # hung up on already
                one.sendall(struct.pack("=5I", 12, 1, 2, 0, 0)[: chance.randrange(1, 21)])
            many.append(one)
        assert "Virtual Reader" in run("pcsc_scan", "-r", env=environment)
        assert ATR in run("opensc-tool", "-a", env=environment).upper().replace(":", " ")
        assert process.poll() is None
        memory = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
        tell(f"PC/SC service: {int(memory) / 1024:.1f} MB after 1,000 connections of one process")
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_clients_that_are_killed(tmp_path: Path) -> None:
    """In a transaction, in a wait, at any point: the next one has the card."""
    chance = random.Random(2)
    with start(tmp_path) as (process, path):
        environment = {**os.environ, "PCSCLITE_CSOCK_NAME": str(path)}
        for _ in range(20):
            client = subprocess.Popen(
                [PYTHON, str(PROGRAMS), chance.choice(("stress", "stress_waits"))], env=environment
            )
            time.sleep(0.05 + chance.random() / 4)
            client.kill()
            client.wait()
        told = run("opensc-tool", "-s", "00A4000C023F00", env=environment)
        assert "SW1=0x90, SW2=0x00" in told
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


BUSY = """\
import sys
from smartcard.System import readers

connection = readers()[0].createConnection()
connection.connect()
for number in range(1_000_000_000):
    if number == 50:
        print("busy", flush=True)
        if sys.argv[1] == "idle":
            sys.stdin.readline()
    try:
        connection.transmit([0x00, 0xA4, 0x00, 0x0C, 2, 0x3F, 0x00])
    except Exception as error:
        sys.exit(f"ended: {type(error).__name__}")
"""


@pytest.mark.parametrize("how", ["busy", "idle"])
def test_the_service_ends_while_apdus_are_sent(tmp_path: Path, how: str) -> None:
    """A client whose socket a thread of its own has hears of it at once, and so does the thread."""
    with start(tmp_path) as (process, path):
        environment = {**os.environ, "PCSCLITE_CSOCK_NAME": str(path)}
        with subprocess.Popen(
            [PYTHON, "-c", BUSY, how],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "busy\n"
            process.terminate()
            assert process.wait(TIMEOUT_S) == 0
            _, said = client.communicate("go on\n", TIMEOUT_S)
            assert client.returncode == 1
            assert said.startswith("ended: ")


def test_another_users_client_is_refused(open_folder: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to become another user: run these tests as root, or with sudo")
    become = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    with start(open_folder) as (process, path):
        path.chmod(0o666)  # so that nothing but the check of the peer is in the way
        environment = {**os.environ, "PCSCLITE_CSOCK_NAME": str(path)}
        done = subprocess.run(
            [*become, "opensc-tool", "-l"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert "Virtual Reader" not in done.stdout
        assert "Virtual Reader" in run("opensc-tool", "-l", env=environment)
        process.terminate()
        process.wait(TIMEOUT_S)
        assert process.stderr is not None
        assert f"of user {NOBODY} may not connect" in process.stderr.read()


def test_how_many_readers_there_are(tmp_path: Path) -> None:
    """At most two, in an array as Fedora's libpcsclite has it."""
    limits = ("--virtual", "--virtual", "--entries", "48", "--readers", "2")
    with start(tmp_path, *limits) as (process, path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(str(path))
        client.sendall(struct.pack("=5I", 12, 0x11, 4, 4, 0))
        client.sendall(struct.pack("=5I", 12, 0x01, 2, 0, 0))
        assert len(client.recv(24, socket.MSG_WAITALL)) == 24
        client.sendall(struct.pack("=2I", 0, 0x12))
        array = client.recv(48 * 184, socket.MSG_WAITALL)
        names = [array[at : at + 128].rstrip(b"\0") for at in range(0, len(array), 184)]
        assert len(names) == 48
        assert [name[:14] for name in names if name] == [b"Virtual Reader"] * 2
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


def test_a_member_of_the_group_is_served(open_folder: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to become another user: run these tests as root, or with sudo")
    group = grp.getgrnam("games")
    with start(open_folder, "--group", group.gr_name) as (process, path):
        for groups, is_served in ((["--groups", str(group.gr_gid)], True), ([], False)):
            become = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY)]
            done = subprocess.run(
                [*become, *(groups or ["--clear-groups"]), "opensc-tool", "-l"],
                env={**os.environ, "PCSCLITE_CSOCK_NAME": str(path)},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            assert ("Virtual Reader" in done.stdout) is is_served
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
