"""Boots the disk of ``prepare-modern`` once, and saves the state of the machine beside it, as the
file ``state``: ``booted.py FOLDER``. Guests go on from there (:class:`lab.systems.SuiteSystem`).

The service ``lab`` of the guest says "booted" at the port ``go``, and waits there for a line. Until
then it has mounted nothing by 9p: QEMU saves no machine that has.
"""

from __future__ import annotations

import shlex
import socket
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # run as a program
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.errors import LabError
from lab.machine import CONNECTIONS, GO, MONITOR, controller, machine
from lab.qemu import Monitor, Processes
from lab.systems import SHARES, SuiteSystem, disk

BOOT_S = 900.0
"""Longest boot in s: a minute on an idle machine without KVM."""
SAVE_S = 120.0
UNLIMITED = 1 << 40


def save(folder: Path) -> float:
    """Boot, and save the state.

    Returns:
        The seconds of the boot.

    Raises:
        LabError: It does not boot, or QEMU cannot save it.
    """
    console, log = folder / "console.log", folder / "host.log"
    processes = Processes(log)
    ours, theirs = zip(*(socket.socketpair() for _ in CONNECTIONS), strict=True)
    fds = [end.fileno() for end in theirs]
    shares = [(tag, f"{folder},readonly=on") for tag in SHARES]
    boot = [*disk(folder, writable=True), *controller("uhci"), *controller("xhci")]
    system = SuiteSystem
    line = machine("tcg", system.memory, system.smp, boot, console, shares, fds)
    began = time.monotonic()
    try:
        processes.start(*line, pass_fds=tuple(fds))
        for end in theirs:
            end.close()
        ours[GO].settimeout(BOOT_S)
        if ours[GO].recv(100) != b"booted\n":
            said = "".join(path.read_text(errors="replace") for path in (log, console))
            raise LabError(f"the guest did not boot\n{said[-3000:]}")
        booted = time.monotonic() - began
        monitor = Monitor(ours[MONITOR])
        monitor.greet()
        monitor.call("stop")
        monitor.call("migrate-set-parameters", **{"max-bandwidth": UNLIMITED})
        to = shlex.quote(str(folder / "state"))
        monitor.call("migrate", uri=f"exec:cat >{to}")
        deadline = time.monotonic() + SAVE_S
        while (state := monitor.call("query-migrate"))["status"] != "completed":
            if state["status"] == "failed" or time.monotonic() > deadline:
                raise LabError(f"QEMU did not save the machine: {state}")
            time.sleep(0.2)
        return booted
    except TimeoutError as error:
        raise LabError(f"the guest did not boot in {BOOT_S:g} s\n{console.read_text()}") from error
    finally:
        processes.end()
        for end in ours:
            end.close()


if __name__ == "__main__":
    try:
        print(f"booted in {save(Path(sys.argv[1]).resolve()):.0f} s")
    except LabError as error:
        sys.exit(f"booted.py: {error}")
