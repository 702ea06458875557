"""What it costs to start. Goal: at most 60 ms over bare Python for ``import ccid`` and
``ccid-probe --version``."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

CODE = {
    "bare Python": "pass",
    "import ccid": "import ccid",
    "ccid-probe --version": "from ccid.probe.__main__ import main; main(['--version'])",
    "open a virtual reader": "import ccid; ccid.open_reader(ccid.VirtualReader()).close()",
}


@pytest.mark.benchmark(group="start", min_rounds=5, max_time=2)
@pytest.mark.parametrize("what", CODE)
def test_start(benchmark: Any, what: str) -> None:
    command = [sys.executable, "-c", CODE[what]]
    done = benchmark(subprocess.run, command, capture_output=True)
    assert done.returncode == 0, done.stderr
