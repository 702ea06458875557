"""External programs that tests call, and the message when one is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PREPARE = "sudo tools/prepare-lab"


def need(program: str) -> str:
    """The path of ``program``. The test fails, and says how to get the program, if it is
    missing."""
    path = shutil.which(program)
    if path is None:
        raise AssertionError(f"{program} is not installed; get it with: {PREPARE}")
    return path


def tshark(file: Path, *options: str) -> list[str]:
    """The output of Wireshark's dissectors for a capture, one line for each packet."""
    done = subprocess.run(
        [need("tshark"), "-r", str(file), *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
