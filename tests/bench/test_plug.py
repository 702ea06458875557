"""What the plug costs: SCardTransmit from a C client through pcscd, with our driver and an
in-process reader, against a C driver that does nothing; one pcscd, rounds interleaved.

The goal is that plug and helper add at most 40 µs. Of each way the round counts that was disturbed
least; the least difference within a round would be that with the most disturbed floor.
What driver and virtual reader themselves cost is measured beside it, in this process, and is no
cost of the plug. ``pytest tests/bench -s`` prints the table; ``tools/full`` takes the full counts.
It needs root (a mount namespace of its own for /run/pcscd) and Debian's pcscd and libpcsclite-dev
(tools/prepare-lab).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccid.ifd import Action, Code, IFDHandler
from tests.conftest import Tell
from tests.integration.plug import build

HERE = Path(__file__).parent / "plug"
SELECT = bytes.fromhex("00A4000C023F00")
GOAL_US = 40.0
MOST_MB = 25.0
"""Of a helper, resident."""


def compiled(folder: Path, source: str, *options: str) -> Path:
    made = folder / source.removesuffix(".c")
    command = ["cc", "-O2", "-Wall", str(HERE / source), "-o", str(made), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\nrun tools/prepare-lab"
    return made


class Daemon:
    """pcscd in a mount namespace of its own, with both readers."""

    def __init__(self, folder: Path) -> None:
        self.times = compiled(folder, "times.c", "-I/usr/include/PCSC", "-lpcsclite")
        floor = compiled(folder, "floor.c", "-shared", "-fPIC")
        plug = build(folder)
        self.configuration = folder / "readers"
        self.configuration.mkdir()
        (self.configuration / "both").write_text(
            f'FRIENDLYNAME "Floor"\nDEVICENAME floor:\nLIBPATH {floor}\nCHANNELID 0\n\n'
            f'FRIENDLYNAME "Plug"\nDEVICENAME virtual:\nLIBPATH {plug}\nCHANNELID 0\n'
        )
        script = (
            "mount -t tmpfs tmpfs /run && mkdir /run/pcscd && "
            f"exec pcscd --foreground -c {self.configuration}"
        )
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script], stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                assert len(self.measure("Plug", 10)) == 10
                return
            except (AssertionError, subprocess.CalledProcessError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.end()
                    self.log.seek(0)
                    pytest.fail(f"pcscd does not serve both readers:\n{self.log.read()}")
                time.sleep(0.2)

    def measure(self, reader: str, count: int) -> list[float]:
        """Microseconds of each call."""
        where = f"/proc/{self.process.pid}/ns/mnt"
        command = ["nsenter", f"--mount={where}", str(self.times), reader, str(count)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return [float(line) for line in said.stdout.split()]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    @property
    def helper_rss_mb(self) -> float:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = [int(word) for word in children.read_text().split()]
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
        status = Path(f"/proc/{found[0]}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("daemon"))
    yield made
    made.end()
    made.log.close()


def in_process(count: int) -> list[float]:
    """What driver and virtual reader cost without any daemon."""
    took = []
    handler = IFDHandler()
    assert handler.create_channel_by_name(0, "virtual:") is Code.SUCCESS
    assert handler.power_icc(0, Action.POWER_UP)[0] is Code.SUCCESS
    assert handler.set_protocol_parameters(0, 2) is Code.SUCCESS
    for _ in range(count):
        began = time.perf_counter()
        code, _ = handler.transmit_to_icc(0, 1, SELECT)
        took.append((time.perf_counter() - began) * 1e6)
        assert code is Code.SUCCESS
    handler.close()
    return took


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def test_what_the_plug_costs(daemon: Daemon, full: bool, benchmark: Any, tell: Tell) -> None:
    rounds, count = (7, 5000) if full else (5, 1500)
    seen: dict[str, list[float]] = {}
    least: dict[str, float] = {}

    def one_round() -> None:
        values = {
            "floor": daemon.measure("Floor", count),
            "plug, no CCID": daemon.measure("Plug", -count),
            "floor, no APDU": daemon.measure("Floor", -count),
            "plug, virtual reader": daemon.measure("Plug", count),
            "driver, in process": in_process(count),
        }
        for name, times in values.items():
            seen.setdefault(name, []).extend(times)
            median = statistics.median(times)
            least[name] = min(median, least.get(name, median))

    benchmark.pedantic(one_round, rounds=rounds, iterations=1)
    bare = least["plug, no CCID"] - least["floor, no APDU"]
    whole = least["plug, virtual reader"] - least["floor"]
    added = whole - least["driver, in process"]
    lines = [f"through pcscd, {rounds} rounds of {count} calls, µs: median, p99, best round's"]
    for name, times in seen.items():
        lines.append(
            f"  {name:22} {statistics.median(times):7.1f} {p99(times):7.1f} {least[name]:7.1f}"
        )
        benchmark.extra_info[name] = statistics.median(times)
    lines.append(
        f"  the plug adds {bare:.1f} µs to a call without a card, {added:.1f} µs to an APDU "
        f"(goal {GOAL_US:.0f}); {whole:.1f} µs with driver and virtual reader"
    )
    lines.append(f"  its helper has {daemon.helper_rss_mb:.1f} MB")
    tell("\n".join(lines))
    assert all(len(times) >= rounds * count for times in seen.values())


def test_memory_of_a_helper(daemon: Daemon) -> None:
    assert daemon.helper_rss_mb <= MOST_MB


AS_A_HELPER = """
from ccid.pcscd import helper
helper.later(*helper.UNUSED)
from ccid.ifd import IFDHandler
from ccid.transport import asynchronous, libusb
handler = IFDHandler()
code = handler.create_channel_by_name(0, "usb:ffff/ffff")
assert libusb.library_name()
print(int(code), open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
"""


def test_memory_with_libusb(tell: Tell) -> None:
    """All that a helper loads for a reader on USB: there is none here, it looks for one."""
    said = subprocess.run(
        [sys.executable, "-I", "-c", AS_A_HELPER], capture_output=True, text=True, check=True
    )
    code, kb = map(int, said.stdout.split())
    assert code == Code.NO_SUCH_DEVICE
    tell(f"with libusb a helper has {kb / 1024:.1f} MB")
    assert kb / 1024 <= MOST_MB
