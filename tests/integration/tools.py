"""Programs that tests ask, and what to say when one is not there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PREPARE = "sudo tools/prepare-lab"


def need(program: str) -> str:
    """The path of ``program``; the test fails, saying how to get it, if it is not there."""
    path = shutil.which(program)
    if path is None:
        raise AssertionError(f"{program} is not installed; get it with: {PREPARE}")
    return path


def tshark(file: Path, *options: str) -> list[str]:
    """What Wireshark's dissectors say of a capture, a line a packet."""
    done = subprocess.run(
        [need("tshark"), "-r", str(file), *options],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
