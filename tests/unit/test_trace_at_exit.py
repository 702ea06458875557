"""The file that CCID_TRACE names, when the program ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_device_is_no_traceback() -> None:
    script = (
        "import ccid\ntry:\n ccid.open_reader(ccid.VirtualReader())\nexcept ccid.CcidError: pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "CCID_TRACE": "/dev/full"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
