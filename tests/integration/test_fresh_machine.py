"""README's first commands on a machine that has nothing: a user who is not root, no network,
nothing in /run, no pcscd, no HOME, no libpcsclite unless a program of others needs it. Namespaces
make it."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.tools import need

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PYTHON = "/usr/bin/python3"
"""One that every user can run."""
NOBODY = 65534
TIMEOUT_S = 60
ATR = "3B 9B 96 80 B1 FE 45 1F C7 80 31 F0 73 F6 21 E0 83 05 90 00 4C"
COMMANDS = {"ccid-run": "ccid.pcsc.service.run_program", "ccid-probe": "ccid.probe"}
PACKAGES = ("construct", "usb", "libusb_package")


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A folder that every user can enter, with the commands in .venv/bin as pip makes them."""
    with tempfile.TemporaryDirectory(prefix="ccid-fresh-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        library, programs = folder / "library", folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        for source in (ROOT / "ccid", ROOT / "readers", *map(folder_of, PACKAGES)):
            shutil.copytree(source, library / source.name)
        for command, module in COMMANDS.items():
            script = f'#!/bin/sh\nPYTHONPATH={library} exec {PYTHON} -m {module} "$@"\n'
            (programs / command).write_text(script)
            (programs / command).chmod(0o755)
        home = folder / "home"
        home.mkdir()
        if not os.geteuid():
            os.chown(home, NOBODY, NOBODY)
        yield folder


def folder_of(module: str) -> Path:
    """Where an installed package is."""
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def on_a_fresh_machine(
    folder: Path, command: str, *, libpcsclite: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell there."""
    need("unshare")
    lines = ["set -e", "mount -t tmpfs none /run"]
    if not libpcsclite:
        there = [path for path in Path("/usr/lib").glob("*/libpcsclite.so*") if path.is_file()]
        lines += [f"mount --bind /dev/null {path}" for path in there]
    become: list[str] = []
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork"]
    if os.geteuid():
        namespaces += ["--map-root-user"]  # of the namespace; outside it is this user
    else:
        become = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    lines.append(f"exec {shlex.join([*become, 'sh', '-c', command])}")
    return subprocess.run(
        [*namespaces, "sh", "-c", "\n".join(lines)],
        cwd=folder,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def first_command() -> str:
    """README's first line for a shell, after pip has installed."""
    (start,) = re.findall(
        r"python3 -m venv \.venv && \.venv/bin/pip install -q \. && (.+)\n", README
    )
    return str(start)


def test_the_first_command(checkout: Path) -> None:
    """It needs nothing of the machine. The reader's output is what README shows."""
    (shown,) = re.findall(r"```console\n\$ ccid-run\n(.*?)```", README, re.DOTALL)
    said, *lines = shown.splitlines()
    done = on_a_fresh_machine(checkout, first_command())
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[: len(lines)] == lines
    assert "Virtual Reader" in "".join(done.stdout.splitlines()[len(lines) :])
    assert done.stderr.splitlines()[0] == said
    assert list((checkout / "home").iterdir()) == []


def test_a_program_of_others(checkout: Path) -> None:
    need("opensc-tool")
    (command,) = re.findall(r"^\.venv/bin/ccid-run .*$", README, re.MULTILINE)
    done = on_a_fresh_machine(checkout, command, libpcsclite=True)
    assert done.returncode == 0, done.stderr
    assert ATR.replace(" ", ":").lower() in done.stdout
    assert list((checkout / "home").iterdir()) == []


def test_a_missing_program_is_told_with_its_package(checkout: Path) -> None:
    command = f"PATH={checkout}/.venv/bin; ccid-run --virtual -- opensc-tool -a"
    done = on_a_fresh_machine(checkout, command)
    assert done.returncode == 127
    assert re.search(r"no program 'opensc-tool'\. It comes by: .*opensc\n", done.stderr)
