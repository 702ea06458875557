"""Builds the stand-in and the loops in C."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
STANDIN = HERE / "standin"
LOOPS = HERE / "loops"
STANDIN_NAME = "libusb-1.0.so.0"
LIBCCID = Path("/usr/lib/pcsc/drivers/ifd-ccid.bundle/Contents/Linux/libccid.so")
PYSCARD_PYTHON = "/usr/bin/python3"
"""An interpreter that has pyscard."""

STRICT = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
NEEDED = ("pkg-config", "pcscd", "unshare", "nsenter", "mount", "taskset")


class MissingError(Exception):
    """Something that measuring needs is not on this machine."""


def compiler() -> str:
    return os.environ.get("CC", "cc")


def cannot_run() -> str:
    """What this machine does not allow, in words: no root, no compiler; empty if all is well."""
    if os.geteuid() != 0:
        return "root is needed, for mount namespaces in which a pcscd of its own runs"
    if shutil.which(compiler()) is None:
        return f"a C compiler is needed, and there is no {compiler()}"
    return ""


def missing() -> str:
    """Which program is not there, in words; empty if all are."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [name for name in NEEDED if shutil.which(name, path=path) is None]
    absent += [str(file) for file in (LIBCCID, Path(PYSCARD_PYTHON)) if not file.exists()]
    if not absent:
        return ""
    return f"missing: {', '.join(absent)}; tools/prepare-lab --packages-only installs it"


def flags(package: str, *what: str) -> list[str]:
    """What pkg-config says of a library of C.

    Raises:
        MissingError: There is no such library.
    """
    command = ["pkg-config", *what, package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MissingError(done.stderr.strip())
    return done.stdout.split()


def compiled(target: Path, sources: Iterable[Path], *options: str) -> None:
    command = [compiler(), *STRICT, "-o", str(target), *map(str, sources), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MissingError(f"{' '.join(command)}\n{done.stderr}")


def build(folder: Path) -> None:
    """Build everything in ``folder``.

    Raises:
        MissingError: A compiler or a library is not there; the text says which.
    """
    usb = flags("libusb-1.0", "--cflags", "--libs")
    compiled(
        folder / STANDIN_NAME,
        sorted(STANDIN.glob("*.c")),
        *("-fPIC", "-shared", "-fvisibility=hidden", f"-Wl,-soname,{STANDIN_NAME}"),
        *flags("libusb-1.0", "--cflags"),
    )
    compiled(folder / "calibrate", [HERE / "calibrate.c"], "-rdynamic", *usb)
    compiled(folder / "libusb_loop", [LOOPS / "libusb_loop.c"], *usb)
    compiled(
        folder / "pcsc_loop",
        [LOOPS / "pcsc_loop.c"],
        *flags("libpcsclite", "--cflags", "--libs"),
    )
