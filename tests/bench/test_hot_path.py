"""The path of every APDU, against others on the same reader: QEMU's at xHCI with our card, a
command of 5 bytes and a reply of 4, everything in one run and interleaved.

It shows that all ways work with a kernel's real USB stack, and which of two versions of this
library has less to do. It does not show how fast anything is: the guest has no KVM where this
usually runs, so Python costs some twenty times as much as on a real machine, other programs cost
less than that, and so rates and ratios alike are those of emulation. ``tools/bench-native``
measures natively, and README has its figures. ``pytest tests/bench -s`` prints the table;
``tools/full`` takes the full counts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from lab.errors import LabError
from lab.guest import Guest
from lab.pcscd import pcscd
from lab.readers import ReaderSpec

from ccid.pcsc.plug import install
from ccid.pcsc.plug.bundle import NAME
from tests.conftest import Tell

HERE = Path(__file__).parent / "hot_path"
REPLY = "00019000"
DROPDIR = "/usr/lib/pcsc/drivers"
PRELOAD = (
    *("ccid", "ccid.device.find", "ccid.device.card", "ccid.transport.discovery"),
    *("usb.core", "usb.util", "usb.backend.libusb1"),
)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest of its own: one reader, nothing else that could run."""
    wrong, made = "", None
    try:
        made = Guest([ReaderSpec("xhci")], shared=tmp_path_factory.mktemp("shared")).start()
    except LabError as error:
        wrong = str(error)
    if made is None:
        pytest.fail(wrong, pytrace=False)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def programs(guest: Guest) -> dict[str, Path]:
    """The loops in C."""
    built = {}
    for name, package in (("libusb_loop", "libusb-1.0"), ("pcsc_loop", "libpcsclite")):
        found = subprocess.run(
            ["pkg-config", "--cflags", "--libs", package],
            capture_output=True,
            text=True,
            check=True,
        )
        built[name] = guest.shared / name
        source = HERE / f"{name}.c"
        command: list[str | Path] = [
            "cc",
            "-O2",
            "-Wall",
            "-o",
            built[name],
            source,
            *found.stdout.split(),
        ]
        subprocess.run(command, check=True)
    return built


@pytest.fixture(scope="module")
def driver(guest: Guest) -> Path:
    """Our driver's bundle for the reader."""
    words = ["--dropdir", str(guest.shared), "--reader", "08e6:4433:Ours"]
    assert install.main(words) == 0
    return guest.shared / NAME


def one_round(
    guest: Guest, programs: dict[str, Path], driver: Path, count: int
) -> dict[str, float]:
    """Every loop once: APDUs a second."""

    def python(name: str, *words: object) -> str:
        source = (HERE / f"{name}.py").read_text()
        return guest.script(source, str(count), *map(str, words), preload=PRELOAD).stdout

    said = {
        "libusb from C": guest.run([programs["libusb_loop"], str(count)], check=True).stdout,
        "pyusb, 300 bytes": python("pyusb_loop", 300),
        "ccid": python("ccid_loop"),
        "pyusb, 64 KiB": python("pyusb_loop", 65536),
    }
    with pcscd(guest, 1):
        said["C, pcscd, libccid"] = guest.run(
            [programs["pcsc_loop"], str(count)], check=True
        ).stdout
        command = ["/usr/bin/python3", HERE / "pyscard_loop.py", str(count)]
        said["pyscard, pcscd, libccid"] = guest.run(list(map(str, command)), check=True).stdout
    guest.run(["cp", "-r", str(driver), DROPDIR], check=True)
    with pcscd(guest, 1, timeout=120) as running:
        assert "Ours" in running.readers[0]
        said["C, pcscd, ccid"] = guest.run([programs["pcsc_loop"], str(count)], check=True).stdout
    guest.run(["rm", "-rf", f"{DROPDIR}/{driver.name}"], check=True)
    rates = {}
    for name, line in said.items():
        rate, reply = line.split()
        assert reply == REPLY, name
        rates[name] = float(rate)
    return rates


def test_hot_path(
    guest: Guest,
    programs: dict[str, Path],
    driver: Path,
    full: bool,
    benchmark: Any,
    tell: Tell,
) -> None:
    rounds, count = (5, 2000) if full else (1, 150)
    rates: list[dict[str, float]] = []
    benchmark.pedantic(
        lambda: rates.append(one_round(guest, programs, driver, count)), rounds=rounds, iterations=1
    )
    assert len(rates) == rounds
    lines = [f"hot path, {rounds} rounds of {count} APDUs; median (and range) a second"]
    for name in rates[0]:
        seen = [r[name] for r in rates]
        ratios = [r["ccid"] / r[name] for r in rates]
        benchmark.extra_info[name] = seen
        lines.append(
            f"{name:26} {statistics.median(seen):7.0f} ({min(seen):.0f}-{max(seen):.0f})   "
            f"ccid is {statistics.median(ratios):5.2f} times that, emulated"
        )
    tell("\n".join(lines))
