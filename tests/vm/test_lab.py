"""The lab itself: the functions on which the other tests in this folder rely."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.errors import CommandFailed, CommandTimeout, LabError, NotPrepared
from lab.guest import Guest
from lab.pcscd import pcscd, readers
from lab.qemu import build_cond_wait
from lab.readers import ReaderSpec, ask

TOOLS = Path(__file__).parents[2] / "tools"
SYSTEM_PYTHON = "/usr/bin/python3"
"""Debian's, which has python3-pyscard and python3-usb."""
CAC_ATR = "3b:7a:18:00:00:73:66:74:65:20:63:64:31:34:34"


def until(condition: Callable[[], bool], timeout: float = 20.0) -> bool:
    """True if ``condition`` becomes true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def serials(guest: Guest) -> set[str]:
    """The serial numbers of QEMU's readers, as the guest's kernel lists them."""
    listed = guest.run(
        "cat $(grep -lsx 4433 /sys/bus/usb/devices/*/idProduct | sed s/idProduct/serial/)"
    )
    return set(listed.stdout.split())


def atr(guest: Guest, reader: int) -> str:
    """The output of opensc-tool for the card in the reader with the serial number
    ``lab{reader}``."""
    names = readers(guest)
    number = next(i for i, name in enumerate(names) if f"(lab{reader})" in name)
    result = guest.run(["opensc-tool", "-r", str(number), "-a"])
    return (result.stdout + result.stderr).strip()


def maps_of_children() -> Iterator[Path]:
    """What the processes that this one started have in their memory."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            yield Path(f"/proc/{pid}/maps")


# Commands -------------------------------------------------------------------------------------


def test_exit_code_directory_environment_and_streams(guest: Guest, tmp_path: Path) -> None:
    result = guest.run(
        ["sh", "-c", 'pwd; echo "$COLOUR $0" >&2; exit 7', "a b"],
        cwd=tmp_path,
        env={"COLOUR": "blue"},
    )
    assert (result.returncode, result.stdout, result.stderr) == (7, f"{tmp_path}\n", "blue a b\n")


def test_it_runs_where_and_as_what_it_was_started(guest: Guest) -> None:
    assert guest.run("pwd; id -u").stdout.split() == [os.getcwd(), "0"]


def test_it_is_another_kernel(guest: Guest) -> None:
    boot_id = "/proc/sys/kernel/random/boot_id"
    assert guest.run(["cat", boot_id]).stdout != Path(boot_id).read_text()


def test_input(guest: Guest) -> None:
    data = bytes(range(256)) * 8000
    assert guest.run(["sha256sum"], input=data).stdout[:64] == hashlib.sha256(data).hexdigest()
    assert guest.run("head -c 3", input=data).stdout_bytes == data[:3]
    assert guest.run(["cat"]).stdout == ""


def test_much_output_on_both_streams(guest: Guest) -> None:
    result = guest.run("head -c 4000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait")
    assert result.stdout_bytes == bytes(4_000_000)
    assert result.stderr_bytes == bytes(3_000_000)


def test_check_and_what_cannot_be_started(guest: Guest) -> None:
    with pytest.raises(CommandFailed, match=r"exit code 3\nstderr:\nno luck") as failed:
        guest.run("echo no luck >&2; exit 3", check=True)
    assert failed.value.result.returncode == 3
    missing = guest.run(["no-such-program"])
    assert missing.returncode == 127
    assert "no-such-program" in missing.stderr
    assert guest.run("kill -9 $$").returncode == -9


def test_past_its_time_the_process_group_is_killed(guest: Guest) -> None:
    with pytest.raises(CommandTimeout) as late:
        guest.run("sleep 100 & echo $! $$; sleep 100", timeout=1)
    assert 1 <= late.value.result.seconds < 5
    child, shell = late.value.result.stdout.split()
    assert not guest.run(f"ls -d /proc/{child} /proc/{shell} 2>/dev/null").stdout


def test_what_a_command_leaves_behind_is_killed(guest: Guest) -> None:
    result = guest.run("sleep 100 & echo $!")
    assert result.seconds < 5
    assert not guest.run(f"ls -d /proc/{result.stdout.strip()} 2>/dev/null").stdout


def test_a_background_job(guest: Guest) -> None:
    job = guest.popen("trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done")
    job.wait_for("ready")
    assert guest.jobs == [job]
    job.send_signal(signal.SIGUSR1)
    job.wait_for("usr1")
    with pytest.raises(LabError, match="still runs"):
        job.wait(0.1)
    assert guest.run(["echo", "beside"]).stdout == "beside\n"
    assert job.stop().returncode == -signal.SIGTERM
    assert job.stdout == "ready\nusr1\n"
    assert not guest.jobs
    with pytest.raises(LabError, match="before it ended"):
        guest.popen(["true"]).wait_for("ready")


