"""A pcscd of our own, with a virtual reader behind the plug, in a mount namespace: no pcscd of the
system is touched. It needs root and Debian's pcscd."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.plug import build

START_S = 20.0
END_S = 10.0
SCRIPT = "mount -t tmpfs tmpfs /run && mkdir /run/pcscd && exec pcscd --foreground -c {readers}"
HAS_CARD = "from smartcard.System import readers; readers()[0].createConnection().connect()"


@contextmanager
def private_pcscd(folder: Path, readers: str, first: Sequence[str]) -> Iterator[list[str]]:
    """pcscd, as long as the context lasts; gives what to put before a command to have it used.

    Args:
        folder: An empty one.
        readers: The text of reader.conf.
        first: A command that succeeds once pcscd serves its readers.
    """
    (folder / "readers").mkdir()
    (folder / "readers" / "all").write_text(readers)
    log = folder / "log"
    with log.open("w") as out:
        daemon = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", SCRIPT.format(readers=folder / "readers")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    inside = ["nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt"]
    deadline = time.monotonic() + START_S
    try:
        while subprocess.run([*inside, *first], capture_output=True).returncode:
            ended = daemon.poll() is not None or time.monotonic() > deadline
            assert not ended, f"pcscd does not serve its readers:\n{log.read_text()}"
            time.sleep(0.1)
        yield inside
    finally:
        daemon.terminate()
        try:
            daemon.wait(END_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def virtual_reader(folder: Path, name: str) -> str:
    """Builds the plug in ``folder``; returns reader.conf for a virtual reader behind it."""
    return f'FRIENDLYNAME "{name}"\nDEVICENAME virtual:\nLIBPATH {build(folder)}\nCHANNELID 0\n'
