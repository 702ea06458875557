"""QEMU: the files that prepare-lab makes for it, its processes, its monitor."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from lab.errors import LabError, NotPrepared

TOOLS = Path(__file__).resolve().parents[1]
MONITOR_TIMEOUT_S = 20.0


def build_cond_wait(folder: Path) -> Path:
    """The library for QEMU with libcacard's card, compiled in ``folder``; see ``cond_wait.c``.

    Raises:
        LabError: It does not compile.
    """
    made = folder / "cond_wait.so"
    source = TOOLS / "lab/cond_wait.c"
    done = subprocess.run(
        ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", made, source],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise LabError(f"cond_wait.c: {done.stderr}")
    return made


def cache_dir() -> Path:
    """The folder of the files that prepare-lab builds, by the rule of prepare-lab."""
    if path := os.environ.get("CCID_LAB_CACHE"):
        return Path(path).resolve()
    home = Path.home()
    if os.geteuid() == 0 and (user := os.environ.get("SUDO_USER")):
        home = Path(pwd.getpwnam(user).pw_dir)
    return home / ".cache" / "ccid-lab-1"


def check_prepared() -> Path:
    """The cache directory.

    Raises:
        NotPrepared: prepare-lab has something to do.
    """
    check = subprocess.run([TOOLS / "prepare-lab", "--check"], capture_output=True, text=True)
    if check.returncode:
        raise NotPrepared(
            f"{(check.stdout + check.stderr).strip()}\n"
            "The QEMU lab is not prepared. Run once, on Debian as root: sudo tools/prepare-lab"
        )
    return cache_dir()


class Processes:
    """QEMU and its card servers. The processes end with this thread, each by its own process id.

    Attributes:
        log: What they say.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._all: list[subprocess.Popen[bytes]] = []

    def start(
        self, *argv: str | Path, pass_fds: tuple[int, ...] = (), preload: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, so that Ctrl-C in the terminal leaves it.

        Args:
            argv: Program and arguments.
            pass_fds: File descriptors that it gets.
            preload: A library whose functions come before those of others.
        """
        loaded = [] if preload is None else ["env", f"LD_PRELOAD={preload}"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *loaded, *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        self._all.append(process)
        return process

    def end(self) -> None:
        """End all processes, the last one first."""
        while self._all:
            process = self._all.pop()
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Monitor:
    """A client of QMP (QEMU's docs/interop/qmp-spec.txt)."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(MONITOR_TIMEOUT_S)
        self._connection = connection
        self._file = connection.makefile("rw")
        self._lock = threading.Lock()

    def greet(self) -> None:
        """Leave negotiation mode."""
        with self._lock:
            self._read()
            self._call("qmp_capabilities")

    def call(self, command: str, **arguments: Any) -> Any:
        """Send a command and return the answer.

        Raises:
            LabError: QEMU refused it, or is gone.
        """
        with self._lock:
            return self._call(command, **arguments)

    def remove(self, device: str) -> None:
        """Unplug a device, and wait until QEMU reports that the device is gone."""
        with self._lock:
            self._call("device_del", id=device)
            while True:
                event = self._read()
                if event.get("event") == "DEVICE_DELETED" and event["data"].get("device") == device:
                    return

    def resume(self, timeout: float) -> None:
        """Go on from a saved state once QEMU has read it.

        Raises:
            LabError: It has not within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.call("query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise LabError(f"QEMU did not read the saved state within {timeout:g} s")
            time.sleep(0.05)
        self.call("cont")

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._connection.close()

    def _call(self, command: str, **arguments: Any) -> Any:
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = self._read()
            if "error" in answer:
                raise LabError(f"QEMU, {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def _read(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except OSError as error:
            raise LabError(f"QEMU's monitor does not answer: {error}") from error
        if not line:
            raise LabError("QEMU ended")
        message: dict[str, Any] = json.loads(line)
        return message
