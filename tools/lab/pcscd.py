"""PC/SC in the guest."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.guest import Guest
from lab.link import Job

IN_ROOT = """
for folder in dev proc sys run; do mount --rbind "/$folder" "$LAB_ROOT/$folder"; done
exec chroot "$LAB_ROOT" "$@"
"""
"""Runs a program of another root file system, with this one's devices and sockets. Its mounts are
seen by this program alone."""


@dataclass(frozen=True)
class Pcscd:
    """A running pcscd in the guest.

    Attributes:
        job: Its process, or the one that follows its journal; with ``--debug`` its log is
            ``job.stdout``.
        pid: In the guest.
        readers: The readers' names when it was ready.
    """

    job: Job
    pid: int
    readers: list[str]


def readers(guest: Guest, timeout: float = 20) -> list[str]:
    """The names of the readers that pcscd shows; empty without a running pcscd. Waits at most
    ``timeout`` seconds for pcscd to look at all readers."""
    listed = guest.run(["pcsc_scan", "-r"], timeout=timeout)
    return re.findall(r"^\d+: (.+)$", listed.stdout, re.MULTILINE)


@contextmanager
def pcscd(
    guest: Guest,
    at_least: int = 1,
    *,
    program: str = "pcscd",
    root: Path | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Iterator[Pcscd]:
    """Run pcscd with libccid until the end of the block.

    Its configuration directory is empty, so it has nothing but the USB readers it finds. In a guest
    with systemd it is the distribution's own service, and its socket stays when it is stopped.

    Args:
        guest: Where.
        at_least: So many readers are awaited.
        program: Another pcscd.
        root: Another root file system, in which the program and its drivers are.
        args: More arguments, such as ``--debug --apdu``.
        env: Variables more, such as LIBCCID_ifdLogLevel.
        timeout: Seconds to wait for the readers.

    Raises:
        LabError: It ended, or shows fewer readers.
    """
    if guest.system.has_systemd:
        if program != "pcscd" or root is not None:
            raise LabError("this guest runs its own pcscd")
        with _service(guest, args, env or {}) as (job, pid):
            yield Pcscd(job, pid, _await_readers(guest, job, at_least, timeout))
        return
    # the shell says its pid and becomes pcscd
    script = 'mkdir -p /run/pcscd /run/lab/no-readers; echo "pid $$"; exec "$@"'
    argv = [program, "--foreground", "-c", "/run/lab/no-readers", *args]
    if root is not None:
        argv = ["unshare", "--mount", "sh", "-ec", IN_ROOT, "sh", *argv]
        env = {**(env or {}), "LAB_ROOT": str(root)}
    with guest.popen(["sh", "-c", script, "sh", *argv], env=env) as job:
        pid = int(job.wait_for(r"^pid (\d+)")[1])
        yield Pcscd(job, pid, _await_readers(guest, job, at_least, timeout))


def _await_readers(guest: Guest, job: Job, at_least: int, timeout: float) -> list[str]:
    """The names of the readers, once there are so many."""
    deadline = time.monotonic() + timeout
    while True:
        names = readers(guest, timeout)
        if len(names) >= at_least:
            return names
        if not job.running or time.monotonic() > deadline:
            raise LabError(
                f"pcscd {'shows' if job.running else 'ended; it showed'} {len(names)} of "
                f"{at_least} readers: {names}\n{job.stdout[-3000:]}{job.stderr[-3000:]}"
            )
        time.sleep(0.2)


@contextmanager
def _service(
    guest: Guest, args: Sequence[str], env: Mapping[str, str]
) -> Iterator[tuple[Job, int]]:
    """The service, started anew; what its processes write, and its process."""
    settings = "".join(f"{k}={v}\n" for k, v in {"PCSCD_ARGS": " ".join(args), **env}.items())
    folder = "/run/systemd/system/pcscd.service.d"
    guest.run(
        f"mkdir -p {folder} && cat >/run/lab/pcscd.env && "
        f"printf '[Service]\\nEnvironmentFile=/run/lab/pcscd.env\\n' >{folder}/lab.conf && "
        "systemctl daemon-reload",
        input=settings,
        check=True,
    )
    follow = ["journalctl", "_SYSTEMD_UNIT=pcscd.service", "-f", "-n", "0", "-o", "cat"]
    try:
        with guest.popen(follow) as job:
            guest.run("systemctl restart pcscd.socket pcscd.service", check=True)
            shown = guest.run("systemctl show -P MainPID pcscd.service", check=True).stdout
            yield job, int(shown)
            guest.run("systemctl stop pcscd.service 2>/dev/null; journalctl --sync; sleep 0.5")
    finally:
        guest.run(f"systemctl stop pcscd.service; rm -r {folder}; systemctl daemon-reload")
