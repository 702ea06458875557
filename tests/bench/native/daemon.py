"""A pcscd of our own: in a mount namespace, so that no pcscd of the system is touched."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .counters import Counters
from .processes import children

START_S = 20.0
END_S = 10.0
RETRY_S = 0.01

SCRIPT = (
    "mount -t tmpfs tmpfs /run && mkdir /run/pcscd && exec pcscd --foreground -c {configuration}"
)


class DaemonError(Exception):
    """pcscd does not serve its readers."""


def configuration_text(library: Path, ids: str, readers: int) -> str:
    """reader.conf for so many readers at the stand-in's addresses.

    Args:
        library: The driver.
        ids: Vendor and product, ``08e6/3437``.
        readers: How many.
    """
    return "\n".join(
        f'FRIENDLYNAME "Reader{i}"\n'
        f"DEVICENAME usb:{ids}:libudev:0:/dev/bus/usb/001/{2 + i:03d}\n"
        f"LIBPATH {library}\n"
        f"CHANNELID {i}\n"
        for i in range(readers)
    )


class Daemon:
    """pcscd, started and serving all its readers.

    Args:
        folder: Of its own, for its configuration and log.
        configuration: The text of reader.conf.
        environment: Of pcscd and its helpers, the stand-in's among it.
        counters: That the stand-in counts into.
        first: A client that exits with status 0 when the last reader has answered.
        prefix: What goes before each command, as ``taskset -c 1``.

    Raises:
        DaemonError: A reader does not answer within 20 s.
    """

    def __init__(
        self,
        folder: Path,
        configuration: str,
        environment: Mapping[str, str],
        counters: Counters,
        first: Sequence[str],
        prefix: Sequence[str] = (),
    ) -> None:
        self.counters = counters
        (folder / "reader.conf").mkdir()
        (folder / "reader.conf" / "all").write_text(configuration)
        self._log = folder / "log"
        script = SCRIPT.format(configuration=folder / "reader.conf")
        began = time.monotonic()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*prefix, "unshare", "--mount", "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        while True:
            done = subprocess.run(
                self.inside(first), capture_output=True, text=True, env=environment
            )
            if done.returncode == 0:
                break
            if time.monotonic() > began + START_S or self._process.poll() is not None:
                self.end()
                raise DaemonError(f"{done.stderr}\n{self._log.read_text()}")
            time.sleep(RETRY_S)
        self.start_ms = (time.monotonic() - began) * 1e3
        """From nothing to the first response through the last reader, ms."""
        self.start_counted = counters.now()

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, in the daemon's mount namespace."""
        return ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt", *command]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def helpers(self) -> list[int]:
        """Processes of the driver."""
        return children(self.pid)

    @property
    def pids(self) -> list[int]:
        return [self.pid, *self.helpers]

    def end(self) -> None:
        """Stop pcscd and wait for that."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
