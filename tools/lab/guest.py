#!/usr/bin/env python3
"""The QEMU guest: boot it once, run any number of commands in it.

    with Guest(readers=[ReaderSpec("xhci")]) as guest:
        print(guest.run(["lsusb"]).stdout)
        guest.readers[0].card_out()

From the shell, one command in a guest of its own: ``guest.py --reader xhci -- lsusb -v``.

By default the guest runs Debian's kernel over the host's root file system, read-only below a tmpfs,
so what it writes is gone afterwards, and what the host changed after the boot may not be seen.
Except in ``Guest.shared`` and the other read-write directories: both sides see those at once.
:mod:`lab.systems` has the other system, a newer Debian.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

if __package__ in (None, ""):  # run as a program
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import sleeping
from lab.errors import CommandFailed, CommandTimeout, LabError
from lab.link import MARGIN_S, Command, Job, Link, Result, Sink
from lab.machine import CONNECTIONS, PORTS, controller, machine
from lab.qemu import TOOLS, Monitor, Processes, build_cond_wait, check_prepared
from lab.readers import LabReader, ReaderSpec
from lab.systems import HostSystem, System

KVM_PROBE_S = 15.0
"""Longest boot time in s under KVM."""


class Guest:
    """A guest and its start options.

    Args:
        readers: What is plugged in.
        system: What it boots; by default the host's root file system.
        vhci: Load vhci-hcd, to attach USB/IP devices.
        udev: Run systemd-udevd, so that pcscd sees readers come and go. A system with systemd
            runs it always.
        modprobe: Other kernel modules to load.
        rw: Directories that are the host's, read-write, at the same path.
        shared: Another such; by default a temporary one.
        memory, smp: MiB and processors; by default the system says.
        qemu_args: Further arguments for QEMU.
        python: The host's interpreter, for the card servers, and for the agent where the guest
            has the host's root file system.
        accel: "kvm" or "tcg"; by default kvm only where it was seen to work.
        boot_timeout: Seconds; by default the system says.

    Attributes:
        readers: See :class:`~lab.readers.LabReader`.
        shared: The directory where both sides see each other's files.
        python: The interpreter that runs the agent in the guest.
        system: What it boots.
    """

    def __init__(
        self,
        readers: Sequence[ReaderSpec] = (),
        *,
        system: System | None = None,
        vhci: bool = False,
        udev: bool = False,
        modprobe: Sequence[str] = (),
        rw: Sequence[Path] = (),
        shared: Path | None = None,
        memory: int | None = None,
        smp: int | None = None,
        qemu_args: Sequence[str] = (),
        python: str = sys.executable,
        accel: str | None = None,
        boot_timeout: float | None = None,
    ) -> None:
        self.system = system or HostSystem(python, udev=udev)
        self.system.check()
        self.python = self.system.python
        self._host_python = python
        self._modprobe = [*modprobe, *(["vhci-hcd"] if vhci else [])]
        self._memory = memory or self.system.memory
        self._smp = smp or self.system.smp
        self._qemu_args = list(qemu_args)
        self._accel = accel
        self._boot_timeout = boot_timeout or self.system.boot_timeout
        self._cache = check_prepared()
        self._folder = Path(tempfile.mkdtemp(prefix="ccid-lab-"))
        self.shared = (shared or self._folder / "shared").resolve()
        self._rw = [self.shared, *(path.resolve() for path in rw)]
        self._processes = Processes(self._folder / "host.log")
        self._link: Link | None = None
        self._monitor: Monitor | None = None
        self._hand: threading.Thread | None = None
        self._plugged: list[str] = []
        self.readers = self._place(readers)
        atexit.register(self.stop)

    # Life ----------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Boot the guest.

        Raises:
            LabError: It did not; the error has the end of its console.
        """
        if not self._folder.exists() or self._link is not None:
            raise LabError("a guest is started once")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End QEMU and the card servers."""
        atexit.unregister(self.stop)
        self._processes.end()
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._hand is not None:
            self._hand.join(5)
            self._hand = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reset(self, keep: Sequence[Job] = (), *, readers: bool = True) -> None:
        """Stop all running jobs except ``keep``. If ``readers`` is true, plug in all readers and
        insert all cards."""
        for job in self.jobs:
            if job not in keep:
                job.stop()
        for reader in self.readers if readers else []:
            reader.restore()

    def settle(self) -> None:
        """Wait until the guest has enumerated all plugged readers. QEMU 7.2 may end when a device
        is unplugged during enumeration."""
        for reader in self.readers:
            if reader.plugged:
                self.run(
                    f"i=0; until grep -qsx {reader.serial} /sys/bus/usb/devices/*/serial || "
                    "[ $i -gt 200 ]; do i=$((i+1)); sleep 0.05; done"
                )
        self.run("udevadm settle 2>/dev/null; true")

    def leave_only(self, *numbers: int) -> None:
        """Unplug all other readers."""
        self.settle()
        for reader in self.readers:
            if reader.index not in numbers:
                reader.unplug()

    def sleep(self, for_s: float = 2.0) -> None:
        """Have the guest suspend to idle for so many seconds; see :mod:`lab.sleeping`. Afterwards
        its files of the host (``shared``) are gone.

        Raises:
            LabError: It does not sleep, or does not wake up; or the guest does not run.
        """
        if self._monitor is None:
            raise LabError("the guest does not run")
        console = self._folder / "console.log"
        sleeping.sleep(self._monitor, self.popen, self.python, console, for_s)

    @property
    def console(self) -> str:
        """Messages of QEMU, then the console of the guest's kernel and boot."""
        parts = []
        for name in ("host.log", "console.log"):
            path = self._folder / name
            if path.exists():
                parts.append(path.read_text(errors="replace"))
        return "".join(parts)

    # Commands ------------------------------------------------------------------------------------

    def run(
        self,
        command: Command,
        *,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        check: bool = False,
        input: bytes | str | None = None,  # noqa: A002 - as subprocess has it
    ) -> Result:
        """Run a command and wait for it.

        It runs as root, in ``cwd`` and with ``env`` added to its environment; directory and
        environment are by default this process's, if the guest has the host's root file system.
        When it ends, what is left of its process group is killed: for a daemon there is
        :meth:`popen`.

        Args:
            command: A line for ``sh -c``, or an argument list.
            timeout: After so many seconds its process group is killed.
            env: Variables more, or others.
            cwd: Its directory.
            check: Raise unless it exits with 0.
            input: For its standard input, else empty.

        Raises:
            CommandTimeout: It was killed.
            CommandFailed: With ``check``: its exit code was not 0.
            LabError: The guest is gone.
        """
        job = self.popen(command, timeout=timeout, env=env, cwd=cwd, input=input)
        return self._result(job, timeout, check)

    def script(
        self,
        source: str,
        *arguments: str | Path,
        preload: Sequence[str] = ("ccid",),
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        check: bool = True,
        input: bytes | str | None = None,  # noqa: A002 - as subprocess has it
    ) -> Result:
        """Run Python source like ``python -c``, in a process that has loaded the imports already.

        That process is forked from the agent, where the modules of ``preload`` stay once they were
        imported. Without KVM this saves the seconds that importing ``ccid`` takes there. What they
        read from the environment while imported is not this process's.

        Args:
            source: The program.
            arguments: For its ``sys.argv[1:]``.
            preload: Modules to import in the agent, from this process's ``sys.path``.
            timeout, env, cwd, check, input: As for :meth:`run`; here it must succeed by default.
        """
        job = self.popen_script(
            source, *arguments, preload=preload, timeout=timeout, env=env, cwd=cwd, input=input
        )
        return self._result(job, timeout, check)

    def popen_script(
        self,
        source: str,
        *arguments: str | Path,
        preload: Sequence[str] = ("ccid",),
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        input: bytes | str | None = None,  # noqa: A002 - as subprocess has it
    ) -> Job:
        """Start Python source in the background; see :meth:`script`."""
        path = self.system.script_path(lambda command: self.run(command, check=True).stdout)
        return self.popen(
            arguments,
            timeout=timeout,
            env=env,
            cwd=cwd,
            input=input,
            _script={"source": source, "path": path, "preload": list(preload)},
        )

    def _result(self, job: Job, timeout: float, check: bool) -> Result:
        result = job.wait(timeout + MARGIN_S)
        if result.timed_out:
            raise CommandTimeout(result)
        if check and result.returncode:
            raise CommandFailed(result)
        return result

    def popen(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        input: bytes | str | None = None,  # noqa: A002 - as subprocess has it
        sink: Sink | None = None,
        _script: Mapping[str, object] | None = None,
    ) -> Job:
        """Start a command in the background; see :meth:`run`. ``sink`` receives the output."""
        if self._link is None:
            raise LabError("the guest does not run")
        return self._link.start(
            command,
            cwd=str(cwd or self.system.directory()),
            env={**self.system.environment(), **(env or {})},
            timeout=timeout,
            input=input,
            sink=sink,
            script=_script,
        )

    @property
    def jobs(self) -> list[Job]:
        """The running commands."""
        return self._link.jobs if self._link else []

    # Boot ----------------------------------------------------------------------------------------

    def _place(self, specs: Sequence[ReaderSpec]) -> list[LabReader]:
        """Assign a port of a controller to each reader."""
        taken: dict[str, int] = {}
        readers: list[LabReader] = []
        for index, spec in enumerate(specs):
            number, port = divmod(taken.get(spec.controller, 0), PORTS[spec.controller])
            taken[spec.controller] = taken.get(spec.controller, 0) + 1
            bus = f"{spec.controller}{number}"
            if self.system.is_resumed and number:
                raise LabError(f"this guest has {PORTS[spec.controller]} ports of {bus[:-1]}")
            if port == 0 and not self.system.is_resumed:
                self._plugged += controller(spec.controller, number)
            readers.append(
                LabReader(spec, index, f"{bus}.0", port + 1, self._folder, list(readers))
            )
        return readers

    def _start(self) -> None:
        accel = self._accel or accelerator(self._cache, self._host_python)
        self.shared.mkdir(parents=True, exist_ok=True)
        for reader in self.readers:
            reader.start_card(self._processes, self._host_python)
        (self._folder / "job").write_text(self._job())
        resumed = self.system.is_resumed
        for reader in self.readers:
            self._plugged += reader.options(self._cache, self._processes.log, plugged=not resumed)
        ours, theirs = zip(*(socket.socketpair() for _ in CONNECTIONS), strict=True)
        fds = [end.fileno() for end in theirs]
        has_cac = any(reader.spec.card == "cac" for reader in self.readers)
        qemu = self._processes.start(
            *self._command_line(accel, *fds),
            pass_fds=tuple(fds),
            preload=build_cond_wait(self._folder) if has_cac else None,
        )
        for end in theirs:
            end.close()
        monitor, agent, hand, go = ours
        self._monitor = Monitor(monitor)
        self._link = Link(agent, lambda: f"Its console:\n{self.console[-3000:]}")
        self._hand = threading.Thread(target=self._serve_hand, args=(hand,), daemon=True)
        self._hand.start()
        with go:
            if resumed:
                self._monitor.greet()
                self._monitor.resume(self._boot_timeout)
                go.sendall(b"go\n")
            self._link.wait_ready(self._boot_timeout, lambda: qemu.poll() is None)
        if not resumed:  # a QEMU that did not start has told the link why
            self._monitor.greet()
        for reader in self.readers:
            reader.connect(self._monitor)
            reader.plug()
        if resumed:
            self.settle()

    def _job(self) -> str:
        """The first script that the guest runs."""
        settings = {
            "LAB_MODPROBE": " ".join(self._modprobe),
            "LAB_READERS": str(len(self.readers)),
            "LAB_PYTHON": self.python,
            "LAB_AGENT": str(TOOLS / "lab" / "agent.py"),
            "LAB_RW": str(len(self._rw)),
            **{f"LAB_RW_{i}": str(path) for i, path in enumerate(self._rw)},
        }
        return self.system.job(settings)

    def _command_line(self, accel: str, *fds: int) -> list[str]:
        shares = self.system.shares(self._folder, self._rw)
        console = self._folder / "console.log"
        line = machine(accel, self._memory, self._smp, self.system.qemu(), console, shares, fds)
        return [*line, *self._plugged, *self._qemu_args]

    # The hand, for programs in the guest ---------------------------------------------------------

    def _serve_hand(self, port: socket.socket) -> None:
        """Answer the lines of ``tools/lab/hand`` in the guest, until QEMU ends."""
        try:
            with port, port.makefile("rw") as lines:
                for line in lines:
                    lines.write(f"{self._hand_does(line.split())}\n")
                    lines.flush()
        except OSError:  # QEMU is gone
            pass

    def _hand_does(self, words: list[str]) -> str:
        try:
            match words:
                case ["card", number, "out"]:
                    self.readers[int(number)].card_out()
                case ["card", number, "in"]:
                    self.readers[int(number)].card_in()
                case ["card", number, *line]:
                    return f"ok {self.readers[int(number)].ask(' '.join(line))}"
                case ["reader", number, "out"]:
                    self.readers[int(number)].unplug()
                case ["reader", number, "in"]:
                    self.readers[int(number)].plug()
                case _:
                    return "error unknown command"
        except (LabError, ValueError, IndexError) as error:
            return f"error {error}".replace("\n", " ")
        return "ok"


def accelerator(cache: Path, python: str) -> str:
    """Whether a guest boots under KVM, tried once for each boot of this host: "kvm" or "tcg"."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    note = cache / "accel"
    if note.exists() and note.read_text().split()[:1] == [boot]:
        return note.read_text().split()[1]
    try:
        with Guest(accel="kvm", boot_timeout=KVM_PROBE_S, python=python):
            accel = "kvm"
    except LabError:
        accel = "tcg"
    fresh = note.with_name(f"accel.{os.getpid()}")
    fresh.write_text(f"{boot} {accel}\n")
    fresh.replace(note)
    return accel


if __name__ == "__main__":
    from lab.cli import main

    sys.exit(main())