def test_a_job_that_does_not_want_to_end_is_killed(guest: Guest) -> None:
    job = guest.popen("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    job.wait_for("ready")
    stopped = job.stop(grace=0.5)
    assert (stopped.returncode, stopped.timed_out) == (-signal.SIGKILL, False)


def test_files_are_shared(guest: Guest, tmp_path: Path) -> None:
    for word in ("one", "two"):
        (tmp_path / "host").write_text(word)
        assert guest.run(f"cat {tmp_path}/host; echo {word} >{tmp_path}/guest").stdout == word
        assert (tmp_path / "guest").read_text() == f"{word}\n"
    guest.run("echo gone >/var/tmp/ccid-lab-test", check=True)
    assert not Path("/var/tmp/ccid-lab-test").exists()


def test_programs_compiled_here_run_there(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "usb.c").write_text(
        "#include <libusb.h>\n#include <stdio.h>\n"
        "int main(void) { libusb_device **all; libusb_init(0);\n"
        '  return !printf("%zd\\n", libusb_get_device_list(0, &all)); }\n'
    )
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libusb-1.0"], capture_output=True, text=True
    ).stdout.split()
    subprocess.run(["gcc", "-o", "usb", "usb.c", *flags], cwd=tmp_path, check=True)
    assert int(guest.run([tmp_path / "usb"], check=True).stdout) >= 4 + 3


def test_this_interpreter_and_this_package_are_there(guest: Guest) -> None:
    code = "import ccid, sys; print(sys.executable, ccid.__version__)"
    assert guest.run([guest.python, "-c", code]).stdout.split()[0] == sys.executable


def test_scripts_fork_from_a_process_that_has_the_modules(guest: Guest, tmp_path: Path) -> None:
    code = (
        "import ccid, os, sys\n"
        "print(sys.executable, sys.argv[1:], __name__, os.getcwd(), os.environ['COLOUR'])\n"
        "print(sys.stdin.read(), file=sys.stderr)\n"
        "raise SystemExit(5)\n"
    )
    result = guest.script(
        code, "a", "b c", check=False, cwd=tmp_path, env={"COLOUR": "blue"}, input="in"
    )
    assert (result.returncode, result.stderr) == (5, "in\n")
    assert result.stdout == f"{sys.executable} ['a', 'b c'] __main__ {tmp_path} blue\n"
    with pytest.raises(CommandFailed, match=r"line 2.*\n.*no_such_name\n"):
        guest.script("\nno_such_name\n")
    with pytest.raises(CommandFailed, match="no_such_module"):
        guest.script("", preload=["no_such_module"])
    assert guest.script("import sys; sys.exit('sorry')", check=False).stderr == "sorry\n"
    fds = guest.script("import os; print(os.listdir('/proc/self/fd'))").stdout
    assert fds == "['0', '1', '2', '3']\n"
    source = "import sys; print('ccid.virtual' in sys.modules)"
    assert guest.script(source, preload=["ccid.virtual"]).stdout == "True\n"
    with pytest.raises(CommandTimeout):
        guest.script("import time; time.sleep(60)", timeout=0.5)


# Readers and cards ----------------------------------------------------------------------------


def test_the_kernel_has_all_readers(guest: Guest) -> None:
    verbose = guest.run(["lsusb", "-v", "-d", "08e6:4433"]).stdout
    assert verbose.count("TPDU level exchange") == 4
    assert verbose.count("Driver=") == 0
    tree = guest.run(["lsusb", "-t"]).stdout
    assert "Driver=uhci_hcd/2p" in tree
    assert "Driver=xhci_hcd/8p" in tree
    assert serials(guest) == {"lab0", "lab1", "lab2", "lab3"}


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_reader_goes_and_comes(guest: Guest, index: int) -> None:
    reader = guest.readers[index]
    assert reader.serial in serials(guest)
    reader.unplug()
    assert until(lambda: reader.serial not in serials(guest))
    reader.plug()
    assert until(lambda: reader.serial in serials(guest))


SLOT_STATUS = """
import subprocess, sys, usb.core, usb.util
readers = usb.core.find(find_all=True, idProduct=0x4433)
device = next(reader for reader in readers if reader.serial_number == sys.argv[1])
device.set_configuration()
bulk = {e.bEndpointAddress >> 7: e for e in device[0][0, 0] if e.bmAttributes == 2}
def status():
    bulk[0].write(bytes.fromhex("65000000000000000000"))
    return bulk[1].read(512, 5000)[7] & 3
print(status())
for verb in sys.argv[4:]:
    subprocess.run([sys.argv[2], "card", sys.argv[3], verb], check=True)
    print(status())
"""


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_card_goes_and_comes_for_a_program_there_that_asks(guest: Guest, index: int) -> None:
    argv = [guest.readers[index].serial, str(TOOLS / "lab" / "hand"), str(index), "out", "in"]
    result = guest.run([SYSTEM_PYTHON, "-c", SLOT_STATUS, *argv], check=True)
    assert [line for line in result.stdout.split() if line.isdigit()] == ["0", "2", "0"]


