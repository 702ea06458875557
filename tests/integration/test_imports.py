"""Every module of the package can be the first of it that a program imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_every_module_can_be_imported_first() -> None:
    words = [sys.executable, "-m", "tests.unit.import_bench"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stderr == ""
    assert ended.stdout == "0 cannot be imported first\n"
