"""How soon a card that comes or goes is known: from the reader's notification to an application
that waits in SCardGetStatusChange, through pcscd and our driver. Goal: at most 10 ms.

The reader is virtual, in the helper's process; a thread there moves the card and writes down when.
The clock is the machine's, the same for all. It needs root and Debian's pcscd and python3-pyscard
(tools/prepare-lab).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.plug import build

HERE = Path(__file__).parent / "plug"
GOAL_MS = 10.0

CLIENT = """
import sys, time
from smartcard import scard
_, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
while True:
    _, names = scard.SCardListReaders(context, [])
    if names: break
    time.sleep(0.1)
state = scard.SCARD_STATE_UNAWARE
present = None
count = int(sys.argv[1])
while count:
    result, changed = scard.SCardGetStatusChange(context, 10000, [(names[0], state)])
    now = time.monotonic()
    assert result == 0, hex(result)
    state = changed[0][1]
    is_present = bool(state & scard.SCARD_STATE_PRESENT)
    if present is not None and is_present is not present:
        print(now, flush=True)
        count -= 1
    present = is_present
"""


def test_a_card_event(
    tmp_path: Path, full: bool, benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plug = build(tmp_path)
    moved = tmp_path / "moved"
    script = tmp_path / "helper"
    script.write_text(
        f'#!/bin/sh\nMOVED={moved} exec {sys.executable} -P {HERE / "moving.py"} "$@"\n'
    )
    script.chmod(0o755)
    (tmp_path / "interpreter").write_text(f"{script}\n")
    configuration = tmp_path / "readers"
    configuration.mkdir()
    (configuration / "one").write_text(
        f'FRIENDLYNAME "Moving"\nDEVICENAME virtual:\nLIBPATH {plug}\nCHANNELID 0\n'
    )
    count = 200 if full else 6
    run = (
        "mount -t tmpfs tmpfs /run && mkdir /run/pcscd && "
        f"exec pcscd --foreground -c {configuration}"
    )
    log = (tmp_path / "log").open("w+")
    daemon = subprocess.Popen(["unshare", "-m", "sh", "-c", run], stdout=log, stderr=log)
    told: list[float] = []

    def listen() -> None:
        deadline = time.monotonic() + 10
        while not (Path(f"/proc/{daemon.pid}/root/run/pcscd/pcscd.comm")).exists():
            assert daemon.poll() is None, log.read()
            assert time.monotonic() < deadline, log.read()
            time.sleep(0.02)
        where = f"/proc/{daemon.pid}/ns/mnt"
        command = ["nsenter", f"--mount={where}", "/usr/bin/python3", "-c", CLIENT, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{done.stderr}\nrun tools/prepare-lab"
        told.extend(float(line) for line in done.stdout.split())

    try:
        benchmark.pedantic(listen, rounds=1)
    finally:
        daemon.terminate()
        daemon.wait(10)
        log.close()
    moves = [float(line) for line in moved.read_text().split()]
    took = [(t - max(m for m in moves if m <= t)) * 1000 for t in told]
    assert len(took) == count
    benchmark.extra_info["ms"] = took
    with capsys.disabled():
        print(
            f"\na card event reaches the application after {statistics.median(took):.2f} ms "
            f"(median of {count}), {max(took):.2f} ms at most (goal {GOAL_MS:.0f})"
        )