def test_what_the_hand_cannot_do(guest: Guest) -> None:
    for words, answer in (
        ("card 9 out", "range"),
        ("card 2 stats", "control"),
        ("sing", "unknown"),
    ):
        result = guest.run([TOOLS / "lab" / "hand", *words.split()])
        assert result.returncode == 1
        assert answer in result.stdout


def test_pcscd_and_the_echo_cards(guest: Guest) -> None:
    code = (
        "from smartcard.System import readers\n"
        "for reader in readers():\n"
        "    if '(lab0)' in str(reader):\n"
        "        card = reader.createConnection()\n"
        "        card.connect()\n"
        "        print(bytes(card.getATR()).hex(), *card.transmit([0, 0x10, 3, 0, 4]))\n"
    )
    with pcscd(guest, 4):
        said = guest.run([SYSTEM_PYTHON, "-c", code], check=True).stdout
        assert said == f"{guest.readers[0].atr.hex()} [3, 4, 5, 6] 144 0\n"
        assert atr(guest, 1) == guest.readers[1].atr.hex(":")
        guest.readers[1].card_out()
        assert until(lambda: "not present" in atr(guest, 1))
        guest.readers[1].card_in()
        assert until(lambda: atr(guest, 1) == guest.readers[1].atr.hex(":"))


def test_pcscd_sees_readers_come_and_go(guest: Guest) -> None:
    with pcscd(guest, 4):
        guest.readers[1].unplug()
        assert until(lambda: len(readers(guest)) == 3)
        guest.readers[1].plug()
        assert until(lambda: len(readers(guest)) == 4)
        assert until(lambda: atr(guest, 1) == guest.readers[1].atr.hex(":"))


def test_the_cac_is_in_one_reader_at_a_time(guest: Guest) -> None:
    with pcscd(guest, 4):
        assert atr(guest, 2) == CAC_ATR
        assert "not present" in atr(guest, 3)
        guest.readers[3].card_in()
        assert until(lambda: atr(guest, 3) == CAC_ATR)
        assert "not present" in atr(guest, 2)
        guest.readers[2].card_in()
        assert until(lambda: atr(guest, 2) == CAC_ATR)
        name = guest.run(["opensc-tool", "-r", "1", "-n"])
        assert "CAC" in guest.run(["pkcs11-tool", "-O"]).stdout + name.stdout


def test_no_signal_to_libcacards_thread_is_lost(guest: Guest, tmp_path: Path) -> None:
    """QEMU loses one now and then, and the card says nothing more; see cond_wait.c."""
    (tmp_path / "wait.c").write_text(
        "#include <pthread.h>\n"
        "int main(void) {\n"
        "  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;\n"
        "  pthread_cond_t never = PTHREAD_COND_INITIALIZER;\n"
        "  pthread_mutex_lock(&mutex);\n"
        "  return pthread_cond_wait(&never, &mutex);\n"
        "}\n"
    )
    subprocess.run(["gcc", "-o", "wait", "wait.c"], cwd=tmp_path, check=True)
    library = build_cond_wait(tmp_path)
    subprocess.run([tmp_path / "wait"], env={"LD_PRELOAD": str(library)}, check=True, timeout=20)
    assert any("cond_wait.so" in path.read_text() for path in maps_of_children())


def test_vhci(guest: Guest) -> None:
    assert guest.run(["test", "-w", "/sys/devices/platform/vhci_hcd.0/attach"]).returncode == 0
    assert "Imported USB devices" in guest.run(["usbip", "port"]).stdout


# Start and end of the lab ---------------------------------------------------------------------


def test_what_does_not_boot_says_why() -> None:
    with pytest.raises(
        LabError, match=r"(?s)card server of reader 0 did not start.*no-such-python"
    ):
        Guest([ReaderSpec()], python="no-such-python", accel="tcg").start()
    with pytest.raises(LabError, match="no-such-option"):
        Guest(qemu_args=["-no-such-option"], accel="tcg").start()
    with pytest.raises(LabError, match=r"(?s)did not boot within 1 s.*console:"):
        Guest(accel="tcg", boot_timeout=1).start()


def test_it_dies_with_the_program_that_started_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("t")))  # nothing else removes it
    code = (
        f"import sys, threading; sys.path.insert(0, {str(TOOLS)!r})\n"
        "from lab.guest import Guest; from lab.readers import ReaderSpec\n"
        "Guest([ReaderSpec()], accel='tcg').start()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    assert until(lambda: len(children.read_text().split()) == 2)
    time.sleep(0.5)
    pids = children.read_text().split()
    names = {Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] for pid in pids}
    assert names == {sys.executable.encode(), b"qemu-system-x86_64"}
    parent.kill()
    parent.wait()
    assert until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids))


