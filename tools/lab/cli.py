"""The command line of ``guest.py``: boot a guest and run one command there."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from lab.errors import LabError
from lab.guest import Guest
from lab.link import MARGIN_S
from lab.pcscd import pcscd
from lab.readers import ReaderSpec
from lab.systems import SuiteSystem

TIMED_OUT = 124
FAILED = 125


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    arguments = argparse.ArgumentParser(
        prog="guest.py",
        description="Run COMMAND in a guest: as root, in this directory and environment, over the "
        "host's root file system. Its output is streamed, its exit code is this program's; "
        f"{TIMED_OUT} past the timeout, {FAILED} if the guest itself failed. In the guest "
        "tools/lab/hand takes cards and readers out and puts them in.",
    )
    add = arguments.add_argument
    add(
        "--reader",
        action="append",
        default=[],
        type=ReaderSpec.parse,
        metavar="uhci|xhci[:CARD]",
        help="plug in QEMU's usb-ccid (08E6:4433), any number; CARD is echo (the default), cac, "
        "none or the socket of a running cardserver.py",
    )
    add("--pcscd", action="store_true", help="run pcscd beside COMMAND, with all the readers")
    add("--suite", help="boot this Debian of tools/prepare-modern, not the host's root file system")
    add("--vhci", action="store_true", help="load vhci-hcd (USB/IP)")
    add("--udev", action="store_true", help="run systemd-udevd (pcscd sees readers come and go)")
    add("--modprobe", action="append", default=[], metavar="MODULE")
    add("--rw", action="append", default=[], type=Path, metavar="DIR", help="not only read-only")
    add("--timeout", type=float, default=300.0, metavar="S")
    add("--memory", type=int, metavar="MIB")
    add("--smp", type=int)
    add("--accel", choices=["kvm", "tcg"])
    add("--qemu-arg", action="append", default=[])
    add("--time", action="store_true", help="say how long the boot and COMMAND took")
    add("--console", action="store_true", help="print the guest's console at the end")
    add("command", nargs="+", metavar="COMMAND")
    return arguments


def show(stream: int, data: bytes) -> None:
    """Print output of the command as soon as it comes."""
    while data:
        data = data[os.write(stream, data) :]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(options)
    except LabError as error:
        print(f"guest.py: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    guest = Guest(
        options.reader,
        system=SuiteSystem(options.suite) if options.suite else None,
        vhci=options.vhci,
        udev=options.udev,
        modprobe=options.modprobe,
        rw=options.rw,
        memory=options.memory,
        smp=options.smp,
        qemu_args=options.qemu_arg,
        accel=options.accel,
    )
    with ExitStack() as stack:
        stack.enter_context(guest)
        booted = time.monotonic()
        if options.pcscd:
            stack.enter_context(pcscd(guest, len(options.reader)))
        job = guest.popen(options.command, timeout=options.timeout, sink=show)
        result = job.wait(options.timeout + MARGIN_S)
        if options.time:
            print(
                f"guest.py: {booted - began:.1f} s to boot, {result.seconds:.2f} s the command",
                file=sys.stderr,
            )
        if options.console:
            sys.stderr.write(guest.console)
    if result.timed_out:
        print(f"guest.py: not done after {options.timeout:g} s", file=sys.stderr)
        return TIMED_OUT
    return result.returncode if result.returncode >= 0 else 128 - result.returncode