def test_the_command_line() -> None:
    argv = ["--reader", "xhci", "--pcscd", "--timeout", "60", "--", "sh", "-c"]
    done = subprocess.run(
        [sys.executable, TOOLS / "lab" / "guest.py", *argv, "opensc-tool -a; echo no >&2; exit 7"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr[-3:]) == (7, "no\n")
    assert done.stdout.startswith("3b:68:00:00:63:63:69:64")


def test_without_preparation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CCID_LAB_CACHE", str(tmp_path))
    check = subprocess.run([TOOLS / "prepare-lab", "--check"], capture_output=True, text=True)
    assert check.returncode == 1
    assert str(tmp_path) in check.stdout
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotPrepared, match="sudo tools/prepare-lab"):
        Guest()
    with pytest.raises(ValueError, match="ehci"):
        ReaderSpec.parse("ehci:echo")


# The card server ------------------------------------------------------------------------------


class Qemu:
    """Speaks VSCard as QEMU does."""

    def __init__(self, path: Path) -> None:
        self.control = path.with_name(path.name + ".ctl")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(str(path))

    def send(self, kind: int, body: bytes = b"") -> None:
        """Send one message in two pieces."""
        message = struct.pack(">III", kind, 0, len(body)) + body
        self._socket.sendall(message[:7])
        time.sleep(0.01)
        self._socket.sendall(message[7:])

    def receive(self) -> tuple[int, bytes]:
        """Receive one message."""
        header = self._socket.recv(12, socket.MSG_WAITALL)
        kind, _, length = struct.unpack(">III", header)
        return kind, self._socket.recv(length, socket.MSG_WAITALL) if length else b""

    def tpdu(self, tpdu: str) -> str:
        """The response of the card."""
        self.send(7, bytes.fromhex(tpdu))
        kind, answer = self.receive()
        assert kind == 7
        return answer.hex()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    path = tmp_path / "card"
    program = TOOLS / "lab" / "cardserver.py"
    server = subprocess.Popen([sys.executable, program, path, "--atr", "3B00"])
    assert until((tmp_path / "card.ctl").exists)
    time.sleep(0.1)
    side = Qemu(path)
    assert [side.receive() for _ in range(3)] == [
        (1, b"VSCD\0\0\0\2\0\0\0\0"),
        (3, b"cardserver"),
        (5, bytes.fromhex("3B00")),
    ]
    yield side
    side.close()
    ask(side.control, "quit")
    assert server.wait(5) == 0
    assert not path.exists()


def test_the_card_server_and_its_control_socket(qemu: Qemu) -> None:
    assert qemu.tpdu("0010050003") == "0506079000"
    assert qemu.tpdu("0030000002AABB") == "6102"
    assert qemu.tpdu("00C0000002") == "aabb9000"
    assert ask(qemu.control, "stats") == "tpdus=3 in=17 out=11"
    ask(qemu.control, "reset-stats")
    assert ask(qemu.control, "stats") == "tpdus=0 in=0 out=0"
    assert ask(qemu.control, "out") == "out connected"
    assert qemu.receive() == (6, b"")
    ask(qemu.control, "atr 3B8001")
    assert ask(qemu.control, "toggle") == "in connected"
    assert qemu.receive() == (5, bytes.fromhex("3B8001"))
    for line, answer in (("sing", "unknown"), ("delay soon", "float"), ("", "unknown")):
        with pytest.raises(LabError, match=answer):
            ask(qemu.control, line)
    assert ask(qemu.control, "status") == "in connected"


def test_a_slow_card_can_be_taken_out_meanwhile(qemu: Qemu) -> None:
    ask(qemu.control, "delay 200")
    began = time.monotonic()
    assert qemu.tpdu("0040000000") == "9000"
    assert time.monotonic() - began >= 0.2
    ask(qemu.control, "delay 0")
    qemu.send(7, bytes.fromhex("0038003C00"))  # answered after a minute
    time.sleep(0.1)
    ask(qemu.control, "out")
    assert qemu.receive() == (6, b"")
    ask(qemu.control, "in")
    assert qemu.receive()[0] == 5
    assert qemu.tpdu("0040000000") == "9000"


def test_the_next_qemu(qemu: Qemu) -> None:
    second = Qemu(qemu.control.with_suffix(""))
    assert [second.receive()[0] for _ in range(3)] == [1, 3, 5]
    assert second.tpdu("0040000000") == "9000"
    second.close()
    assert until(lambda: ask(qemu.control, "status") == "in")
